"""What runs in the engine's processes: exchange, writer, reader, and the logic they share.

Words: docs/words.md.
"""
