"""Which blocks a daemon already holds, so that a resent one is dropped.

One interval set per (mapper, attempt, partition); see `cosco.format.block` on positions. What is
forgotten here is not lost: a block stored twice is dropped by the reader. So all indexes of a
daemon together are bounded. When they are full, attempts whose streams have ended are forgotten
first, in the order in which these ended; if there are none, the attempt that the largest index has
known longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from cosco.format.intervals import IntervalSet
from cosco.protocol.keys import MapperAttempt

#: What one (mapper, attempt, partition) costs: dict entry, object and its two lists. An interval
#: more in the lists costs less, and is counted alike.
ENTRY_BYTES = 320


class DedupeIndex:
    """The blocks held of one assignment."""

    __slots__ = ("_attempts", "entries")

    def __init__(self) -> None:
        #: Intervals of all sets, none of which is empty.
        self.entries = 0
        self._attempts: dict[MapperAttempt, dict[int, IntervalSet]] = {}

    def claim(self, mapper_attempt: MapperAttempt, partition: int, start: int, end: int) -> bool:
        """Note that positions [start, end) are held. Returns False if all of them were already."""
        partitions = self._attempts.get(mapper_attempt)
        if partitions is None:
            partitions = self._attempts[mapper_attempt] = {}
        held = partitions.get(partition)
        if held is None:
            held = partitions[partition] = IntervalSet()
        elif held.covers(start, end):
            return False
        before = len(held)
        held.add(start, end)
        self.entries += len(held) - before
        return True

    def forget(self, mapper_attempt: MapperAttempt) -> None:
        self.entries -= sum(map(len, self._attempts.pop(mapper_attempt, {}).values()))

    def clear(self) -> None:
        self.entries = 0
        self._attempts.clear()

    def knows(self, mapper_attempt: MapperAttempt) -> bool:
        return mapper_attempt in self._attempts

    def oldest(self) -> MapperAttempt | None:
        return next(iter(self._attempts), None)


class DedupeBound:
    """Keeps what all indexes of a daemon remember together within `entries_max`."""

    def __init__(self, entries_max: int) -> None:
        self.entries_max = entries_max
        self.entries = 0
        self._indexes: dict[DedupeIndex, None] = {}
        self._hung_up: OrderedDict[tuple[DedupeIndex, MapperAttempt], None] = OrderedDict()

    def grew(self, index: DedupeIndex, entries: int) -> None:
        """Note that an index has `entries` more; forget others if that is too many."""
        self._indexes[index] = None
        self.entries += entries
        while self.entries > self.entries_max:
            self._forget_one()

    def hung_up(self, mapper_attempt: MapperAttempt, indexes: Iterable[DedupeIndex]) -> None:
        """Have an attempt forgotten before others: its stream has ended."""
        for index in indexes:
            if index.knows(mapper_attempt):
                self._hung_up[index, mapper_attempt] = None
                self._hung_up.move_to_end((index, mapper_attempt))
        self._bound_hung_up()

    def forget(self, index: DedupeIndex, mapper_attempt: MapperAttempt) -> None:
        """Forget an attempt that is done with the index's assignment."""
        before = index.entries
        index.forget(mapper_attempt)
        if index in self._indexes:
            self.entries -= before - index.entries
        self._hung_up.pop((index, mapper_attempt), None)
        self._bound_hung_up()

    def dropped(self, index: DedupeIndex) -> None:
        """Forget an index whose assignment is gone."""
        if index in self._indexes:
            del self._indexes[index]
            self.entries -= index.entries
        index.clear()  # it may be among those that have hung up for long
        self._bound_hung_up()

    def _bound_hung_up(self) -> None:
        """Forget those of dropped exchanges: each that is left has an entry to forget."""
        while len(self._hung_up) > self.entries:
            self._hung_up.popitem(last=False)

    def _forget_one(self) -> None:
        if self._hung_up:
            (index, mapper_attempt), _ = self._hung_up.popitem(last=False)
            victim: MapperAttempt | None = mapper_attempt
        else:
            index = max(self._indexes, key=lambda one: one.entries)
            victim = index.oldest()
        if index in self._indexes and victim is not None:
            before = index.entries
            index.forget(victim)
            self.entries -= before - index.entries
