"""`CoscoWriter`: one mapper's rows on their way into an exchange."""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from cosco.client.access.service_connection import Connection
from cosco.client.argument_checks import shuffle_name, whole_number
from cosco.client.content.frames import as_arrow_rows
from cosco.client.exchange_spans import WRITE_SPAN, end_aborted, end_committed, opened_attributes
from cosco.client.live_object import LiveObject, weakly
from cosco.client.rpc.fork_gate import ProcessWide, process_wide
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.write.pusher import Pusher
from cosco.client.write.row_kind import RowKindBinding
from cosco.client.write.state.batch_arguments import batch_partitions, check_batch, check_row
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import ArrowPacker, PendingRows, RowPacker
from cosco.errors import ClientClosed, CoscoError, SchemaMismatch
from cosco.process.tracing.spans import Span, SpanStart
from cosco.protocol.api_limits import MAX_MAPPER
from cosco.protocol.records import (
    Commit,
    CommitRequest,
    OpenedAttempt,
    pairs_array,
)

MIN_BUFFER_BYTES: Final = 64 << 10
#: A call of another thread that does not end in this time is taken to be blocked.
_CALL_END_S: Final = 0.5
_MAX_TOLD_CHARS: Final = 300
_LOG = logging.getLogger("cosco")


class Attempts:
    """How a writer's attempt begins, ends and comes to count: by the metadata service.

    Handles whose writers do without it give them another one.
    """

    #: Whether the last frame to each range ends with a mark (`cosco.protocol.mark`).
    has_marks: ClassVar[bool] = False
    #: Whether a column that has no type yet may be given one.
    may_refine: ClassVar[bool] = True

    def open(self, metadata: MetadataClient, shuffle_id: str, mapper: int | None) -> OpenedAttempt:
        """Begin an attempt of `mapper`, or for None of one that is not in use."""
        return metadata.open_attempt(shuffle_id, mapper)

    def count(self, metadata: MetadataClient, commit: CommitRequest) -> bool:
        """Have an attempt counted, all of which is acknowledged.

        Returns: whether it is the mapper's first, as far as is known.
        """
        return metadata.commit(commit)


_BY_SERVICE: Final = Attempts()


class _Writers(ProcessWide):
    """The writers of this process, of which one that is open in the end never commits."""

    def _reset(self) -> None:
        self._all: weakref.WeakSet[CoscoWriter] = weakref.WeakSet()

    def add(self, writer: CoscoWriter) -> None:
        self._all.add(writer)

    def tell(self) -> None:
        """Say which attempts end with the process: it is all that is heard of their rows."""
        for writer in list(self._all):
            if writer._leftover is not None and not writer._scope.is_closed:
                why = "as the process ends and its writer was not closed"
                _tell_of_abort(writer.shuffle_id, writer.mapper, why)


_WRITERS: Final = process_wide(_Writers(), at_exit=_Writers.tell)


