"""Where the partition ranges of a new exchange go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cosco.errors import CapacityExceeded
from cosco.records import PartitionRange


@dataclass(frozen=True, slots=True)
class Candidate:
    """A daemon that can take ranges. `assigned` counts the assignments it already has."""

    incarnation: int
    host_id: str
    free_bytes: int
    assigned: int = 0


def range_count(partitions: int, daemons: int, ranges_per_daemon: int) -> int:
    """How many ranges to cut `partitions` into for so many daemons; 1 or more."""
    return max(1, min(partitions, ranges_per_daemon * daemons))


def cut_ranges(partitions: int, ranges: int) -> tuple[PartitionRange, ...]:
    """Cut [0, partitions) into consecutive ranges whose sizes differ by one at most."""
    cuts = [partitions * i // ranges for i in range(ranges + 1)]
    return tuple(
        PartitionRange(index, first, end - first)
        for index, (first, end) in enumerate(pairwise(cuts))
    )


def place(
    ranges: int, daemons: Sequence[Candidate], replicas: int, turn: int = 0
) -> list[tuple[Candidate, tuple[Candidate, ...]]]:
    """(primary, its replicas) of each range; `replicas` counts the primary as well.

    The next copy goes to the daemon with the most free bytes per assignment it would then
    have; for primaries, which do the work, only primaries of this placement are counted
    beside what was there before. The copies of a range are on as many hosts. Equal daemons
    are taken in the order of their incarnations, beginning with another one each `turn`.
    Raises CapacityExceeded when there is no daemon, or fewer hosts than copies.
    """
    if not daemons:
        raise CapacityExceeded(
            "no shuffle daemon is registered with this metadata service; start cosco-shuffled"
        )
    hosts = len({daemon.host_id for daemon in daemons})
    if hosts < replicas:
        raise CapacityExceeded(
            f"replicas={replicas} needs shuffle daemons on {replicas} hosts, there are daemons "
            f"on {hosts}; start daemons with another --host-id, or ask for replicas=1"
        )
    load = {daemon.incarnation: daemon.assigned for daemon in daemons}
    primary_load = dict(load)
    order = sorted(load)
    rank = {incarnation: (i - turn) % len(order) for i, incarnation in enumerate(order)}

    def preference(daemon: Candidate, assignments: dict[int, int]) -> tuple[float, int, int, int]:
        assigned = assignments[daemon.incarnation]
        share = -daemon.free_bytes / (assigned + 1)
        return share, assigned, load[daemon.incarnation], rank[daemon.incarnation]

    placed = []
    for _ in range(ranges):
        copies: list[Candidate] = []
        for _ in range(replicas):
            taken = {copy.host_id for copy in copies}
            counted = load if copies else primary_load
            copy = min(
                (d for d in daemons if d.host_id not in taken),
                key=lambda daemon: preference(daemon, counted),
            )
            load[copy.incarnation] += 1
            copies.append(copy)
        primary_load[copies[0].incarnation] += 1
        placed.append((copies[0], tuple(copies[1:])))
    return placed
