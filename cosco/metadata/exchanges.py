"""One open exchange: its attempts, commits and sums, and what readers are told of them.

Nothing is kept per (mapper, partition) pair: a mapper has its committed attempt, a range
the set of mappers that wrote to it, a partition its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from pyroaring import BitMap

from cosco.errors import (
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.metadata.changes import ChangeLog, Row, signed64
from cosco.metadata.rows import Placed, placed_row, range_row, spec_row
from cosco.metadata.validate import check_mapper, check_schema, shown
from cosco.records import (
    MAX_MAPPER,
    U32,
    U64,
    Assignment,
    CommitRequest,
    CommitWait,
    DaemonRef,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    ExchangeStatus,
    OpenedAttempt,
    PartitionRange,
    ReadSnapshot,
    RowKind,
    Source,
)

#: Attempt ids from here on are made by clients; below it by the service.
CLIENT_ATTEMPTS = 1 << 63
#: Rows of the sums of an exchange: rows, raw bytes, stored bytes, digests.
SUMS = 4


class ExchangeState:
    """An open exchange. Every change is named in `changes`, see `cosco.metadata.sql`."""

    def __init__(
        self,
        number: int,
        spec: ExchangeSpec,
        owner: bytes,
        ranges: tuple[PartitionRange, ...],
        placed: Iterable[Iterable[Placed]],
        changes: ChangeLog,
    ) -> None:
        """`placed` holds every epoch of each range, ascending, the current one last."""
        self.number = number
        self.spec = spec
        self.owner = owner
        self.ranges = ranges
        self.placed = [list(epochs) for epochs in placed]
        self.generation = 1
        self.kind = RowKind.ARROW if spec.schema else RowKind.UNDECIDED
        self.schema = spec.schema
        self.version = 1
        #: The highest attempt id that was given.
        self.attempts = 0
        self.opened = BitMap()
        #: mapper → its committed attempt
        self.committed: dict[int, int] = {}
        self.committed_mappers = BitMap()
        self.sums = np.zeros((SUMS, spec.partitions), dtype=np.uint64)
        #: The mappers that wrote to each range.
        self.writers = [BitMap() for _ in ranges]
        self._changes = changes
        self._firsts = np.array([r.first for r in ranges], dtype=np.int64)
        self._committed_in: dict[int, tuple[U32, U64]] = {}

    # --- drivers and writers ---------------------------------------------------------------

    def info(self) -> ExchangeInfo:
        return ExchangeInfo(
            number=self.number,
            spec=self.spec,
            generation=self.generation,
            kind=self.kind,
            schema=self.schema,
            ranges=self.ranges,
            assignments=tuple(epochs[-1].assignment for epochs in self.placed),
        )

    def take_over(self, owner: bytes) -> None:
        """Make `owner` the driver whose polls count."""
        if owner != self.owner:
            self.owner = owner
            self.put_exchange()

    def check_driver(self, owner: bytes) -> None:
        """Raise InvalidArgument unless `owner` is the current driver."""
        if owner != self.owner:
            raise InvalidArgument(
                f"exchange {shown(self.spec.shuffle_id)} has another driver: one attached to it "
                "with own=True; stop polling here",
                shuffle_id=self.spec.shuffle_id,
            )

    def open_attempt(self, mapper: int | None) -> OpenedAttempt:
        """A new attempt of `mapper`, or of the lowest one that was never opened."""
        if mapper is None:
            mapper = self._lowest_unopened()
        check_mapper(mapper)
        self.attempts += 1
        self._put_counters()
        if mapper not in self.opened:
            self.opened.add(mapper)
            self._put_mapper(mapper)
        return OpenedAttempt(self.info(), mapper, self.attempts)

    def fix_row_kind(self, kind: RowKind, schema: bytes) -> None:
        """Decide what the rows are, once; schemas are compared byte for byte.

        Raises SchemaMismatch when it was decided otherwise.
        """
        check_schema(schema)
        if self.kind is RowKind.UNDECIDED:
            self.kind, self.schema = kind, schema
            self.put_exchange()
        elif (kind, schema) != (self.kind, self.schema):
            if kind is not self.kind:
                difference = f"{self.kind.name} rows, not {kind.name} rows"
            else:
                difference = "Arrow rows of another schema"
            raise SchemaMismatch(
                f"exchange {shown(self.spec.shuffle_id)} carries {difference}; write all its "
                "rows with the schema it was created with, or that of its first writer",
                shuffle_id=self.spec.shuffle_id,
            )

    def commit(self, request: CommitRequest) -> bool:
        """Whether this attempt is the one that counts: the first of its mapper does.

        Raises InvalidArgument, PartitionOutOfRange or GenerationChanged for a commit that
        cannot be of this exchange.
        """
        touched = self._check_commit(request)
        winner = self.committed.get(request.mapper)
        if winner is not None:
            return winner == request.attempt
        self._set_committed(request.mapper, request.attempt)
        self.opened.add(request.mapper)  # a client may make its attempt ids itself
        sums = request.sums
        for total, added in zip(
            self.sums, (sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests), strict=True
        ):
            total[sums.partitions] += added  # modulo 2^64; partitions are distinct
        for index in touched:
            self.writers[index].add(request.mapper)
            self._committed_in.pop(index, None)
            self._put_sums(index)
        self.version += 1
        self._put_mapper(request.mapper)
        self._put_counters()
        return True

    def _check_commit(self, request: CommitRequest) -> set[int]:
        """The indexes of the ranges that the attempt wrote to."""
        self._check_generation(request.generation)
        if request.attempt < CLIENT_ATTEMPTS and (
            request.attempt > self.attempts or request.mapper not in self.opened
        ):
            raise self._invalid(
                f"attempt {request.attempt} of mapper {request.mapper} was never opened; "
                "open one before it writes"
            )
        partitions = request.sums.partitions
        if len(partitions):
            self.check_partition(int(partitions[-1]))
        for index, epoch in request.acknowledged:
            if index >= len(self.ranges) or not any(
                p.assignment.epoch == epoch for p in self.placed[index]
            ):
                raise self._invalid(f"there is no epoch {epoch} of partition range {index}")
        acknowledged = {index for index, _ in request.acknowledged}
        written = set(np.unique(self._range_indexes(partitions)).tolist())
        if not written <= acknowledged:
            raise self._invalid(
                f"mapper {request.mapper} commits rows of partition range "
                f"{min(written - acknowledged)} that no daemon acknowledged"
            )
        return acknowledged

    # --- readers ---------------------------------------------------------------------------

    def await_commits(
        self,
        mappers: BitMap,
        partition: int,
        generation: int,
        daemons_of: Callable[[Placed], tuple[DaemonRef, ...]],
    ) -> CommitWait:
        """What a reader of `partition` is told; `generation` 0 means the current one.

        Raises PartitionOutOfRange, GenerationChanged or InvalidArgument.
        """
        self.check_partition(partition)
        if generation:
            self._check_generation(generation)
        missing = mappers - self.committed_mappers
        if missing:
            return CommitWait(None, missing)
        index = int(self._range_indexes(np.array([partition], dtype=np.uint32))[0])
        committed, attempts = self._committed_to(index)
        rows, raw_bytes, _, digest = self.sums[:, partition].tolist()
        snapshot = ReadSnapshot(
            version=self.version,
            generation=self.generation,
            build=self.placed[index][-1].assignment.build,
            mappers=committed,
            attempts=attempts,
            rows=rows,
            raw_bytes=raw_bytes,
            digest=digest,
            sources=tuple(
                Source(index, placed.assignment.epoch, daemons_of(placed))
                for placed in self.placed[index]
            ),
        )
        return CommitWait(snapshot)

    def assignment(self, range_index: int, epoch: int) -> Assignment | None:
        """The assignment (range, epoch), unless there is none or it is sealed."""
        if range_index < len(self.placed):
            for placed in self.placed[range_index]:
                if placed.assignment.epoch == epoch and not placed.assignment.sealed:
                    return placed.assignment
        return None

    def progress(self) -> ExchangeProgress:
        rows, raw_bytes, stored_bytes, _ = self.sums
        return ExchangeProgress(
            mappers_committed=len(self.committed),
            rows=int(rows.sum()),
            bytes_raw=int(raw_bytes.sum()),
            bytes_stored=int(stored_bytes.sum()),
            partition_rows=rows.copy(),
            partition_bytes=raw_bytes.copy(),
        )

    def status(self, *, closing: bool = False) -> ExchangeStatus:
        return ExchangeStatus(
            shuffle_id=self.spec.shuffle_id,
            number=self.number,
            partitions=self.spec.partitions,
            mappers_committed=len(self.committed),
            rows=int(self.sums[0].sum()),
            closing=closing,
        )

    def check_partition(self, partition: int) -> None:
        if not 0 <= partition < self.spec.partitions:
            raise PartitionOutOfRange(
                f"partition {partition} is out of range: exchange {shown(self.spec.shuffle_id)} "
                f"has partitions 0 to {self.spec.partitions - 1}",
                shuffle_id=self.spec.shuffle_id,
                partition=partition,
            )

    def _check_generation(self, generation: int) -> None:
        if 0 < generation < self.generation:
            raise GenerationChanged(
                f"exchange {shown(self.spec.shuffle_id)} is at generation {self.generation}, "
                f"not {generation}: it lost rows and began anew; begin anew as well",
                shuffle_id=self.spec.shuffle_id,
            )
        if generation != self.generation:
            raise self._invalid(f"there is no generation {generation} yet")

    def _invalid(self, reason: str) -> InvalidArgument:
        return InvalidArgument(
            f"exchange {shown(self.spec.shuffle_id)}: {reason}", shuffle_id=self.spec.shuffle_id
        )

    def _range_indexes(self, partitions: U32) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        found = np.searchsorted(self._firsts, partitions.astype(np.int64), side="right") - 1
        return np.asarray(found, dtype=np.intp)

    def _committed_to(self, index: int) -> tuple[U32, U64]:
        """Committed mappers of a range and their attempts; made once for all its readers."""
        arrays = self._committed_in.get(index)
        if arrays is None:
            mappers = np.array(self.writers[index].to_array(), dtype=np.uint32)
            attempts = np.fromiter(
                (self.committed[mapper] for mapper in self.writers[index]),
                dtype=np.uint64,
                count=len(mappers),
            )
            arrays = self._committed_in[index] = mappers, attempts
        return arrays

    def _lowest_unopened(self) -> int:
        # The lowest id has as many ids below it as are opened below it: bisect by rank.
        low, high = 0, MAX_MAPPER + 1
        while low < high:
            middle = (low + high) // 2
            if self.opened.rank(middle) == middle + 1:
                low = middle + 1
            else:
                high = middle
        return low

    def _set_committed(self, mapper: int, attempt: int) -> None:
        self.committed[mapper] = attempt
        self.committed_mappers.add(mapper)

    # --- the database ----------------------------------------------------------------------

    def put_all(self) -> None:
        """Name every row of an exchange that was just created."""
        self.put_exchange()
        self._put_counters()
        for part, epochs in zip(self.ranges, self.placed, strict=True):
            self._changes.put("ranges", (self.number, part.index), partial(range_row, part))
            for placed in epochs:
                self._changes.put(
                    "assignments",
                    (self.number, part.index, placed.assignment.epoch),
                    partial(placed_row, placed),
                )

    def put_exchange(self) -> None:
        self._changes.put(
            "exchanges",
            (self.number,),
            lambda: (
                *spec_row(self.spec), self.owner, self.generation, int(self.kind), self.schema,
            ),
        )  # fmt: skip

    def _put_counters(self) -> None:
        self._changes.put("counters", (self.number,), lambda: (self.attempts, self.version))

    def _put_mapper(self, mapper: int) -> None:
        def row() -> Row:
            attempt = self.committed.get(mapper)
            return (None if attempt is None else signed64(attempt),)

        self._changes.put("mappers", (self.number, mapper), row)

    def _put_sums(self, index: int) -> None:
        def row() -> Row:
            part = self.ranges[index]
            sums = self.sums[:, part.first : part.first + part.count]
            return sums.astype("<u8").tobytes(), self.writers[index].serialize()

        self._changes.put("sums", (self.number, index), row)

    def restore_counters(self, attempts: int, version: int) -> None:
        self.attempts, self.version = attempts, version

    def restore_mapper(self, mapper: int, attempt: int | None) -> None:
        self.opened.add(mapper)
        if attempt is not None:
            self._set_committed(mapper, attempt)

    def restore_sums(self, index: int, sums: bytes, writers: bytes) -> None:
        part = self.ranges[index]
        stored = np.frombuffer(sums, dtype="<u8").reshape(SUMS, part.count)
        self.sums[:, part.first : part.first + part.count] = stored
        self.writers[index] = BitMap.deserialize(writers)
