"""Arguments are checked at once, in one line that says which and what it may be."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap

from cosco.client.argument_checks import (
    mapper_set,
    partition_list,
    seconds,
    shuffle_name,
    switch,
    whole_number,
)
from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER, MAX_NAMED_MAPPERS


@pytest.mark.parametrize("good", ["a", "x" * 1024, "\N{SNOWMAN}" * 341])
def test_shuffle_ids(good: str) -> None:
    assert shuffle_name(good) == good


@pytest.mark.parametrize("bad", ["", "x" * 1025, "\N{SNOWMAN}" * 342, "\ud800", b"x", 3, None])
def test_bad_shuffle_ids(bad: object) -> None:
    with pytest.raises(InvalidArgument, match="shuffle_id") as caught:
        shuffle_name(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("good", [0, 7, np.int64(3), np.uint8(1)])
def test_whole_numbers(good: int) -> None:
    number = whole_number("n", good, 0, 7, "x")
    assert number == good
    assert type(number) is int


@pytest.mark.parametrize(
    "bad", [-1, 8, 10**5000, True, np.True_, 1.0, "1", None, np.float64(1)], ids=range(9)
)
def test_bad_whole_numbers(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^n is .*, it must be"):
        whole_number("n", bad, 0, 7, "x")


@pytest.mark.parametrize(
    ("good", "number"),
    [
        (2, 2.0), (0, 0.0), (np.int64(1), 1.0), (np.float32(0.5), 0.5), (Fraction(1, 4), 0.25),
        (Decimal("1.5"), 1.5), (1e308, 1e9), (10**300, 1e9),
    ],
)  # fmt: skip
def test_seconds(good: float, number: float) -> None:
    found = seconds("n", good, 0.0, "x")
    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize("good", [True, False, np.True_, np.False_])
def test_switches(good: bool) -> None:
    assert switch("n", good, "x") is bool(good)


@pytest.mark.parametrize("bad", [0, 1, "no", None, [], np.array([True])])
def test_bad_switches(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^n is .*, it must be True or False"):
        switch("n", bad, "x")


@pytest.mark.parametrize(
    "bad",
    [
        -0.1, -Fraction(1, 10), float("nan"), float("inf"), Decimal("sNaN"), np.float64("nan"),
        10**400, 1j, "1", b"1", None, True, np.True_, timedelta(1), np.array([1.0]),
    ],
    ids=type,
)  # fmt: skip
def test_bad_seconds(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^n is .*, it must be"):
        seconds("n", bad, 0.0, "x")


@pytest.mark.parametrize(
    "good", [[], [0, MAX_MAPPER], range(3), {1, 2}, np.array([4, 5]), BitMap([1]), iter([1, 1])]
)
def test_mapper_sets(good: Iterable[int]) -> None:
    wanted = list(good)
    assert mapper_set(wanted, "x") == BitMap(wanted)


@pytest.mark.parametrize(
    "mappers", [range(9, 0, -4), range(0), range(5, 6), BitMap([7, 2**31 - 1]), BitMap()]
)
def test_mapper_sets_that_know_their_order(mappers: Iterable[int]) -> None:
    found = mapper_set(mappers, "x")
    assert found == BitMap(list(mappers))
    assert found is not mappers


@pytest.mark.parametrize(
    "mappers",
    [range(MAX_NAMED_MAPPERS + 1), BitMap(range(MAX_NAMED_MAPPERS + 1)), count(), range(2**31)],
    ids=["range", "bitmap", "endless", "all"],
)
def test_more_mappers_than_errors_can_name(mappers: Iterable[int]) -> None:
    with pytest.raises(InvalidArgument, match="mappers are more than 4194304"):
        mapper_set(mappers, "x")


def test_as_many_mappers_as_errors_can_name() -> None:
    assert len(mapper_set(range(MAX_NAMED_MAPPERS), "x")) == MAX_NAMED_MAPPERS


@pytest.mark.parametrize(
    "bad",
    [
        [-1], [MAX_MAPPER + 1], [10**5000], ["1"], [1.5], [True], [None], 3, None, b"12", "12",
        range(-1, 3), range(2**31, 2**31 + 2), np.array([1.0]), np.array([[1]]),
    ],
    ids=range(15),
)  # fmt: skip
def test_bad_mapper_sets(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="mapper"):
        mapper_set(bad, "x")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (3, [3]),
        (np.int64(3), [3]),
        (np.array(3), [3]),
        ([5, 1, 3], [1, 3, 5]),
        (range(4, 0, -2), [2, 4]),
        (np.array([2, 0], np.uint8), [0, 2]),
        (pa.array([7, 6]), [6, 7]),
        (iter([9]), [9]),
        (range(-1, 2), [-1, 0, 1]),
        (range(10**15), [0, 10**15 - 1]),  # enough to be refused by
        (range(5, -(10**15), -1), [1 - 10**15, 5]),
    ],
)
def test_partitions_are_put_in_order(given: Any, found: list[int]) -> None:
    assert list(partition_list(given, "x")) == found


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "no partition is named"),
        (range(3, 3), "no partition is named"),
        ([1, 2, 1], "partition 1 is named twice"),
        (np.array([4, 4]), "partition 4 is named twice"),
        ("1", "must be an integer, or several"),
        ([True], "must be an integer, or several"),
        ([1, 2.0], "must be an integer, or several"),
        (np.array([[1]]), "must be an integer, or several"),
        ([[1]], "must be an integer, or several"),
        (True, "must be an integer"),
        (None, "must be an integer"),
        (1.5, "must be an integer"),
    ],
)
def test_partitions_that_are_none(given: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason) as caught:
        partition_list(given, "x")
    assert caught.value.shuffle_id == "x"
