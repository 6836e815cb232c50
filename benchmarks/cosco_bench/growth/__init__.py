"""`cosco-bench growth`."""
