"""Tells the blocks that a reader wants from others, of which it is sent the headers alone.

A reader of some mappers proves by the sums of its whole partition that no row is missing. To these
a block's header is enough: the reader adds it up, and does not miss what it would not give anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from pyroaring import BitMap

from cosco.errors import DataCorrupted
from cosco.format.block import HEADER_BYTES, MAGIC, MAX_CONTENT_BYTES

#: Blocks that are looked at in one go: it takes no longer than a few milliseconds.
MAX_BLOCKS: Final = 2048

# Fields of a block header: magic, exchange, partition, mapper, raw_bytes, stored_bytes.
_FIELDS = struct.Struct("<4s4xQ16xII4xII")


class Chosen(NamedTuple):
    """What a look at some bytes of a chunk found.

    taken: bytes of the chunk that are done with, which may be more than were looked at. wanted:
    whole blocks, of `wanted_bytes` in all. headers: of blocks that are left out.
    """

    taken: int
    wanted: list[memoryview]
    wanted_bytes: int
    headers: bytes


class BlockChoice:
    """Chooses blocks of `mappers` among those of one partition."""

    def __init__(self, number: int, partition: int, mappers: BitMap) -> None:
        """number: of the exchange."""
        self._number = number
        self._partition = partition
        self._mappers = mappers

    def look_at(self, views: Sequence[memoryview], left: int) -> Chosen:
        """Choose among the blocks that begin in `views`: bytes of a chunk that has `left` more.

        It ends before the first block whose header is cut off, or that is wanted and cut off: if
        that is the first one, nothing is taken, and `one` tells what it is. Raises DataCorrupted
        where the first one cannot be a block.
        """
        have = sum(map(len, views))
        position = base = 0
        following = iter(views)
        view = next(following, memoryview(b""))
        headers: list[bytes] = []
        extents: list[tuple[int, int]] = []
        for _ in range(MAX_BLOCKS):
            while position >= base + len(view) and position < have:
                base += len(view)
                view = next(following)
            if have - position < HEADER_BYTES:
                break
            at = position - base
            header: memoryview | bytes = view[at : at + HEADER_BYTES]
            if len(header) < HEADER_BYTES:
                header = b"".join(_cut(views, position, position + HEADER_BYTES))
            try:
                length, is_wanted = self.one(header, left - position)
            except DataCorrupted:
                if not position:
                    raise
                break
            if not is_wanted:
                headers.append(bytes(header))
            elif position + length > have:
                break
            elif extents and extents[-1][1] == position:
                extents[-1] = extents[-1][0], position + length
            else:
                extents.append((position, position + length))
            position += length
        wanted = [part for extent in extents for part in _cut(views, *extent)]
        return Chosen(position, wanted, sum(map(len, wanted)), b"".join(headers))

    def one(self, header: memoryview | bytes, left: int) -> tuple[int, bool]:
        """Return the length of a block, and whether it is wanted; `left`: bytes of its chunk.

        Raises DataCorrupted for what cannot be the header of a block of this partition.
        """
        magic, number, partition, mapper, raw_bytes, stored_bytes = _FIELDS.unpack_from(header)
        if (
            magic != MAGIC
            or (number, partition) != (self._number, self._partition)
            or not stored_bytes <= raw_bytes <= MAX_CONTENT_BYTES
            or HEADER_BYTES + stored_bytes > left
        ):
            raise DataCorrupted("no block of its partition begins where one should")
        return HEADER_BYTES + stored_bytes, mapper in self._mappers


def _cut(views: Sequence[memoryview], start: int, end: int) -> list[memoryview]:
    """Return bytes [start, end) of views that lie one behind the other."""
    found, base = [], 0
    for view in views:
        low, high = max(start - base, 0), min(end - base, len(view))
        if low < high:
            found.append(view[low:high])
        base += len(view)
        if base >= end:
            break
    return found
