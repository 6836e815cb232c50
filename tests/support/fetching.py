"""What readers ask daemons for, in tests."""

from __future__ import annotations

from pyroaring import BitMap

from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.keys import AssignmentKey


def one_partition(
    key: AssignmentKey, partition: int, *, files: bool = False, mappers: tuple[int, ...] = ()
) -> FetchRequest:
    """A request of one partition of one epoch, as of a reader that has no other."""
    part = FetchPart(key.range_index, key.epoch, BitMap([partition]), files)
    return FetchRequest(key.number, (part,), BitMap(mappers), several=False)
