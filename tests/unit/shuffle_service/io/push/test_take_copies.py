"""The replica's half of a daemon: look-ups, releases, and settling beside other work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from support.daemon_parts import DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore
from cosco.errors import CoscoError
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.io.push.take_copies import CopyFrames
from cosco.shuffle_service.state.buffers.frame_check import check_frame
from cosco.shuffle_service.state.replication.copy_log import Copy

PRIMARY = INCARNATION + 1
COPIED = (EXCHANGE, 0, 2)
ASSIGNMENT = Assignment(0, 2, 1, DaemonRef(PRIMARY, "b"), (DaemonRef(INCARNATION, "a"),))
PARTITIONS = PartitionRange(0, 0, 9)


class Link:
    """A metadata service that answers look-ups when it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Semaphore(0)
        self.look_ups = 0
        self.answer: FoundAssignment | None = FoundAssignment(ASSIGNMENT, PARTITIONS)

    async def lookup(self, *_key: int) -> FoundAssignment | None:
        self.look_ups += 1
        self.asked.set()
        await self.answers.acquire()
        return self.answer

    async def close(self) -> None:
        pass


class Rig:
    """A stream of PRIMARY to a daemon, and what the primary was told of its frames."""

    def __init__(self, parts: DaemonParts, link: Link) -> None:
        self.parts = parts
        self.link = link
        self.core = parts.core
        self.told: list[tuple[int, CoscoError | None]] = []
        self.frames: CopyFrames = parts.copies.open(PRIMARY, lambda: None, lambda: None)

    async def forward(self, sequence: int) -> None:
        data = frame([block(0, sequence, b"x" * 100)], sequence=sequence, epoch=2)

        def settle(error: CoscoError | None) -> None:
            self.told.append((sequence, error))

        await self.frames.take(memoryview(data), settle)

    def admit(self) -> None:
        self.core.admit(EXCHANGE, ASSIGNMENT, PARTITIONS)


def run(main: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        link = Link()
        store = MemoryStore()
        await store.open()
        rig = Rig(DaemonParts(store, link=link), link)
        try:
            await main(rig)
        finally:
            rig.frames.hung_up()

    asyncio.run(all_of_it())


async def pass_by() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_frame_that_is_released_while_it_is_looked_up_is_not_kept() -> None:
    async def main(rig: Rig) -> None:
        await rig.forward(1)
        await rig.forward(2)
        await rig.link.asked.wait()
        rig.frames.released([1])
        rig.link.answers.release()
        await pass_by()
        assert rig.told == [(1, None), (2, None)]
        rig.frames.released([2])
        assert rig.core.unstored_bytes == 0

    run(main)


def test_frames_that_come_while_others_are_looked_up_wait_for_the_same_answer() -> None:
    async def main(rig: Rig) -> None:
        rig.link.answer = None
        await rig.forward(1)
        await rig.forward(2)
        await rig.link.asked.wait()
        rig.link.answers.release()
        await pass_by()  # the first is refused, and the second asks for itself
        await rig.forward(3)
        await pass_by()
        assert rig.link.look_ups == 2  # one at a time
        rig.link.answers.release()
        rig.link.answers.release()
        await pass_by()
        assert [sequence for sequence, _ in rig.told] == [1, 2, 3]

    run(main)


def test_settling_leaves_the_event_loop_to_others() -> None:
    """There may be gigabytes of copies; without a heartbeat the daemon would be called dead."""

    async def main(rig: Rig) -> None:
        rig.admit()
        for sequence in range(1, 51):
            await rig.forward(sequence)
        left_at_each_turn: list[int] = []

        async def others() -> None:
            while rig.core.copies.has(COPIED):
                left_at_each_turn.append(len(rig.core.copies))
                await asyncio.sleep(0)

        watching = asyncio.create_task(others())
        await rig.parts.copies.settle(COPIED)
        await watching
        assert len(left_at_each_turn) >= 40

    run(main)


def test_settling_ends_though_more_copies_come() -> None:
    async def main(rig: Rig) -> None:
        rig.admit()
        for sequence in (1, 2, 3):
            await rig.forward(sequence)
        coming = iter(range(4, 1000))
        settle_copy = rig.core.settle_copy

        def settle_and_let_come(copy: Copy) -> bool:
            data = memoryview(frame([block(0, row := next(coming))], sequence=row, epoch=2))
            held = rig.core.assignment(COPIED)
            assert held is not None
            rig.core.take_copy(
                held, check_frame(data), data, PRIMARY,
                stream=rig.frames, now=0.0, settle=lambda _: None,
            )  # fmt: skip
            return settle_copy(copy)

        rig.core.settle_copy = settle_and_let_come  # type: ignore[method-assign]
        await rig.parts.copies.settle(COPIED)
        assert len(rig.core.copies) == 3

    run(main)


def test_a_primary_is_told_soon_when_there_are_too_many_copies():
    async def main(rig: Rig) -> None:
        rig.admit()
        told = asyncio.Event()
        rig.frames.tell = told.set
        rig.parts.copies.start()
        try:
            await rig.forward(1)
            assert rig.frames.max_bytes() == rig.core.shares.copies_goal
            rig.core.copies.waiting_bytes += rig.core.shares.copies_goal
            await asyncio.wait_for(told.wait(), 5)
            assert rig.frames.max_bytes() < rig.core.shares.copies_goal
        finally:
            await rig.parts.copies.stop()

    run(main)
