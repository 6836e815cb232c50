"""Rows that were collected one by one, until a packer settles them.

They stay pending as long as they are few: joined while they are in the cache, and their
objects given back for the caller to use again, rows cost a fraction of what they cost when a
whole buffer of them is joined.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from cosco.protocol.records import U32

_MAX_ROWS: Final = 2048
_MIN_ROWS: Final = 16


class PendingRows:
    """A few rows with their partitions, to which any thread may add without a lock.

    Adding is one `extend` of `pairs`, and taking removes as many rows from the front as it has
    copied before: the interpreter makes each of the three whole, and what is added comes behind
    what is removed, so no row is lost, nor taken twice. Those who take, also back, must take
    turns.
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

    def take(self) -> tuple[U32, list[bytes]]:
        """Remove the rows: their partitions, and they."""
        taken = self.pairs.copy()
        del self.pairs[: len(taken)]
        # An order of magnitude faster than numpy makes an array of a list of integers.
        partitions = struct.pack(f"={len(taken) // 2}I", *taken[::2])
        return np.frombuffer(partitions, np.uint32), taken[1::2]

    def take_back(self, partition: int, row: bytes) -> bool:
        """Remove a row that was added; False if it was taken before.

        Of equal rows any will do: as many are taken back as were not taken.
        """
        for index in range(0, len(self.pairs), 2):
            if self.pairs[index] == partition and self.pairs[index + 1] == row:
                del self.pairs[index : index + 2]
                return True
        return False
