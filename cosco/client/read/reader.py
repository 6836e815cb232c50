"""`CoscoReader`: one partition's rows, every one exactly once, or an error."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final, TypeVar

import pyarrow as pa
from pyroaring import BitMap

from cosco.client.argument_checks import mapper_set, seconds, shuffle_name, whole_number
from cosco.client.content import Decoded
from cosco.client.content.arrow import batch_from_content, schema_from_bytes
from cosco.client.content.byte_rows import BYTES_SCHEMA, iter_rows, rows_to_batch
from cosco.client.live_object import LiveObject
from cosco.client.read.gather import BegunAnew, CommitWatch, Gatherer
from cosco.client.read.state.merge import PartitionMerge
from cosco.client.read.state.read_plan import ReadPlan
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import (
    ClientClosed,
    CoscoError,
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.protocol.records import ReadSnapshot, RowKind

_T = TypeVar("_T")
#: Makes the watch of a reader of these mappers and this partition.
MakeWatch = Callable[[MetadataClient, Scope, BitMap, int], CommitWatch]

#: How much of a partition is held back until it is verified, or more has come: a reader that
#: has given no row yet can begin anew when others of its partition turn out to be lost.
HOLD_BYTES: Final = 32 << 20
#: What a block's rows, or a batch, take beside their bytes while they are held back.
HELD_OVERHEAD_BYTES: Final = 160
#: Where a batch's columns must stay below 2 GiB.
_MAX_BATCH_BYTES: Final = 1 << 30
#: The length of the batches that make a table.
_TABLE_BATCH_BYTES: Final = 4 << 20


class CoscoReader(LiveObject):
    """Reads the rows that the named mappers wrote to one partition.

        with CoscoReader("orders", mappers=range(64), partition=3) as reader:
            for row in reader:
                ...

    It first waits until every named mapper has committed. The rows of their committed
    attempts come once each, in no order; when iteration ends, that was verified against the
    committed sums, and else it raised. Rows that came before are not taken back: what may
    not see rows of a read that fails uses `read_table`.

    A reader makes one pass, by rows or by batches. One thread at a time may use it; `close`
    may be called from any and wakes it with ClientClosed.
    """

    def __init__(
        self,
        shuffle_id: str,
        mappers: Iterable[int],
        partition: int,
        *,
        generation: int | None = None,
        timeout_s: float | None = None,
        metadata: str | None = None,
        service_timeout_s: float = 300.0,
        _watch: MakeWatch = CommitWatch,
    ) -> None:
        """Ask what the exchange is.

        `timeout_s` bounds each wait for commits or for a rebuild; 0: do not wait, None: without
        bound. `service_timeout_s` is how long daemons, and the metadata service, may be out of
        reach. `_watch` is for handles: what tells the reader when it can begin.

        Raises: ExchangeNotFound, ExchangeClosed, PartitionOutOfRange, GenerationChanged,
        InvalidArgument, ServiceUnavailable.
        """
        self.shuffle_id: Final = shuffle_name(shuffle_id)
        self.partition: Final = whole_number("partition", partition, None, None, shuffle_id)
        self._mappers = mapper_set(mappers, shuffle_id)
        if generation is not None:
            generation = whole_number("generation", generation, 1, None, shuffle_id)
        self._timeout_s = (
            None if timeout_s is None else seconds("timeout_s", timeout_s, 0.0, shuffle_id)
        )
        self._connect(shuffle_id, metadata, service_timeout_s, self._hold)
        self._watch = _watch(self._metadata, self._scope, self._mappers, self.partition)
        with self._opening():
            self._info = self._watch.describe()
            self._check_place(generation)
            self._watch.start()
        #: The generation of the exchange that is read.
        self.generation: Final = self._info.generation
        self._gatherer = Gatherer(
            self._metadata,
            self._scope,
            self._info.number,
            self.partition,
            len(self._mappers),
            watch=self._watch,
            begin=self._begin_build,
        )
        self._mode: str | None = None
        self._rows: Iterator[bytes] = iter(())
        # The same, or None when it must be checked first whether the reader may go on: a check for
        # each row would cost more than the row.
        self._open_rows: Iterator[bytes] | None = None
        self._row: bytes | None = None
        self._broken: CoscoError | None = None

    # --- rows -----------------------------------------------------------------------------

    def next(self) -> bool:
        """Go to the next row.

        Returns: False when there was none left, and all were verified.
        Raises: CommitTimeout, DataLost, DataCorrupted, RecomputeMismatch, GenerationChanged,
        ExchangeClosed, ClientClosed, ServiceUnavailable, and SchemaMismatch on an Arrow
        exchange.
        """
        rows = self._open_rows
        self._row = row = next(iter(self) if rows is None else rows, None)
        return row is not None

    def row(self) -> bytes:
        """Return the row that `next` went to.

        Raises: InvalidArgument if there is none.
        """
        if self._row is None:
            raise InvalidArgument(
                "there is no row: call next() first, and row() only if it returned True"
            ).place(self.shuffle_id, self.partition)
        return self._row

    def __iter__(self) -> Iterator[bytes]:
        """Yield the rows that are left.

        Raises: what `next` raises.
        """
        self._check()
        if self._mode != "rows":
            self._begin("rows")
            # Not by a generator of ours for each row, which takes longer than making the row.
            self._rows = chain.from_iterable(self._guarded(self._row_stream()))
        self._open_rows = self._rows
        if self._scope.is_closed:  # by another thread, meanwhile
            self._hold()
        return self._rows

    def __next__(self) -> bytes:
        rows = self._open_rows
        return next(iter(self) if rows is None else rows)

    # --- batches --------------------------------------------------------------------------

    def read_batches(self, *, max_bytes: int = 4 << 20) -> Iterator[pa.RecordBatch]:
        """Yield the rows as record batches of about `max_bytes`.

        They have the exchange's schema, or the one column `row: binary` for rows of bytes, and
        stay valid after `close`.

        Raises: what `next` raises.
        """
        limit = whole_number("max_bytes", max_bytes, 1, None, self.shuffle_id)
        self._check()
        self._begin("batches")
        limit = min(limit, _MAX_BATCH_BYTES)
        # Made before they are held back, while their rows are in the cache.
        batches = self._held_back(lambda rows: self._batches(rows, limit), lambda one: one.nbytes)
        return self._guarded(self._while_open(batches))

    def read_table(self) -> pa.Table:
        """Return all rows, verified, as one table, whose schema is there even without rows.

        Raises: what `next` raises, but no DataLost that is `retriable`, as it waits for rebuilds
        itself.
        """
        self._check()
        self._begin("batches")
        (table,) = self._guarded(self._table_stream())
        return table

    # --- ending ---------------------------------------------------------------------------

    def close(self) -> None:
        """Stop reading. A call that another thread waits in raises ClientClosed."""
        if self._scope.inherited:
            return
        self._scope.close()
        self._hold()
        self._gatherer.close()
        self._metadata.close()
        self._watch.close()

    # --- inside ---------------------------------------------------------------------------

    def _check_place(self, generation: int | None) -> None:
        partitions = self._info.spec.partitions
        if not 0 <= self.partition < partitions:
            raise PartitionOutOfRange(f"there are partitions 0 to {partitions - 1}").place(
                self.shuffle_id, self.partition
            )
        if generation is not None and generation != self._info.generation:
            raise GenerationChanged(
                f"it is at generation {self._info.generation}, not {generation}: begin anew with "
                "that one"
            ).place(self.shuffle_id, self.partition)

    def _hold(self) -> None:
        """Have the next row go through `_check` first."""
        self._open_rows = None

    def _check(self) -> None:
        if self._broken is not None:
            raise copy.copy(self._broken)
        self._scope.check()

    def _begin(self, mode: str) -> None:
        if self._mode is not None:
            raise InvalidArgument(
                f"this CoscoReader was read by {self._mode} already, it makes one pass: make "
                "another reader"
            ).place(self.shuffle_id, self.partition)
        self._mode = mode

    def _guarded(self, stream: Iterator[_T]) -> Iterator[_T]:
        """Remember if `stream` did not come to its verified end: it may not seem to later."""
        try:
            yield from stream
        except CoscoError as error:
            self._break(error)
            raise
        except BaseException as error:
            self._break(ClientClosed(f"broken off by {type(error).__name__}: make another reader"))
            raise

    def _break(self, error: CoscoError) -> None:
        self._broken = error.place(self.shuffle_id, self.partition)
        self._hold()

    def _while_open(self, stream: Iterator[_T]) -> Iterator[_T]:
        """Yield from `stream` until the reader is closed or forked.

        What it holds is not given then, nor does it seem to have ended.
        """
        for item in stream:
            yield item
            self._scope.check()

    def _row_stream(self) -> Iterator[Iterator[bytes]]:
        """Yield all rows, block by block."""
        self._require_bytes()
        blocks = self._held_back(lambda rows: rows, lambda one: len(one.content))
        for decoded in self._while_open(blocks):
            yield iter_rows(decoded)

    def _table_stream(self) -> Iterator[pa.Table]:
        """Yield one table, of rows that are verified: so it can begin anew at any time."""
        plan = self._plan()
        while True:
            try:
                batches = list(self._batches(self._gather(plan), _TABLE_BATCH_BYTES))
            except BegunAnew:
                continue
            yield pa.Table.from_batches(batches, schema=self._schema())
            return

    def _held_back(
        self, made: Callable[[Iterator[Decoded]], Iterator[_T]], size: Callable[[_T], int]
    ) -> Iterator[_T]:
        """Yield what is `made` of all rows, its first HOLD_BYTES once those, or all, are there."""
        plan = self._plan()
        while True:
            held: deque[_T] | None = deque()
            held_bytes = 0
            try:
                for item in made(self._gather(plan)):
                    if held is None:
                        yield item
                        continue
                    held.append(item)
                    held_bytes += size(item) + HELD_OVERHEAD_BYTES
                    if held_bytes > HOLD_BYTES:
                        plan.gave()
                        yield from _emptied(held)
                        held = None
            except BegunAnew:
                continue
            yield from _emptied(held or deque())
            return

    def _batches(self, rows: Iterator[Decoded], max_bytes: int) -> Iterator[pa.RecordBatch]:
        kept: list[Decoded] = []
        kept_bytes = 0
        for decoded in rows:
            if kept and kept_bytes + len(decoded.content) > max_bytes:
                yield from _sliced(self._joined(kept), kept_bytes, max_bytes)
                kept, kept_bytes = [], 0
            kept.append(decoded)
            kept_bytes += len(decoded.content)
        if kept:
            yield from _sliced(self._joined(kept), kept_bytes, max_bytes)

    def _plan(self) -> ReadPlan:
        return ReadPlan(timeout_s=self._timeout_s, service_timeout_s=self._service_timeout_s)

    def _gather(self, plan: ReadPlan) -> Iterator[Decoded]:
        return self._gatherer.gather(plan) if self._mappers else iter(())

    def _begin_build(self, snapshot: ReadSnapshot) -> PartitionMerge:
        """Make the merge of a build: every named mapper has committed, or run again."""
        if self._info.kind is RowKind.UNDECIDED:  # the writers may have decided it
            self._info = self._metadata.describe_exchange(self.shuffle_id)
        if self._mode == "rows":
            self._require_bytes()
        return PartitionMerge(
            snapshot, exchange=self._info.number, partition=self.partition, named=self._mappers
        )

    def _require_bytes(self) -> None:
        if self._info.kind is RowKind.ARROW:
            raise SchemaMismatch(
                "it carries ARROW rows: read them with read_batches or read_table"
            ).place(self.shuffle_id, self.partition)

    def _joined(self, decoded: list[Decoded]) -> pa.RecordBatch:
        """Return one batch of all these rows."""
        if self._info.kind is not RowKind.ARROW:
            return rows_to_batch(decoded)
        schema = self._schema()
        batches = [batch_from_content(item, schema) for item in decoded]
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches)

    def _schema(self) -> pa.Schema:
        if self._info.kind is RowKind.ARROW:
            return schema_from_bytes(self._info.schema)
        return BYTES_SCHEMA


def _emptied(held: deque[_T]) -> Iterator[_T]:
    """Yield what is held, and keep nothing of it."""
    while held:
        yield held.popleft()


def _sliced(batch: pa.RecordBatch, batch_bytes: int, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Yield the batch in parts of about `max_bytes`, of one row at least."""
    parts = min(-(-batch_bytes // max_bytes), batch.num_rows)
    for part in range(parts):
        first = batch.num_rows * part // parts
        yield batch.slice(first, batch.num_rows * (part + 1) // parts - first)
