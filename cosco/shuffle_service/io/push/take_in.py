"""Takes checked frames into the buffers: finds the assignment, forwards, waits for pages."""

from __future__ import annotations

import time
from functools import partial

from cosco.errors import CoscoError, ExchangeClosed, InvalidArgument
from cosco.format.frame import FRAME_HEADER_BYTES
from cosco.protocol.mark import Mark
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.page_waiters import PageWaiters
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers, NotAssigned, Settle
from cosco.shuffle_service.state.buffers.dedupe import Sender
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, check_frame
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.replication.replica import Forward


class TakeIn:
    """The writing half of the daemon."""

    def __init__(
        self,
        core: DaemonCore,
        lookups: Lookups,
        flusher: Flusher,
        waiters: PageWaiters,
        metrics: DaemonMetrics,
        full_store_wait_s: float,
    ) -> None:
        self._core = core
        self._lookups = lookups
        self._flusher = flusher
        self._waiters = waiters
        self._metrics = metrics
        self._full_store_wait_s = full_store_wait_s

    @property
    def incarnation(self) -> int:
        return self._core.incarnation

    async def take(
        self, frame: CheckedFrame, data: memoryview, settle: Settle
    ) -> tuple[AssignmentKey, Forward | None]:
        """Take a frame, which `data` is, into the buffers, and have it forwarded.

        `settle` is called when it is taken and safe, before or after this returns, or will
        not be safe. The forward is for `abandon`, should nobody wait for that any more; None
        if there is none. Raises, and does not call `settle` then: NotAssigned,
        ExchangeClosed, DataCorrupted (not of the range, or no mark of it) or CapacityExceeded
        (the store takes nothing, and memory stays full).
        """
        header = frame.header
        key = (header.exchange, header.range_index, header.epoch)
        held = self._core.find(key) or await self._lookups.find(key)
        held.check_partitions(frame)
        mark = held.mark_of(frame)
        if mark is not None:
            settle = partial(self._count, held, mark, settle)
        next_run = 0
        forward: Forward | None = None

        def attempt() -> bool:
            nonlocal next_run, forward
            if self._core.is_dropped(header.exchange):
                raise ExchangeClosed(f"exchange {header.exchange} is closed")
            if held.replica is not None and forward is None:
                held.check_takes(0)
                if self._core.replication.is_full:
                    return False
                forward = self._forward(held, frame, data, settle)
            taken = self._core.take(held, frame, next_run)
            next_run = taken.next_run
            self._metrics.blocks_received.inc(taken.blocks)
            self._metrics.duplicates_dropped.inc(taken.duplicates)
            return next_run == len(frame.runs)

        try:
            await self._waiters.take_turns(len(data), attempt, self._before_wait)
        except BaseException:
            if forward is not None:
                self.abandon(forward)
            raise
        self._metrics.bytes_received.inc(len(data))
        if forward is None:
            settle(None)
        else:
            forward.replica.taken(forward, held.unstored_chunks(frame))
        self._flusher.taken()
        return key, forward

    def _count(
        self, held: AssignmentBuffers, mark: Mark, settle: Settle, error: CoscoError | None
    ) -> None:
        """Count the mark of a frame that is safe, before its sender is told."""
        if error is None and self._core.count(held, mark):
            self._metrics.marks.inc()
        settle(error)

    def _forward(
        self, held: AssignmentBuffers, frame: CheckedFrame, data: memoryview, settle: Settle
    ) -> Forward:
        assert held.replica is not None
        return self._core.replication.forward(
            held.key,
            held.replica,
            frame.header,
            data[FRAME_HEADER_BYTES:],
            now=time.monotonic(),
            answer=settle,
            is_mark=not frame.runs,
        )

    def abandon(self, forward: Forward) -> None:
        """Nobody waits for a frame any more: it was not taken, or its stream has ended."""
        forward.replica.abandon(forward)

    def _before_wait(self) -> None:
        self._flusher.before_wait(self._full_store_wait_s, "memory is full and")

    def hung_up(self, sender: Sender, keys: set[AssignmentKey]) -> None:
        """The sender's stream ended."""
        self._core.hung_up(sender, keys)


class WriterFrames:
    """The frames of one stream of a writer."""

    def __init__(self, take_in: TakeIn, number: int, sender: Sender) -> None:
        self._take_in = take_in
        self._number = number
        self._sender = sender
        self._keys: set[AssignmentKey] = set()
        self._unsafe: dict[Forward, None] = {}  # taken, and not settled

    async def take(self, data: memoryview, settle: Settle) -> None:
        """See `push.Frames`."""
        frame = check_frame(data, self._number, self._sender)
        if frame.header.incarnation != self._take_in.incarnation:
            raise NotAssigned("the frame is meant for another start of this daemon")
        forward: Forward | None = None

        def settled(error: CoscoError | None) -> None:
            if forward is not None:
                self._unsafe.pop(forward, None)
            settle(error)

        key, forward = await self._take_in.take(frame, data, settled)
        self._keys.add(key)
        if forward is not None and forward.answer is not None:
            self._unsafe[forward] = None

    def released(self, sequences: list[int]) -> None:
        """See `push.Frames`; only primaries release."""
        raise InvalidArgument("a writer's stream that releases frames")

    def max_bytes(self) -> int:
        """See `push.Frames`."""
        return 0

    def hung_up(self) -> None:
        """See `push.Frames`."""
        for forward in self._unsafe:
            self._take_in.abandon(forward)
        self._take_in.hung_up(self._sender, self._keys)
