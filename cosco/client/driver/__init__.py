"""The driver's part: an exchange, its lease, and its recompute callback."""
