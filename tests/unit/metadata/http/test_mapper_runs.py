"""Runs of mappers are right, and cost by their number, not by the mappers nor what is between."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.metadata.http.mapper_runs import mapper_runs

HIGHEST = (1 << 31) - 1


class Counted(BitMap):
    """Counts how often it is looked at, and does nothing that takes as long as it is large."""

    looks = 0

    def next_set_bit(self, value: int) -> int:
        self.looks += 1
        return super().next_set_bit(value)

    def contains_range(self, first: int, end: int) -> bool:
        self.looks += 1
        return super().contains_range(first, end)

    def _refused(self, *_: object) -> None:
        raise AssertionError("this looks at all of it")

    __iter__ = __getitem__ = flip = to_array = copy = _refused  # type: ignore[assignment]


def plainly(mappers: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for mapper in sorted(mappers):
        if found and found[-1][1] == mapper - 1:
            found[-1] = found[-1][0], mapper
        else:
            found.append((mapper, mapper))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_runs_are_those_of_one_mapper_after_the_other(seed: int) -> None:
    chance = random.Random(seed)
    mappers: set[int] = set()
    for _ in range(chance.randrange(20)):
        first = chance.randrange(chance.choice([30, 300_000, HIGHEST]))
        length = chance.choice([1, 2, 3, 4, 63, 64, 65_537])
        mappers.update(range(first, min(first + length, HIGHEST + 1)))
    assert list(mapper_runs(BitMap(mappers))) == plainly(mappers), f"seed {seed}"


def test_the_least_and_the_highest_mapper() -> None:
    assert list(mapper_runs(BitMap())) == []
    assert list(mapper_runs(BitMap([0]))) == [(0, 0)]
    assert list(mapper_runs(BitMap([0, HIGHEST - 1, HIGHEST]))) == [(0, 0), (HIGHEST - 1, HIGHEST)]


@pytest.mark.parametrize(
    ("mappers", "runs", "looks"),
    [
        ([HIGHEST], 1, 4),
        (np.arange(1 << 20, dtype=np.uint32), 1, 50),
        (np.arange(0, HIGHEST, 70_000, dtype=np.uint32), 1001, 4 * 1001),
    ],
    ids=["one that is far", "a million in a row", "many that are far apart"],
)
def test_it_looks_at_few(mappers: list[int], runs: int, looks: int) -> None:
    counted = Counted(mappers)
    assert len(list(islice(mapper_runs(counted), 1001))) == runs
    assert 0 < counted.looks <= looks
