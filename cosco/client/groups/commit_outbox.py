"""What is told to the metadata service a little later, in batches, by a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from cosco.errors import CoscoError, ServiceUnavailable

_T = TypeVar("_T")
_LOG = logging.getLogger("cosco")

#: Told together at most, and kept while they wait; one item may have more bytes.
MAX_BATCH: Final = 512
MAX_BATCH_BYTES: Final = 8 << 20
MAX_WAITING: Final = 8192
MAX_WAITING_BYTES: Final = 64 << 20
#: The deadline of one try, and of one in a process that ends.
_TRY_S: Final = 10.0
_EXIT_TRY_S: Final = 2.0
#: A process that ends tries so long to tell what is left.
_EXIT_PATIENCE_S: Final = 4.0
_PAUSE_S: Final = 0.1


class Batches(Generic[_T]):
    """Items that are sent together, `within_s` after the first of them was added.

    The thread lives while there is something to send, and a process waits for it when it ends
    in good order: so what was added is not forgotten. An outage of the service is waited for;
    meanwhile items are kept, up to MAX_WAITING or MAX_WAITING_BYTES, and then `add` waits as well.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[_T], float], None],
        *,
        within_s: float,
        patience_s: float,
        bytes_of: Callable[[_T], int] = lambda _: 0,
    ) -> None:
        """`send` tries once, for so many seconds at most. It may raise ServiceUnavailable, and is
        called again then, until that has lasted for `patience_s`: then those who wait in `add`
        or `flush` get the error. `bytes_of`: what an item takes, here and in a message, as a
        bound."""
        self._name = name
        self._send = send
        self._within_s = within_s
        self._patience_s = patience_s
        self._bytes_of = bytes_of
        self._changed = threading.Condition()
        self._items: deque[_T] = deque()
        self._bytes = 0  # of them
        self._added = self._done = 0
        self._is_hurried = False
        self._failure: CoscoError | None = None
        self._thread: threading.Thread | None = None

    def add(self, item: _T) -> None:
        """Have an item sent. Raises ServiceUnavailable when too many wait already."""
        with self._changed:
            self._begin()
            while len(self._items) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
                self._wait()
            was_full = self._is_full()
            self._items.append(item)
            self._bytes += self._bytes_of(item)
            self._added += 1
            if self._is_full() and not was_full:
                self._changed.notify_all()

    def flush(self) -> None:
        """Return when all that was added before is sent; raises ServiceUnavailable."""
        with self._changed:
            target = self._added
            while self._done < target:
                self._begin()
                if not self._is_hurried:  # else those who flush would wake each other for ever
                    self._is_hurried = True
                    self._changed.notify_all()
                self._wait()

    def _begin(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=False)
            thread.start()  # not before it is there does anybody count on it
            self._failure, self._thread = None, thread

    def _wait(self) -> None:
        self._changed.wait()
        if self._failure is not None:
            raise self._failure

    def _is_full(self) -> bool:
        """Whether there is a batch to send."""
        return len(self._items) >= MAX_BATCH or self._bytes >= MAX_BATCH_BYTES

    def _take(self) -> list[_T]:
        batch: list[_T] = []
        left = MAX_BATCH_BYTES
        while self._items and len(batch) < MAX_BATCH:
            left -= self._bytes_of(self._items[0])
            if batch and left < 0:
                break
            batch.append(self._items.popleft())
        self._bytes -= sum(map(self._bytes_of, batch))
        return batch

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_hurried or self._is_full(), self._within_s)
                batch = self._take()
                if not batch:
                    self._is_hurried = False
                    self._thread = None
                    return
            failure = self._sent(batch)
            with self._changed:
                if failure is not None:
                    _LOG.warning("%s: %d are not sent: %s", self._name, len(batch), failure)
                    self._items.extendleft(reversed(batch))
                    self._bytes += sum(map(self._bytes_of, batch))
                    self._failure, self._thread = failure, None
                else:
                    self._done += len(batch)
                self._changed.notify_all()
                if failure is not None:
                    return

    def _sent(self, batch: Sequence[_T]) -> CoscoError | None:
        """Send a batch, however long the service is away; why that could not be."""
        began = time.monotonic()
        while True:
            is_ending = not threading.main_thread().is_alive()
            try:
                self._send(batch, _EXIT_TRY_S if is_ending else _TRY_S)
            except ServiceUnavailable as error:
                patience_s = min(self._patience_s, _EXIT_PATIENCE_S if is_ending else float("inf"))
                if not error.retriable or time.monotonic() - began >= patience_s:
                    return error
                time.sleep(_PAUSE_S)
            except CoscoError as error:
                return error
            except Exception as error:  # noqa: BLE001  whoever waits must not wait for ever
                return ServiceUnavailable(f"{type(error).__name__}: {error}", retriable=False)
            else:
                return None
