"""Bytes on the wire and on disk: blocks, frames and chunks, each specified where it is written.

Words: docs/words.md.
"""
