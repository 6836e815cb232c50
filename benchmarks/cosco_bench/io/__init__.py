"""`cosco-bench io`."""
