"""One open exchange: its attempts, commits and losses, and what readers are told of them.

The rules are in docs/architecture/failures.md, "Losses, builds, generations": this class applies
them to what `attempts`, `builds` and `losses` keep. A commit, or a report, is one change of all
three, and they name the rows of it before the call returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from pyroaring import BitMap

from cosco.errors import DataCorrupted, InvalidArgument, RecomputeMismatch, SchemaMismatch
from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.exchange.builds import Builds
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.metadata.state.exchange.exchange_checks import (
    Written,
    check_commit,
    check_generation,
    check_partition,
)
from cosco.metadata.state.exchange.losses import MAX_BUILDS, Losses, one_line
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed, spec_row
from cosco.protocol.api_limits import check_schema, shown
from cosco.protocol.records import (
    FIRST_OWN_ATTEMPT,
    Assignment,
    CommitRequest,
    CommitWait,
    DaemonRef,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    ExchangeStatus,
    LossCause,
    LossReport,
    OpenedAttempt,
    PartitionRange,
    ReadSnapshot,
    RowKind,
    Source,
)

#: The tables that have rows of an open exchange.
_TABLES: Final = (
    "exchanges", "counters", "ranges", "assignments", "sums", "mappers", "builds",
    "resent", "losses", "failures", "tries",
)  # fmt: skip


class ExchangeState:
    """An open exchange. Every change is named in `changes`; `cosco.metadata.store.sql` has the
    tables."""

    def __init__(
        self,
        number: int,
        spec: ExchangeSpec,
        owner: bytes,
        ranges: tuple[PartitionRange, ...],
        placed: Iterable[Iterable[Placed]],
        changes: ChangeLog,
        *,
        callback: bool,
    ) -> None:
        """`placed` holds every epoch of each range, ascending, the current one last.

        `callback`: the driver can have mappers run again.
        """
        self.number = number
        self.spec = spec
        self.owner = owner
        self.ranges = ranges
        self.kind = RowKind.ARROW if spec.schema else RowKind.UNDECIDED
        self.schema = spec.schema
        self.version = 1
        #: Mappers that it has, of a group; 0: it is of none, and they are not known beforehand.
        self.mappers = 0
        self.attempts = Attempts(number, changes)
        self.builds = Builds(number, spec.partitions, ranges, changes)
        self.losses = Losses(number, changes, callback=callback)
        self._epochs = Epochs(number, placed, changes)
        self._changes = changes
        self._info: ExchangeInfo | None = None

    def join_group(self, mappers: int) -> None:
        """Belong to a group, whose exchanges have `mappers` each and their kind of rows at once."""
        self.mappers = self.attempts.mappers = mappers
        self.attempts.own_ids = True
        if self.kind is RowKind.UNDECIDED:
            self.kind = RowKind.BYTES

    @property
    def placed(self) -> list[list[Placed]]:
        """Return every epoch of each range, ascending, the current one last."""
        return self._epochs.placed

    @property
    def generation(self) -> int:
        return self.attempts.generation

    def info(self) -> ExchangeInfo:
        """Return what clients are told: the same object until something of it changes."""
        if self._info is None:
            self._info = ExchangeInfo(
                number=self.number,
                spec=self.spec,
                generation=self.generation,
                kind=self.kind,
                schema=self.schema,
                ranges=self.ranges,
                assignments=self._epochs.current(),
            )
        return self._info

    # --- drivers ---------------------------------------------------------------------------

    def take_over(self, owner: bytes, callback: bool) -> None:
        """Make `owner` the driver whose polls count; it is told of every loss anew."""
        if (owner, callback) != (self.owner, self.losses.callback):
            self.owner = owner
            self.losses.take_over(callback=callback)
            self.put_exchange()

    def check_driver(self, owner: bytes) -> None:
        """Raise InvalidArgument unless `owner` is the current driver."""
        if owner != self.owner:
            raise InvalidArgument(
                f"exchange {shown(self.spec.shuffle_id)} has another driver: one attached to it "
                "with own=True; stop polling here",
                shuffle_id=self.spec.shuffle_id,
            )

    # --- epochs ----------------------------------------------------------------------------

    def build(self, index: int) -> int:
        """Return the present build of a range; its current epoch may still be of one that ended."""
        return int(self.builds.present[index])

    def current(self, index: int) -> Assignment:
        """Return the last epoch of a range, sealed or not."""
        return self.placed[index][-1].assignment

    def seal(self, index: int) -> None:
        """Mark the current epoch of a range as sealed; harmless if it is."""
        if self._epochs.seal(index):
            self._info = None
            self._next_version()

    def begin_epoch(
        self, index: int, primary: DaemonRef, replicas: tuple[DaemonRef, ...], store_id: str
    ) -> Assignment:
        """Begin the next epoch of a range, in its present build."""
        epoch = self.current(index).epoch + 1
        assignment = Assignment(index, epoch, self.build(index), primary, replicas)
        self._epochs.begin(Placed(assignment, store_id))
        self._info = None
        self._next_version()
        return assignment

    def assignment(self, range_index: int, epoch: int) -> Assignment | None:
        """Return the assignment (range, epoch), unless there is none or it is sealed."""
        placed = self._epochs.find(range_index, epoch)
        return None if placed is None or placed.assignment.sealed else placed.assignment

    # --- writers ---------------------------------------------------------------------------

    def open_attempt(self, mapper: int | None) -> OpenedAttempt:
        """Begin an attempt of `mapper`, or of the lowest one that was never opened."""
        mapper, attempt = self.attempts.open(mapper)
        self.put_counters()
        self.losses.try_again(mapper, attempt)
        lost = self.losses.ranges_of(mapper)
        return OpenedAttempt(self.info(), mapper, attempt, bool(lost), lost)

    def fix_row_kind(self, kind: RowKind, schema: bytes) -> None:
        """Decide what the rows are, once; schemas are compared byte for byte.

        Raises SchemaMismatch when it was decided otherwise.
        """
        check_schema(schema)
        if self.kind is RowKind.UNDECIDED:
            self.kind, self.schema = kind, schema
            self._info = None
            self.put_exchange()
        elif (kind, schema) != (self.kind, self.schema):
            difference = "Arrow rows of another schema"
            if kind is not self.kind:
                difference = f"{self.kind.name} rows, not {kind.name} rows"
            raise SchemaMismatch(
                f"exchange {shown(self.spec.shuffle_id)} carries {difference}; write all its rows "
                "with the schema it was created with, or that of its first writer",
                shuffle_id=self.spec.shuffle_id,
            )

    def commit(self, request: CommitRequest) -> bool:
        """Count a commit, if it is the first of its mapper, or brings back what was lost.

        That is a commit for ranges its mapper was called back for, if all that it sent them is
        in their present build.

        Returns: whether it counts.

        Raises InvalidArgument, PartitionOutOfRange or GenerationChanged for a commit that
        cannot be of this exchange.
        """
        written = check_commit(request, self.spec, self.attempts, self._epochs, self.builds)
        winner = self.attempts.committed.get(request.mapper)
        if winner is None:
            self._count_first(request, written)
            return True
        return winner == request.attempt or self._count_again(request, written)

    def _count_first(self, request: CommitRequest, written: Written) -> None:
        mapper = request.mapper
        self.attempts.commit(mapper, request.attempt)
        self.builds.count(mapper, request.sums, written.present, whole=not written.lost)
        for index in sorted(written.lost):
            if not self.losses.condemned(index):
                self.builds.expect(index, request.sums)
                self.losses.join(
                    index, mapper, f"mapper {mapper} wrote to {self._shown(index)} before a loss"
                )
        self.losses.repair(None, mapper)
        self._next_version()

    def _count_again(self, request: CommitRequest, written: Written) -> bool:
        mapper, attempt = request.mapper, request.attempt
        counted = False
        for index in self.losses.ranges_of(mapper):
            covered = not request.partial or index in request.ranges
            if covered and index not in written.lost:  # it may have no rows for the range
                counted = True
                self.builds.recount(index, mapper, attempt, request.sums)
                if self.losses.repair(index, mapper):
                    self._check_regained(index)
            elif covered and (request.partial or request.attempt >= FIRST_OWN_ATTEMPT):
                # A re-run by a group's writer, which is told of no ranges, may be of all.
                self.losses.in_vain(index, mapper, attempt)
                self.put_counters()
        if counted:
            self._next_version()
        return counted or self.builds.was_recounted(mapper, attempt)

    def _check_regained(self, index: int) -> None:
        difference = self.builds.regained(index, with_bytes=self.kind is RowKind.BYTES)
        if difference:
            reason = f"mappers ran again and sent other rows: {difference}"
            self.losses.condemn(index, RecomputeMismatch, reason)

    # --- readers ---------------------------------------------------------------------------

    def await_commits(
        self,
        mappers: BitMap,
        partition: int,
        generation: int,
        daemons_of: Callable[[Placed], tuple[DaemonRef, ...]],
    ) -> CommitWait:
        """Return what a reader of `partition` is told; `generation` 0 means the current one.

        Raises PartitionOutOfRange, GenerationChanged or InvalidArgument; DataLost if a
        named mapper must run again and nobody has it run, DataCorrupted or
        RecomputeMismatch for a partition whose range has failed for good.
        """
        check_partition(self.spec, partition)
        if generation:
            check_generation(self.spec, generation, self.generation)
        index = self.builds.index_of(partition)
        self.losses.check_readable(index, mappers, partition, self.spec.shuffle_id)
        lost = mappers & (self.losses.pending(index) | self.losses.pending(None))
        missing = (mappers - self.attempts.committed_mappers) | lost
        if missing:
            return CommitWait(None, missing, recompute=bool(lost))
        build = self.build(index)
        committed, attempts = self.builds.attempts(index, self.attempts)
        rows, raw_bytes, _, digest = self.builds.sums[:, partition].tolist()
        sources = tuple(
            Source(index, p.assignment.epoch, daemons_of(p), p.assignment.sealed)
            for p in self._epochs.of_build(index, build)
        )
        return CommitWait(
            ReadSnapshot(
                version=self.version,
                generation=self.generation,
                build=build,
                mappers=committed,
                attempts=attempts,
                rows=rows,
                raw_bytes=raw_bytes,
                digest=digest,
                sources=sources,
            )
        )

    def report_loss(self, report: LossReport) -> list[int]:
        """End the build that is named, or with deterministic=False the generation.

        Returns the ranges whose build ended: their epochs are to be sealed and followed by
        others. None for a report of what is not the present build, and for a range that
        has failed for good, by this report or before. Raises PartitionOutOfRange.
        """
        check_partition(self.spec, report.partition)
        index = self.builds.index_of(report.partition)
        if (report.generation, report.build) != (self.generation, self.build(index)):
            return []
        if self.losses.condemned(index) or not self.builds.writers(index):
            return []
        reason = f"{self._shown(index)} lost rows: {one_line(report.reason)}"
        failure = f"it was built {MAX_BUILDS} times anew" if self.build(index) > MAX_BUILDS else ""
        if failure and report.cause is LossCause.MISSING:
            self.losses.condemn(index, DataCorrupted, f"{reason}; {failure}")
            return []
        if self.spec.deterministic:
            ended = [index]
            self.losses.begin(index, self.builds.end(index), reason, failure)
        else:
            ended = list(range(len(self.ranges)))
            self.attempts.begin_generation()
            self._info = None
            self.builds.begin_generation()
            reason += f"; generation {self.generation} begins, finished reducers must run again"
            self.losses.begin(None, self.attempts.opened, reason, failure)
            self.put_exchange()
        self._next_version()
        return ended

    # --- people ----------------------------------------------------------------------------

    def progress(self, replicas: int) -> ExchangeProgress:
        """Return how far it is; rows get `replicas` copies now, where they get fewest."""
        return self.builds.progress(len(self.attempts.committed), replicas)

    def status(self, *, closing: bool = False) -> ExchangeStatus:
        return ExchangeStatus(
            shuffle_id=self.spec.shuffle_id,
            number=self.number,
            partitions=self.spec.partitions,
            mappers_committed=len(self.attempts.committed),
            rows=int(self.builds.sums[0].sum()),
            closing=closing,
        )

    # --- inside ----------------------------------------------------------------------------

    def _shown(self, index: int) -> str:
        lost = self.ranges[index]
        return f"partition range {index} (partitions {lost.first} to {lost.end - 1})"

    # --- the database ----------------------------------------------------------------------

    def put_all(self) -> None:
        """Name every row of an exchange that was just created."""
        self.put_exchange()
        self.put_counters()
        self._epochs.put_all()
        for one in self.ranges:
            row = one.first, one.count
            self._changes.put("ranges", (self.number, one.index), partial(tuple, row))

    def delete_all(self) -> None:
        """Delete every row of it."""
        for table in _TABLES:
            self._changes.delete(table, (self.number,))

    def put_exchange(self) -> None:
        self._changes.put(
            "exchanges",
            (self.number,),
            lambda: (
                *spec_row(self.spec), self.owner, self.losses.callback, self.generation,
                int(self.kind), self.schema,
            ),
        )  # fmt: skip

    def put_counters(self) -> None:
        self._changes.put(
            "counters",
            (self.number,),
            lambda: (self.attempts.highest, self.version, self.losses.highest),
        )

    def restore(self, generation: int, kind: int, schema: bytes) -> None:
        """Take back what the row of an exchange keeps beside what it was made with."""
        self.attempts.generation = generation
        self.kind = RowKind(kind)
        self.schema = schema

    def restore_counters(self, attempts: int, version: int, losses: int) -> None:
        """Take back what was given last, so that nothing is given twice."""
        self.attempts.highest = attempts
        self.version = version
        self.losses.highest = losses

    def _next_version(self) -> None:
        self.version += 1
        self.put_counters()
