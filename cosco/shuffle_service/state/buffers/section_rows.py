"""Counts the rows of blocks on their way to a reader, by their headers.

A daemon sends blocks as they lie in its pages or in its store, and does not know where each begins:
so the headers are walked, from one to the next. What comes of it is a figure for people, so only
what the walk goes by is checked. The reader judges the blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from cosco.format.block import HEADER_BYTES, MAGIC, MAX_CONTENT_BYTES

# Fields of a block header, and its length: magic, rows, stored_bytes.
_FIELDS: Final = struct.Struct("<4s36xI4xI12x")
#: More than a section can have left.
_ALL: Final = 1 << 62


class SectionRows:
    """The rows of one section: whole blocks, one behind the other, which come cut anywhere."""

    def __init__(self) -> None:
        self._skip = 0  # bytes of stored content that are still to come
        self._cut = b""  # the beginning of a header, or nothing

    def feed(self, parts: Sequence[memoryview]) -> int:
        """Take what comes next of the section: parts of it, in order.

        Returns: the rows that the headers name which end in these parts. From something on that
        is no block header there are none.
        """
        rows = 0
        for part in parts:
            if self._cut:
                missing = HEADER_BYTES - len(self._cut)
                self._cut += part[:missing]
                if len(self._cut) < HEADER_BYTES:
                    continue
                found, end = _walk(self._cut, 0)
                rows += found
                self._skip, self._cut = end - HEADER_BYTES + missing, b""
            if self._skip < len(part):
                found, end = _walk(part, self._skip)
                rows += found
                self._skip = end
                self._cut = bytes(part[end:])
            self._skip = max(self._skip - len(part), 0)
        return rows


def _walk(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Walk the headers that are whole in `data`, from the one at `at` on.

    Returns: the rows that they name, and where the next header begins, which may be beyond the end.
    """
    rows, last = 0, len(data) - HEADER_BYTES
    unpack_from = _FIELDS.unpack_from  # blocks may be very short, so this is done often
    while at <= last:
        magic, named, stored_bytes = unpack_from(data, at)
        if magic != MAGIC or stored_bytes > MAX_CONTENT_BYTES:
            return rows, _ALL
        rows += named
        at += HEADER_BYTES + stored_bytes
    return rows, at
