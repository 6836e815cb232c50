"""Writes segments to the store, a few at a time, as `cosco.shuffle_service.state` says."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from cosco.dfs import Store
from cosco.process.tracing.spans import record_for_exchange
from cosco.protocol.events import Event, EventKind
from cosco.shuffle_service.io.arena import aligned
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.task_runner import TaskRunner
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.segments.segment_choice import Flush


class Flusher(TaskRunner):
    """`writers` tasks that write what `core` says; `start` to `stop` once.

    is_durable: whether a file is, of which the store has said that it was put.
    """

    def __init__(
        self,
        core: DaemonCore,
        store: Store,
        metrics: DaemonMetrics,
        writers: int,
        is_durable: Callable[[str], bool] = lambda _path: True,
    ) -> None:
        super().__init__()
        self._core = core
        self._store = store
        self._metrics = metrics
        self._writers = writers
        self._is_durable = is_durable
        self._work = asyncio.Event()
        self._changed = asyncio.Event()
        self._is_failing = False  # for all that was told
        #: The writes under way; those that hang may be here when all else has ended.
        self.writes: set[asyncio.Future[None]] = set()
        core.on_work = self._work.set
        core.on_change = self._on_change

    def start(self) -> None:
        """Begin to write."""
        for n in range(self._writers):
            self.run(f"flush-{n}", self._write_segments())
        if self._core.flushes.idle_s:
            self.run("flush-idle", self._watch())
        self._work.set()

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self) -> None:
        """Have everything written when nothing came for a while."""
        while True:
            await asyncio.sleep(self._core.flushes.tick(time.monotonic()))
            self._core.kick()

    async def _write_segments(self) -> None:
        while True:
            flush = self._core.next_flush()
            if flush is None:
                self._work.clear()
                await self._work.wait()
                continue
            await self._write(flush)
            is_durable = self._is_durable(flush.path)
            if self._core.end_flush(flush, time.monotonic(), is_durable=is_durable):
                self._metrics.segments_stored.inc()
                self._metrics.chunks_stored.inc(len(flush.chunks))
                self._metrics.bytes_stored.inc(flush.body_bytes)

    async def _write(self, flush: Flush) -> None:
        """Write until it is durable, or its exchange dropped."""
        while not flush.is_dropped():
            began_ns = time.time_ns()
            try:
                await self._put(flush)
            except OSError as error:
                self._record(flush, began_ns, error)
                self._metrics.flush_failures.inc()
                if not self._is_failing:
                    self._is_failing = True
                    self._tell(EventKind.STORE_FAILING, str(error))
                self._core.flush_failed(flush, error, time.monotonic())
                await asyncio.sleep(flush.retry_s)
            else:
                self._record(flush, began_ns)
                if self._is_failing:
                    self._is_failing = False
                    self._tell(EventKind.STORE_RECOVERED)
                return

    def _record(self, flush: Flush, began_ns: int, error: OSError | None = None) -> None:
        """Have a write traced that has just ended."""
        held = self._core.assignment(flush.key)
        if held is None or not held.trace:
            return
        attributes = {
            "cosco.exchange.number": flush.key.number,
            "cosco.daemon.incarnation": self._core.incarnation,
            "cosco.range": flush.key.range_index,
            "cosco.epoch": flush.key.epoch,
            "cosco.flush.first_partition": flush.index.partitions[0],
            "cosco.flush.chunks": len(flush.chunks),
            "cosco.flush.chunk_bytes": flush.body_bytes,
            "cosco.flush.bytes": flush.length,
        }
        record_for_exchange("cosco flush", held.trace, began_ns, attributes, error)

    def _tell(self, kind: EventKind, reason: str | None = None) -> None:
        self._core.events.add(Event(kind=kind, store=self._store.url, reason=reason))

    async def _put(self, flush: Flush) -> None:
        """Have the store write a segment, and wait for that to the end, however long it takes.

        When this is cancelled the write is left alone: `writes` has it until it ends.
        """
        parts = [*flush.parts, aligned(flush.index_bytes)]
        writing = asyncio.ensure_future(self._store.put(flush.path, parts))
        self.writes.add(writing)
        writing.add_done_callback(self._forget)
        left_s = self._core.flushes.began(flush, time.monotonic())
        try:
            while not (await asyncio.wait({writing}, timeout=_finite(left_s)))[0]:
                hung = flush.hangs
                left_s = self._core.flush_waits(flush, time.monotonic())
                if flush.hangs and not hung:
                    self._metrics.flush_failures.inc()
                    self._tell(EventKind.STORE_HANGS, self._core.flushes.failure)
        finally:
            if writing.done():
                if flush.hangs:
                    self._tell(EventKind.STORE_ANSWERS)
                self._core.flushes.returned(flush)
        writing.result()

    def _forget(self, writing: asyncio.Future[None]) -> None:
        """Let go of a write that has ended; what went wrong was told to whoever still waited."""
        self.writes.discard(writing)
        if not writing.cancelled():
            writing.exception()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes with what is held or stored."""
        while not condition():
            await self._changed.wait()

    async def ended(self, going: Going) -> None:
        """Wait until nothing of assignments, which are dropped, is being written any more."""
        await self.until(lambda: not self._core.flushes.is_writing(going))

    def store_all(self) -> None:
        """From now on write whatever there is at once, however little."""
        self._core.flushes.everything = True
        self._core.kick()

    def store_as_usual(self) -> None:
        """Let buffers fill again, as before `store_all`."""
        self._core.flushes.everything = False

    async def flush_everything(self) -> None:
        """Write all that is in memory; returns when it is durable."""
        self.store_all()
        await self.until(lambda: not self._core.unstored_bytes)


def _finite(seconds: float) -> float | None:
    """Return a time as `asyncio.wait` takes it: None for ever."""
    return seconds if seconds < math.inf else None
