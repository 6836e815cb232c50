"""`cosco-bench latency --group`: micro-batches."""
