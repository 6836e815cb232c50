"""The threads of a store: as many as it is told, none of which keeps a process from ending.

A thread that hangs in a call of the kernel can be neither ended nor waited for, so these are
daemon threads, which `concurrent.futures` has none of: it joins its threads when the interpreter
ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from cosco.dfs.under_way import CallsUnderWay

T = TypeVar("T")


class StoreThreads:
    """At most `count` threads, made as they are needed; used from one event loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._idle = threading.Semaphore(0)
        self._in_threads: set[Future[Any]] = set()
        self._under_way = CallsUnderWay()
        self._is_closed = False

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a call in a thread; one that is cancelled before a thread is free is not run.

        A cancel reaches the threads with the next turn of the loop.
        """
        if self._is_closed:
            raise RuntimeError("a call of a store that is closed")
        called: Future[T] = Future()
        self._in_threads.add(called)
        called.add_done_callback(self._in_threads.discard)
        self._calls.put((called, function))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name="cosco-store", daemon=True)
            self._threads.append(thread)
            thread.start()
        return asyncio.wrap_future(called)

    async def to_the_end(self, call: asyncio.Future[T]) -> T:
        """Wait for a call that uses the caller's memory. A cancelled wait ends after it, too.

        Or once the threads are abandoned: then the memory stays in use.
        """
        return await self._under_way.to_the_end(call)

    async def close(self) -> None:
        """Wait for the calls under way and end the threads; repeatable.

        When this is cancelled the calls under way are abandoned: nobody waits for them any more,
        and they may go on for as long as the process lives.
        """
        self._is_closed = True
        try:
            await self._under_way.wait(map(asyncio.wrap_future, list(self._in_threads)))
        finally:
            for _ in self._threads:
                self._calls.put(None)
            self._threads.clear()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            called, function = call
            if called.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001  whoever waits is told
                    called.set_exception(error)
                else:
                    called.set_result(result)
                    del result
            del called, function, call
            self._idle.release()
