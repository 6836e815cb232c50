"""The shuffle daemon: takes in frames, gathers partitions, stores chunks, serves readers.

Words: docs/words.md.
"""
