"""When to write, and when a store counts as failing. What to write first: see test_core."""

from __future__ import annotations

import errno
import math

import pytest
from support.daemon_mechanics import chunk as make_chunk
from support.daemon_mechanics import page_pool, partition_buffer

from cosco.dfs.protocol import MoveTrouble
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.partition_buffer import PartitionBuffer
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.flush_plan import FAILING_AFTER_S, FlushPlan
from cosco.shuffle_service.state.replication.replica import ReplicationLog
from cosco.shuffle_service.state.segments.segment_choice import Flush, begin_segment

FULL = OSError(errno.ENOSPC, "No space left on device")


def make_plan(idle_s: float = 0.0, timeout_s: float = math.inf) -> FlushPlan:
    return FlushPlan(ReplicationLog(incarnation=1, frames_max=16), idle_s, timeout_s)


def make_buffer() -> PartitionBuffer:
    """One with an open chunk, which holds nothing."""
    buffer = partition_buffer(AssignmentKey(7, 0, 1), 0)
    buffer.open = make_chunk(buffer)
    return buffer


def make_flush() -> Flush:
    buffer, pool = make_buffer(), page_pool(MAX_PAGE_BYTES)
    assert buffer.open is not None
    buffer.open.grow(pool, 4096, 0)
    return begin_segment([buffer], memoryview(bytearray(MAX_PAGE_BYTES)), 1, 1, "c/7/0-1/")


def test_a_daemon_is_idle_when_nothing_came_for_a_while() -> None:
    plan = make_plan(idle_s=5.0)
    assert plan.tick(100.0) == 5.0
    assert not plan.writes_all  # nothing ever came
    plan.frame_came(101.0)
    assert plan.tick(104.0) == pytest.approx(2.0)
    plan.frame_came(105.0)
    assert plan.tick(106.0) == pytest.approx(4.0)
    assert not plan.writes_all
    plan.tick(110.0)
    assert plan.writes_all
    plan.tick(200.0)
    assert plan.writes_all
    plan.frame_came(201.0)
    assert not plan.writes_all


def test_a_store_is_failing_when_it_has_taken_nothing_for_a_while() -> None:
    plan, flush = make_plan(), make_flush()
    assert not plan.failing(1e9)
    plan.failed(flush, FULL, 10.0)
    plan.failed(flush, FULL, 11.0)
    assert plan.takes_nothing(15.0, 5.0)
    assert not plan.takes_nothing(14.9, 5.0)
    assert not plan.failing(10.0 + FAILING_AFTER_S - 0.1)
    assert plan.failing(10.0 + FAILING_AFTER_S)
    assert plan.failure == "No space left on device"
    plan.ended()
    assert not plan.failing(1e9)


def test_a_write_that_fails_is_tried_again_later_and_later() -> None:
    plan, flush, waits = make_plan(), make_flush(), []
    for _ in range(8):
        plan.failed(flush, FULL, 0.0)
        waits.append(flush.retry_s)
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@pytest.mark.parametrize("kind", ["opened", "filled", "hurry"])
def test_a_writer_is_woken_for_what_it_would_find(kind: str) -> None:
    plan, buffer = make_plan(), make_buffer()
    assert not plan.has_work(pressed=True)
    getattr(plan, kind)(buffer)
    assert plan.has_work(pressed=False) == (kind != "opened")
    assert plan.has_work(pressed=True)
    assert plan.next_buffer(pressed=True) is buffer
    plan.forget(buffer)  # it is being written
    assert not plan.has_work(pressed=True)
    assert len(plan) == 0


def test_what_hangs_is_known_with_all_its_pages() -> None:
    plan, hung, other = make_plan(timeout_s=5.0), make_flush(), make_flush()
    plan.began(hung, 0.0)
    plan.began(other, 3.0)
    plan.waits(hung, 5.0)
    plan.waits(other, 5.0)
    assert plan.hanging_bytes == hung.capacity == 4096
    plan.waits(other, 8.0)
    assert plan.hanging_bytes == 8192


def test_a_write_that_is_under_way_for_too_long_counts_as_a_failure() -> None:
    plan, flush = make_plan(timeout_s=30.0), make_flush()
    assert plan.began(flush, 10.0) == 30.0
    assert plan.waits(flush, 15.0) == pytest.approx(25.0)
    assert plan.waits(flush, 39.0) == pytest.approx(1.0)
    assert not plan.failing(39.0)
    assert plan.waits(flush, 40.0) < 1.0  # to be looked at again: others may give up
    assert plan.hanging == 1
    assert plan.failing(40.0)  # at once
    assert "has been under way for 30 s" in plan.failure
    # Who waits for pages has as long as with any store that fails: time to move.
    assert not plan.takes_nothing(59.9, 20.0)
    assert plan.takes_nothing(60.0, 20.0)
    plan.returned(flush)
    plan.ended()
    assert not plan.failing(70.0)
    assert plan.hanging == 0


