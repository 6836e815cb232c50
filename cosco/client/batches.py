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

#: Told together at most, and kept while they wait.
MAX_BATCH: Final = 512
MAX_WAITING: Final = 8192
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
    meanwhile items are kept, up to MAX_WAITING, and then `add` waits as well.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[_T], float], None],
        *,
        within_s: float,
        patience_s: float,
    ) -> None:
        """`send` tries once, for so many seconds at most. It may raise ServiceUnavailable, and is
        called again then, until that has lasted for `patience_s`: then those who wait in `add`
        or `flush` get the error."""
        self._name = name
        self._send = send
        self._within_s = within_s
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._items: deque[_T] = deque()
        self._added = self._done = 0
        self._is_hurried = False
        self._failure: CoscoError | None = None
        self._thread: threading.Thread | None = None

    def add(self, item: _T) -> None:
        """Have an item sent. Raises ServiceUnavailable when too many wait already."""
        with self._changed:
            self._begin()
            while len(self._items) >= MAX_WAITING:
                self._wait()
            self._items.append(item)
            self._added += 1
            if len(self._items) == MAX_BATCH:
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

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_hurried or len(self._items) >= MAX_BATCH, self._within_s
                )
                batch = [self._items.popleft() for _ in range(min(MAX_BATCH, len(self._items)))]
                if not batch:
                    self._is_hurried = False
                    self._thread = None
                    return
            failure = self._sent(batch)
            with self._changed:
                if failure is not None:
                    _LOG.warning("%s: %d are not sent: %s", self._name, len(batch), failure)
                    self._items.extendleft(reversed(batch))
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
