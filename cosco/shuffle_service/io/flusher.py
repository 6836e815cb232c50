"""Writes chunks to the store: a few at a time, the largest first when memory is short.

A write that fails is repeated at the same place; the chunk's pages keep the rows meanwhile,
so nothing acknowledged is lost by a full disk. What waits for pages is told how long the
store has been failing, and gives up by its own rule.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from cosco.dfs import Store
from cosco.errors import CapacityExceeded
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.page_waiters import PageWaiters
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.core import DaemonCore, Flush

log = logging.getLogger(__name__)

#: A store that takes nothing for so long is said to be failing.
FAILING_AFTER_S: Final = 2.0

_RETRY_MIN_S: Final = 0.05
_RETRY_MAX_S: Final = 2.0


class Flusher:
    """`writers` tasks that write what `core` says; `kick` after anything changed.

    With `idle_s` they write everything when nothing was `taken` for so many seconds.
    """

    def __init__(
        self,
        core: DaemonCore,
        store: Store,
        waiters: PageWaiters,
        metrics: DaemonMetrics,
        writers: int,
        idle_s: float = 0.0,
    ) -> None:
        self._core = core
        self._store = store
        self._waiters = waiters
        self._metrics = metrics
        self._writers = writers
        self._idle_s = idle_s
        self._is_idle = False
        self._taken = asyncio.Event()
        self._work = asyncio.Event()
        self._everything = False
        self._under_way: dict[Chunk, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        #: Since when (monotonic seconds) no write has succeeded, and why; None while it works.
        self.failing_since: float | None = None
        self.failure = ""

    def failing(self, now: float, patience_s: float = FAILING_AFTER_S) -> bool:
        """Whether the store has taken nothing for so long, up to `now` (monotonic seconds)."""
        return self.failing_since is not None and now - self.failing_since >= patience_s

    def before_wait(self, patience_s: float, why: str) -> None:
        """Somebody is about to wait for pages: look for something to write.

        Raises CapacityExceeded, which begins with `why`, when the store took nothing for so long.
        """
        self.kick()
        if self.failing(time.monotonic(), patience_s):
            raise CapacityExceeded(
                f"{why} the store takes nothing ({self.failure}); free space there or add daemons"
            )

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(), name=f"flush-{n}") for n in range(self._writers)
        ]
        if self._idle_s:
            self._tasks.append(asyncio.create_task(self._watch(), name="flush-idle"))

    def tasks(self) -> list[asyncio.Task[None]]:
        """For the server to watch: none of them ever ends by itself."""
        return self._tasks

    def kick(self) -> None:
        """Look for something to write."""
        self._work.set()

    def taken(self) -> None:
        """A frame was taken in: look for something to write, and do not count as idle."""
        self._is_idle = False
        self._taken.set()
        self.kick()

    async def _watch(self) -> None:
        """Be idle from `idle_s` seconds after a frame on, until there is another one."""
        while True:
            await self._taken.wait()
            self._taken.clear()
            try:
                await asyncio.wait_for(self._taken.wait(), self._idle_s)
            except TimeoutError:
                self._is_idle = True
                self.kick()

    async def _run(self) -> None:
        while True:
            flush = self._core.next_flush(
                everything=self._everything or self._is_idle,
                waiting_bytes=self._waiters.waiting_bytes,
            )
            if flush is None:
                self._work.clear()
                await self._work.wait()
                continue
            done = self._under_way[flush.chunk] = asyncio.Event()
            try:
                stored = await self._write(flush)
            finally:
                del self._under_way[flush.chunk]
                done.set()
            body_bytes = flush.chunk.body_bytes
            self._core.end_flush(flush)
            if stored:
                self._metrics.chunks_stored.inc()
                self._metrics.bytes_stored.inc(body_bytes)
            self._waiters.wake()
            self.kick()  # the same buffer may be full again, and others wait for this event

    async def _write(self, flush: Flush) -> bool:
        """Write until it is durable; False if the exchange was dropped meanwhile."""
        delay_s = _RETRY_MIN_S
        while not flush.chunk.is_dropped():
            try:
                await self._store.append(flush.buffer.path, flush.chunk.offset, flush.parts)
            except (OSError, ValueError) as error:
                if flush.chunk.offset and isinstance(error, FileNotFoundError | ValueError):
                    # Somebody deleted the file, or cut it short. What it held is lost, and
                    # readers are told; what comes next must not wait for it.
                    flush = self._core.restart_file(flush)
                self._metrics.flush_failures.inc()
                if self.failing_since is None:
                    self.failing_since = time.monotonic()
                    log.warning("store %s takes no chunk: %s", self._store.url, error)
                self.failure = getattr(error, "strerror", None) or str(error)
                self._waiters.wake()  # they may want to give up
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            else:
                if self.failing_since is not None:
                    log.warning("store %s takes chunks again", self._store.url)
                    self.failing_since = None
                return not flush.chunk.is_dropped()
        self.failing_since = None  # if it is still true, the next write finds out
        return False

    async def ended(self, chunks: list[Chunk]) -> None:
        """Wait until none of these chunks is being written any more."""
        for chunk in chunks:
            done = self._under_way.get(chunk)
            if done is not None:
                await done.wait()

    def store_all(self) -> None:
        """From now on write whatever there is at once, however little."""
        self._everything = True
        self.kick()

    async def flush_everything(self) -> None:
        """Write all that is in memory; returns when it is durable."""
        self.store_all()
        while self._core.unstored_bytes:
            await self._waiters.changed()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
