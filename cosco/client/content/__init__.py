"""What rows look like inside a block: byte rows and Arrow batches."""

from __future__ import annotations

from typing import NamedTuple


class Decoded(NamedTuple):
    """Whole rows of one mapper.

    `lengths`: the content begins with the table of its rows' lengths. A row that came in
    fragments is joined again: it is alone in its content and has no table.

    A named tuple, as one is made per block that is read.
    """

    mapper: int
    rows: int
    content: bytes | memoryview
    lengths: bool
