"""Rows out: chunks that are fetched, rows that are pushed to waiting readers."""
