"""What is counted of each partition range in its present build.

Nothing is kept per (mapper, partition) pair: a range has the set of mappers that wrote to
it, a partition its sums. Only of mappers whose rows were lost and sent again a range keeps
the attempt that did, as it is not the one that committed first.

A build that ends takes its sums with it; the totals they had are kept as *expected*. What
called-back mappers send again is summed up as *regained*, beside being counted like any
other commit, and must be the same in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.records import (
    U32,
    U64,
    AttemptSums,
    ExchangeProgress,
    PartitionRange,
    ReadSnapshot,
    Source,
)

#: Rows of the sums of an exchange: rows, raw bytes, stored bytes, digests.
SUMS: Final = 4
#: The first rows of them, which another attempt must give again: rows and raw bytes.
TOTALS: Final = 2


class Resent(NamedTuple):
    """The attempt that sent a mapper's rows again, and the digest of what its commit said."""

    attempt: int
    digest: bytes


@dataclass(slots=True)
class RangeBuild:
    """One range. `expected` and `regained` are TOTALS × partitions, None while equal."""

    partition_range: PartitionRange
    #: The mappers that wrote to it and are counted, but those in `Builds._wrote_to_all`.
    writers: BitMap = field(default_factory=BitMap)
    #: mapper → what is counted instead of its committed attempt
    resent: dict[int, Resent] = field(default_factory=dict)
    expected: U64 | None = None
    regained: U64 | None = None
    #: What readers of any of its partitions are told of its writers; made when asked for, and
    #: not if all mappers are.
    attempts: tuple[U32, U64] | None = None


