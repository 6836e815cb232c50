"""Keeps what primaries forward: checks frames, finds their assignments, settles copies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from cosco.errors import CapacityExceeded, CoscoError, InvalidArgument
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.page_waiters import PageWaiters
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers, NotAssigned, Settle
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, check_frame
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.replication.copy_log import PRESSED_S, Copy

log = logging.getLogger(__name__)

_TICK_S: Final = 0.1


class Copies:
    """The replica's half of the daemon; `start` to `stop` once."""

    def __init__(
        self,
        core: DaemonCore,
        lookups: Lookups,
        flusher: Flusher,
        waiters: PageWaiters,
        full_store_wait_s: float,
    ) -> None:
        self._core = core
        self._lookups = lookups
        self._flusher = flusher
        self._waiters = waiters
        self._full_store_wait_s = full_store_wait_s
        self._streams: dict[int, CopyFrames] = {}  # by primary
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._relieve(), name="relieve-copies")]

    def tasks(self) -> list[asyncio.Task[None]]:
        """For the server to watch: none of them ever ends by itself."""
        return self._tasks

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- streams --------------------------------------------------------------------------

    def open(
        self, primary: int, cut_off: Callable[[], None], tell: Callable[[], None]
    ) -> CopyFrames:
        """A stream of a primary begins; one of its that is still there is cut off.

        Or frames of the old one, read late, would be stored after they were released. `tell`
        has `max_bytes` sent to it. Raises InvalidArgument for a daemon that forwards to itself.
        """
        if primary == self._core.incarnation:
            raise InvalidArgument("a daemon that forwards frames to itself")
        before = self._streams.get(primary)
        if before is not None:
            before.hung_up()
            before.cut_off()
        frames = CopyFrames(self, self._core, self._lookups, primary, cut_off, tell)
        self._streams[primary] = frames
        return frames

    def closed(self, frames: CopyFrames) -> None:
        """A stream has ended."""
        if self._streams.get(frames.primary) is frames:
            del self._streams[frames.primary]
        self.changed()

    def changed(self) -> None:
        """Pages were freed, or are waited for."""
        self._waiters.wake()
        self._flusher.kick()

    # --- settling -------------------------------------------------------------------------

    async def settle(self, key: AssignmentKey) -> None:
        """Put all copies of an assignment through the buffers, and so to a file of this daemon.

        Returns when those that are held now are in buffers; more may come meanwhile unless it
        is sealed. Raises CapacityExceeded when memory stays full, as the store takes nothing.
        """
        for copy in self._core.copies.of(key):
            if self._core.copies.holds(copy):
                await self._settle(copy)

    async def _settle(self, copy: Copy) -> None:
        settle = partial(self._core.settle_copy, copy)
        await self._waiters.take_turns(copy.length, settle, self._before_wait)
        self.changed()
        await asyncio.sleep(0)  # there may be gigabytes of copies, and heartbeats to send

    def _before_wait(self) -> None:
        self._flusher.before_wait(self._full_store_wait_s, "copies cannot be stored:")

    async def _relieve(self) -> None:
        """Settle the oldest copies when others have waited too long for them to go."""
        copies = self._core.copies
        while True:
            await asyncio.sleep(_TICK_S)
            if copies.is_over_goal:
                for frames in self._streams.values():
                    frames.tell()
            # What is stored in memory is never released: there is nothing to wait for.
            patience_s = 0.0 if self._core.replication.volatile else PRESSED_S
            while copies.pressed(time.monotonic(), patience_s=patience_s):
                copy = copies.oldest(None)
                if copy is None:
                    break
                try:
                    await self._settle(copy)
                except CapacityExceeded as error:
                    log.warning("%s", error)
                    break


class CopyFrames:
    """The frames of one stream of a primary."""

    def __init__(
        self,
        copies: Copies,
        core: DaemonCore,
        lookups: Lookups,
        primary: int,
        cut_off: Callable[[], None],
        tell: Callable[[], None],
    ) -> None:
        self.primary = primary
        self.cut_off = cut_off
        self.tell = tell
        self._copies = copies
        self._core = core
        self._lookups = lookups
        self._looking: dict[asyncio.Task[None], tuple[int, Settle]] = {}  # (sequence, …)

    async def take(self, data: memoryview, settle: Settle) -> None:
        """See `push.Frames`.

        Never waits: behind this frame there may be the release of what it would wait for.
        """
        frame = check_frame(data)
        header = frame.header
        if header.incarnation != self._core.incarnation:
            raise NotAssigned("the frame is meant for another start of this daemon")
        held = self._core.find((header.exchange, header.range_index, header.epoch))
        if held is not None:
            self._offer(held, frame, data, settle)
            return
        task = asyncio.create_task(self._look_up(frame, data, settle), name="copy-look-up")
        self._looking[task] = (header.sequence, settle)
        task.add_done_callback(self._looking.pop)

    async def _look_up(self, frame: CheckedFrame, data: memoryview, settle: Settle) -> None:
        header = frame.header
        try:
            key = (header.exchange, header.range_index, header.epoch)
            self._offer(await self._lookups.find(key), frame, data, settle)
        except CoscoError as error:
            settle(error)
        except Exception:
            log.exception("a forwarded frame could not be looked up")
            self.cut_off()

    def _offer(
        self, held: AssignmentBuffers, frame: CheckedFrame, data: memoryview, settle: Settle
    ) -> None:
        self._core.take_copy(
            held, frame, data, self.primary, stream=self, now=time.monotonic(), settle=settle
        )
        if self._core.copies.pages_wanted:
            self._copies.changed()

    def released(self, sequences: list[int]) -> None:
        """See `push.Frames`."""
        if self._looking:
            self._stop_looking(set(sequences))
        self._core.copies.released(self.primary, sequences)
        self._copies.changed()

    def max_bytes(self) -> int:
        """See `push.Frames`."""
        return self._core.copies.max_bytes_of(self.primary)

    def _stop_looking(self, sequences: set[int]) -> None:
        """These frames need not be stored any more, wherever they belong."""
        for task, (sequence, settle) in self._looking.items():
            if sequence in sequences and not task.done() and not task.cancelling():
                task.cancel()
                settle(None)

    def hung_up(self) -> None:
        """See `push.Frames`; repeatable."""
        for task in self._looking:
            task.cancel()
        self._core.copies.hung_up(self)
        self._copies.closed(self)
