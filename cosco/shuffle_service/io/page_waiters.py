"""Who waits for pages: frames that came when the pool was full, in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class PageWaiters:
    """First come, first served: a frame that needs little does not overtake one that needs
    much, so none starves."""

    def __init__(self) -> None:
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self._changed = asyncio.Event()
        self.waiting_bytes = 0

    def wake(self) -> None:
        """Pages were freed, or something else changed that a waiter looks at."""
        self._changed.set()
        self._changed = asyncio.Event()
        if self._queue and not self._queue[0][0].done():
            self._queue[0][0].set_result(None)

    async def changed(self) -> None:
        """Wait for the next `wake`."""
        await self._changed.wait()

    async def take_turns(
        self, length: int, attempt: Callable[[], bool], waiting: Callable[[], None]
    ) -> None:
        """Call `attempt` until it returns True, whenever pages were freed and it is our turn.

        `waiting` is called before each wait; what it raises ends the wait. `length` is what
        is waited for, in bytes, so that so much is flushed.
        """
        if not self._queue and attempt():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((turn, length))
        self.waiting_bytes += length
        try:
            while True:
                if self._queue[0][0] is turn and attempt():
                    return
                waiting()
                await turn
                turn = asyncio.get_running_loop().create_future()
                self._queue[0] = (turn, length)
        finally:
            self._remove(turn)
            self.waiting_bytes -= length
            self.wake()  # the next in the queue may fit

    def _remove(self, turn: asyncio.Future[None]) -> None:
        for index, (future, _) in enumerate(self._queue):
            if future is turn:
                del self._queue[index]
                return
