"""The runs of mappers that have committed, at a cost by how many runs are given."""

from __future__ import annotations

from collections.abc import Iterator

from pyroaring import BitMap


def mapper_runs(mappers: BitMap) -> Iterator[tuple[int, int]]:
    """Yield the first and the last mapper of each run.

    It looks neither at each mapper nor between the runs: a run of a million costs some 40 looks,
    and the next one, however far it is, one.
    """
    if not mappers:
        return
    after, highest = 0, mappers.max()
    while after <= highest:
        first = mappers.next_set_bit(after)
        after = _end(mappers, first, highest)
        yield first, after - 1


def _end(mappers: BitMap, first: int, highest: int) -> int:
    """Return the first mapper after a run that begins with `first`."""
    there, step = first + 1, 1  # all before `there` are of the run
    while mappers.contains_range(there, there + step):
        there += step
        step *= 2
    absent = min(there + step, highest + 2)  # one of those from `there` on and before it is absent
    while absent - there > 1:
        middle = (there + absent) // 2
        if mappers.contains_range(there, middle):
            there = middle
        else:
            absent = middle
    return there
