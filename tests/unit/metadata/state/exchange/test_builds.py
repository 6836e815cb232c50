"""Sums of what mappers commit, whatever partitions they wrote to."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.metadata.state.exchange.attempts import Attempts
from cosco.metadata.state.exchange.builds import Builds
from cosco.metadata.state.records.changes import ChangeLog
from cosco.protocol.records import AttemptSums, PartitionRange

PARTITIONS = 10
RANGES = (PartitionRange(0, 0, 3), PartitionRange(1, 3, 3), PartitionRange(2, 6, 4))


def builds() -> tuple[Builds, ChangeLog]:
    changes = ChangeLog()
    return Builds(7, PARTITIONS, RANGES, changes), changes


def sums_of(partitions: list[int]) -> AttemptSums:
    numbers = np.array(partitions, dtype=np.uint64) + np.uint64(1)
    return AttemptSums(
        np.array(partitions, dtype=np.uint32),
        numbers,
        numbers * np.uint64(10),
        numbers * np.uint64(5),
        numbers + np.uint64(2**64 - 8),
    )


@pytest.mark.parametrize(
    ("partitions", "ranges"),
    [
        ([], set()),
        ([0], {0}),
        ([9], {2}),
        ([2, 3], {0, 1}),
        ([0, 1, 2, 6], {0, 2}),
        ([3, 5], {1}),
        (list(range(10)), {0, 1, 2}),
    ],
)
def test_sums_are_of_the_partitions_that_were_written(
    partitions: list[int], ranges: set[int]
) -> None:
    made, changes = builds()
    sums = sums_of(partitions)
    assert np.flatnonzero(made.written(sums.partitions)).tolist() == sorted(ranges)
    for mapper in (1, 2):
        made.count(mapper, sums, ranges, whole=True)
    expected = np.zeros((4, PARTITIONS), dtype=np.uint64)
    for row, added in zip(
        expected, (sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests), strict=True
    ):
        row[partitions] = added * np.uint64(2)
    assert made.sums.tolist() == expected.tolist()
    assert {change.key for change in changes.pop_all()} == {(7, index) for index in ranges}


def test_of_a_commit_in_parts_only_the_named_ranges_count() -> None:
    made, _ = builds()
    made.count(1, sums_of(list(range(10))), {1}, whole=False)
    assert np.flatnonzero(made.sums[0]).tolist() == [3, 4, 5]


def test_stored_sums_are_read_back() -> None:
    made, changes = builds()
    for mapper in range(1000):
        made.count(mapper, sums_of([3, 4, 5]), {1}, whole=True)
    (change,) = changes.pop_all()
    assert change.row is not None
    sums, writers = change.row
    assert isinstance(sums, bytes)
    assert isinstance(writers, bytes)
    assert len(writers) < 100, "a run of mappers takes next to nothing"
    again, _ = builds()
    again.restore_sums(1, sums, writers)
    assert again.sums.tolist() == made.sums.tolist()
    assert again.writers(1) == made.writers(1)


@pytest.mark.parametrize("seed", range(10))
def test_a_range_knows_its_writers_whenever_it_is_asked(seed: int) -> None:
    random = Random(seed)
    made, changes = builds()
    again, _ = builds()
    expected = [BitMap() for _ in RANGES]
    attempts = Attempts(7, changes)
    for mapper in range(60):
        attempts.commit(mapper, mapper + 100, b"digest")
        ranges = set(random.choice(([0, 1, 2], [0, 1, 2], [0, 2], [1], [])))
        part = [p for r in RANGES if r.index in ranges for p in range(r.first, r.first + r.count)]
        made.count(mapper, sums_of(part), ranges, whole=True)
        for index in ranges:
            expected[index].add(mapper)
        event, index = random.random(), random.randrange(len(RANGES))
        if event < 0.1:
            assert made.end(index) == expected[index]
            expected[index] = BitMap()
        elif event < 0.3:
            mappers, told = made.attempts(index, attempts)
            assert mappers.tolist() == list(expected[index])
            assert told.tolist() == [m + 100 for m in expected[index]]
        elif event < 0.5:
            for change in changes.pop_all():
                if change.table == "sums":
                    assert change.row is not None
                    again.restore_sums(change.key[1], *change.row)
            assert [again.writers(i) for i in range(len(RANGES))] == expected
            assert again.sums.tolist() == made.sums.tolist()
