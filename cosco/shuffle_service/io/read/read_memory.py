"""The memory that reads of the store go to: a fixed arena, shared by all readers.

A read should be large, as each one moves a disk's arm, and there may be hundreds of readers,
some of which take their data slowly or not at all. So what a reader may have depends on how
many there are, it waits in turn for it, and it can lose it again: a piece that nobody has
taken from for a while is taken back when others wait, and is read again when its reader
comes back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from cosco.shuffle_service.state.buffers.pool import MIN_PAGE_BYTES, Page, PagePool, round_up

#: One read, but for a rest: at 8 MiB a disk moves its arm for a sixth of the time it reads.
PIECE_MAX_BYTES: Final = 8 << 20
#: However many readers there are, no read but a file's last is smaller.
PIECE_MIN_BYTES: Final = 1 << 20
#: A piece that was not touched for this time is taken back when others wait.
STALLED_AFTER_S: Final = 1.0

_SHARE: Final = 8
_ARENA_MIN_BYTES: Final = 4 << 20
_ARENA_MAX_BYTES: Final = 32 << 20


def read_arena_bytes(memory_bytes: int) -> int:
    """Return the size of the arena of a daemon with this `--memory`."""
    share = memory_bytes // _SHARE
    return min(max(share, _ARENA_MIN_BYTES), _ARENA_MAX_BYTES) // PIECE_MIN_BYTES * PIECE_MIN_BYTES


@dataclass(slots=True, eq=False)
class PieceMemory:
    """Memory for one piece. `views` are its pages, in order; none once it is given back."""

    pages: list[Page]
    views: list[memoryview]
    touched: float
    #: While it is read into it cannot be taken back.
    is_filling: bool = True

    @property
    def is_gone(self) -> bool:
        """Whether it was given back, or taken back."""
        return not self.pages

    def part(self, start: int, end: int) -> list[memoryview]:
        """Return bytes [start, end) of the piece; valid until the next await."""
        found, base = [], 0
        for view in self.views:
            low, high = max(start - base, 0), min(end - base, len(view))
            if low < high:
                found.append(view[low:high])
            base += len(view)
        return found


class ReadMemory:
    """Lends out an arena, a multiple of PIECE_MIN_BYTES; used from one event loop."""

    def __init__(self, arena: memoryview) -> None:
        self._arena = arena
        self._pool = PagePool(len(arena))
        self._lent: dict[PieceMemory, None] = {}  # oldest first
        self._queue: deque[asyncio.Future[None]] = deque()
        #: Readers of the store that are open.
        self.readers = 0

    @property
    def used_bytes(self) -> int:
        return self._pool.capacity_bytes - self._pool.free_bytes

    def piece_bytes(self) -> int:
        """Return what one read should ask for: each reader sends a piece while it reads another."""
        share = len(self._arena) // (2 * max(1, self.readers))
        return min(max(share, PIECE_MIN_BYTES), PIECE_MAX_BYTES) // MIN_PAGE_BYTES * MIN_PAGE_BYTES

    def rest_bytes(self) -> int:
        """Return how much more a read may ask for so that nothing small is left.

        Half a piece, where a reader can have that much beside another piece.
        """
        rest = self.piece_bytes() // 2 // MIN_PAGE_BYTES * MIN_PAGE_BYTES
        return rest if 2 * self.piece_bytes() + rest <= len(self._arena) else 0

    def borrow_ahead(self, length: int) -> PieceMemory | None:
        """Memory for `length` bytes if there is some and nobody waits for it, else None."""
        if self._queue or round_up(length) > self._pool.free_bytes:
            return None
        return self._lend(length)

    async def borrow(self, length: int) -> PieceMemory:
        """Memory for `length` bytes, at most a piece and a rest; waits for its turn.

        Whoever waits here must hold no other piece, or all might wait for each other.
        """
        if (borrowed := self.borrow_ahead(length)) is not None:
            return borrowed
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            while self._queue[0] is not turn or round_up(length) > self._pool.free_bytes:
                if self._queue[0] is turn and self._take_back():
                    continue
                # Pieces that are touched now may stall; the first in the queue looks again.
                await asyncio.wait({turn}, timeout=STALLED_AFTER_S)
                if turn.done():
                    fresh: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._queue[self._queue.index(turn)] = fresh
                    turn = fresh
            return self._lend(length)
        finally:
            self._queue.remove(turn)
            self._wake()

    def filled(self, borrowed: PieceMemory) -> None:
        """Note that it has been read into."""
        borrowed.is_filling = False
        self.touch(borrowed)

    def touch(self, borrowed: PieceMemory) -> None:
        """Note that its reader copies from it."""
        borrowed.touched = asyncio.get_running_loop().time()

    def give_back(self, borrowed: PieceMemory) -> None:
        """Repeatable. Not while it is read into."""
        if borrowed.is_gone:
            return
        del self._lent[borrowed]
        self._pool.free(borrowed.pages)
        borrowed.pages, borrowed.views = [], []
        self._wake()

    def _lend(self, length: int) -> PieceMemory:
        pages = self._pool.allocate(length)
        views = [self._arena[page.offset : page.offset + page.size] for page in pages]
        borrowed = PieceMemory(pages, views, asyncio.get_running_loop().time())
        self._lent[borrowed] = None
        return borrowed

    def _take_back(self) -> bool:
        """Take one stalled piece from its reader, the least touched one first."""
        before = asyncio.get_running_loop().time() - STALLED_AFTER_S
        stalled = [one for one in self._lent if not one.is_filling and one.touched <= before]
        if not stalled:
            return False
        self.give_back(min(stalled, key=lambda borrowed: borrowed.touched))
        return True

    def _wake(self) -> None:
        if self._queue and not self._queue[0].done():
            self._queue[0].set_result(None)
