"""The metadata service: which daemons and exchanges there are, and what is committed.

Words: docs/words.md.
"""