def test_a_store_fails_while_one_write_hangs_though_others_succeed() -> None:
    """Its range must go, and writers need not give up."""
    plan, hung, other = make_plan(timeout_s=5.0), make_flush(), make_flush()
    plan.began(hung, 0.0)
    plan.waits(hung, 5.0)
    for now in range(6, 60):
        plan.began(other, now)
        plan.returned(other)
        plan.ended()
        assert plan.failing(now)
        assert not plan.takes_nothing(now, 2.0)
        plan.waits(hung, now + 0.5)


def test_a_write_that_hung_and_failed_is_tried_again_with_all_its_time() -> None:
    plan, flush = make_plan(timeout_s=5.0), make_flush()
    plan.began(flush, 0.0)
    plan.waits(flush, 9.0)
    plan.returned(flush)
    plan.failed(flush, FULL, 9.0)
    assert plan.failure == "No space left on device"
    assert plan.began(flush, 9.1) == 5.0
    assert plan.waits(flush, 10.1) == pytest.approx(4.0)
    assert plan.hanging == 0


def test_what_is_written_of_an_exchange_is_known_until_it_has_ended() -> None:
    plan, flush = make_plan(), make_flush()
    assert not plan.is_writing(Going(7))
    assert plan.began(flush, 0.0) == math.inf
    assert plan.is_writing(Going(7))
    assert not plan.is_writing(Going(8))
    plan.returned(flush)
    assert not plan.is_writing(Going(7))


def test_moves_that_somebody_waits_for_count_as_the_store() -> None:
    plan = make_plan()
    trouble = [MoveTrouble(100.0, "a bucket that is away", False)]
    plan.moves = lambda: trouble[0] if trouble else None
    assert not plan.failing(100.0)
    assert plan.failing(100.0 + FAILING_AFTER_S)
    assert not plan.hangs
    assert plan.failure == "a bucket that is away"
    assert plan.takes_nothing(120.0, 20.0)
    plan.failed(make_flush(), FULL, 130.0)
    assert plan.failure == "No space left on device", "what is nearer"
    plan.ended()
    assert plan.takes_nothing(131.0, 20.0)
    trouble[0] = MoveTrouble(100.0, "it hangs", True)
    assert plan.hangs
    assert plan.failing(100.0)
    trouble.clear()
    assert not plan.failing(200.0)
    assert not plan.hangs


def open_buffers(plan: FlushPlan, tenant: int, *pages: int) -> list[PartitionBuffer]:
    """Buffers of a tenant that hold this many pages each."""
    buffers = []
    for count in pages:
        buffer, pool = make_buffer(), page_pool(4 * MAX_PAGE_BYTES)
        assert buffer.open is not None
        buffer.open.grow(pool, 4096 * count, 0)
        data = memoryview(bytes(4096 * count - 100))
        buffer.open.append(memoryview(bytearray(4 * MAX_PAGE_BYTES)), data)
        plan.opened(buffer, tenant)
        buffers.append(buffer)
    return buffers


def test_for_tenants_their_own_largest_are_written_in_turn() -> None:
    plan = make_plan()
    open_buffers(plan, 9, 60)
    ones, twos = open_buffers(plan, 1, 2, 7, 5), open_buffers(plan, 2, 3, 1)
    assert plan.has_work(pressed=False, tenants=[1])
    assert not plan.has_work(pressed=False)
    assert not plan.has_work(pressed=False, tenants=[5])
    picked = []
    while (buffer := plan.next_buffer(pressed=False, tenants=[1, 2])) is not None:
        picked.append(buffer)
        plan.forget(buffer)
        buffer.begin_flush()
    assert picked == [ones[1], twos[0], ones[2], twos[1], ones[0]]
    assert plan.next_buffer(pressed=False) is None
    assert not plan._turn_of
    assert list(plan._largest) in ([], [1], [2])
    assert len(plan) == 1


def test_three_tenants_have_their_turns_though_one_never_has_enough() -> None:
    plan, turns = make_plan(), []
    for tenant in (1, 2, 3):
        open_buffers(plan, tenant, 1, 1, 1)
    whose = dict(plan._open)
    for _ in range(9):
        buffer = plan.next_buffer(pressed=False, tenants=[1, 2, 3])
        assert buffer is not None
        turns.append(whose[buffer])
        plan.forget(buffer)
    assert turns == [1, 2, 3] * 3
