from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cosco.protocol.records import AttemptSums, Commit


def commit(rows: list[int], size: list[int], **other: Any) -> Commit:
    given = {"mapper": 4, "attempt": 7, "won": True, "generation": 1} | other
    row_array, byte_array = np.array(rows, np.uint64), np.array(size, np.uint64)
    return Commit(
        rows=sum(rows),
        bytes=sum(size),
        partition_rows=row_array,
        partition_bytes=byte_array,
        **given,
    )


def test_sums_are_spread_over_all_partitions() -> None:
    partitions = np.array([1, 3], np.uint32)
    counts = np.array([5, 2**40], np.uint64)
    sums = AttemptSums(partitions, counts, counts * 2, counts, counts)
    found = sums.spread(sums.raw_bytes, 5)
    assert found.dtype == np.uint64
    assert found.tolist() == [0, 10, 0, 2**41, 0]


@pytest.mark.parametrize(
    "way",
    [
        lambda one: one,
        copy.copy,
        copy.deepcopy,
        replace,
        *(
            lambda one, protocol=protocol: pickle.loads(pickle.dumps(one, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_a_commit_stays_itself_and_read_only(way: Callable[[Commit], Commit]) -> None:
    one = commit([1, 0, 2], [10, 0, 20])
    found = way(one)
    assert found == one
    assert hash(found) == hash(one)
    for array, wanted in ((found.partition_rows, [1, 0, 2]), (found.partition_bytes, [10, 0, 20])):
        assert array.dtype == np.uint64
        assert array.tolist() == wanted
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_commits_differ_by_attempt_and_by_what_came_of_it() -> None:
    one = commit([1], [10])
    assert one != commit([1], [10], attempt=8)
    assert one != commit([1], [10], won=False)
    assert len({one, commit([1], [10]), commit([2], [10])}) == 2
    assert repr(one) == "Commit(mapper=4, attempt=7, won=True, generation=1, rows=1, bytes=10)"