class Builds:
    """The ranges of an exchange and the sums of its partitions; changed rows are named."""

    def __init__(
        self, number: int, partitions: int, ranges: Iterable[PartitionRange], changes: ChangeLog
    ) -> None:
        self._number = number
        self._changes = changes
        self._ranges = [RangeBuild(partition_range) for partition_range in ranges]
        #: By range: its present build.
        self.present: U32 = np.ones(len(self._ranges), dtype=np.uint32)
        #: Where each range begins, and the last one ends.
        self._bounds: U32 = np.array(
            [*(r.partition_range.first for r in self._ranges), partitions], dtype=np.uint32
        )
        #: By partition: SUMS × partitions.
        self.sums: U64 = np.zeros((SUMS, partitions), dtype=np.uint64)
        #: Mappers that wrote to every range, and are in the set of none yet: most mappers do,
        #: and so a commit costs the same however many ranges there are.
        self._wrote_to_all = BitMap()
        #: By range: the key of its row of sums, and what renders it.
        self._sums_rows: dict[Row, Callable[[], Row]] = {
            (number, index): partial(self._sums_row, index) for index in range(len(self._ranges))
        }

    def writers(self, index: int) -> BitMap:
        """Return the mappers that wrote to a range, and are counted."""
        self._note_writers()
        return self._ranges[index].writers

    def index_of(self, partition: int) -> int:
        """Return the range that has `partition`."""
        return int(np.searchsorted(self._bounds, partition, side="right")) - 1

    def indexes_of(self, partitions: U32) -> npt.NDArray[np.int64]:
        """Return the range of each of `partitions`."""
        found: npt.NDArray[np.int64] = np.searchsorted(self._bounds, partitions, side="right") - 1
        return found

    def written(self, partitions: U32) -> npt.NDArray[np.bool_]:
        """Return, by range, whether it has any of `partitions`, which ascend."""
        bounds = np.searchsorted(partitions, self._bounds)
        return bounds[1:] > bounds[:-1]

    def attempts(self, index: int, committed: Attempts) -> tuple[U32, U64]:
        """Return the mappers that are counted in a range, ascending, and the attempt of each.

        Only to be read: ranges that all mappers wrote to have the same arrays.
        """
        writers = self.writers(index)
        build = self._ranges[index]
        if not build.resent and writers == committed.committed_mappers:
            return committed.table()
        if build.attempts is None:
            mappers = np.array(writers.to_array(), dtype=np.uint32)
            everyone, theirs = committed.table()
            attempts = theirs[np.searchsorted(everyone, mappers)]
            for mapper, resent in build.resent.items():
                attempts[np.searchsorted(mappers, mapper)] = resent.attempt
            build.attempts = mappers, attempts
        return build.attempts

    def snapshot(
        self, partition: int, committed: Attempts, version: int, sources: tuple[Source, ...]
    ) -> ReadSnapshot:
        """Return what readers of a partition are told of its committed rows."""
        index = self.index_of(partition)
        mappers, attempts = self.attempts(index, committed)
        rows, raw_bytes, _, digest = self.sums[:, partition].tolist()
        return ReadSnapshot(
            version=version,
            generation=committed.generation,
            build=int(self.present[index]),
            mappers=mappers,
            attempts=attempts,
            rows=rows,
            raw_bytes=raw_bytes,
            digest=digest,
            sources=sources,
        )

    def progress(self, mappers_committed: int, replicas: int) -> ExchangeProgress:
        """Return what is counted, in all and by partition."""
        rows, raw_bytes, stored_bytes, _ = self.sums
        return ExchangeProgress(
            mappers_committed=mappers_committed,
            rows=int(rows.sum()),
            bytes_raw=int(raw_bytes.sum()),
            bytes_stored=int(stored_bytes.sum()),
            partition_rows=rows.copy(),
            partition_bytes=raw_bytes.copy(),
            replicas=replicas,
        )

    # --- commits ---------------------------------------------------------------------------

    def count(
        self, mapper: int, sums: AttemptSums, ranges: Collection[int], *, whole: bool
    ) -> None:
        """Count what a mapper wrote to `ranges`; `whole`: it wrote to no others."""
        for chosen in (sums,) if whole else (self._cut(index, sums) for index in ranges):
            self._add(chosen)
        if len(ranges) == len(self._ranges):
            self._wrote_to_all.add(mapper)
            self._changes.put_all("sums", self._number, self._sums_rows)
            return
        for index in ranges:
            build = self._ranges[index]
            build.writers.add(mapper)
            build.attempts = None
            self._put_sums(index)

    def expect(self, index: int, sums: AttemptSums) -> None:
        """Expect rows from another attempt: a commit names them, and they are lost already."""
        build = self._ranges[index]
        if build.expected is None or build.regained is None:
            build.expected, build.regained = self._zeros(index), self._zeros(index)
        self._add_totals(index, build.expected, sums)
        self._put_build(index)

    def recount(self, index: int, mapper: int, resent: Resent, sums: AttemptSums) -> None:
        """Count another attempt of a called-back mapper in a range."""
        build = self._ranges[index]
        assert build.regained is not None
        self._add_totals(index, build.regained, sums)
        build.resent[mapper] = resent
        self._changes.put("resent", (self._number, index, mapper), lambda: resent)
        self.count(mapper, sums, {index}, whole=False)
        self._put_build(index)

    def digest(self, mapper: int, attempt: int) -> bytes | None:
        """Return the digest of what an attempt said that is counted in some range instead of the
        committed one; None: it is in none."""
        for build in self._ranges:
            resent = build.resent.get(mapper)
            if resent is not None and resent.attempt == attempt:
                return resent.digest
        return None

    # --- builds ----------------------------------------------------------------------------

    def end(self, index: int) -> BitMap:
        """End the build of a range.

        Returns: the mappers whose rows went with it.
        """
        build = self._ranges[index]
        totals = self.sums[:TOTALS, build.partition_range.span]
        if build.expected is None or build.regained is None:
            build.expected = totals.copy()
        else:  # those that were called back are in it; add those that committed since
            build.expected += totals - build.regained
        build.regained = self._zeros(index)
        writers = self.writers(index)
        self._begin(index)
        return writers

    def begin_generation(self) -> None:
        """End the builds of all ranges; nothing of them is expected again."""
        for index in range(len(self._ranges)):
            self._begin(index)

    def regained(self, index: int, *, with_bytes: bool) -> str:
        """Compare what was lost with what was sent again, once that is all.

        Returns: how it differs, empty if it does not.

        Raw bytes are compared `with_bytes`. Expected and regained totals are forgotten.
        """
        build = self._ranges[index]
        assert build.expected is not None
        assert build.regained is not None
        totals = TOTALS if with_bytes else 1
        differs = (build.expected[:totals] != build.regained[:totals]).any(axis=0)
        difference = ""
        if differs.any():
            at = int(np.argmax(differs))
            before, after = build.expected[:, at], build.regained[:, at]
            difference = (
                f"partition {build.partition_range.first + at} had {before[0]} rows "
                f"({before[1]} bytes) of them before, and {after[0]} rows ({after[1]} bytes) now"
            )
        build.expected = build.regained = None
        self._put_build(index)
        return difference

    def _begin(self, index: int) -> None:
        self._note_writers()
        build = self._ranges[index]
        self.present[index] += 1
        build.writers = BitMap()
        build.attempts = None
        self.sums[:, build.partition_range.span] = 0
        if build.resent:
            build.resent = {}
            self._changes.delete("resent", (self._number, index))
        self._put_build(index)
        self._put_sums(index)

    def _note_writers(self) -> None:
        """Have every range know the mappers that wrote to all of them."""
        if self._wrote_to_all:
            for build in self._ranges:
                build.writers |= self._wrote_to_all
                build.attempts = None
            self._wrote_to_all = BitMap()

    def _add(self, sums: AttemptSums) -> None:
        """Add up sums, modulo 2^64."""
        partitions = sums.partitions
        if not len(partitions):
            return
        arrays = (sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests)
        first, last = int(partitions[0]), int(partitions[-1])
        if last - first + 1 == len(partitions):  # none is left out: many times as fast
            for totals, added in zip(self.sums[:, first : last + 1], arrays, strict=True):
                np.add(totals, added, out=totals)
        else:
            for totals, added in zip(self.sums, arrays, strict=True):
                totals[partitions] += added  # they are distinct

    def _cut(self, index: int, sums: AttemptSums) -> AttemptSums:
        """Return what of `sums` is of a range."""
        low, high = np.searchsorted(sums.partitions, self._bounds[index : index + 2])
        return AttemptSums(*(getattr(sums, field.name)[low:high] for field in fields(sums)))

    def _add_totals(self, index: int, totals: U64, sums: AttemptSums) -> None:
        chosen = self._cut(index, sums)
        at = chosen.partitions.astype(np.int64) - self._bounds[index]
        totals[0, at] += chosen.rows
        totals[1, at] += chosen.raw_bytes

    def _zeros(self, index: int) -> U64:
        return np.zeros((TOTALS, self._ranges[index].partition_range.count), dtype=np.uint64)

    # --- the database ----------------------------------------------------------------------

    def _put_sums(self, index: int) -> None:
        key = self._number, index
        self._changes.put("sums", key, self._sums_rows[key])

    def _sums_row(self, index: int) -> Row:
        sums = self.sums[:, self._ranges[index].partition_range.span]
        writers = self.writers(index)
        # Mappers commit more or less in order: runs of them take next to nothing.
        writers.run_optimize()
        return sums.astype("<u8", copy=False).tobytes(), writers.serialize()

    def _put_build(self, index: int) -> None:
        self._changes.put("builds", (self._number, index), partial(self._build_row, index))

    def _build_row(self, index: int) -> Row:
        build = self._ranges[index]
        totals = (build.expected, build.regained)
        rendered = (b"" if t is None else t.astype("<u8").tobytes() for t in totals)
        return int(self.present[index]), *rendered

    def restore_sums(self, index: int, sums: bytes, writers: bytes) -> None:
        stored = np.frombuffer(sums, dtype="<u8").reshape(SUMS, -1)
        self.sums[:, self._ranges[index].partition_range.span] = stored
        self._ranges[index].writers = BitMap.deserialize(writers)

    def restore_build(self, index: int, present: int, expected: bytes, regained: bytes) -> None:
        """Take back a build; totals are empty when nothing is expected again."""
        build = self._ranges[index]
        self.present[index] = present
        if expected:
            build.expected, build.regained = (
                np.frombuffer(totals, dtype="<u8").reshape(TOTALS, -1).copy()
                for totals in (expected, regained)
            )

    def restore_resent(self, index: int, mapper: int, attempt: int, digest: bytes) -> None:
        self._ranges[index].resent[mapper] = Resent(attempt, digest)
