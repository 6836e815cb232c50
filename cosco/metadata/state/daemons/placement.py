"""Where partition ranges go, those of a new exchange and those that lose their daemons."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise
from typing import Final

from cosco.errors import CapacityExceeded
from cosco.protocol.mark import MAX_MARK_PARTITIONS
from cosco.protocol.records import PartitionRange

#: Partitions of a group's exchange that one daemon is given before another one gets any.
GROUP_RANGE_PARTITIONS: Final = 16

#: Free bytes for each assignment, negative; assignments that count, all; the turn.
_Preference = tuple[float, int, int, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A daemon that can take ranges. `assigned` counts the assignments it already has."""

    incarnation: int
    host_id: str
    free_bytes: int
    assigned: int = 0


@dataclass(frozen=True, slots=True)
class Avoid:
    """Incarnations that a range should not go to: not as its primary, or not at all."""

    as_primary: frozenset[int] = frozenset()
    as_any: frozenset[int] = frozenset()


def host_count(daemons: Collection[Candidate]) -> int:
    """Return how many copies of a row these daemons can hold."""
    return len({daemon.host_id for daemon in daemons})


def range_count(partitions: int, daemons: int, ranges_per_daemon: int) -> int:
    """Return how many ranges to cut `partitions` into where there are `daemons`; 1 or more."""
    return max(1, min(partitions, ranges_per_daemon * daemons))


def group_range_count(partitions: int, daemons: int) -> int:
    """Return the same for an exchange of a group.

    Every mapper sends a frame to each range, and those of micro-batches are short: they cost by
    their number. So there are fewer ranges than daemons as long as partitions are few; another
    group, and what is placed anew, begins with other daemons.
    """
    wanted = min(daemons, -(-partitions // GROUP_RANGE_PARTITIONS))
    return max(1, wanted, -(-partitions // MAX_MARK_PARTITIONS))


def cut_ranges(partitions: int, ranges: int) -> tuple[PartitionRange, ...]:
    """Cut [0, partitions) into consecutive ranges whose sizes differ by one at most."""
    cuts = [partitions * i // ranges for i in range(ranges + 1)]
    return tuple(
        PartitionRange(index, first, end - first)
        for index, (first, end) in enumerate(pairwise(cuts))
    )


def place(
    ranges: int,
    daemons: Sequence[Candidate],
    replicas: int,
    turn: int = 0,
    not_primary: Collection[int] = (),
) -> list[tuple[Candidate, tuple[Candidate, ...]]]:
    """Return (primary, its replicas) of each range; `replicas` counts the primary as well.

    The next copy goes to the daemon with the most free bytes per assignment it would then
    have; for primaries, which do the work, only primaries of this placement are counted
    beside what was there before. The copies of a range are on as many hosts. Equal daemons
    are taken in the order of their incarnations, beginning with another one each `turn`.
    Daemons of `not_primary` are primaries only where there is no other.
    Raises CapacityExceeded when there is no daemon, or fewer hosts than copies.
    """
    if not daemons:
        raise CapacityExceeded(
            "no shuffle daemon is registered with this metadata service; start cosco-shuffled"
        )
    hosts = host_count(daemons)
    if hosts < replicas:
        raise CapacityExceeded(
            f"replicas={replicas} needs shuffle daemons on {replicas} hosts, there are daemons "
            f"on {hosts}; start daemons with another --host-id, or ask for replicas=1"
        )
    load = {daemon.incarnation: daemon.assigned for daemon in daemons}
    primary_load = dict(load)
    order = sorted(load)
    rank = {incarnation: (i - turn) % len(order) for i, incarnation in enumerate(order)}

    def preference(daemon: Candidate, assignments: dict[int, int]) -> _Preference:
        assigned = assignments[daemon.incarnation]
        share = -daemon.free_bytes / (assigned + 1)
        return share, assigned, load[daemon.incarnation], rank[daemon.incarnation]

    primaries = _Queue(
        [d for d in daemons if d.incarnation not in not_primary] or daemons,
        lambda daemon: preference(daemon, primary_load),
    )
    others = _Queue(daemons, lambda daemon: preference(daemon, load))
    placed = []
    for _ in range(ranges):
        copies: list[Candidate] = []
        for _ in range(replicas):
            copy = (others if copies else primaries).first({copy.host_id for copy in copies})
            load[copy.incarnation] += 1
            copies.append(copy)
        primary_load[copies[0].incarnation] += 1
        placed.append((copies[0], tuple(copies[1:])))
    return placed


class _Queue:
    """Daemons by a preference that differs for any two of them, and only ever grows."""

    def __init__(
        self, daemons: Sequence[Candidate], preference: Callable[[Candidate], _Preference]
    ) -> None:
        self._daemons = daemons
        self._preference = preference
        self._heap = [(preference(daemon), at) for at, daemon in enumerate(daemons)]
        heapify(self._heap)

    def first(self, but: Collection[str]) -> Candidate:
        """Return the first daemon that is on none of the hosts `but`; there must be one."""
        passed = []
        while True:
            before, at = self._heap[0]
            daemon = self._daemons[at]
            preference = self._preference(daemon)
            if preference != before:
                heapreplace(self._heap, (preference, at))
            elif daemon.host_id in but:
                passed.append(heappop(self._heap))
            else:
                break
        for entry in passed:
            heappush(self._heap, entry)
        return daemon


def place_next(
    daemons: Sequence[Candidate], replicas: int, min_replicas: int, avoid: Avoid, turn: int
) -> tuple[Candidate, tuple[Candidate, ...]] | None:
    """Return (primary, its replicas) of a range that exists, with as many copies as can be had.

    Daemons to avoid count only where there are not hosts for `min_replicas` without them.
    None when there are not even with them.
    """
    pool = [daemon for daemon in daemons if daemon.incarnation not in avoid.as_any]
    if host_count(pool) < min_replicas:
        pool = list(daemons)
    copies = min(replicas, host_count(pool))
    if copies < min_replicas:
        return None
    return place(1, pool, copies, turn, avoid.as_primary)[0]
