"""Writes chunks to the store, a few at a time, as `cosco.shuffle_service.state.flush_plan` says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from cosco.dfs import Store
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.task_runner import TaskRunner
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.flush_plan import Flush

log = logging.getLogger(__name__)


class Flusher(TaskRunner):
    """`writers` tasks that write what `core` says; `start` to `stop` once."""

    def __init__(
        self, core: DaemonCore, store: Store, metrics: DaemonMetrics, writers: int
    ) -> None:
        super().__init__()
        self._core = core
        self._store = store
        self._metrics = metrics
        self._writers = writers
        self._work = asyncio.Event()
        self._changed = asyncio.Event()
        core.on_work = self._work.set
        core.on_change = self._on_change

    def start(self) -> None:
        """Begin to write."""
        for n in range(self._writers):
            self.run(f"flush-{n}", self._write_chunks())
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

    async def _write_chunks(self) -> None:
        while True:
            flush = self._core.next_flush()
            if flush is None:
                self._work.clear()
                await self._work.wait()
                continue
            await self._write(flush)
            body_bytes = flush.chunk.body_bytes
            if self._core.end_flush(flush, time.monotonic()):
                self._metrics.chunks_stored.inc()
                self._metrics.bytes_stored.inc(body_bytes)

    async def _write(self, flush: Flush) -> None:
        """Write until it is durable, or its exchange dropped."""
        flushes = self._core.flushes
        while not flush.chunk.is_dropped():
            try:
                await self._store.append(flush.buffer.path, flush.chunk.offset, flush.parts)
            except (OSError, ValueError) as error:
                self._metrics.flush_failures.inc()
                if flushes.failing_since is None:
                    log.warning("store %s takes no chunk: %s", self._store.url, error)
                self._core.flush_failed(flush, error, time.monotonic())
                await asyncio.sleep(flush.retry_s)
            else:
                if flushes.failing_since is not None:
                    log.warning("store %s takes chunks again", self._store.url)
                return

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes with what is held or stored."""
        while not condition():
            await self._changed.wait()

    async def ended(self, chunks: list[Chunk]) -> None:
        """Wait until none of these chunks is being written any more."""
        await self.until(lambda: all(chunk.buffer.flushing is not chunk for chunk in chunks))

    def store_all(self) -> None:
        """From now on write whatever there is at once, however little."""
        self._core.flushes.everything = True
        self._core.kick()

    async def flush_everything(self) -> None:
        """Write all that is in memory; returns when it is durable."""
        self.store_all()
        await self.until(lambda: not self._core.unstored_bytes)
