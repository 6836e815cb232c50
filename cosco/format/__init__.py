"""Bytes on the wire and on disk, each specified where it is written: blocks, frames, segments.

Words: docs/words.md.
"""