class CoscoWriter(LiveObject):
    """One run of a mapper: collects rows, and commits them when it is closed.

        with CoscoWriter("orders", mapper=7) as writer:
            writer.collect(3, b"a row")

    Leaving the block commits; leaving it by an exception aborts, and so does an end of the process
    in it, which the logger `cosco` tells at warning. Rows that were collected are seen by readers
    only once `close` has committed them, and then all of them. A writer that is dropped without
    `close` or `abort` is aborted when it is collected, with a ResourceWarning.

    It holds at most `buffer_bytes` of rows, as many again while they are sorted or joined, and
    a window of 16 MiB of frames that no daemon has acknowledged; `collect` waits while that is
    full. A buffer of the default length or less is kept for the next writer of the process. An
    error of the stream behind it is raised by the next call, and ends the writer. Threads that
    share it lose nothing, and wait for each other only where rows are packed; `abort` may be
    called from any and wakes a call that waits.

    A daemon that is lost is waited for, or another one takes over; what it has not
    acknowledged is sent again, and counts once.

    A mapper that is called back, as rows of it were lost, writes all its rows again as ever;
    those of ranges that are not wanted again are checked and dropped here.
    """

    def __init__(
        self,
        shuffle_id: str,
        mapper: int | None,
        *,
        buffer_bytes: int = 32 << 20,
        metadata: Connection | str | None = None,
        service_timeout_s: float = 300.0,
        _attempts: Attempts = _BY_SERVICE,
    ) -> None:
        """Open an attempt of `mapper`. For None the service chooses an id that is not in use.

        `_attempts` is for handles, which open and count attempts in their own way.

        Raises: ExchangeNotFound, ExchangeClosed, InvalidArgument, ServiceUnavailable.
        """
        self.shuffle_id: Final = shuffle_name(shuffle_id)
        if mapper is not None:
            mapper = whole_number("mapper", mapper, 0, MAX_MAPPER, shuffle_id)
        self._buffer_bytes = whole_number(
            "buffer_bytes", buffer_bytes, MIN_BUFFER_BYTES, None, shuffle_id
        )
        self._attempts = _attempts
        self._connect(shuffle_id, metadata, service_timeout_s, self._inherit)
        with self._opening(), SpanStart(WRITE_SPAN, self.shuffle_id) as start:
            self._opened = _attempts.open(self._metadata, shuffle_id, mapper)
            self._span = start.begin(self._opened.info.spec.trace, opened_attributes(self._opened))
        #: The mapper id, given or chosen.
        self.mapper: Final = self._opened.mapper
        self._row_kind = RowKindBinding(
            self._opened.info, self._metadata, may_refine=_attempts.may_refine
        )
        self._packer: RowPacker | ArrowPacker | None = None
        self._pusher = Pusher(
            self._opened, self._metadata, self._scope, self._service_timeout_s, weakly(self._fail)
        )
        self._failure: CoscoError | None = None
        # Held by whoever uses the writer, also on its way into the fork gate: nothing inside
        # the gate ever waits for it.
        self._using = threading.RLock()
        self._is_closing = False
        self._commit: Commit | None = None
        # What collect adds to without a lock, once there is a packer: see `_arm`.
        self._is_disarmed = False
        self._partitions: Final = self._opened.info.spec.partitions
        self._pairs: list[Any] = []
        self._short_bytes = -1
        self._due_length = 0
        self._begin_life(
            _Dropped(self.mapper, self._pusher, self._metadata, self._span), is_user=True
        )
        _WRITERS.add(self)

    def collect(self, partition: int, row: bytes) -> None:
        """Add a row.

        Raises: PartitionOutOfRange, InvalidRow (SchemaMismatch on an Arrow exchange),
        ClientClosed, or what the pushing of earlier rows failed with.
        """
        if (
            type(row) is bytes
            and type(partition) is int
            and 0 <= partition < self._partitions
            and len(row) <= self._short_bytes
        ):
            # What `PendingRows.add` does: a call more for every row would be felt.
            self._pairs.extend((partition, row))
            if len(self._pairs) >= self._due_length:
                self._join_pending(partition, row)
        else:
            self._collect_any(partition, row)

    def collect_batch(self, partitions: Any, rows: Any) -> None:
        """Add many rows. Nothing of the arguments is kept.

        partitions: one integer a row, as an array, a column or a sequence, or one integer for all
        rows, which costs less than an array of equal ones. rows: an Arrow array of binary or a
        sequence of bytes-like rows, or, for an Arrow exchange, a RecordBatch, a Table or a data
        frame. They are checked before any is added.

        Raises: what `collect` raises.
        """
        with self._using:
            self._check()
            try:
                frames = self._checked_frames(partitions, rows)
            except CoscoError as error:
                error.place(self.shuffle_id)
                raise
            self._send(frames)

    def close(self) -> Commit:
        """Push what is left, wait for every acknowledgement, and commit.

        The first attempt of a mapper to commit wins; `won` tells. `rows` and `bytes`, and by
        partition `partition_rows` and `partition_bytes`, count what was sent: of a mapper called
        back, the rows of the ranges wanted again. May be called again, for the same answer. While
        another thread is blocked in a call, that call and this one raise ClientClosed: rows of a
        broken off call cannot be committed.

        Raises: ClientClosed after `abort`, GenerationChanged if the exchange began anew
        meanwhile, or what pushing failed with: ServiceUnavailable when a daemon or the metadata
        service was out of reach for `service_timeout_s`, CapacityExceeded when no daemon had
        room in that time.
        """
        if self._commit is None:
            self._scope.check_process()
            if not self._using.acquire(timeout=0 if self._is_closing else _CALL_END_S):
                if not self._is_closing:
                    self.abort()
                self._using.acquire()  # aborted, or about to be committed by another thread
            try:
                self._is_closing = True
                if self._commit is None:
                    self._commit = self._close()
            finally:
                self._using.release()
        return self._commit

    def abort(self) -> None:
        """Give the attempt up: none of its rows will be seen. Harmless after `close`."""
        if self._scope.inherited:
            return
        self._disarm()
        self._scope.close()
        self._end()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            super().__exit__(kind, error, traceback)
        else:
            self._abort_by(error)

    # --- packing --------------------------------------------------------------------------

    def _collect_any(self, partition: int, row: bytes) -> None:
        """Collect what is not the most common: a first, a bad or a long row."""
        with self._using:
            self._check()
            try:
                if not self._row_kind.is_decided:
                    check_row(partition, row, partitions=self._partitions)
                packer = self._row_packer()
                is_due = packer.collect(partition, row)
            except CoscoError as error:
                error.place(self.shuffle_id)
                raise
            if is_due:
                self._send(packer.join_pending())
            if not self._opened.partial:
                self._arm(packer.pending)

    def _join_pending(self, partition: int, row: bytes) -> None:
        """Have the pending rows joined, of which this one was added last.

        Raises: ClientClosed if the writer has ended meanwhile without this row.
        """
        with self._using:
            packer = self._row_packer()
            if self._commit is None:
                self._check()
                self._send(packer.join_pending())
            elif packer.pending.remove(partition, row):
                self._check()

    def _arm(self, pending: PendingRows) -> None:
        """Have `collect` add to these rows without asking whether the writer is open."""
        self._pairs = pending.pairs
        self._due_length = pending.due_length
        self._short_bytes = pending.short_bytes
        if self._is_disarmed:  # by another thread, a moment ago
            self._disarm()

    def _disarm(self) -> None:
        """Have `collect` check first, and whoever has just added a row check after that.

        `collect` adds first and then looks at `_due_length`. So a row that was added before this
        call is found by whoever drains the last rows after it; whoever adds one later sees 0, and
        learns in `_join_pending` whether it was still among them.
        """
        self._is_disarmed = True
        self._short_bytes = -1
        self._due_length = 0

    def _checked_frames(self, partitions: Any, rows: Any) -> Iterator[PackedFrame]:
        """Check a batch, and return the frames that come of it."""
        known = self._row_kind.schema
        batch = as_arrow_rows(rows, known)
        if batch is None:
            if not self._row_kind.is_decided:
                check_batch(partitions, rows, partitions=self._partitions)
            return self._row_packer().collect_batch(partitions, rows)
        if type(partitions) is not np.ndarray:  # so that nothing of another's fails later
            partitions = batch_partitions(
                partitions, rows=batch.num_rows, partitions=self._partitions
            )
        try:
            packer = self._arrow_packer(partitions, batch)
        except SchemaMismatch:
            if batch is rows or (schema := self._row_kind.schema) == known:
                raise
            # Another writer was first: its schema says what the frame's objects are to be.
            batch = as_arrow_rows(rows, schema)
            assert batch is not None  # as before
            packer = self._arrow_packer(partitions, batch)
        return packer.collect_batch(partitions, batch)

    def _row_packer(self) -> RowPacker:
        if not isinstance(self._packer, RowPacker):
            self._row_kind.bind_bytes()
            self._packer = RowPacker(self._opened, self._buffer_bytes)
        return self._packer

    def _arrow_packer(self, partitions: Any, rows: pa.RecordBatch | pa.Table) -> ArrowPacker:
        """Return what packs these rows, once the exchange is bound to their schema.

        Raises: SchemaMismatch and what else is wrong with the arguments, before that.
        """
        packer = self._packer if isinstance(self._packer, ArrowPacker) else None
        if packer is None or not packer.is_bound:
            batch_partitions(partitions, rows=rows.num_rows, partitions=self._partitions)
            schema = self._row_kind.bind_schema(rows)
            if packer is None:
                self._packer = packer = ArrowPacker(self._opened, self._buffer_bytes, schema)
            else:
                self._send(packer.bind(schema))
        return packer

    # --- pushing --------------------------------------------------------------------------

    def _send(self, frames: Iterator[PackedFrame]) -> None:
        """Push frames as they are packed, of rows that were checked before.

        An interrupted packer has lost rows, or taken some of a batch, so that the attempt must not
        commit any more, whatever the error.
        """
        try:
            for frame in frames:
                self._pusher.push(frame)
        except BaseException as error:
            self._abort_by(error)
            self._raise_failure(error)
            raise

    def _raise_failure(self, error: BaseException) -> None:
        """If a stream's failure is why a call was woken as closed, raise that instead."""
        if isinstance(error, ClientClosed) and self._failure is not None:
            raise copy.copy(self._failure) from None
        if isinstance(error, CoscoError):
            error.place(self.shuffle_id)

    def _close(self) -> Commit:
        self._check()
        opened, info = self._opened, self._opened.info
        began_ns = self._span.now()
        try:
            # Where no row was collected it does not matter for which kind of rows a packer is.
            packer = self._packer = self._packer or RowPacker(self._opened, self._buffer_bytes)
            self._disarm()  # before the last rows are drained, so that later ones are refused
            self._pusher.begin_end()
            self._send(packer.drain(marks=self._attempts.has_marks))
            # While the daemons answer.
            sums = packer.sums()
            make_commit = partial(
                Commit,
                mapper=opened.mapper,
                attempt=opened.attempt,
                generation=info.generation,
                rows=int(sums.rows.sum()),
                bytes=int(sums.raw_bytes.sum()),
                partition_rows=sums.spread(sums.rows, self._partitions),
                partition_bytes=sums.spread(sums.raw_bytes, self._partitions),
            )
            request = CommitRequest(
                number=info.number,
                mapper=opened.mapper,
                attempt=opened.attempt,
                generation=info.generation,
                acknowledged=pairs_array(self._pusher.flush()),
                sums=sums,
                partial=opened.partial,
                ranges=opened.ranges,
            )
            won = self._attempts.count(self._metadata, request)
            # Before anything else can fail, or be interrupted: it counts from now on.
            commit = self._commit = make_commit(won=won)
        except BaseException as error:
            if isinstance(error, CoscoError):
                self._failure = self._failure or error
            self._span.record("cosco commit", began_ns, {}, self._failure or error)
            self._abort_by(error)
            self._raise_failure(error)
            raise
        try:
            end_committed(self._span, began_ns, commit)
            self._end()
        finally:
            self._scope.close()
        packer.close()  # only now can no thread be in it any more
        return commit

    # --- ending ---------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            if not self._scope.inherited:  # else it is the parent's
                self._span.end(self._failure)
            raise copy.copy(self._failure)
        self._scope.check()

    def _inherit(self) -> None:
        """Begin anew in a forked child, where nobody releases a lock of the parent's threads."""
        self._using = threading.RLock()
        self._disarm()

    def _fail(self, error: CoscoError) -> None:
        """End the writer, as a stream of it failed. Called on the thread of the stream."""
        self._failure = error
        self._disarm()
        self._scope.close()

    def _abort_by(self, error: object) -> None:
        """Abort, and say so unless it was aborted before."""
        if isinstance(error, BaseException) and not self._scope.inherited:
            self._span.end(self._failure or error)
        if self._leftover is not None and not self._scope.inherited:
            told = " ".join(f"by {type(error).__name__}: {error}".split())
            _tell_of_abort(self.shuffle_id, self.mapper, told[:_MAX_TOLD_CHARS].rstrip(": "))
        self.abort()

    def _end(self) -> None:
        self._pusher.close()
        self._metadata.close()
        end_aborted(self._span, self._failure)
        self._end_life()


class _Dropped:
    """Ends what works for a writer that was dropped before its end."""

    def __init__(self, mapper: int, pusher: Pusher, metadata: MetadataClient, span: Span) -> None:
        self._mapper = mapper
        self._pusher = pusher
        self._metadata = metadata
        self._span = span

    def __call__(self) -> None:
        scope = self._pusher.scope
        _tell_of_abort(scope.shuffle_id, self._mapper, "as its writer was dropped unclosed")
        scope.close()
        self._pusher.close()
        self._metadata.close()
        end_aborted(self._span)


def _tell_of_abort(shuffle_id: str, mapper: int, why: str) -> None:
    _LOG.warning(
        "exchange %r: an attempt of mapper %d is aborted %s; none of its rows will be seen",
        shuffle_id, mapper, why,
    )  # fmt: skip
