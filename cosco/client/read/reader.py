"""`CoscoReader`: the rows of some partitions, every one exactly once, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal

import pyarrow as pa
from pyroaring import BitMap

from cosco.client.access.service_connection import Connection
from cosco.client.argument_checks import (
    check_named,
    mapper_set,
    partition_list,
    seconds,
    shuffle_name,
    whole_number,
)
from cosco.client.exchange_spans import READ_SPAN, read_attributes
from cosco.client.live_object import LiveObject
from cosco.client.read.commit_watch import CommitWatch
from cosco.client.read.reading import Reading
from cosco.client.read.row_source import ReadOptions, RowSource
from cosco.client.read.shared_watch import SharedWatch
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import GenerationChanged, InvalidArgument, PartitionOutOfRange
from cosco.process.tracing.spans import SpanStart
from cosco.protocol.api_limits import INT64, MAX_PARTITIONS, shown_value
from cosco.protocol.records import ExchangeInfo

#: The order in which rows are given; None: any.
Order = Literal["mapper"] | None
#: Makes the watch of a reader of these mappers and this partition, for handles of groups.
MakeWatch = Callable[[MetadataClient, Scope, BitMap, int], CommitWatch]

#: Where a batch's columns must stay below 2 GiB.
_MAX_BATCH_BYTES: Final = 1 << 30


class CoscoReader(LiveObject):
    """Reads the rows that the named mappers wrote to one partition, or to several.

        with CoscoReader("orders", mappers=range(64), partition=3) as reader:
            for row in reader:
                ...

    It first waits until every named mapper has committed. The rows of their committed
    attempts come once each, in no order; when iteration ends, that was verified against the
    committed sums, and else it raised. Rows that came before are not taken back: what may
    not see rows of a read that fails uses `read_table` or `read_tables`.

    Several partitions come one after the other, ascending, in whichever order they were named, for
    little more than one costs. Each is verified by itself: once a row of the next one comes, or its
    table, the rows before are good whatever comes later.

    A reader makes one pass, by rows or by batches, and may move from thread to thread. A call
    that comes while another one reads, or while another thread's loop over it is under way,
    raises InvalidArgument and changes nothing. `close` may be called from any thread and wakes
    the others with ClientClosed. An iterator that raised raises again when it is asked again: it
    ends only where all was verified. A reader that is dropped without `close` is ended when it
    is collected, with a ResourceWarning.
    """

    def __init__(
        self,
        shuffle_id: str,
        mappers: Iterable[int],
        partition: int | Sequence[int],
        *,
        generation: int | None = None,
        timeout_s: float | None = None,
        metadata: Connection | str | None = None,
        service_timeout_s: float = 300.0,
        max_held_bytes: int = 1 << 30,
        _watch: MakeWatch | None = None,
    ) -> None:
        """Ask what the exchange is.

        `partition` is one or several, in a range, a list or an array, none of them twice.
        `timeout_s` bounds each wait for commits or for a rebuild; 0: do not wait, None: without
        bound. `service_timeout_s` is how long daemons, and the metadata service, may be out of
        reach. `max_held_bytes` is how much of a partition may be held, compressed, to put its rows
        in order. `_watch` is for handles: what tells the reader when it can begin.

        Raises: ExchangeNotFound, ExchangeClosed, PartitionOutOfRange, GenerationChanged,
        InvalidArgument, ServiceUnavailable.
        """
        self.shuffle_id: Final = shuffle_name(shuffle_id)
        self._partitions = partition_list(partition, shuffle_id)
        self._mappers = mapper_set(mappers, shuffle_id)
        if generation is not None:
            generation = whole_number("generation", generation, 1, INT64, shuffle_id)
        self._timeout_s = (
            None if timeout_s is None else seconds("timeout_s", timeout_s, 0.0, shuffle_id)
        )
        max_held_bytes = whole_number("max_held_bytes", max_held_bytes, 1, None, shuffle_id)
        self._connect(shuffle_id, metadata, service_timeout_s, self._hold)
        watch = self._make_watch(_watch)
        with self._opening(), SpanStart(READ_SPAN, self.shuffle_id) as start:
            info = watch.describe()
            self._check_place(info, generation)
            about = read_attributes(info, self._partitions, len(self._mappers))
            span = start.begin(info.spec.trace, about)
            watch.start()
        #: The generation of the exchange that is read.
        self.generation: Final = info.generation
        source = RowSource(
            info,
            self._mappers,
            self._partitions,
            ReadOptions(self._timeout_s, self._service_timeout_s, max_held_bytes),
            self._metadata,
            self._scope,
            watch,
            span,
        )
        self._reading = Reading(source, self._metadata, self._scope, span)
        # The rows for `next`, or None when it must be checked first whether the reader may go on:
        # a check for each row would cost more than the row.
        self._open_rows: Iterator[bytes] | None = None
        self._row: bytes | None = None
        self._begin_life(self._reading.close, is_user=True)

    @property
    def partition(self) -> int:
        """The partition of the row, batch or table that came last; before that, the first one."""
        return self._reading.source.partition

    # --- rows -----------------------------------------------------------------------------

    def next(self) -> bool:
        """Go to the next row.

        Returns: False when there was none left, and all were verified.
        Raises: CommitTimeout, DataLost, DataCorrupted, RecomputeMismatch, GenerationChanged,
        ExchangeClosed, ClientClosed, ServiceUnavailable, and SchemaMismatch on an Arrow
        exchange.
        """
        rows = self._open_rows
        try:  # which costs nothing where nothing is raised
            self._row = row = next(self._own_rows() if rows is None else rows, None)
            return row is not None  # noqa: TRY300  no call may be interrupted after it
        except BaseException as error:
            self._reading.interrupted(error)
            raise

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
        steps = self._reading.rows(self)
        self._hold()  # another thread's `next` is refused while this iterator is there
        return steps.pop_rows()

    def __next__(self) -> bytes:
        rows = self._open_rows
        try:
            return next(self._own_rows() if rows is None else rows)
        except BaseException as error:
            self._reading.interrupted(error)
            raise

    # --- batches --------------------------------------------------------------------------

    def read_batches(
        self, *, max_bytes: int = 4 << 20, order: Order = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows as record batches of about `max_bytes`, each of one partition.

        They have the exchange's schema, or the one column `row: binary` for rows of bytes, and
        stay valid after `close`. `order` as for `read_table`; with one, nothing is given before
        all rows are there and verified.

        Raises: what `read_table` raises.
        """
        limit = whole_number("max_bytes", max_bytes, 1, None, self.shuffle_id)
        is_ordered = self._is_ordered(order)
        return self._reading.batches(min(limit, _MAX_BATCH_BYTES), self, is_ordered=is_ordered)

    def read_table(self, *, order: Order = None) -> pa.Table:
        """Return all rows, verified, as one table, whose schema is there even without rows.

        Several partitions come one after the other. `order="mapper"` puts the rows of each by
        mapper, and those of one mapper as its committed attempt gave them to `collect`. That order
        is as good as the re-runs: a rebuild may change it within a mapper, if the re-run gives its
        rows in another order.

        Raises: what `next` raises, but no DataLost that is `retriable`, as it waits for rebuilds
        itself, and CapacityExceeded for dictionaries of more values than one table holds, and
        where an order takes more than `max_held_bytes`.
        """
        return self._reading.table(is_ordered=self._is_ordered(order))

    def read_tables(self, *, order: Order = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield each partition, ascending, and its rows as one table; also those without rows.

        A table is verified when it comes, so it is good whatever comes later. `order` as for
        `read_table`.

        Raises: what `read_table` raises.
        """
        return self._reading.tables(self, is_ordered=self._is_ordered(order))

    # --- ending ---------------------------------------------------------------------------

    def close(self) -> None:
        """Stop reading. A call that another thread waits in raises ClientClosed."""
        if self._scope.inherited:
            return
        self._scope.close()
        self._hold()
        self._reading.close()
        self._end_life()

    # --- inside ---------------------------------------------------------------------------

    def _make_watch(self, of_group: MakeWatch | None) -> CommitWatch:
        partitions = self._partitions
        if of_group is not None or len(partitions) == 1:
            make = of_group or CommitWatch
            return make(self._metadata, self._scope, self._mappers, partitions[0])
        for outside in (partitions[0], partitions[-1]):
            if not 0 <= outside < MAX_PARTITIONS:  # it is in no exchange, as `_check_place` says
                return CommitWatch(self._metadata, self._scope, self._mappers, outside)
        return SharedWatch(self._metadata, self._scope, self._mappers, BitMap(partitions))

    def _check_place(self, info: ExchangeInfo, generation: int | None) -> None:
        partitions = info.spec.partitions
        for partition in (self._partitions[0], self._partitions[-1]):
            if not 0 <= partition < partitions:
                raise PartitionOutOfRange(
                    f"exchange {self.shuffle_id!r}: there is no partition "
                    f"{shown_value(partition)}, it has partitions 0 to {partitions - 1}",
                    shuffle_id=self.shuffle_id,
                    partition=partition,
                )
        check_named(self._mappers, info.spec.mappers, self.shuffle_id)
        if generation is not None and generation != info.generation:
            raise GenerationChanged(
                f"it is at generation {info.generation}, not {generation}: begin anew with that one"
            ).place(self.shuffle_id, self._partitions[0])

    def _is_ordered(self, order: object) -> bool:
        if order is not None and not (isinstance(order, str) and order == "mapper"):
            raise InvalidArgument(
                f'order is {shown_value(order)}, it must be None or "mapper"'
            ).place(self.shuffle_id, self.partition)
        return order is not None

    def _hold(self) -> None:
        """Have the next row go through `_own_rows` first."""
        self._open_rows = None

    def _own_rows(self) -> Iterator[bytes]:
        """Return the rows for `next`, which this reader keeps unless a loop is under way."""
        is_alone = not self._reading.has_loop
        rows = self._reading.rows(None).pop_rows()
        if is_alone:
            self._open_rows = rows
            if self._scope.is_closed:  # by another thread, meanwhile
                self._hold()
        return rows
