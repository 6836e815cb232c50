"""The command line of `cosco-bench`."""
