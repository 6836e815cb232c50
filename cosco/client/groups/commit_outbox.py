"""What the metadata service is told a little later, in batches: the commits of groups above all.

A writer of a group commits a moment after its rows are readable, together with others of the
process.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from cosco.client.access.service_connection import Connection, Place, connection_to
from cosco.client.rpc.fork_gate import ProcessWide, process_wide
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import AccessDenied, CoscoError, ExchangeClosed, ServiceUnavailable
from cosco.protocol.records import CommitRequest

_T = TypeVar("_T")
_LOG = logging.getLogger("cosco")

#: A commit is on its way this soon.
COMMIT_WITHIN_S: Final = 0.1
#: Bounds of one batch; a single item may have more bytes.
MAX_BATCH: Final = 512
MAX_BATCH_BYTES: Final = 8 << 20
#: Bounds of what is kept while it waits.
MAX_WAITING: Final = 8192
MAX_WAITING_BYTES: Final = 64 << 20
#: The deadline of one try, and of one in a process that ends.
_TRY_S: Final = 10.0
_EXIT_TRY_S: Final = 2.0
#: How long a process that ends tries to send what is left.
_EXIT_PATIENCE_S: Final = 4.0
_PAUSE_S: Final = 0.1


class BatchOutbox(Generic[_T]):
    """Items that are sent together, `within_s` after the first of them was added.

    A thread of its own sends them. It lives while there is something to send, and a process
    waits for it when it ends in good order: so what was added is not forgotten. An outage of the
    service is waited for; meanwhile items are kept, up to MAX_WAITING or MAX_WAITING_BYTES, and
    then `add` waits as well.
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
        """Begin without a thread.

        send: tries once, for at most the seconds it is given. When it raises ServiceUnavailable it
        is called again, until that has lasted for `patience_s`: then those who wait in `add` or
        `flush` get the error. bytes_of: at most what an item takes, here and in a message.
        """
        self._name = name
        self._send = send
        self._within_s = within_s
        self._patience_s = patience_s
        self._bytes_of = bytes_of
        self._changed = threading.Condition()
        self._items: deque[_T] = deque()
        self._bytes = 0  # of the items
        self._added = self._done = 0
        self._is_hurried = False
        self._failure: CoscoError | None = None
        self._thread: threading.Thread | None = None

    def add(self, item: _T) -> None:
        """Have an item sent.

        Raises: ServiceUnavailable when too many wait already.
        """
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
        """Wait until all that was added before is sent.

        Raises: ServiceUnavailable.
        """
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
            thread.start()  # only a thread that runs is counted on
            self._failure, self._thread = None, thread

    def _wait(self) -> None:
        self._changed.wait()
        if self._failure is not None:
            raise copy.copy(self._failure)  # each of those who wait says where

    def _is_full(self) -> bool:
        """Whether there is a whole batch to send."""
        return len(self._items) >= MAX_BATCH or self._bytes >= MAX_BATCH_BYTES

    def _next_batch(self) -> list[_T]:
        """Remove the oldest items, as many as a message may have."""
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
                batch = self._next_batch()
                if not batch:
                    self._is_hurried = False
                    self._thread = None
                    return
            failure = self._deliver(batch)
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

    def _deliver(self, batch: Sequence[_T]) -> CoscoError | None:
        """Send a batch, and wait for a service that is away while there is patience.

        Returns: why it could not be sent; None if it was.
        """
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


class OutgoingCommit(NamedTuple):
    """A commit, and as whom it is told: those of several parts of groups go together."""

    connection: Connection
    commit: CommitRequest


class CommitOutboxes(ProcessWide):
    """The commits of this process that are to be sent, an outbox for each metadata service."""

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._table: dict[Place, BatchOutbox[OutgoingCommit]] = {}

    def of(self, metadata: Connection | str, patience_s: float) -> BatchOutbox[OutgoingCommit]:
        """Return the one for a metadata service, whoever calls it."""
        place = connection_to(metadata).place
        with self._lock:
            found = self._table.get(place)
            if found is None:
                found = self._table[place] = BatchOutbox(
                    "cosco-commit",
                    partial(_send_commits, patience_s),
                    within_s=COMMIT_WITHIN_S,
                    patience_s=patience_s,
                    bytes_of=lambda item: _bytes_of(item.commit),
                )
            return found


def _send_commits(patience_s: float, batch: Sequence[OutgoingCommit], try_s: float) -> None:
    by_caller: dict[object, list[OutgoingCommit]] = {}
    for item in batch:
        by_caller.setdefault(item.connection.whole, []).append(item)
    denied: AccessDenied | None = None
    for items in by_caller.values():
        connection, commits = items[0].connection, [item.commit for item in items]
        try:
            _send_as(connection, patience_s, commits, try_s)
        except ExchangeClosed as error:
            _LOG.debug("%d commits came after the end of their group: %s", len(commits), error)
        except AccessDenied as error:
            if not connection.capability:  # a token may be replaced, what a handle has is not
                denied = error
                continue
            _LOG.warning("%d mappers of groups are not committed: %s", len(commits), error)
    if denied is not None:  # when all others have committed: to commit twice harms nobody
        raise denied


def _send_as(
    connection: Connection, patience_s: float, commits: Sequence[CommitRequest], try_s: float
) -> None:
    # Connected only while it is needed; whoever gave the handle has met the service.
    scope = Scope("the commits of groups", "")
    metadata = MetadataClient(connection, scope, patience_s)
    metadata.set_met()
    try:
        results = metadata.commit_batch(commits, try_s=try_s)
    finally:
        metadata.close()
    for commit, result in zip(commits, results, strict=True):
        if isinstance(result.error, ExchangeClosed):
            _LOG.debug("a commit to exchange %d came after its end", commit.number)
        elif result.error is not None:
            _LOG.warning(
                "mapper %d of exchange %d is not committed: %s",
                commit.mapper, commit.number, result.error,
            )  # fmt: skip


def _bytes_of(commit: CommitRequest) -> int:
    """Return the bytes of a commit's arrays, which are nearly all of it, here and in a message."""
    sums = commit.sums
    arrays = (commit.acknowledged, sums.partitions, sums.rows, sums.raw_bytes)
    return sum(one.nbytes for one in (*arrays, sums.stored_bytes, sums.digests))


COMMIT_OUTBOXES: Final = process_wide(CommitOutboxes())
