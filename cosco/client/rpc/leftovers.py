"""What is left of client objects that were dropped: ended by a thread, never by their finalizer.

A finalizer runs wherever the interpreter collects garbage: on any thread, which may hold any lock
and may be inside gRPC or a fork. All it may do is to append to a queue.
"""

from __future__ import annotations

import _thread
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cosco.client.rpc.fork_gate import ProcessWide, process_wide
from cosco.errors import CoscoError

_EXIT_WAIT_S: Final = 5.0
_LOG = logging.getLogger("cosco")


class Leftovers(ProcessWide):
    """The queue of this process, and a thread that exists while there is work in it."""

    def __init__(self) -> None:
        super().__init__()
        #: Whether the process ends: what is left then ends with it.
        self.is_over = False

    def _reset(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()
        # Held by the thread that works. Nobody waits for it but `close`.
        self._working = threading.Lock()

    def add(self, end: Callable[[], None]) -> None:
        """Have `end` called soon by another thread. A finalizer may call this."""
        self._queue.append(end)
        self._start()

    def close(self) -> None:
        """End what was added, for a process that ends; nothing is taken any more."""
        self.is_over = True
        if self._working.acquire(timeout=_EXIT_WAIT_S):
            self._work()

    def _start(self) -> None:
        """Have a thread work on the queue, unless one does."""
        if not self.is_over and self._working.acquire(blocking=False):
            try:
                # Which takes no lock of Python's, as the start of a `threading.Thread` would.
                _thread.start_new_thread(self._launch, ())
            except RuntimeError:  # there are too many threads: the next one dropped tries again
                self._working.release()

    def _launch(self) -> None:
        """Begin the thread that works, one that `threading` knows."""
        thread = threading.Thread(target=self._work, name="cosco-leftovers", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._working.release()

    def _work(self) -> None:
        while self._queue:
            with suppress(IndexError):
                end = self._queue.popleft()
                try:
                    end()
                except CoscoError as error:
                    _LOG.warning("what was left of a dropped object was not ended: %s", error)
                except Exception:  # noqa: BLE001  the others are ended all the same
                    _LOG.exception("what was left of a dropped object could not be ended")
                del end
        self._working.release()
        if self._queue:  # added after the look at it, by one who found this thread working
            self._start()


LEFTOVERS: Final = process_wide(Leftovers(), at_exit=Leftovers.close)
