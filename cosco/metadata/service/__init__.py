"""The loop around the state: calls, transactions, calls to daemons."""
