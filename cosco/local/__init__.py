"""The services as processes of this machine, and worker processes beside them.

Words: docs/words.md.
"""
