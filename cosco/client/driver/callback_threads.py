"""The threads on which a driver's callbacks run: there while there is something to call."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_C = TypeVar("_C")


class CallbackThreads(Generic[_C]):
    """Runs calls: those of one queue one at a time, in order, those of others beside them.

    A queue has a thread while it has calls, so there are as many threads as queues with calls: they
    must not wait for each other, as what one callback arranges may be what another one waits for.
    """

    def __init__(self, run: Callable[[_C], None]) -> None:
        """`run`: called for each call; whatever it raises is its own affair."""
        self._run = run
        self._lock = threading.Lock()
        self._queues: dict[Hashable, deque[_C]] = {}
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether a call runs, or waits for one that does."""
        return bool(self._queues)

    def add(self, queue: Hashable, call: _C) -> None:
        """Have a call run after those of its queue that came before.

        Raises RuntimeError when no thread can be started for it.
        """
        with self._lock:
            if queue not in self._queues:
                # It begins by taking the lock. Nothing is in a queue before it has a thread: what
                # another caller adds meanwhile would go with the queue if none can be started.
                threading.Thread(
                    target=self._work, args=(queue,), name="cosco-recompute", daemon=True
                ).start()
                self._queues[queue] = deque()
            self._queues[queue].append(call)

    def close(self) -> None:
        """Begin no other call; one that runs is not waited for."""
        self._is_closed = True

    def _work(self, queue: Hashable) -> None:
        while True:
            with self._lock:
                calls = self._queues[queue]
                if self._is_closed or not calls:
                    del self._queues[queue]
                    return
                call = calls.popleft()
            self._run(call)
