"""`cosco-bench daemon`."""
