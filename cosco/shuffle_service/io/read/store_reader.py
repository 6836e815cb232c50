"""Reads one file of the store in order, in large pieces, the next one ahead."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass

from cosco.dfs import Store, answered_in
from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT
from cosco.shuffle_service.io.read.read_memory import PieceMemory, ReadMemory


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes [start, end) of the file, in memory; `is_cut`: the file ends there, too soon."""

    borrowed: PieceMemory
    start: int
    end: int
    is_cut: bool

    def covers(self, position: int) -> bool:
        return self.start <= position < self.end and not self.borrowed.is_gone


class StoreReader:
    """`at` gives what is at a position; `close` must follow. For one task.

    It holds two pieces at most: the one at the last position, and the one after it. A read that
    takes longer than `timeout_s` is not waited for, and gives its memory back when it has ended.
    """

    def __init__(
        self, store: Store, memory: ReadMemory, path: str, timeout_s: float = math.inf
    ) -> None:
        self._timeout_s = timeout_s
        self._store = store
        self._memory = memory
        self.path = path
        self._piece: _Piece | None = None
        self._ahead: asyncio.Task[_Piece] | None = None
        memory.readers += 1

    def has(self, position: int) -> bool:
        """Whether what is at `position` is in memory, so that `at` does not wait."""
        return self._piece is not None and self._piece.covers(position)

    async def at(self, position: int, length: int, end: int) -> list[memoryview]:
        """Up to `length` bytes from `position` on, one or more, read if need be.

        They are valid until the next await. `end` is where the caller will end, which bounds
        what is read ahead. Raises OSError, which TimeoutError is one of, and DataCorrupted if the
        file is seen to end before that.
        """
        if self._piece is None or not self._piece.covers(position):
            self._drop_piece()
            self._piece = await self._next_piece(position, end)
        piece = self._piece
        if piece.is_cut and piece.end < end:
            raise DataCorrupted(f"the file was cut short at {piece.end}")
        self._memory.touch(piece.borrowed)
        if self._ahead is None and piece.end < end:
            self._read_ahead(piece.end, end)
        first = position - piece.start
        return piece.borrowed.part(first, min(first + length, piece.end - piece.start))

    def close(self) -> None:
        """Give all memory back, that of a read under way when it has ended."""
        self._memory.readers -= 1
        self._drop_piece()
        self._drop_ahead()

    async def _next_piece(self, position: int, end: int) -> _Piece:
        async with answered_in(self._timeout_s, f"the store, asked for {self.path},"):
            return await self._read_piece(position, end)

    async def _read_piece(self, position: int, end: int) -> _Piece:
        if (ahead := self._ahead) is not None:
            # What went wrong is met again by the read below, which then is the one to tell.
            with suppress(OSError, DataCorrupted):
                await asyncio.wait({ahead})
                piece = ahead.result()
                if piece.covers(position):
                    self._ahead = None
                    return piece
            self._drop_ahead()
        start = position - position % ALIGNMENT
        length = min(self._memory.piece_bytes(), end - start)
        filling = self._fill(await self._memory.borrow(length), start, length)
        reading = asyncio.create_task(filling, name="read")
        try:
            await asyncio.wait({reading})
        except asyncio.CancelledError:
            reading.add_done_callback(self._forget)
            raise
        return reading.result()

    def _read_ahead(self, start: int, end: int) -> None:
        start -= start % ALIGNMENT  # where the last piece ended, unless the file does there
        length = min(self._memory.piece_bytes(), end - start)
        if (borrowed := self._memory.borrow_ahead(length)) is not None:
            filling = self._fill(borrowed, start, length)
            self._ahead = asyncio.create_task(filling, name="read-ahead")

    async def _fill(self, borrowed: PieceMemory, start: int, length: int) -> _Piece:
        try:
            got = await self._store.read_into(self.path, start, borrowed.views)
        except BaseException:
            self._memory.give_back(borrowed)
            raise
        self._memory.filled(borrowed)
        return _Piece(borrowed, start, start + min(got, length), is_cut=got < length)

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
