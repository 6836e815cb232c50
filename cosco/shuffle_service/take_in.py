"""Takes checked frames into the buffers: finds the assignment, waits for pages, counts."""

from __future__ import annotations

import asyncio
import logging
import time

from cosco.errors import (
    CapacityExceeded,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    ServiceUnavailable,
)
from cosco.records import Assignment, PartitionRange
from cosco.shuffle_service.buffers import AssignmentKey
from cosco.shuffle_service.core import AssignmentBuffers, DaemonCore
from cosco.shuffle_service.dedupe import Sender
from cosco.shuffle_service.flusher import Flusher
from cosco.shuffle_service.intake import CheckedFrame
from cosco.shuffle_service.membership import MetadataLink
from cosco.shuffle_service.memory import PageWaiters
from cosco.shuffle_service.metrics import DaemonMetrics

log = logging.getLogger(__name__)

_LOOKUP_RETRY_S = 0.5


class NotAssigned(CoscoError):
    """The metadata service does not know this daemon as the assignment's primary."""


class TakeIn:
    """The writing half of the daemon."""

    def __init__(
        self,
        core: DaemonCore,
        link: MetadataLink,
        flusher: Flusher,
        waiters: PageWaiters,
        metrics: DaemonMetrics,
        full_store_wait_s: float,
    ) -> None:
        self._core = core
        self._link = link
        self._flusher = flusher
        self._waiters = waiters
        self._metrics = metrics
        self._full_store_wait_s = full_store_wait_s
        self._lookups: dict[AssignmentKey, asyncio.Lock] = {}

    @property
    def incarnation(self) -> int:
        return self._core.incarnation

    async def take(self, frame: CheckedFrame, frame_bytes: int) -> AssignmentKey:
        """Take a frame in; it may be acknowledged when this returns.

        Raises NotAssigned, ExchangeClosed, DataCorrupted (a partition outside of the range)
        or CapacityExceeded (the store takes nothing, and memory stays full).
        """
        header = frame.header
        key = (header.exchange, header.range_index, header.epoch)
        held = self._core.assignment(key) or await self._look_up(key)
        stray = self._core.stray_partition(held, frame)
        if stray is not None:
            raise DataCorrupted(
                f"a block of partition {stray} in a frame of range {header.range_index}"
            )
        next_run = 0

        def attempt() -> bool:
            nonlocal next_run
            if self._core.is_dropped(header.exchange):
                raise ExchangeClosed(f"exchange {header.exchange} is closed")
            taken = self._core.take(held, frame, next_run)
            next_run = taken.next_run
            self._metrics.blocks_received.inc(taken.blocks)
            self._metrics.duplicates_dropped.inc(taken.duplicates)
            return next_run == len(frame.runs)

        await self._waiters.take_turns(frame_bytes, attempt, self._before_wait)
        self._metrics.bytes_received.inc(frame_bytes)
        self._flusher.kick()
        return key

    def _before_wait(self) -> None:
        self._flusher.kick()
        since = self._flusher.failing_since
        if since is not None and time.monotonic() - since >= self._full_store_wait_s:
            raise CapacityExceeded(
                f"memory is full and the store takes nothing ({self._flusher.failure}); "
                "free space there or add daemons"
            )

    async def _look_up(self, key: AssignmentKey) -> AssignmentBuffers:
        """Ask the metadata service, once for all who wait for the answer."""
        number, range_index, epoch = key
        try:
            async with self._lookups.setdefault(key, asyncio.Lock()):
                while (held := self._core.assignment(key)) is None:
                    if self._core.is_dropped(number):
                        raise ExchangeClosed(f"exchange {number} is closed")
                    found = await self._ask(key)
                    if found is None or found[0].primary.incarnation != self.incarnation:
                        raise NotAssigned(
                            f"range {range_index} of exchange {number} in epoch {epoch} is not "
                            "this daemon's; ask for the assignment again"
                        )
                    self._core.admit(number, *found)
                return held
        finally:
            self._lookups.pop(key, None)

    async def _ask(self, key: AssignmentKey) -> tuple[Assignment, PartitionRange] | None:
        """The service's answer, however long it is away; raises ExchangeClosed, NotAssigned."""
        while True:
            try:
                return await self._link.lookup(*key, self.incarnation)
            except ServiceUnavailable as error:
                log.warning("look-up of assignment %s: %s", key, error)
                await asyncio.sleep(_LOOKUP_RETRY_S)
            except ExchangeClosed:
                raise
            except CoscoError as error:
                raise NotAssigned(str(error)) from None

    def hung_up(self, sender: Sender, keys: set[AssignmentKey]) -> None:
        """The sender's stream ended."""
        self._core.hung_up(sender, keys)

    def count_refusal(self, reason: str) -> None:
        self._metrics.frames_refused.labels(reason.removeprefix("REFUSAL_CODE_").lower()).inc()
