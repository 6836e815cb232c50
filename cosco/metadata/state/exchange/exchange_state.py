"""One open exchange: its attempts, commits and losses, and what readers are told of them.

The rules are in docs/architecture/failures.md, "Losses, builds, generations": this class applies
them to what `attempts`, `builds` and `losses` keep. A commit, or a report, is one change of all
three, and they name the rows of it before the call returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from pyroaring import BitMap

from cosco.errors import DataCorrupted, RecomputeMismatch
from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.exchange.builds import Builds, Resent
from cosco.metadata.state.exchange.commit_digest import commit_digest
from cosco.metadata.state.exchange.dropped_builds import DroppedBuilds
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.metadata.state.exchange.exchange_checks import (
    Written,
    check_commit,
    check_driver,
    check_partition,
    contradiction,
    mismatch,
)
from cosco.metadata.state.exchange.exchange_events import (
    ExchangeEvents,
    of_exchange,
    shown_ranges,
)
from cosco.metadata.state.exchange.losses import MAX_BUILDS, Losses, one_line
from cosco.metadata.state.exchange.reader_answers import DaemonsOf, ReaderAnswers
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed, spec_row
from cosco.protocol.api_limits import check_schema
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import (
    FIRST_OWN_ATTEMPT,
    U32,
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
    RangesWait,
    RowKind,
)

#: The tables that have rows of an open exchange.
_TABLES: Final = (
    "exchanges", "counters", "ranges", "assignments", "sums", "mappers", "builds",
    "resent", "losses", "pending", "failures", "tries", "dropped_builds",
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
        attempt_secret: bytes = b"",
    ) -> None:
        """`placed` holds every epoch of each range, ascending, the current one last.

        `callback`: the driver can have mappers run again. attempt_secret: see `Attempts`.
        """
        self.number = number
        self.spec = spec
        self.owner = owner
        #: Whose it is, what lets who has it use it, and when it was made by the Unix clock.
        self.tenant, self.capability, self.created_s = "", "", 0.0
        self.ranges = ranges
        self.kind = RowKind.ARROW if spec.schema else RowKind.UNDECIDED
        self.schema = spec.schema
        self.version = 1
        #: Mappers that it has, of a group; 0: it is of none, and they are not known beforehand.
        self.mappers = 0
        self.attempts = Attempts(number, changes, spec.mappers, attempt_secret)
        self.builds = Builds(number, spec.partitions, ranges, changes)
        self.losses = Losses(number, changes, callback=callback, shuffle_id=spec.shuffle_id)
        self._epochs = Epochs(number, placed, changes)
        self.dropped = DroppedBuilds(
            number, spec.shuffle_id, self.builds, self.losses, self._epochs, changes
        )
        self._readers = ReaderAnswers(spec, self.attempts, self.builds, self.losses, self._epochs)
        self._events = ExchangeEvents(spec, number, changes.tell)
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
                capability=self.capability,
            )
        return self._info

    def set_capability(self, capability: str) -> None:
        """Have clients told of this one from now on."""
        self.capability, self._info = capability, None

    def event(self, kind: EventKind, cause: str | None = None) -> Event:
        """Return what operators are told of the whole of it."""
        return of_exchange(kind, self.spec, self.status(), self.generation, cause)

    # --- drivers ---------------------------------------------------------------------------

    def take_over(self, owner: bytes, callback: bool) -> None:
        """Make `owner` the driver whose polls count; it is told of every loss anew."""
        if (owner, callback) != (self.owner, self.losses.callback):
            self.owner = owner
            self._changes.tell(self.event(EventKind.EXCHANGE_TAKEN_OVER))
            self.losses.take_over(callback=callback)
            self.put_exchange()

    def check_driver(self, owner: bytes) -> None:
        """Raise InvalidArgument unless `owner` is the current driver."""
        check_driver(self.spec, self.owner, owner)

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

    def fix_row_kind(self, kind: RowKind, schema: bytes, seen: bytes | None = None) -> None:
        """Decide what the rows are, once; schemas are compared byte for byte.

        seen: the schema that the caller knows; a column of it had no type, and has one in `schema`,
        which takes its place. If another caller was faster nothing changes, and this one sees in
        `info` what became of it. None: the caller knows of nothing but what it writes.

        Raises SchemaMismatch when it was decided otherwise, and `seen` is None or it is a group's.
        """
        check_schema(schema)
        if self.kind is RowKind.UNDECIDED:
            self._decide(kind, schema)
        elif (kind, schema) == (self.kind, self.schema):
            pass  # a call that was repeated
        elif seen is not None and not self.mappers:
            if kind is self.kind and seen == self.schema:
                self._decide(kind, schema)
        else:
            raise mismatch(self.spec, self.kind, kind)

    def commit(self, request: CommitRequest) -> bool:
        """Count a commit, if it is the first of its mapper, or brings back what was lost.

        That is a commit for ranges its mapper was called back for, if all that it sent them is
        in their present build.

        Returns: whether it counts.

        Raises InvalidArgument, PartitionOutOfRange or GenerationChanged for a commit that
        cannot be of this exchange; DataCorrupted once an attempt of the mapper that counts has
        said two different things, unless this commit brings back what was lost.
        """
        written = check_commit(request, self.spec, self.attempts, self._epochs, self.builds)
        mapper, attempt = request.mapper, request.attempt
        digest = commit_digest(request)
        if mapper not in self.attempts.committed:
            self._count_first(request, written, digest)
            return True
        said = self.attempts.digest(mapper, attempt) or self.builds.digest(mapper, attempt)
        if said is None and self._count_again(request, written, digest):
            return True
        if said is not None and said != digest and self.attempts.contradict(mapper):
            self.losses.news += 1
            self._events.contradicted(mapper)
        if mapper in self.attempts.contradicted:
            raise contradiction(self.spec, mapper)
        return said is not None

    def _count_first(self, request: CommitRequest, written: Written, digest: bytes) -> None:
        mapper = request.mapper
        self.attempts.commit(mapper, request.attempt, digest)
        self._epochs.note_written(request.acknowledged, written.with_rows)
        self.builds.count(mapper, request.sums, written.present, whole=not written.lost)
        if self.losses.repair([None], mapper):
            self._events.rebuilt(None, 0)
        lost = [i for i in sorted(written.lost) if i not in self.losses.verdicts]
        for index in lost:
            self.builds.expect(index, request.sums)
            self._events.lost(index, self.build(index), 1, "late commit")
        if lost:
            reason = f"mapper {mapper} wrote to {self._shown(lost)} before a loss"
            self.losses.join(lost, mapper, reason)
        self._next_version()

    def _count_again(self, request: CommitRequest, written: Written, digest: bytes) -> bool:
        mapper, attempt = request.mapper, request.attempt
        again: list[int] = []
        in_vain = False
        for index in self.losses.ranges_of(mapper):
            covered = not request.partial or index in request.ranges
            if covered and index not in written.lost:  # it may have no rows for the range
                again.append(index)
            # A re-run by a group's writer, which is told of no ranges, may be of all.
            elif covered and (request.partial or attempt >= FIRST_OWN_ATTEMPT):
                in_vain = True
        if in_vain:
            self.losses.in_vain(mapper, attempt)
            self.put_counters()
        for index in again:
            self.builds.recount(index, mapper, Resent(attempt, digest), request.sums)
        for complete in self.losses.repair(again, mapper):
            assert complete is not None  # as none of them was for a generation
            self._check_regained(complete)
        if again:
            self._epochs.note_written(request.acknowledged, written.with_rows)
            self._next_version()
        return bool(again)

    def _check_regained(self, index: int) -> None:
        difference = self.builds.regained(index, with_bytes=self.kind is RowKind.BYTES)
        if difference:
            reason = f"mappers ran again and sent other rows: {difference}"
            self.losses.condemn(index, RecomputeMismatch, reason)
        else:
            self._events.rebuilt(index, self.build(index))

    def _decide(self, kind: RowKind, schema: bytes) -> None:
        self.kind, self.schema = kind, schema
        self._info = None
        self.put_exchange()

    # --- readers ---------------------------------------------------------------------------

    def await_commits(
        self, mappers: BitMap, partition: int, generation: int, daemons_of: DaemonsOf
    ) -> CommitWait:
        """Return what a reader of `partition` is told; `generation` 0 means the current one.

        Raises PartitionOutOfRange, GenerationChanged or InvalidArgument; DataLost if a
        named mapper must run again and nobody has it run, DataCorrupted or
        RecomputeMismatch for a partition whose range has failed for good, DataCorrupted for a
        named mapper of which an attempt said two different things.
        """
        return self._readers.one(mappers, partition, generation, self.version, daemons_of)

    def await_ranges(
        self, mappers: BitMap, partitions: U32, generation: int, daemons_of: DaemonsOf
    ) -> RangesWait:
        """Return what a reader of several partitions, which ascend, is told.

        A range that has failed is among those that wait, so that the others can be read. Raises
        what `await_commits` does, for the first range that has failed only if none is ready.
        """
        return self._readers.several(mappers, partitions, generation, self.version, daemons_of)

    def reported(self, report: LossReport) -> int | None:
        """Return the range whose build a report ends, which `lose` must follow for.

        None for a report of what is not the present build, and for a range that has failed for
        good, by this report or before. Raises PartitionOutOfRange.
        """
        check_partition(self.spec, report.partition)
        index = self.builds.index_of(report.partition)
        if (report.generation, report.build) != (self.generation, self.build(index)):
            return None
        if index in self.losses.verdicts or not self.builds.writers(index):
            return None
        failure = self._failure(index)
        if failure and report.cause is LossCause.MISSING:
            reason = f"{self._shown([index])} lost rows: {one_line(report.reason)}; {failure}"
            self.losses.condemn(index, DataCorrupted, reason)
            return None
        return index

    def lose(self, indexes: list[int], why: str, cause: str) -> list[int]:
        """End the builds of ranges whose rows are gone, or with deterministic=False the generation.

        It is one event: whoever wrote to any of them is called back once. `cause`: for operators.

        Returns: the ranges whose build ended: their epochs are to be sealed and followed by others.
        """
        if not indexes:
            return []
        if self.spec.deterministic:
            reason = f"{self._shown(indexes)} lost rows: {why}"
            failures = {i: failure for i in indexes if (failure := self._failure(i))}
            lost = {}
            for index in indexes:
                build, lost[index] = self.build(index), self.builds.end(index)
                self._events.lost(index, build, len(lost[index]), cause, reason)
            self.losses.begin(lost, reason, failures)
        else:
            self._begin_generation(indexes, why, cause)
            indexes = list(range(len(self.ranges)))
        self._next_version()
        return indexes

    def _begin_generation(self, lost: list[int], why: str, cause: str) -> None:
        build, failure = self.build(lost[0]), next(filter(None, map(self._failure, lost)), "")
        self.attempts.begin_generation()
        self._info = None
        self.builds.begin_generation()
        reason = (
            f"{self._shown(lost)} lost rows: {why}; generation {self.generation} begins, "
            "finished reducers must run again"
        )
        opened = self.attempts.opened
        self._events.lost(lost[0], build, len(opened), cause, reason)
        self._changes.tell(self.event(EventKind.GENERATION_BEGAN, "rows lost"))
        self.losses.begin_generation(opened, reason, failure)
        self.put_exchange()

    def written(self, index: int) -> list[Placed]:
        """Return the epochs of the present build of a range that have committed rows; none for a
        range that has failed for good."""
        if index in self.losses.verdicts:
            return []
        epochs = self._epochs.of_build(index, self.build(index))
        return [placed for placed in epochs if placed.written]

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

    def _failure(self, index: int) -> str:
        return f"it was built {MAX_BUILDS} times anew" if self.build(index) > MAX_BUILDS else ""

    def _shown(self, indexes: list[int]) -> str:
        return shown_ranges([self.ranges[index] for index in indexes])

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
            "exchanges", (self.number,), lambda: (
                *spec_row(self.spec), self.owner, self.losses.callback, self.generation,
                int(self.kind), self.schema, self.spec.direct_reads, self.tenant, self.created_s,
                self.spec.trace,
            ),
        )  # fmt: skip

    def put_counters(self) -> None:
        self._changes.put(
            "counters",
            (self.number,),
            lambda: (self.attempts.count, self.version, self.losses.highest, self.attempts.plain),
        )

    def restore(self, generation: int, kind: int, schema: bytes) -> None:
        """Take back what the row of an exchange keeps beside what it was made with."""
        self.attempts.generation = generation
        self.kind = RowKind(kind)
        self.schema = schema

    def restore_counters(self, attempts: int, version: int, losses: int, plain: int) -> None:
        """Take back what was given last, so that nothing is given twice."""
        self.attempts.count, self.attempts.plain = attempts, plain
        self.version = version
        self.losses.highest = losses

    def _next_version(self) -> None:
        self.version += 1
        self.put_counters()
