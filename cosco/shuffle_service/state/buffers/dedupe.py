"""Which blocks a daemon already holds, so that a resent one is dropped.

One interval set per (sender, partition); see `cosco.format.block` on positions. What is forgotten
here is not lost: a block stored twice is dropped by the reader. So all indexes of a daemon together
are bounded. When they are full, senders whose streams have ended are forgotten first, in the order
in which these ended; if there are none, the sender that the largest index has known longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from cosco.format.intervals import IntervalSet
from cosco.protocol.keys import Sender

#: What one (sender, partition) costs: dict entry, object and its two lists. An interval more
#: in the lists costs less, and is counted alike.
ENTRY_BYTES = 320


class DedupeIndex:
    """The blocks held of one assignment."""

    __slots__ = ("_senders", "entries")

    def __init__(self) -> None:
        #: Intervals of all sets, none of which is empty.
        self.entries = 0
        self._senders: dict[Sender, dict[int, IntervalSet]] = {}

    def claim(self, sender: Sender, partition: int, start: int, end: int) -> bool:
        """Note that positions [start, end) are held. Returns False if all of them were already."""
        partitions = self._senders.get(sender)
        if partitions is None:
            partitions = self._senders[sender] = {}
        held = partitions.get(partition)
        if held is None:
            held = partitions[partition] = IntervalSet()
        elif held.covers(start, end):
            return False
        before = len(held)
        held.add(start, end)
        self.entries += len(held) - before
        return True

    def forget(self, sender: Sender) -> None:
        self.entries -= sum(map(len, self._senders.pop(sender, {}).values()))

    def clear(self) -> None:
        self.entries = 0
        self._senders.clear()

    def knows(self, sender: Sender) -> bool:
        return sender in self._senders

    def oldest(self) -> Sender | None:
        return next(iter(self._senders), None)


class DedupeBound:
    """Keeps what all indexes of a daemon remember together within `entries_max`."""

    def __init__(self, entries_max: int) -> None:
        self.entries_max = entries_max
        self.entries = 0
        self._indexes: dict[DedupeIndex, None] = {}
        self._hung_up: OrderedDict[tuple[DedupeIndex, Sender], None] = OrderedDict()

    @property
    def hung_up_senders(self) -> int:
        """Return how many are remembered to be forgotten first."""
        return len(self._hung_up)

    def grew(self, index: DedupeIndex, entries: int) -> None:
        """Note that an index has `entries` more; forget others if that is too many."""
        self._indexes[index] = None
        self.entries += entries
        while self.entries > self.entries_max:
            self._forget_one()

    def hung_up(self, sender: Sender, indexes: Iterable[DedupeIndex]) -> None:
        """Forget a sender before others: its stream has ended."""
        for index in indexes:
            if index.knows(sender):
                self._hung_up[index, sender] = None
                self._hung_up.move_to_end((index, sender))
        self._bound_hung_up()

    def forget(self, index: DedupeIndex, sender: Sender) -> None:
        """Forget a sender that is done with the index's assignment."""
        before = index.entries
        index.forget(sender)
        if index in self._indexes:
            self.entries -= before - index.entries
        self._hung_up.pop((index, sender), None)
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
            (index, sender), _ = self._hung_up.popitem(last=False)
            victim: Sender | None = sender
        else:
            index = max(self._indexes, key=lambda one: one.entries)
            victim = index.oldest()
        if index in self._indexes and victim is not None:
            before = index.entries
            index.forget(victim)
            self.entries -= before - index.entries
