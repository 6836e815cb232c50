"""Rows that were collected one by one, until a packer settles them.

They stay pending as long as they are few: joined while they are in the cache, and their
objects given back for the caller to use again, rows cost a fraction of what they cost when a
whole buffer of them is joined.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from cosco.records import U32

_MAX_ROWS: Final = 2048
_MIN_ROWS: Final = 16


class PendingRows:
    """A few rows with their partitions, to which any thread may add without a lock.

    Adding is one `extend` of `pairs`, and taking removes what it has copied and nothing else:
    the interpreter makes both whole, so that no row is lost between them, nor taken twice.
    Those who take must take turns.
    """

    def __init__(self, buffer_bytes: int) -> None:
        """For a buffer of `buffer_bytes`: at most a quarter of that is pending."""
        rows = min(max(buffer_bytes >> 14, _MIN_ROWS), _MAX_ROWS)
        #: partition, row, partition, row, …: the same list for ever.
        self.pairs: Final[list[Any]] = []
        #: The rows are to be taken when `pairs` is so long,
        self.due_length: Final = 2 * rows
        #: or when there is one of more bytes than this.
        self.short_bytes: Final = buffer_bytes // 4 // rows

    def add(self, partition: int, row: bytes) -> bool:
        """Add a valid row; True when they are to be taken."""
        self.pairs.extend((partition, row))
        return len(row) > self.short_bytes or len(self.pairs) >= self.due_length

    def holds(self, partition: int, row: bytes) -> bool:
        """Whether this very row is still here."""
        pairs = self.pairs.copy()
        return any(
            one is row and number == partition
            for number, one in zip(pairs[::2], pairs[1::2], strict=True)
        )

    def take(self) -> tuple[U32, list[bytes]]:
        """Remove the rows: their partitions, and they."""
        taken = self.pairs.copy()
        del self.pairs[: len(taken)]
        # An order of magnitude faster than numpy makes an array of a list of integers.
        partitions = struct.pack(f"={len(taken) // 2}I", *taken[::2])
        return np.frombuffer(partitions, np.uint32), taken[1::2]
