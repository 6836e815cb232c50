"""What a reader gives, made of its partitions one after the other: rows, batches, tables."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeVar

import pyarrow as pa
from pyroaring import BitMap

from cosco.client.content import Decoded
from cosco.client.content.arrow_binding import is_decided
from cosco.client.content.arrow_schema import schema_from_bytes
from cosco.client.content.byte_rows import BYTES_SCHEMA, iter_rows, rows_to_batch
from cosco.client.content.row_costs import batch_bytes
from cosco.client.read.commit_watch import CommitWatch
from cosco.client.read.direct_reads import DIRECT_STORES
from cosco.client.read.gather import BegunAnew, Gatherer
from cosco.client.read.state.batch_assembly import ArrowAssembly, grouped, sliced
from cosco.client.read.state.mapper_order import MapperOrder
from cosco.client.read.state.merge import Attempts, BlockMerge, PartitionMerge, StoredMerge
from cosco.client.read.state.read_plan import ReadPlan
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import SchemaMismatch
from cosco.process.tracing.spans import NO_SPAN, Span
from cosco.protocol.records import ExchangeInfo, ReadSnapshot, RowKind

_T = TypeVar("_T")

#: How much of a partition is held back until it is verified, or more has come: a reader that
#: has given no row of it yet can begin it anew when others of it turn out to be lost.
HOLD_BYTES: Final = 32 << 20
#: What a block's rows, or a batch, take beside their bytes while they are held back.
HELD_OVERHEAD_BYTES: Final = 160
#: The length of the batches that make a table.
_TABLE_BATCH_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How long a reader waits, and how much it holds to put rows in order."""

    timeout_s: float | None
    service_timeout_s: float
    max_held_bytes: int


