"""Who waits for pages: in a tenant first come, first served, tenants in turn, nobody forgotten."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from cosco.errors import CapacityExceeded, CoscoError, ExchangeClosed
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.pool import PagePool
from cosco.shuffle_service.state.flush_plan import Flush, FlushPlan
from cosco.shuffle_service.state.page_queue import PageQueue, Turn
from cosco.shuffle_service.state.replication.replica import ReplicationLog
from cosco.shuffle_service.state.tenants.tenant_memory import TenantMemory

PATIENCE_S = 5.0
CAPACITY_BYTES = 4 << 20


class Rig:
    """Pages that are free, and who got some, in order; a store that may fail."""

    def __init__(self, free: int = 0, *, share: float = 1.0) -> None:
        self.free = free
        self.flushes = FlushPlan(ReplicationLog(incarnation=1, frames_max=16), 0.0)
        self.pool = PagePool(CAPACITY_BYTES)
        self.memory = TenantMemory(PoolShares(self.pool), CAPACITY_BYTES, share)
        self.holds: set[int] = set()  # tenants who get no pages
        self.queue = PageQueue(self.flushes, PATIENCE_S, self.memory)
        self.served: list[str] = []
        self.failed: list[tuple[str, CoscoError]] = []

    def enter(
        self,
        who: str,
        need: int,
        now: float = 0.0,
        *,
        closed: bool = False,
        tenant: int = 0,
        is_copy: bool = False,
    ) -> Turn:
        def attempt(_: float) -> bool:
            if closed:
                raise ExchangeClosed("closed")
            if need > self.free or (tenant in self.holds and not is_copy):
                return False
            self.free -= need
            return True

        def done(error: CoscoError | None, _: float) -> None:
            if error is None:
                self.served.append(who)
            else:
                self.failed.append((who, error))

        turn = Turn("because", attempt, done, need, tenant, is_copy)
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


# --- tenants ------------------------------------------------------------------------------

MIB = 1 << 20


def test_tenants_get_the_same_pages_however_many_of_each_wait() -> None:
    rig = Rig()
    for n in range(4):
        rig.enter(f"a{n}", 2, tenant=1)
    for n in range(2):
        rig.enter(f"b{n}", 2, tenant=2)
    rig.free = 8
    rig.queue.serve(0.0)
    assert rig.served == ["a0", "b0", "a1", "b1"]


def test_a_small_frame_of_another_tenant_does_not_overtake_a_large_one() -> None:
    rig = Rig(free=1)
    rig.enter("large", 3, tenant=1)
    for n in range(5):
        rig.enter(f"small {n}", 1, tenant=2 + n)
        rig.queue.serve(0.0)
    assert rig.served == []
    rig.free = 3
    rig.queue.serve(0.0)
    assert rig.served == ["large"]


def test_who_has_all_that_is_his_waits_and_nobody_waits_for_him() -> None:
    rig = Rig(free=10, share=0.25)
    rig.memory.took(1, MIB)
    rig.holds.add(1)
    held = [rig.enter("held", 3, tenant=1), rig.enter("behind", 1, tenant=1)]
    rig.enter("other", 2, tenant=2)
    assert rig.served == ["other"]
    assert list(rig.queue.held_up) == [1]
    assert (rig.queue.waiting_bytes, rig.queue.wanted_bytes) == (4, 0)
    assert rig.queue.pressed_tenants() == [1]
    rig.queue.serve(0.0)
    assert [turn.is_waiting for turn in held] == [True, True]
    rig.memory.freed(1, MIB // 2)
    rig.holds.clear()
    rig.queue.serve(0.0)
    assert rig.served == ["other", "held", "behind"]
    assert not list(rig.queue.held_up)
    assert rig.queue.pressed_tenants() == []


def test_who_lacks_pages_of_the_pool_is_waited_for_whatever_is_his() -> None:
    rig = Rig(free=1, share=0.25)
    rig.memory.took(1, MIB // 2)
    rig.pool.allocate(4 * MIB - 4096)
    rig.enter("large", 3, tenant=1)
    rig.enter("small", 1, tenant=2)
    assert rig.served == []
    assert not list(rig.queue.held_up)
    assert rig.queue.wanted_bytes == 4


def test_copies_of_who_has_all_that_is_his_wait_for_nothing() -> None:
    rig = Rig(free=10, share=0.25)
    rig.memory.took(1, MIB)
    rig.holds.add(1)
    rig.enter("frame", 1, tenant=1)
    rig.enter("copy", 1, tenant=1, is_copy=True)
    assert rig.served == ["copy"]
    rig.enter("long copy", 20, tenant=1, is_copy=True)  # lacks pages of the pool, as anybody may
    rig.enter("small", 1, tenant=2)
    rig.queue.serve(0.0)
    assert rig.served == ["copy"]
    rig.free = 20
    rig.queue.serve(0.0)
    assert rig.served == ["copy", "long copy"]


def test_a_store_that_fails_for_long_ends_the_turns_of_who_is_held_up_too() -> None:
    rig = Rig(free=10, share=0.25)
    rig.memory.took(1, MIB)
    rig.holds.add(1)
    rig.enter("held", 3, tenant=1)
    rig.fail(10.0)
    rig.queue.serve(10.0 + PATIENCE_S)
    assert [who for who, _ in rig.failed] == ["held"]
    assert rig.queue.is_empty


@pytest.mark.parametrize("seed", range(30))
def test_whoever_waits_is_served_however_little_the_others_need(seed: int) -> None:
    """One who needs much, among many who need little and come all the time."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    rig = Rig(share=0.25)
    rig.memory.took(3, MIB)
    rig.holds.add(3)
    rig.enter("held", 1, tenant=3)
    rig.enter("small", 2, tenant=1)
    rig.enter("much", 50, tenant=2)
    taken = 0
    while "much" not in rig.served:
        for _ in range(rng.randint(1, 3)):
            rig.enter("small", rng.randint(1, 2), tenant=rng.choice((1, 1, 4)))
        taken += 1
        rig.free += rng.randint(1, 10)
        rig.queue.serve(0.0)
        assert taken < 80
    assert "held" not in rig.served
    assert rig.served.index("much") <= 2
