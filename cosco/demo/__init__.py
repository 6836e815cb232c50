"""The demo: a grouped aggregate of real flights through a real cluster, and its report.

Words: docs/words.md.
"""
