"""Who waits for pages: first come, first served, nobody forgotten."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from cosco.errors import CapacityExceeded, CoscoError, ExchangeClosed
from cosco.shuffle_service.state.flush_plan import Flush, FlushPlan
from cosco.shuffle_service.state.page_queue import PageQueue, Turn
from cosco.shuffle_service.state.replication.replica import ReplicationLog

PATIENCE_S = 5.0


class Rig:
    """Pages that are free, and who got some, in order; a store that may fail."""

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.flushes = FlushPlan(ReplicationLog(incarnation=1, frames_max=16), 0.0)
        self.queue = PageQueue(self.flushes, PATIENCE_S)
        self.served: list[str] = []
        self.failed: list[tuple[str, CoscoError]] = []

    def enter(self, who: str, need: int, now: float = 0.0, *, closed: bool = False) -> Turn:
        def attempt(_: float) -> bool:
            if closed:
                raise ExchangeClosed("closed")
            if need > self.free:
                return False
            self.free -= need
            return True

        def done(error: CoscoError | None, _: float) -> None:
            if error is None:
                self.served.append(who)
            else:
                self.failed.append((who, error))

        turn = Turn("because", attempt, done, need)
        self.queue.enter(turn, now)
        return turn

    def fail(self, now: float) -> None:
        """A write fails."""
        flush: Any = Flush.__new__(Flush)
        flush.retry_s = 0.0
        self.flushes.failed(flush, OSError(errno.ENOSPC, "No space left on device"), now)


def test_what_finds_pages_does_not_wait() -> None:
    rig = Rig(free=3)
    turn = rig.enter("one", 3)
    assert rig.served == ["one"]
    assert not turn.is_waiting
    assert rig.queue.waiting_bytes == 0


def test_a_small_frame_does_not_overtake_a_large_one() -> None:
    rig = Rig(free=1)
    for who, need in (("large", 3), ("small", 1), ("other", 2)):
        rig.enter(who, need)
    assert rig.served == []
    assert rig.queue.waiting_bytes == 6
    rig.free += 3
    rig.queue.serve(0.0)
    assert rig.served == ["large", "small"]
    rig.free += 2
    rig.queue.serve(0.0)
    assert rig.served == ["large", "small", "other"]
    assert rig.queue.waiting_bytes == 0


def test_one_that_leaves_lets_the_next_go() -> None:
    rig = Rig(free=1)
    first, _ = rig.enter("first", 9), rig.enter("second", 1)
    rig.queue.leave(first)
    rig.queue.leave(first)
    rig.queue.serve(0.0)
    assert rig.served == ["second"]
    assert rig.queue.waiting_bytes == 0


@pytest.mark.parametrize("waits", [False, True])
def test_an_error_ends_a_turn_and_not_those_behind_it(waits: bool) -> None:
    rig = Rig()
    if waits:
        rig.enter("before", 1)
    rig.enter("closed", 1, closed=True)
    rig.enter("behind", 1)
    rig.free = 2
    rig.queue.serve(0.0)
    assert [(who, type(error)) for who, error in rig.failed] == [("closed", ExchangeClosed)]
    assert rig.served == (["before", "behind"] if waits else ["behind"])


def test_a_store_that_fails_for_long_ends_all_turns_whoever_comes_as_well() -> None:
    rig = Rig()
    rig.enter("one", 1)
    rig.enter("two", 1)
    rig.fail(10.0)
    rig.queue.serve(10.0 + PATIENCE_S - 0.1)
    assert rig.failed == []
    rig.queue.serve(10.0 + PATIENCE_S)
    rig.enter("three", 1, now=10.0 + PATIENCE_S)
    assert [who for who, _ in rig.failed] == ["one", "two", "three"]
    assert {type(error) for _, error in rig.failed} == {CapacityExceeded}
    assert "because the store takes nothing (No space left" in str(rig.failed[0][1])
    assert rig.queue.waiting_bytes == 0


def test_what_was_attempted_in_part_keeps_its_turn() -> None:
    rig, steps = Rig(), []

    def three_steps(_: float) -> bool:
        steps.append(len(steps))
        return len(steps) == 3

    rig.queue.enter(Turn("", three_steps, lambda *_: rig.served.append("slow"), 1), 0.0)
    rig.enter("next", 0)
    for _ in range(2):
        rig.queue.serve(0.0)
    assert steps == [0, 1, 2]
    assert rig.served == ["slow", "next"]


def test_serving_while_it_is_served_changes_no_order() -> None:
    rig = Rig()

    def attempt(_: float) -> bool:
        rig.queue.serve(0.0)  # pages were freed by the attempt itself
        return rig.free > 0

    rig.queue.enter(Turn("", attempt, lambda *_: rig.served.append("first"), 1), 0.0)
    rig.enter("second", 1)
    rig.free = 1
    rig.queue.serve(0.0)
    assert rig.served == ["first", "second"]
