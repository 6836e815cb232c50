"""Copies that are absorbed: beside other work, of sealed assignments, and when they press."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.copies import keep_copy
from support.daemon_parts import DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore
from cosco.errors import CapacityExceeded
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.messages import Hello
from cosco.protocol.push.receiver import Intake
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.pool import MIN_PAGE_BYTES
from cosco.shuffle_service.state.page_queue import Turn
from cosco.shuffle_service.state.replication.copy_log import Copy

PRIMARY = INCARNATION + 1
COPIED = AssignmentKey(EXCHANGE, 0, 2)
ASSIGNMENT = Assignment(0, 2, 1, DaemonRef(PRIMARY, "b"), (DaemonRef(INCARNATION, "a"),))


class Rig:
    """A replica, and a stream of its primary."""

    def __init__(self, parts: DaemonParts) -> None:
        self.parts = parts
        self.core = parts.core
        self.core.admit(EXCHANGE, ASSIGNMENT, PartitionRange(0, 0, 9))
        self.told = asyncio.Event()
        receiver = parts.receiver()
        receiver.wake = self.told.set
        hello = Hello(0, 0, 0, INCARNATION, primary=PRIMARY)
        self.intake: Intake = parts.intakes.open(hello, receiver, 0.0)
        self.tried: asyncio.Queue[AssignmentKey] = asyncio.Queue()

    def forward(self, *sequences: int) -> None:
        for sequence in sequences:
            data = frame([block(0, sequence, b"x" * 100)], sequence=sequence, epoch=2)
            self.intake.take_in(memoryview(data), lambda _: None, 0.0)

    def fail(self, *errors: Exception) -> None:
        """Have absorbing fail so, one time after another."""
        failures, absorb = list(errors), self.parts.copies.absorb

        async def absorb_or_fail(key: AssignmentKey) -> None:
            self.tried.put_nowait(key)
            if failures:
                raise failures.pop(0)
            await absorb(key)

        self.parts.copies.absorb = absorb_or_fail  # type: ignore[method-assign]


def run(main: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(DaemonParts(store))
        async with asyncio.timeout(10):
            await main(rig)
        await rig.parts.copies.stop()
        await rig.parts.flusher.stop()
        await rig.parts.link.close()

    asyncio.run(all_of_it())


def test_absorbing_leaves_the_event_loop_to_others() -> None:
    """There may be gigabytes of copies; without a heartbeat the daemon would be called dead."""

    async def main(rig: Rig) -> None:
        rig.forward(*range(1, 51))
        left_at_each_turn: list[int] = []

        async def others() -> None:
            while rig.core.copies.has(COPIED):
                left_at_each_turn.append(len(rig.core.copies))
                await asyncio.sleep(0)

        watching = asyncio.create_task(others())
        await rig.parts.copies.absorb(COPIED)
        await watching
        assert len(left_at_each_turn) >= 40

    run(main)


def test_absorbing_ends_though_more_copies_come() -> None:
    async def main(rig: Rig) -> None:
        rig.forward(1, 2, 3)
        coming = iter(range(4, 1000))
        absorb_copy = rig.core.absorb_copy

        def absorb_and_let_come(copy: Copy) -> bool:
            data = frame([block(0, row := next(coming))], sequence=row, epoch=2)
            keep_copy(rig.core, data, PRIMARY, lambda _: None)
            return absorb_copy(copy)

        rig.core.absorb_copy = absorb_and_let_come  # type: ignore[method-assign]
        await rig.parts.copies.absorb(COPIED)
        assert len(rig.core.copies) == 3

    run(main)


def test_copies_wait_for_nobody_of_their_tenant_who_has_all_that_is_his() -> None:
    async def main(rig: Rig) -> None:
        core = rig.core
        core.tenants._limit = MIN_PAGE_BYTES
        core.tenants.took(7, MIN_PAGE_BYTES)
        copied = core.assignment(COPIED)
        assert copied is not None
        copied.tenant = 7
        rig.forward(1)
        waits = Turn("", lambda _: False, lambda *_: None, 100, tenant=7)
        core.page_queue.enter(waits, 0.0)
        await rig.parts.copies.absorb(COPIED)
        assert waits.is_waiting
        assert core.tenants.held_bytes[7] > MIN_PAGE_BYTES

    run(main)


def test_copies_wait_for_pages_like_everybody_and_nobody_waits_when_it_is_cancelled() -> None:
    async def main(rig: Rig) -> None:
        rig.forward(1)
        pages = rig.core.pool.allocate(rig.core.pool.free_bytes)
        absorbing = asyncio.create_task(rig.parts.copies.absorb(COPIED))
        await asyncio.sleep(0)
        assert rig.core.page_queue.waiting_bytes > 0
        absorbing.cancel()
        await asyncio.gather(absorbing, return_exceptions=True)
        assert rig.core.page_queue.waiting_bytes == 0
        absorbing = asyncio.create_task(rig.parts.copies.absorb(COPIED))
        await asyncio.sleep(0)
        rig.core.pool.free(pages)
        rig.core.changed(0.0)
        await absorbing
        assert not rig.core.copies.has(COPIED)

    run(main)


def test_copies_of_a_sealed_assignment_are_absorbed_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.push.copy_keeper._RETRY_S", 0.001)

    async def main(rig: Rig) -> None:
        rig.forward(1)
        rig.fail(CapacityExceeded("full"), CapacityExceeded("still full"))
        rig.parts.flusher.start()
        rig.parts.copies.start()
        rig.core.seal([COPIED])
        rig.parts.copies.sealed([COPIED, AssignmentKey(EXCHANGE, 5, 9)])
        assert [await rig.tried.get() for _ in range(3)] == [COPIED] * 3
        await rig.parts.flusher.until(lambda: not rig.core.unstored_bytes)
        assert rig.tried.empty()  # there is nothing to absorb of the other

    run(main)


def test_copies_of_a_closed_exchange_are_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.push.copy_keeper._RETRY_S", 0.001)

    async def main(rig: Rig) -> None:
        rig.forward(1)
        rig.fail(CapacityExceeded("full"))
        rig.parts.copies.start()
        rig.parts.copies.sealed([COPIED])
        await rig.tried.get()
        rig.core.drop(EXCHANGE)
        await rig.tried.get()
        await asyncio.sleep(0.01)
        assert rig.tried.empty()

    run(main)


def test_a_primary_is_told_soon_when_there_are_too_many_copies() -> None:
    async def main(rig: Rig) -> None:
        rig.parts.copies.start()
        rig.forward(1)
        assert rig.intake.max_bytes() == rig.core.shares.copies_goal
        rig.told.clear()
        rig.core.copies.waiting_bytes += rig.core.shares.copies_goal
        await rig.told.wait()
        assert rig.intake.max_bytes() < rig.core.shares.copies_goal

    run(main)


def test_the_oldest_copies_are_absorbed_when_others_wait_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.push.copy_keeper.PRESSED_S", 0.0)

    async def main(rig: Rig) -> None:
        answers: list[object] = []
        length = rig.core.shares.copies_max // 4
        for sequence in range(1, 7):
            data = frame([block(0, sequence, bytes(length))], sequence=sequence, epoch=2)
            rig.intake.take_in(memoryview(data), answers.append, 0.0)
        assert len(answers) == 3
        rig.parts.flusher.start()
        rig.parts.copies.start()
        await rig.parts.flusher.until(lambda: len(answers) == 6)
        assert answers == [None] * 6

    run(main)
