"""Reads from the store what a daemon refers to: the replies come as if it had sent the bytes.

A reader has a few threads for it while a stream with references is under way, and none otherwise.
The thread that asks for rows owns the windows; the others get pieces to read, and hand back what
they found. A thread that hangs in a store is left to itself: what it was to read counts as failed
after `WAIT_S`, and a daemon is asked for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from cosco.client.read.state.direct_chunk import DirectFailed
from cosco.client.read.state.direct_stores import PAUSE_S, DirectStores
from cosco.client.read.state.direct_window import DirectWindow, Piece
from cosco.client.rpc.scope import Scope
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchRequest

if TYPE_CHECKING:
    from cosco.client.read.store_files import StoreFiles

_LOG: Final = logging.getLogger("cosco")

#: What a reader reads at a time, each by a thread.
AT_ONCE: Final = 4
#: What all pieces of a reader hold together, but for one of each stream that it waits for.
WINDOW_BYTES: Final = 16 << 20
#: How long a piece is waited for.
WAIT_S: Final = 20.0

#: Where this process does not read directly for now.
DIRECT_STORES: Final = DirectStores()


class _Task(NamedTuple):
    """A piece to read, of a store, and where to hand back what was found."""

    store_id: str
    piece: Piece
    found: SimpleQueue[_Found | None]


class _Found(NamedTuple):
    piece: Piece
    data: memoryview | None
    failure: str


def note_failure(store_id: str, reason: str) -> None:
    """Leave a store alone for a while, and say so once."""
    if DIRECT_STORES.failed(store_id, time.monotonic()):
        _LOG.warning(
            "rows are not read directly from store %s for %g s, daemons send them: %s",
            store_id,
            PAUSE_S,
            reason,
        )


class DirectReads:
    """Reads from stores for one reader, which may have several streams under way."""

    def __init__(self, scope: Scope) -> None:
        """Begin without threads."""
        self._scope = scope
        self._lock = threading.Lock()
        self._windows: dict[DirectWindow, None] = {}
        self._files: StoreFiles | None = None
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = 0
        #: Bytes that were read from stores, by streams that have ended.
        self.bytes_read = 0

    def replies(
        self,
        replies: Generator[wire.FetchReply, None, None],
        request: FetchRequest,
        store_id: str,
    ) -> Generator[wire.FetchReply, None, None]:
        """Yield the replies to a request with the bytes in the place of references.

        Raises: DirectFailed where that is not possible, ClientClosed, and what `replies` raises.
        """
        window = DirectWindow(request)
        found = _Answers()
        with closing(replies):
            self._windows[window] = None
            self._scope.add_call(found)
            try:
                yield from self._each(replies, window, store_id, found)
            finally:
                self._scope.remove_call(found)
                self._leave(window)

    def _each(
        self,
        replies: Iterator[wire.FetchReply],
        window: DirectWindow,
        store_id: str,
        found: _Answers,
    ) -> Iterator[wire.FetchReply]:
        is_over = False
        while True:
            found.note(window, wait_s=0.0)
            self._begin_reads(window, store_id, found)
            if not is_over and window.wants_more and (self._room() > 0 or window.is_empty):
                try:
                    window.add(next(replies))
                except StopIteration:
                    is_over = True
                continue
            if window.is_ready:
                yield from window.pop()
                continue
            if window.is_empty:
                return
            self._scope.check()  # it may have been closed before the last look at what was found
            if not found.note(window, wait_s=WAIT_S):
                raise DirectFailed(f"nothing came from it for {WAIT_S:g} s")

    def _room(self) -> int:
        return WINDOW_BYTES - sum(window.held_bytes for window in list(self._windows))

    def _begin_reads(self, window: DirectWindow, store_id: str, found: _Answers) -> None:
        while sum(len(one.under_way) for one in list(self._windows)) < AT_ONCE or (
            not window.under_way
        ):
            piece = window.next_piece(self._room())
            if piece is None:
                return
            with self._lock:
                if self._threads < AT_ONCE:
                    self._start_thread()
            self._tasks.put(_Task(store_id, piece, found.queue))

    def _start_thread(self) -> None:
        if self._files is None:
            # Its libraries are for those who read directly alone.
            from cosco.client.read.store_files import StoreFiles  # noqa: PLC0415

            self._files = StoreFiles()
        thread = threading.Thread(
            target=_read_pieces, args=(self._tasks, self._files), name="cosco-direct", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system gives no more
            if not self._threads:
                raise DirectFailed("no thread could be started for it") from None
        else:
            self._threads += 1

    def _leave(self, window: DirectWindow) -> None:
        """Forget a window; with the last one the threads end, as soon as they can."""
        with self._lock:
            self._windows.pop(window, None)
            self.bytes_read += window.read_bytes
            if self._windows:
                return
            threads, self._threads = self._threads, 0
            tasks, self._tasks = self._tasks, SimpleQueue()
            files, self._files = self._files, None
        with suppress(Empty):  # what nobody waits for any more
            while True:
                tasks.get(block=False)
        for _ in range(threads):
            tasks.put(None)
        if files is not None:
            files.close()


class _Answers:
    """What was found of one window, until its reader comes for it; closing the scope wakes it."""

    def __init__(self) -> None:
        self.queue: Final[SimpleQueue[_Found | None]] = SimpleQueue()

    def cancel(self) -> None:
        """Wake who waits; takes no lock."""
        self.queue.put(None)

    def note(self, window: DirectWindow, *, wait_s: float) -> bool:
        """Tell a window what was found, waiting for the first.

        Returns: whether there was anything, if only that the reader is closed.
        """
        has_any = False
        while True:
            try:
                if has_any or not wait_s:
                    found = self.queue.get(block=False)
                else:
                    found = self.queue.get(timeout=wait_s)
            except Empty:
                return has_any
            has_any = True
            if found is not None:
                window.was_read(*found)


def _read_pieces(tasks: SimpleQueue[_Task | None], files: StoreFiles) -> None:
    """Read one piece after another, until there are none to come."""
    while (task := tasks.get()) is not None:
        piece, data, failure = task.piece, None, ""
        try:
            data = files.read(task.store_id, piece.file, piece.offset, piece.length)
        except DirectFailed as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001  whatever it is, a daemon can be asked
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            failure = f"{piece.file.reference.path}: {type(error).__name__}: {why}"
        task.found.put(_Found(piece, data, failure))
