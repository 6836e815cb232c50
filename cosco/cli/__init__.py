"""The commands; each module imports what it runs only when it runs it.

Words: docs/words.md.
"""
