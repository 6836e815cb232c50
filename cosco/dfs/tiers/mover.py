"""Moves segments from flash to the slow tier, and deletes from flash what has moved.

A move is: read it whole, check every byte, put it in one piece, and only when that has returned
does it count. What moves next is decided by `TierTable`.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal

from cosco.dfs.bounded import answered_in
from cosco.dfs.directories.watched_directories import Tell, look_at_result
from cosco.dfs.protocol import Store
from cosco.dfs.tiers.flash_tier import FlashTier
from cosco.dfs.tiers.state.tier_table import Move, TierTable
from cosco.dfs.under_way import CallsUnderWay
from cosco.errors import DataCorrupted

#: A deletion from flash that failed is tried again after this time.
_REMOVE_AGAIN_S: Final = 1.0

MoveNews = Literal["failing", "works", "damaged"]


def _tell_nobody(*_news: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class TierNews:
    """Who is told what happens.

    tell_flash: that flash is out, or back. tell_moves: that moves fail, and why, that they work
    again, and of each damaged file, what is wrong. count: a name, an amount, a label or nothing.
    """

    tell_flash: Tell = _tell_nobody
    tell_moves: Callable[[MoveNews, str], None] = _tell_nobody
    count: Callable[[str, int, str], None] = _tell_nobody


class Mover:
    """The moves of one daemon; `run` once.

    timeout_s: a put that is under way for longer hangs.
    """

    def __init__(
        self,
        flash: FlashTier,
        then: Store,
        table: TierTable,
        under_way: CallsUnderWay,
        timeout_s: float,
        news: TierNews,
    ) -> None:
        self._flash = flash
        self._then = then
        self._table = table
        self._under_way = under_way
        self._timeout_s = timeout_s
        self._tell = news.tell_moves
        self._count = news.count
        #: Called with the paths of what has moved, and of what never will.
        self.on_durable: Callable[[str], None] = lambda _path: None
        self.on_lost: Callable[[str], None] = lambda _path: None
        self._is_failing = False  # for all that was told
        self._ends: dict[Move, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look again what is to be done."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Move and delete, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._remove_moved(), name="remove-moved")
            while True:
                now = time.monotonic()
                while (move := self._table.next_move(now)) is not None:
                    self._ends[move] = asyncio.get_running_loop().create_future()
                    group.create_task(self._move(move), name="move")
                await self._changed_in(self._table.wait_s(now))

    async def ended(self, moves: Collection[Move]) -> None:
        """Wait for the end of some moves; raises TimeoutError if they take too long."""
        ends = [self._ends[move] for move in moves if move in self._ends]
        if ends:
            async with answered_in(self._timeout_s, "a move to the slow tier"):
                await asyncio.wait(ends)

    async def nothing_pending(self) -> None:
        """Wait until all that there is has moved."""
        while self._table.figures.pending_bytes:
            await self._changed.wait()

    async def _changed_in(self, seconds: float) -> None:
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({waiting}, timeout=_finite(seconds))
        finally:
            waiting.cancel()

    # --- one move --------------------------------------------------------------------------

    async def _move(self, move: Move) -> None:
        try:
            await self._try_move(move)
        finally:
            self._ends.pop(move).set_result(None)
            self._note_trouble()
            self.wake()

    async def _try_move(self, move: Move) -> None:
        try:  # page-aligned; it goes with its last user
            view = memoryview(mmap.mmap(-1, move.length))
        except OSError:  # there is no memory
            self._count("move_failures", 1, "")
            self._table.read_failed(move, time.monotonic())
            return
        reading = self._under_way.add(
            asyncio.ensure_future(self._flash.read_whole(move.path, view))
        )
        reading.add_done_callback(look_at_result)
        await asyncio.wait({reading})  # when this is cancelled it is left alone
        if not self._read(move, reading):
            return
        if not self._table.is_wanted(move):
            self._table.given_up(move)
            return
        writing = self._under_way.add(asyncio.ensure_future(self._then.put(move.path, [view])))
        writing.add_done_callback(look_at_result)
        if not (await asyncio.wait({writing}, timeout=_finite(self._timeout_s)))[0]:
            self._table.hangs(
                move, f"a move has been under way for {self._timeout_s:g} s", time.monotonic()
            )
            self._note_trouble()
            await asyncio.wait({writing})
        try:
            writing.result()
        except OSError as error:
            self._count("move_failures", 1, "")
            self._table.move_failed(move, error.strerror or str(error), time.monotonic())
        else:
            self._count("moves", 1, move.reason)
            self._count("moved_bytes", move.length, move.reason)
            if self._table.moved(move, time.monotonic()):
                self.on_durable(move.path)

    def _read(self, move: Move, reading: asyncio.Future[None]) -> bool:
        """Whether what was read may be put."""
        try:
            reading.result()
        except FileNotFoundError:
            if self._table.lost(move):
                self.tell_lost(move.path)
        except OSError:  # flash is out by now, and that was told
            self._count("move_failures", 1, "")
            self._table.read_failed(move, time.monotonic())
        except DataCorrupted as error:
            if self._table.damaged(move):
                self._count("damaged", 1, "")
                self.on_lost(move.path)
                self._tell("damaged", f"{move.path}: {error}")
        else:
            return True
        return False

    def tell_lost(self, path: str) -> None:
        """Tell of a file that flash alone had, and has no more."""
        self._count("damaged", 1, "")
        self.on_lost(path)
        self._tell("damaged", f"{path}: it is not on flash any more")
        self.wake()

    def _note_trouble(self) -> None:
        failure = self._table.failure
        if failure is not None and not self._is_failing:
            self._is_failing = True
            self._tell("failing", failure)
        elif failure is None and self._is_failing:
            self._is_failing = False
            self._tell("works", "")

    # --- what has moved --------------------------------------------------------------------

    async def _remove_moved(self) -> None:
        while True:
            now = time.monotonic()
            path = self._table.next_removal(now)
            if path is None:
                await self._changed_in(self._table.removal_wait_s(now))
                continue
            try:
                await self._flash.remove(path)
            except OSError:  # flash is out by now, and that was told
                await asyncio.sleep(_REMOVE_AGAIN_S)
            else:
                self._table.removed(path)
                self.wake()


def _finite(seconds: float) -> float | None:
    """Return a time as `asyncio.wait` takes it: None for ever."""
    return seconds if seconds < math.inf else None
