"""What readers of an exchange are told: what is committed of partitions, or who is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from pyroaring import BitMap

from cosco.errors import CoscoError, DataCorrupted, DataLost, InvalidArgument, RecomputeMismatch
from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.exchange.builds import Builds
from cosco.metadata.state.exchange.epochs import Epochs
from cosco.metadata.state.exchange.exchange_checks import (
    check_generation,
    check_partition,
    contradiction,
)
from cosco.metadata.state.exchange.losses import Losses
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import (
    U32,
    CommitWait,
    DaemonRef,
    ExchangeSpec,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    Source,
)

#: Ranges that one answer has; others are asked for again. So no call takes long.
MAX_RANGES: Final = 256

#: Who serves what an assignment took.
DaemonsOf = Callable[[Placed], tuple[DaemonRef, ...]]


class ReaderAnswers:
    """Answers the readers of one exchange, out of what its other parts keep."""

    def __init__(
        self, spec: ExchangeSpec, attempts: Attempts, builds: Builds, losses: Losses, epochs: Epochs
    ) -> None:
        self._spec = spec
        self._attempts = attempts
        self._builds = builds
        self._losses = losses
        self._epochs = epochs

    def one(
        self, mappers: BitMap, partition: int, generation: int, version: int, daemons_of: DaemonsOf
    ) -> CommitWait:
        """Answer a reader of one partition; see `ExchangeState.await_commits`."""
        self._check(mappers, partition, partition, generation)
        index = self._builds.index_of(partition)
        self._losses.check_readable(index, mappers, partition, self._spec.shuffle_id)
        lost = self._lost(index, mappers)
        missing = (mappers - self._attempts.committed_mappers) | lost
        if missing:
            return CommitWait(None, missing, recompute=bool(lost))
        sources = self._sources(index, daemons_of)
        return CommitWait(self._builds.snapshot(partition, self._attempts, version, sources))

    def several(
        self,
        mappers: BitMap,
        partitions: U32,
        generation: int,
        version: int,
        daemons_of: DaemonsOf,
    ) -> RangesWait:
        """Answer a reader of several partitions; see `ExchangeState.await_ranges`."""
        if not len(partitions) or not (partitions[1:] > partitions[:-1]).all():
            raise InvalidArgument("the partitions to be read are none, or do not ascend")
        self._check(mappers, int(partitions[0]), int(partitions[-1]), generation)
        uncommitted = mappers - self._attempts.committed_mappers
        failure: CoscoError | None = None
        waits, missing = np.zeros(len(partitions), dtype=np.bool_), uncommitted
        recompute = False
        ready: list[tuple[int, slice]] = []
        for index, span in self._ranges(partitions):
            lost = BitMap()
            if not self._losses.is_whole(index):
                try:
                    self._losses.check_readable(
                        index, mappers, int(partitions[span.start]), self._spec.shuffle_id
                    )
                except (DataLost, DataCorrupted, RecomputeMismatch) as error:
                    failure = failure or error
                    waits[span] = True
                    continue
                if lost := self._lost(index, mappers):
                    missing, recompute = missing | lost, True
            if uncommitted or lost:
                waits[span] = True
            elif len(ready) < MAX_RANGES:
                ready.append((index, span))
        if failure is not None and not ready:
            raise failure
        ranges = tuple(self._snapshots(partitions, ready, version, daemons_of))
        waiting = BitMap(partitions[waits])
        return RangesWait(ranges, waiting, missing, recompute, failed=failure is not None)

    def _ranges(self, partitions: U32) -> Iterator[tuple[int, slice]]:
        """Yield the ranges that have `partitions`, each with where its own are among them."""
        indexes, firsts = np.unique(self._builds.indexes_of(partitions), return_index=True)
        bounds = [*firsts.tolist(), len(partitions)]
        for at, index in enumerate(indexes.tolist()):
            yield index, slice(bounds[at], bounds[at + 1])

    def _snapshots(
        self,
        partitions: U32,
        ready: list[tuple[int, slice]],
        version: int,
        daemons_of: DaemonsOf,
    ) -> Iterator[RangeSnapshot]:
        rows, raw_bytes, _, digests = self._builds.sums[:, partitions]
        for index, span in ready:
            mappers, attempts = self._builds.attempts(index, self._attempts)
            common = ReadSnapshot(
                version=version,
                generation=self._attempts.generation,
                build=int(self._builds.present[index]),
                mappers=mappers,
                attempts=attempts,
                rows=0,
                raw_bytes=0,
                digest=0,
                sources=self._sources(index, daemons_of),
            )
            yield RangeSnapshot(
                common, partitions[span], rows[span], raw_bytes[span], digests[span]
            )

    def _check(self, mappers: BitMap, first: int, last: int, generation: int) -> None:
        """Refuse a reader of partitions `first` to `last` that can be told nothing."""
        check_partition(self._spec, last)
        if generation:
            check_generation(self._spec, generation, self._attempts.generation)
        if doubtful := mappers & self._attempts.contradicted:
            raise contradiction(self._spec, doubtful.min(), first)

    def _lost(self, index: int, mappers: BitMap) -> BitMap:
        """Return those of `mappers` that were called back for a range."""
        return mappers & (self._losses.pending(index) | self._losses.pending(None))

    def _sources(self, index: int, daemons_of: DaemonsOf) -> tuple[Source, ...]:
        build = int(self._builds.present[index])
        return tuple(
            Source(index, p.assignment.epoch, daemons_of(p), p.assignment.sealed)
            for p in self._epochs.of_build(index, build)
        )
