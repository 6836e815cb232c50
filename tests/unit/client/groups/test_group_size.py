"""The size of groups follows what coordination costs."""

from __future__ import annotations

import math

import pytest

from cosco.client.groups.group_size import AdaptiveGroupSize
from cosco.errors import InvalidArgument


def test_it_grows_fast_while_coordination_is_dear_and_then_stays() -> None:
    """40 ms of coordination a group, 10 ms of work a micro-batch: 10 % at 36 of them."""
    sizing, seen = AdaptiveGroupSize(weight=1.0), []
    for _ in range(8):
        size = sizing.size
        seen.append(size)
        sizing.observe(0.040, 0.040 + 0.010 * size)
    assert seen == [1, 2, 4, 8, 16, 32, 64, 64]


def test_it_shrinks_step_by_step_when_coordination_is_cheap() -> None:
    sizing = AdaptiveGroupSize(100, step=5)
    assert [sizing.observe(0.001, 1.0) for _ in range(3)] == [95, 90, 85]
    assert sizing.share == pytest.approx(0.001)


def test_between_the_bounds_nothing_changes() -> None:
    sizing = AdaptiveGroupSize(10, lower=0.05, upper=0.10)
    for share in (0.05, 0.07, 0.10):
        assert sizing.observe(share, 1.0) == 10


def test_one_slow_group_does_not_decide() -> None:
    sizing = AdaptiveGroupSize(10, weight=0.1)
    sizing.observe(0.07, 1.0)
    assert sizing.observe(0.30, 1.0) == 10
    assert sizing.share == pytest.approx(0.093)
    assert sizing.observe(0.30, 1.0) == 20


def test_it_stays_within_its_bounds_and_always_moves() -> None:
    sizing = AdaptiveGroupSize(1, largest=3, factor=1.01)
    assert [sizing.observe(1.0, 1.0) for _ in range(4)] == [2, 3, 3, 3]
    shrinking = AdaptiveGroupSize(4, smallest=2, step=3)
    assert [shrinking.observe(0.0, 1.0) for _ in range(2)] == [2, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 5, "smallest": 6},
        {"size": 5, "largest": 4},
        {"largest": 1 << 21},
        {"lower": 0.2, "upper": 0.1},
        {"lower": -0.1},
        {"upper": 1.1},
        {"factor": 1.0},
        {"step": 0},
        {"weight": 0.0},
        {"weight": math.nan},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        AdaptiveGroupSize(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("coordination_s", "total_s"), [(-1, 1), (2, 1), (0, 0), (0, math.inf), (math.nan, 1)]
)
def test_impossible_times_are_refused(coordination_s: float, total_s: float) -> None:
    sizing = AdaptiveGroupSize()
    with pytest.raises(InvalidArgument):
        sizing.observe(coordination_s, total_s)
    assert (sizing.size, sizing.share) == (1, None)
