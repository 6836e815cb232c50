"""`cosco-bench latency`."""
