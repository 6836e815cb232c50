"""`cosco-bench throughput`."""
