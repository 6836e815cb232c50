"""What the parts say to each other: records, marks, the push protocol. No IO.

Words: docs/words.md.
"""
