"""`CoscoWriter`: one mapper's rows on their way into an exchange."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from cosco.client.argument_checks import metadata_address, seconds, shuffle_name, whole_number
from cosco.client.content.arrow import (
    check_schema,
    normalize_schema,
    schema_from_bytes,
    schema_to_bytes,
    transport,
)
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import LiveObject, Scope
from cosco.client.write.pusher import Pusher
from cosco.client.write.state.batch_arguments import partition_array
from cosco.client.write.state.packing import ArrowPacker, PackedFrame, RowPacker
from cosco.client.write.state.pending_rows import PendingRows
from cosco.errors import ClientClosed, CoscoError, InvalidArgument, InvalidRow, SchemaMismatch
from cosco.format.block import CODECS
from cosco.protocol.api_limits import MAX_MAPPER
from cosco.protocol.records import (
    AttemptSums,
    Commit,
    CommitRequest,
    ExchangeInfo,
    OpenedAttempt,
    RowKind,
    pairs_array,
)

MIN_BUFFER_BYTES: Final = 64 << 10
#: A call of another thread that does not end in this time is taken to be blocked.
_CALL_END_S: Final = 0.5


class CoscoWriter(LiveObject):
    """One run of a mapper: collects rows, and commits them when it is closed.

        with CoscoWriter("orders", mapper=7) as writer:
            writer.collect(3, b"a row")

    Leaving the block commits; leaving it by an exception aborts. Rows that were collected
    are seen by readers only once `close` has committed them, and then all of them.

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
        metadata: str | None = None,
        service_timeout_s: float = 300.0,
    ) -> None:
        """Open an attempt of `mapper`; None: the service chooses an id that is not in use.

        Raises ExchangeNotFound, ExchangeClosed, InvalidArgument, ServiceUnavailable.
        """
        self.shuffle_id: Final = shuffle_name(shuffle_id)
        if mapper is not None:
            mapper = whole_number("mapper", mapper, 0, MAX_MAPPER, shuffle_id)
        self._buffer_bytes = whole_number(
            "buffer_bytes", buffer_bytes, MIN_BUFFER_BYTES, None, shuffle_id
        )
        timeout_s = seconds("service_timeout_s", service_timeout_s, 0.0, shuffle_id)
        self._scope = Scope("a CoscoWriter", shuffle_id, on_inherited=self._inherit)
        self._metadata = MetadataClient(metadata_address(metadata), self._scope, timeout_s)
        try:
            self._opened = self._open(mapper)
        except BaseException:
            self._metadata.close()
            raise
        #: The mapper id, given or chosen.
        self.mapper: Final = self._opened.mapper
        self._packer: RowPacker | ArrowPacker | None = None
        self._pusher = Pusher(self._opened, self._metadata, self._scope, timeout_s, self._fail)
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

    def collect(self, partition: int, row: bytes) -> None:
        """Add a row. Raises PartitionOutOfRange, InvalidRow (SchemaMismatch on an Arrow
        exchange), ClientClosed, or what the pushing of earlier rows failed with."""
        if (
            type(row) is bytes
            and type(partition) is int
            and 0 <= partition < self._partitions
            and len(row) <= self._short_bytes
        ):
            # What `PendingRows.add` does: a call more for every row would be felt.
            self._pairs.extend((partition, row))
            if len(self._pairs) >= self._due_length:
                self._settle(partition, row)
        else:
            self._collect_any(partition, row)

    def collect_batch(self, partitions: Any, rows: Any) -> None:
        """Add many rows; nothing of the arguments is kept.

        partitions: one integer a row, as an array or a sequence. rows: an Arrow array of
        binary or a sequence of bytes-like rows, or, for an Arrow exchange, a RecordBatch or
        Table. They are checked before any is taken; errors as of `collect`.
        """
        with self._using:
            self._check()
            if isinstance(rows, pa.Table):
                self._collect_table(partitions, rows)
            elif isinstance(rows, pa.RecordBatch):
                self._send(self._arrow_packer(rows.schema).collect_batch(partitions, rows))
            else:
                self._send(self._row_packer().collect_batch(partitions, rows))

    def close(self) -> Commit:
        """Push what is left, wait for every acknowledgement, and commit.

        The first attempt of a mapper to commit wins; `won` tells. `rows` and `bytes` count
        what was sent: of a mapper called back, the rows of the ranges wanted again. May be
        called again, for the same answer. Raises ClientClosed after `abort`, GenerationChanged
        if the exchange began anew meanwhile, or what pushing failed with: ServiceUnavailable
        when a daemon or the metadata service was out of reach for `service_timeout_s`,
        CapacityExceeded when no daemon had room in that time. While
        another thread is blocked in a call, that call and this one raise ClientClosed: rows
        of a broken off call cannot be committed.
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._scope.inherited:  # a forked child leaves the block: the writer is its parent's
            return
        if error is None:
            self.close()
        else:
            self.abort()

    # --- what a writer of a group does otherwise ------------------------------------------

    def _open(self, mapper: int | None) -> OpenedAttempt:
        return self._metadata.open_attempt(self.shuffle_id, mapper)

    def _last_frames(self) -> Iterator[PackedFrame]:
        return iter(()) if self._packer is None else self._packer.drain()

    def _count(self, commit: CommitRequest) -> bool:
        """Have the attempt counted, all of which is acknowledged; whether it is."""
        return self._metadata.commit(commit)

    # --- packing --------------------------------------------------------------------------

    def _collect_table(self, partitions: Any, table: pa.Table) -> None:
        packer = self._arrow_packer(table.schema)
        # All of them now, so that a bad one is found before any row is taken.
        numbers = partition_array(
            partitions,
            rows=table.num_rows,
            partitions=self._opened.info.spec.partitions,
            shuffle_id=self.shuffle_id,
        )
        first = 0
        for batch in table.to_batches():
            self._send(packer.collect_batch(numbers[first : first + batch.num_rows], batch))
            first += batch.num_rows

    def _collect_any(self, partition: int, row: bytes) -> None:
        """`collect` of what is not the most common: a first, a bad or a long row."""
        with self._using:
            self._check()
            packer = self._row_packer()
            if packer.collect(partition, row):
                self._send(packer.settle())
            if not self._opened.partial:
                self._arm(packer.pending)

    def _settle(self, partition: int, row: bytes) -> None:
        """Buffer the pending rows, of which this one was added last.

        Raises ClientClosed if the writer has ended meanwhile and not taken it before.
        """
        with self._using:
            packer = self._row_packer()
            if self._commit is None:
                self._check()
                self._send(packer.settle())
            elif packer.pending.take_back(partition, row):
                self._check()

    def _arm(self, pending: PendingRows) -> None:
        """Have `collect` add to these rows without asking whether the writer is open."""
        self._pairs = pending.pairs
        self._due_length = pending.due_length
        self._short_bytes = pending.short_bytes
        if self._is_disarmed:  # by another thread, a moment ago
            self._disarm()

    def _disarm(self) -> None:
        """Have `collect` look first, and who has just added a row, look after that.

        `collect` adds first and then looks at `_due_length`. So a row that was added before this
        is found by who takes the last rows after it, and whoever adds one later sees 0, and
        learns in `_settle` whether it was still taken.
        """
        self._is_disarmed = True
        self._short_bytes = -1
        self._due_length = 0

    def _row_packer(self) -> RowPacker:
        if not isinstance(self._packer, RowPacker):
            self._fix_kind(RowKind.BYTES, b"")
            self._packer = RowPacker(**self._packing())
        return self._packer

    def _arrow_packer(self, schema: pa.Schema) -> ArrowPacker:
        if not isinstance(self._packer, ArrowPacker):
            found = normalize_schema(schema)
            transport(found)  # refuses what cannot be shuffled before anyone is bound to it
            info = self._fix_kind(RowKind.ARROW, schema_to_bytes(found))
            expected = schema_from_bytes(info.schema)
            check_schema(found, expected, self.shuffle_id)
            self._packer = ArrowPacker(schema=expected, **self._packing())
        return self._packer

    def _packing(self) -> dict[str, Any]:
        info = self._opened.info
        return {
            "exchange": info.number,
            "mapper": self.mapper,
            "attempt": self._opened.attempt,
            "ranges": info.ranges,
            "codec": CODECS[info.spec.codec],
            "buffer_bytes": self._buffer_bytes,
            "shuffle_id": self.shuffle_id,
            "wanted": frozenset(self._opened.ranges) if self._opened.partial else None,
        }

    def _fix_kind(self, kind: RowKind, schema: bytes) -> ExchangeInfo:
        """Make the exchange's rows of this kind if it is undecided; else check that they are."""
        info = self._opened.info
        if info.kind is RowKind.UNDECIDED:
            try:
                info = self._metadata.fix_row_kind(info.number, kind, schema)
            except SchemaMismatch:  # another writer was first: see with what
                info = self._metadata.describe_exchange(self.shuffle_id)
        if info.kind is not kind:
            hint = "a RecordBatch" if info.kind is RowKind.ARROW else "bytes"
            raise SchemaMismatch(
                f"exchange {self.shuffle_id!r} carries {info.kind.name} rows, not {kind.name} "
                f"rows: give collect_batch {hint}",
                shuffle_id=self.shuffle_id,
            )
        return info

    # --- pushing --------------------------------------------------------------------------

    def _send(self, frames: Iterator[PackedFrame]) -> None:
        """Push frames as they are packed.

        An interrupted packer has lost rows, so that the attempt must not commit any more;
        only arguments that it refuses at first leave it as it was.
        """
        pushed = False
        try:
            for frame in frames:
                pushed = True
                self._pusher.push(frame)
        except (InvalidArgument, InvalidRow):
            if pushed:
                self.abort()
            raise
        except BaseException as error:
            self.abort()
            self._raise_failure(error)
            raise

    def _raise_failure(self, error: BaseException) -> None:
        """If a stream's failure is why a call was woken as closed, raise that instead."""
        if isinstance(error, ClientClosed) and self._failure is not None:
            raise copy.copy(self._failure) from None

    def _close(self) -> Commit:
        self._check()
        try:
            self._disarm()  # before the last rows are taken: later ones are refused
            self._send(self._last_frames())
            acknowledged = self._pusher.flush()
            sums = self._packer.sums() if self._packer is not None else _nothing()
            won = self._count(
                CommitRequest(
                    number=self._opened.info.number,
                    mapper=self.mapper,
                    attempt=self._opened.attempt,
                    generation=self._opened.info.generation,
                    acknowledged=pairs_array(acknowledged),
                    sums=sums,
                    partial=self._opened.partial,
                    ranges=self._opened.ranges,
                )
            )
            # Before anything else can fail, or be interrupted: it counts from now on.
            commit = self._commit = Commit(
                mapper=self.mapper,
                attempt=self._opened.attempt,
                won=won,
                generation=self._opened.info.generation,
                rows=self._packer.rows if self._packer is not None else 0,
                bytes=self._packer.row_bytes if self._packer is not None else 0,
            )
        except BaseException as error:
            if isinstance(error, CoscoError):
                self._failure = self._failure or error
            self.abort()
            self._raise_failure(error)
            raise
        try:
            self._end()
        finally:
            self._scope.close()
        if isinstance(self._packer, RowPacker):  # not before nobody can be in it any more
            self._packer.close()
        return commit

    # --- ending ---------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            raise copy.copy(self._failure)
        self._scope.check()

    def _inherit(self) -> None:
        """In a forked child: nobody there releases a lock of the parent's threads."""
        self._using = threading.RLock()
        self._disarm()

    def _fail(self, error: CoscoError) -> None:
        """A stream of ours failed: called on its thread."""
        self._failure = error
        self._disarm()
        self._scope.close()

    def _end(self) -> None:
        self._pusher.close()
        self._metadata.close()


def _nothing() -> AttemptSums:
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    return AttemptSums(none32, none64, none64, none64, none64)
