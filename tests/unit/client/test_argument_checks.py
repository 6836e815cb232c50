"""Arguments are checked at once, in one line that says which and what it may be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.client.argument_checks import (
    mapper_set,
    metadata_address,
    seconds,
    shuffle_name,
    whole_number,
)
from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER


def test_the_metadata_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSCO_METADATA", raising=False)
    assert metadata_address(None) == "127.0.0.1:7070"
    monkeypatch.setenv("COSCO_METADATA", "there:1")
    assert metadata_address(None) == "there:1"
    assert metadata_address("here:2") == "here:2"
    with pytest.raises(InvalidArgument, match="host:port"):
        metadata_address("here")


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


@pytest.mark.parametrize("bad", [-1, 8, True, 1.0, "1", None, np.float64(1)])
def test_bad_whole_numbers(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^n is .*, it must be"):
        whole_number("n", bad, 0, 7, "x")


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_bad_seconds(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^n is .*, it must be"):
        seconds("n", bad, 0.0, "x")


@pytest.mark.parametrize(
    "good", [[], [0, MAX_MAPPER], range(3), {1, 2}, np.array([4, 5]), BitMap([1]), iter([1, 1])]
)
def test_mapper_sets(good: Iterable[int]) -> None:
    wanted = list(good)
    assert mapper_set(wanted, "x") == BitMap(wanted)


@pytest.mark.parametrize("bad", [[-1], [MAX_MAPPER + 1], ["1"], [1.5], 3, None, np.array([1.0])])
def test_bad_mapper_sets(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="mapper"):
        mapper_set(bad, "x")
