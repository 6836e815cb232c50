"""Which blocks a daemon already holds, so that a resent one is dropped.

One interval set per (sender, partition); see `cosco.blocks` on positions. What is forgotten
here is not lost: a block stored twice is dropped by the reader. So the index is bounded, and
forgets senders that have hung up first, the longest silent first.
"""

from __future__ import annotations

from cosco.intervals import IntervalSet

#: A run of one task: (mapper, attempt).
Sender = tuple[int, int]

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

    def holds(self, sender: Sender, partition: int, start: int, end: int) -> bool:
        """Whether positions [start, end) are held, all of them."""
        held = self._senders.get(sender, {}).get(partition)
        return held is not None and held.covers(start, end)

    def add(self, sender: Sender, partition: int, start: int, end: int) -> None:
        partitions = self._senders.get(sender)
        if partitions is None:
            partitions = self._senders[sender] = {}
        held = partitions.get(partition)
        if held is None:
            held = partitions[partition] = IntervalSet()
        before = len(held)
        held.add(start, end)
        self.entries += len(held) - before

    def forget(self, sender: Sender) -> None:
        self.entries -= sum(map(len, self._senders.pop(sender, {}).values()))

    def knows(self, sender: Sender) -> bool:
        return sender in self._senders

    def oldest(self) -> Sender | None:
        return next(iter(self._senders), None)
