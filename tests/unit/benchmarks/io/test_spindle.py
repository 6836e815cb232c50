from __future__ import annotations

import pytest
from cosco_bench.io.spindle import QUEUE_DEPTH, SPINDLE, Coalescing, positionings, service_s

from cosco.dfs import IOEvent

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def reads(*places: tuple[str, int, int]) -> list[IOEvent]:
    """(path, offset, length), one after another."""
    return [
        IOEvent("read", path, offset, length, float(at), 0.5)
        for at, (path, offset, length) in enumerate(places)
    ]


@pytest.mark.parametrize(
    ("size", "seconds"),
    [(64 * KIB, 140), (128 * KIB, 73), (256 * KIB, 39), (MIB, 14), (4 * MIB, 8)],
)
def test_the_model_gives_the_table_of_the_talk(size: int, seconds: float) -> None:
    assert SPINDLE.service_s(GIB // size, GIB) == pytest.approx(seconds, abs=0.35)


def test_what_is_sequential_moves_the_arm_once() -> None:
    events = reads(*(("f", n * MIB, MIB) for n in range(100)))
    assert positionings(events, Coalescing.QUEUE) == 1
    assert positionings(events, Coalescing.NONE) == 100
    seconds = 0.0082 + 100 / 180
    assert service_s(events) == pytest.approx(seconds)
    assert service_s(events, rule=Coalescing.NONE) == pytest.approx(seconds + 99 * 0.0082)


def test_files_that_are_read_in_turns_are_joined_as_far_as_the_queue_reaches() -> None:
    def in_turns(files: int) -> list[IOEvent]:
        return reads(*((f"f{f}", n * MIB, MIB) for n in range(3) for f in range(files)))

    assert positionings(in_turns(QUEUE_DEPTH), Coalescing.QUEUE) == QUEUE_DEPTH
    assert positionings(in_turns(QUEUE_DEPTH + 1), Coalescing.QUEUE) == 3 * (QUEUE_DEPTH + 1)


@pytest.mark.parametrize(
    ("second", "moves"),
    [
        (("f", 4096, 10), 1),  # the same page, or the one after it
        (("f", 8191, 10), 1),
        (("f", 8192, 10), 2),
        (("f", 0, 10), 2),  # back
        (("g", 4096, 10), 2),  # another file
    ],
)
def test_what_follows_is_in_the_same_file_and_within_a_page(
    second: tuple[str, int, int], moves: int
) -> None:
    assert positionings(reads(("f", 0, 4096), second), Coalescing.QUEUE) == moves


def test_the_order_is_that_of_the_beginnings() -> None:
    events = reads(("f", 0, MIB), ("f", MIB, MIB), ("f", 2 * MIB, MIB))
    assert positionings(reversed(events), Coalescing.QUEUE) == 1


def test_nothing_takes_no_time() -> None:
    assert service_s([]) == 0
