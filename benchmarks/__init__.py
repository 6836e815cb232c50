"""Baselines for `cosco-bench`, and its committed results; in the source tree only."""