class RowSource:
    """Makes one pass over the partitions of a reader, and knows nothing of who asks."""

    def __init__(
        self,
        info: ExchangeInfo,
        mappers: BitMap,
        partitions: Sequence[int],
        options: ReadOptions,
        metadata: MetadataClient,
        scope: Scope,
        watch: CommitWatch,
        span: Span = NO_SPAN,
    ) -> None:
        """Begin without a pass. partitions: ascending. span: of the whole reader."""
        self._info = info
        self._mappers = mappers
        self._partitions = partitions
        self._options = options
        self._scope = scope
        self._watch = watch
        self._gatherer = Gatherer(
            metadata,
            scope,
            info.number,
            len(mappers),
            watch=watch,
            capability=info.capability,
            span=span,
        )
        #: The partition of what was given last; before that, the first one.
        self.partition = partitions[0]
        #: The partition that is read now.
        self.present = partitions[0]
        self._is_by_rows = False
        self._assembly_of: tuple[bytes, ArrowAssembly] | None = None
        self._attempts_of: tuple[object, Attempts] | None = None
        self._described = -1  # the version of the exchange after which it was described again

    def close(self) -> None:
        """Give up the connections."""
        self._gatherer.close()
        self._watch.close()

    def end_pass(self) -> None:
        """Give up what is under way ahead, as nobody will ask for it."""
        self._watch.end_pass()

    # --- what is given ----------------------------------------------------------------------

    def rows(self) -> Generator[Iterator[bytes], None, None]:
        """Yield all rows, block by block."""
        self._is_by_rows = True
        self._check_kind()
        for partition in self._each():
            for decoded in self._held_back(_unchanged, _content_bytes):
                self.partition = partition
                yield iter_rows(decoded)

    def batches(self, max_bytes: int, *, is_ordered: bool) -> Generator[pa.RecordBatch, None, None]:
        """Yield all rows as batches of one partition each."""

        def made(rows: Iterator[Decoded]) -> Iterator[pa.RecordBatch]:
            return self._batches(rows, max_bytes)

        for partition in self._each():
            # Made before they are held back, while their rows are in the cache.
            found = made(self._ordered()) if is_ordered else self._held_back(made, batch_bytes)
            for batch in found:
                self.partition = partition
                yield batch

    def tables(self, *, is_ordered: bool) -> Generator[tuple[int, pa.Table], None, None]:
        """Yield each partition with its rows, verified, as one table."""
        for partition in self._each():
            table = self._table_of_one(is_ordered=is_ordered)
            self.partition = partition
            yield partition, table

    def table(self, *, is_ordered: bool) -> Generator[pa.Table, None, None]:
        """Yield one table of all rows, verified."""
        if len(self._partitions) == 1:
            for _, table in self.tables(is_ordered=is_ordered):
                yield table
            return
        # Rows of one partition are never taken back for another one's sake.
        table = self._table(
            decoded
            for _ in self._each()
            for decoded in (self._ordered() if is_ordered else self._verified())
        )
        self.partition = self.present
        yield table

    # --- one partition ----------------------------------------------------------------------

    def _each(self) -> Iterator[int]:
        try:
            for partition in self._partitions:
                self.present = partition
                self._watch.come_to(partition)
                yield partition
        finally:
            self._watch.end_pass()

    def _held_back(
        self, made: Callable[[Iterator[Decoded]], Iterator[_T]], size: Callable[[_T], int]
    ) -> Iterator[_T]:
        """Yield what is `made` of all rows, its first HOLD_BYTES once those, or all, are there."""
        plan = self._plan()
        while True:
            held: deque[_T] | None = deque()
            held_bytes = 0
            try:
                for item in made(self._gather(plan, PartitionMerge)):
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

    def _table_of_one(self, *, is_ordered: bool) -> pa.Table:
        """Return the table of one partition: verified, so it can begin anew at any time."""
        if is_ordered:
            return self._table(self._ordered())
        plan = self._plan()
        while True:
            try:
                return self._table(self._gather(plan, PartitionMerge))
            except BegunAnew:
                continue

    def _verified(self) -> Iterator[Decoded]:
        """Yield all rows, once they are verified."""
        plan = self._plan()
        while True:
            try:
                held = deque(self._gather(plan, PartitionMerge))
            except BegunAnew:
                continue
            yield from _emptied(held)
            return

    def _ordered(self) -> Iterator[Decoded]:
        """Yield all rows by mapper, once they are verified."""
        plan = self._plan()
        while True:
            held = MapperOrder(self._options.max_held_bytes)
            try:
                for block in self._gather(plan, StoredMerge):
                    held.add(block)
            except BegunAnew:
                continue
            yield from held.rows()
            return

    def _batches(self, rows: Iterator[Decoded], max_bytes: int) -> Iterator[pa.RecordBatch]:
        for blocks in grouped(rows, max_bytes):
            if self._info.kind is RowKind.ARROW:
                yield from self._assembly().batches(blocks, max_bytes)
                continue
            size = sum(len(one.content) for one in blocks)
            yield from sliced(rows_to_batch(blocks), size, max_bytes)

    def _table(self, rows: Iterable[Decoded]) -> pa.Table:
        groups = grouped(rows, _TABLE_BATCH_BYTES)
        first = next(groups, None)  # with it, the kind of rows is known
        if first is not None:
            groups = chain([first], groups)
        if self._info.kind is RowKind.ARROW:
            return self._assembly().table(groups)
        return pa.Table.from_batches(map(rows_to_batch, groups), schema=BYTES_SCHEMA)

    def _assembly(self) -> ArrowAssembly:
        """Return what makes batches of the exchange's schema, as far as that is known by now."""
        if self._assembly_of is None or self._assembly_of[0] != self._info.schema:
            schema = schema_from_bytes(self._info.schema)
            self._assembly_of = self._info.schema, ArrowAssembly(schema)
        return self._assembly_of[1]

    # --- blocks -----------------------------------------------------------------------------

    def _plan(self) -> ReadPlan:
        return ReadPlan(
            timeout_s=self._options.timeout_s,
            service_timeout_s=self._options.service_timeout_s,
            troubled=self._watch.troubled,
            direct=DIRECT_STORES if self._info.spec.direct_reads else None,
        )

    def _gather(self, plan: ReadPlan, merge: type[BlockMerge[_T]]) -> Iterator[_T]:
        """Yield what `merge` makes of the blocks of one build."""
        if not self._mappers:
            return iter(())
        return self._gatherer.gather(
            plan, self.present, lambda snapshot: self._begin_build(snapshot, merge)
        )

    def _begin_build(self, snapshot: ReadSnapshot, merge: type[BlockMerge[_T]]) -> BlockMerge[_T]:
        """Make the merge of a build: every named mapper has committed, or run again."""
        if not is_decided(self._info) and self._described < snapshot.version:
            # The writers may have done so, and this build's have.
            self._info = self._watch.describe_again()
            self._described = snapshot.version
        self._check_kind()
        if self._attempts_of is None or self._attempts_of[0] is not snapshot.mappers:
            self._attempts_of = snapshot.mappers, Attempts(snapshot, self._mappers)
        return merge(
            snapshot,
            exchange=self._info.number,
            partition=self.present,
            named=self._mappers,
            attempts=self._attempts_of[1],
        )

    def _check_kind(self) -> None:
        if self._info.kind is RowKind.OPAQUE:
            raise SchemaMismatch(
                "it carries OPAQUE rows: only tasks of the engine that wrote them can read them"
            ).place(self._scope.shuffle_id, self.present)
        if self._is_by_rows and self._info.kind is RowKind.ARROW:
            raise SchemaMismatch(
                "it carries ARROW rows: read them with read_batches or read_table"
            ).place(self._scope.shuffle_id, self.present)


def _unchanged(rows: Iterator[Decoded]) -> Iterator[Decoded]:
    return rows


def _content_bytes(decoded: Decoded) -> int:
    return len(decoded.content)


def _emptied(held: deque[_T]) -> Iterator[_T]:
    """Yield what is held, and keep nothing of it."""
    while held:
        yield held.popleft()
