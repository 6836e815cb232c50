"""Who may read: one call at a time makes one pass, and what broke off stays broken off."""

from __future__ import annotations

import copy
import inspect
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from functools import partial
from operator import length_hint
from typing import Any, Final, TypeVar

import pyarrow as pa

from cosco.client.read.row_source import RowSource
from cosco.client.read.row_steps import RowSteps
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ClientClosed, CoscoError, InvalidArgument
from cosco.process.tracing.spans import NO_SPAN, Span

_T = TypeVar("_T")

#: What there is after the last block.
_NO_ROWS: Final[Iterator[bytes]] = iter(())


class _Items(Iterator[_T]):
    """The batches, or tables, of a reader, which is in use as long as they are."""

    def __init__(self, reading: Reading, stream: Generator[_T, None, None], reader: object) -> None:
        self._reading = reading
        self._stream = stream
        self._reader = reader

    def __next__(self) -> _T:
        reading = self._reading
        reading.advance(self._stream)
        if reading.found is None:
            raise StopIteration
        # No call may come after this, where it could be interrupted: the item would be lost.
        item: _T
        item, reading.found = reading.found, None
        return item

    def close(self) -> None:
        """Give up what is left, as the `close` of a generator does."""
        if inspect.getgeneratorstate(self._stream) != inspect.GEN_CLOSED:  # or it came to its end
            self._reading.interrupted(GeneratorExit())
            self._reading.end_stream()


class _Alone:
    """A block in which nobody else reads.

    Not made by contextlib: a small reader would pay more for that than for all its rows.
    """

    __slots__ = ("_reading",)

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __enter__(self) -> None:
        self._reading.enter()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._reading.leave()


class Reading:
    """What a reader does, without the reader: one pass over its partitions.

    Whoever is in a step of it is alone: another call that comes meanwhile, of whichever thread, is
    refused and changes nothing.
    """

    def __init__(
        self, source: RowSource, metadata: MetadataClient, scope: Scope, span: Span = NO_SPAN
    ) -> None:
        """Begin without a pass. span: of the whole reader."""
        self.shuffle_id: Final = scope.shuffle_id
        self.source: Final = source
        self._metadata = metadata
        self._scope = scope
        self._span = span
        self._mode: str | None = None
        self._broken: CoscoError | None = None
        self._inside = threading.Lock()  # never waited for
        self._stream: Generator[Any, None, None] | None = None  # of the pass
        #: What is to be given next, if not rows.
        self.found: Any = None
        # What is left of the block that was given last: a chain that was dropped, or lost it to
        # another thread, has not given all of it.
        self._block: Iterator[bytes] = iter(())
        # The sign of the rows that a caller was given last, and the thread of that caller.
        self._loop: tuple[weakref.ref[Any], threading.Thread] | None = None

    @property
    def has_loop(self) -> bool:
        """Whether a caller has rows that have not come to their end."""
        return self._loop is not None and self._loop[0]() is not None

    def rows(self, reader: object | None) -> RowSteps:
        """Return the rows that are left; as a loop of a caller's if its `reader` is given."""
        if self._loop is not None and self.has_loop and self._broken is None:
            owner = self._loop[1]
            if owner is not threading.current_thread() and owner.is_alive():
                raise self._in_use(f"thread {owner.name!r} iterates over it")
        self._begin("rows", self.source.rows)
        steps = RowSteps(self._fill, reader)
        if reader is not None:
            self._loop = steps.sign, threading.current_thread()
        return steps

    def batches(
        self, max_bytes: int, reader: object, *, is_ordered: bool
    ) -> Iterator[pa.RecordBatch]:
        """Return all rows as batches."""
        make = partial(self.source.batches, max_bytes, is_ordered=is_ordered)
        return _Items(self, self._begin("batches", make), reader)

    def tables(self, reader: object, *, is_ordered: bool) -> Iterator[tuple[int, pa.Table]]:
        """Return each partition with its table."""
        make = partial(self.source.tables, is_ordered=is_ordered)
        return _Items(self, self._begin("tables", make), reader)

    def table(self, *, is_ordered: bool) -> pa.Table:
        """Return all rows as a table."""
        self.advance(self._begin("batches", partial(self.source.table, is_ordered=is_ordered)))
        table, self.found = self.found, None
        self.end_stream()  # which holds it as well
        return table

    def advance(self, stream: Iterator[Any]) -> None:
        """Find the next of a stream, or None at its verified end, unless it was not popped yet."""
        with _Alone(self):
            try:
                if self.found is None:
                    self.found = next(stream, None)
            except BaseException as error:
                self._broke(error)
                raise

    def interrupted(self, error: BaseException) -> None:
        """Take note that a call for one row ended by `error`, perhaps after it had the row."""
        if not isinstance(error, CoscoError | StopIteration):
            self._break_off(error)

    def close(self) -> None:
        """End the pass, and give up the connections."""
        self._scope.close()
        self.source.close()
        self._metadata.close()
        self.end_stream()
        self._span.end()

    # --- one at a time ----------------------------------------------------------------------

    def _fill(self, steps: RowSteps) -> None:
        """Find the rows that a chain goes on with."""
        with _Alone(self):
            if steps.is_full:
                raise self._in_use("another thread reads it at this moment")
            try:
                if not length_hint(self._block):
                    assert self._stream is not None
                    self._block = next(self._stream, _NO_ROWS)
                steps.put(None if self._block is _NO_ROWS else self._block)
            except BaseException as error:
                self._broke(error)
                raise

    def _begin(
        self, mode: str, make: Callable[[], Generator[_T, None, None]]
    ) -> Generator[_T, None, None]:
        """Return the stream of the pass; there is one, which rows may go on with."""
        with _Alone(self):
            if self._mode is None:
                self._mode, self._stream = mode, make()
            elif self._mode != mode or mode != "rows":
                raise InvalidArgument(
                    f"this CoscoReader was read by {self._mode} already, it makes one pass: make "
                    "another reader"
                ).place(self.shuffle_id, self.source.partition)
            assert self._stream is not None
            return self._stream

    def enter(self) -> None:
        """Be the only one that reads, or raise; see `_Alone`."""
        if not self._inside.acquire(blocking=False):
            raise self._in_use("another call reads it at this moment")
        try:
            if self._broken is not None:
                raise copy.copy(self._broken)
            self._scope.check()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Let others read; see `_Alone`."""
        self._inside.release()
        if self._scope.is_closed:  # by another thread, which found this one inside
            self.end_stream()

    def _broke(self, error: BaseException) -> None:
        """Remember an error: what did not come to its verified end may not seem to later."""
        if isinstance(error, CoscoError):
            self._broken = error.place(self.shuffle_id, self.source.present)
        else:
            self._break_off(error)
        self._span.end(error)

    def _break_off(self, error: BaseException) -> None:
        self._broken = self._broken or ClientClosed(
            f"broken off by {type(error).__name__}: make another reader"
        ).place(self.shuffle_id, self.source.partition)

    def _in_use(self, how: str) -> InvalidArgument:
        return InvalidArgument(
            f"this CoscoReader is in use, {how}: one thread at a time may read, and may hand it "
            "on when its loop is over"
        ).place(self.shuffle_id, self.source.partition)

    def end_stream(self) -> None:
        """End a pass before its end, unless a step of it is under way, which then does so."""
        if self._stream is not None and self._inside.acquire(blocking=False):
            try:
                stream, self._stream = self._stream, None
                if stream is not None:
                    stream.close()
                    self.source.end_pass()  # what raised may be kept, with all that it was in
            finally:
                self._inside.release()
