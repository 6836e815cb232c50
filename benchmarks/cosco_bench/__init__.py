"""`cosco-bench`: what Cosco costs, measured, and what others cost beside it.

Words: docs/words.md.
"""
