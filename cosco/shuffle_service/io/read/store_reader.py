"""Reads chunks out of segments in the order in which they are sent, several at a time, ahead.

What is to be read are *extents*, each within one segment. They are read as if they were one file,
in pieces: those of a piece are asked for at once, so a store that is far away is waited for once
for all of them.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from cosco.dfs import Store, answered_in
from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT, padded
from cosco.shuffle_service.io.read.read_memory import PieceMemory, ReadMemory

#: Reads of a piece that are asked for at once.
_EXTENTS_MAX: Final = 32


class Extent(NamedTuple):
    """Bytes of one file; the offset is a multiple of ALIGNMENT."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Positions [start, end) of all extents, in memory. `failures`: by extent, what went wrong."""

    borrowed: PieceMemory
    start: int
    end: int
    failures: dict[int, Exception]

    def covers(self, position: int) -> bool:
        return self.start <= position < self.end and not self.borrowed.is_gone


class StoreReader:
    """`at` gives what is in an extent; `close` must follow. For one task.

    It holds two pieces at most: the one at the last position, and the one after it. A read that
    takes longer than `timeout_s` is not waited for, and gives its memory back when it has ended.
    """

    def __init__(
        self,
        store: Store,
        memory: ReadMemory,
        extents: Sequence[Extent],
        timeout_s: float = math.inf,
    ) -> None:
        self._timeout_s = timeout_s
        self._store = store
        self._memory = memory
        self.extents = extents
        #: Where each extent begins if they lie one behind the other, and where the last one ends.
        self._starts = [0, *accumulate(padded(extent.length) for extent in extents)]
        self._piece: _Piece | None = None
        self._ahead: asyncio.Task[_Piece] | None = None
        memory.readers += 1

    def has(self, index: int, position: int) -> bool:
        """Whether what is at `position` of an extent is in memory, so that `at` does not wait."""
        return self._piece is not None and self._piece.covers(self._starts[index] + position)

    async def at(self, index: int, position: int, length: int) -> list[memoryview]:
        """Up to `length` bytes of an extent from `position` on, one or more, read if need be.

        They are valid until the next await. Raises OSError, which TimeoutError is one of, and
        DataCorrupted if the file ends before the extent does; these again while the piece is held.
        """
        place = self._starts[index] + position
        if self._piece is None or not self._piece.covers(place):
            self._drop_piece()
            self._piece = await self._next_piece(place)
        piece = self._piece
        if (failure := piece.failures.get(index)) is not None:
            raise failure
        self._memory.touch(piece.borrowed)
        if self._ahead is None and piece.end < self._starts[-1]:
            self._read_ahead(piece.end)
        first = place - piece.start
        end = min(first + length, piece.end - piece.start)
        return piece.borrowed.part(first, min(end, first + self.extents[index].length - position))

    def close(self) -> None:
        """Give all memory back, that of a read under way when it has ended."""
        self._memory.readers -= 1
        self._drop_piece()
        self._drop_ahead()

    async def _next_piece(self, place: int) -> _Piece:
        path = self.extents[bisect_right(self._starts, place) - 1].path
        async with answered_in(self._timeout_s, f"the store, asked for {path},"):
            return await self._read_piece(place)

    async def _read_piece(self, place: int) -> _Piece:
        if (ahead := self._ahead) is not None:
            await asyncio.wait({ahead})
            piece = ahead.result()
            # What went wrong is met again by the read below, which then is the one to tell.
            if piece.covers(place) and not piece.failures:
                self._ahead = None
                return piece
            self._drop_ahead()
        start = place - place % ALIGNMENT
        end = self._piece_end(start)
        filling = self._fill(await self._memory.borrow(end - start), start, end)
        reading = asyncio.create_task(filling, name="read")
        try:
            await asyncio.wait({reading})
        except asyncio.CancelledError:
            reading.add_done_callback(self._forget)
            raise
        return reading.result()

    def _piece_end(self, start: int) -> int:
        """Return where a piece ends that begins at `start`: with an extent, if that can be.

        An extent that is cut in two is two reads, and two seeks if others come between. So a small
        rest of it is taken along.
        """
        first = bisect_right(self._starts, start) - 1
        last = min(first + _EXTENTS_MAX, len(self.extents))
        piece_bytes = self._memory.piece_bytes()
        end = min(start + piece_bytes, self._starts[last])
        whole = self._starts[bisect_right(self._starts, end) - 1]
        if whole > start:
            return whole
        whole = self._starts[first + 1]
        return whole if whole - start <= piece_bytes + self._memory.rest_bytes() else end

    def _read_ahead(self, start: int) -> None:
        end = self._piece_end(start)
        if (borrowed := self._memory.borrow_ahead(end - start)) is not None:
            filling = self._fill(borrowed, start, end)
            self._ahead = asyncio.create_task(filling, name="read-ahead")

    async def _fill(self, borrowed: PieceMemory, start: int, end: int) -> _Piece:
        indexes = range(bisect_right(self._starts, start) - 1, len(self.extents))
        wanted = [index for index in indexes if self._starts[index] < end]
        reads = [self._read(borrowed, start, end, index) for index in wanted]
        try:
            found = [await reads[0]] if len(reads) == 1 else await asyncio.gather(*reads)
        except BaseException:
            self._memory.give_back(borrowed)
            raise
        self._memory.filled(borrowed)
        failures = {
            index: failure
            for index, failure in zip(wanted, found, strict=True)
            if failure is not None
        }
        return _Piece(borrowed, start, end, failures)

    async def _read(
        self, borrowed: PieceMemory, start: int, end: int, index: int
    ) -> Exception | None:
        """Read what of an extent is in [start, end). Returns what went wrong with it alone."""
        extent, base = self.extents[index], self._starts[index]
        first, last = max(start, base), min(end, self._starts[index + 1])
        parts = borrowed.part(first - start, last - start)
        offset = extent.offset + first - base
        try:
            got = await self._store.read_into(extent.path, offset, parts)
        except Exception as error:  # noqa: BLE001  others read into the same piece still
            return error
        if first + got < min(last, base + extent.length):
            return DataCorrupted(f"the file was cut short at {offset + got}")
        return None

    def _drop_piece(self) -> None:
        if self._piece is not None:
            self._memory.give_back(self._piece.borrowed)
            self._piece = None

    def _drop_ahead(self) -> None:
        if (ahead := self._ahead) is not None:
            self._ahead = None
            if ahead.done():
                self._forget(ahead)
            else:
                ahead.add_done_callback(self._forget)

    def _forget(self, ahead: asyncio.Task[_Piece]) -> None:
        if not ahead.cancelled() and ahead.exception() is None:
            self._memory.give_back(ahead.result().borrowed)
