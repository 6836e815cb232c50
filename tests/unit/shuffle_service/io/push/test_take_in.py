"""Taking frames in while the metadata service, the store or the exchange fails."""

from __future__ import annotations

import asyncio
import errno

import pytest
from support.daemon_parts import KEY, DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore, StoreFull
from cosco.errors import (
    CapacityExceeded,
    DataCorrupted,
    ExchangeClosed,
    ExchangeNotFound,
    ServiceUnavailable,
)
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.assignments import NotAssigned
from cosco.shuffle_service.state.buffers.frame_check import check_frame

#: Of this length every frame of these tests is said to be.
FRAME = bytes(100)


class Service:
    """What the metadata service answers look-ups with, one after another."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def lookup(self, number, range_index, epoch, incarnation):
        self.asked += 1
        await asyncio.sleep(0)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class BrokenStore(MemoryStore):
    """A store that raises `error` for as long as there is one."""

    error: Exception | None = None

    async def append(self, path, offset, parts):
        if self.error is not None:
            raise self.error
        await super().append(path, offset, parts)


def checked(*blocks: bytes):
    return check_frame(memoryview(frame(blocks)), EXCHANGE, (1, 1))


def assigned(incarnation: int = INCARNATION):
    assignment = Assignment(0, 1, 1, DaemonRef(incarnation, "a"))
    return FoundAssignment(assignment, PartitionRange(0, 0, 9))


async def parts_with(service: Service) -> DaemonParts:
    """A daemon that has to ask `service` for its assignment."""
    store = MemoryStore()
    await store.open()
    parts = DaemonParts(store, link=service)
    parts.core.drop(EXCHANGE)
    parts.core.alike._dropped.clear()
    return parts


async def wait_for_pages(parts: DaemonParts, *frames) -> list[asyncio.Task]:
    """Let frames wait, in this order, in a pool without free pages."""
    parts.pool_pages = parts.core.pool.allocate(parts.core.pool.free_bytes)
    tasks = [asyncio.create_task(parts.take(one, FRAME)) for one in frames]
    for _ in range(10):
        await asyncio.sleep(0)
    assert parts.waiters.waiting_bytes == 100 * len(frames)
    return tasks


def test_many_who_wait_for_one_assignment_ask_once(monkeypatch):
    monkeypatch.setattr("cosco.shuffle_service.io.lookups._RETRY_S", 0.0)

    async def main() -> None:
        service = Service(ServiceUnavailable("not now"), assigned())
        parts = await parts_with(service)
        takes = (parts.take(checked(block(p, 0)), FRAME) for p in range(8))
        assert set(await asyncio.gather(*takes)) == {KEY}
        assert service.asked == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (None, NotAssigned),
        (assigned(INCARNATION + 1), NotAssigned),
        (ExchangeNotFound("nobody knows it"), NotAssigned),
        (ExchangeClosed("over"), ExchangeClosed),
    ],
)
def test_what_the_service_denies_is_refused_to_all_who_wait(answer, refusal):
    async def main() -> None:
        parts = await parts_with(Service(*[answer] * 3))
        takes = [parts.take(checked(block(p, 0)), FRAME) for p in range(3)]
        results = await asyncio.gather(*takes, return_exceptions=True)
        assert [type(result) for result in results] == [refusal] * 3
        assert parts.core.unstored_bytes == 0

    asyncio.run(main())


def test_an_exchange_dropped_during_the_look_up_stays_dropped():
    async def main() -> None:
        parts = await parts_with(Service(assigned()))
        take = asyncio.create_task(parts.take(checked(block(0, 0)), FRAME))
        await asyncio.sleep(0)
        parts.core.drop(EXCHANGE)
        with pytest.raises(ExchangeClosed):
            await take
        assert parts.core.assignment(KEY) is None

    asyncio.run(main())


def test_a_frame_with_a_partition_of_another_range_changes_nothing():
    async def main() -> None:
        parts = await parts_with(Service(assigned()))
        with pytest.raises(DataCorrupted, match="partition 9"):
            await parts.take(checked(block(0, 0), block(9, 0)), FRAME)
        assert parts.core.unstored_bytes == 0

    asyncio.run(main())


def test_frames_that_wait_for_pages_end_when_their_exchange_does():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        parts = DaemonParts(store)
        tasks = await wait_for_pages(parts, *(checked(block(p, 0)) for p in range(3)))
        parts.core.drop(EXCHANGE)
        parts.waiters.wake()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ExchangeClosed] * 3
        assert parts.waiters.waiting_bytes == 0
        await parts.link.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [
        StoreFull(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "no such file in the store"),
        ValueError("an append at 4096 to a file of 0 bytes"),
    ],
)
def test_a_store_that_takes_nothing_loses_nothing_and_ends_no_task(error):
    async def main() -> None:
        store = BrokenStore()
        await store.open()
        parts = DaemonParts(store)
        parts.flusher.start()
        store.error = error
        made = block(0, 0, b"x" * (64 << 10))
        await parts.take(checked(made), FRAME)
        await parts.waiters.changed()
        assert parts.flusher.failing_since is not None
        assert parts.flusher.failure
        assert await parts.read(0) == made
        tasks = await wait_for_pages(parts, checked(block(1, 0)), checked(block(2, 0)))
        parts.flusher.failing_since -= 5.0  # it has been so for `full_store_wait_s`
        parts.waiters.wake()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [CapacityExceeded] * 2
        parts.core.pool.free(parts.pool_pages)
        assert not any(task.done() for task in parts.flusher.tasks())
        store.error = None
        await parts.flusher.flush_everything()
        assert await parts.read(0) == made
        await parts.flusher.stop()
        await parts.link.close()

    asyncio.run(main())


def test_a_store_whose_failing_writes_were_dropped_is_not_thought_to_fail_for_ever():
    """Or the next one to wait for pages, however much later, would be refused at once."""

    async def main() -> None:
        store = BrokenStore()
        await store.open()
        parts = DaemonParts(store)
        parts.flusher.start()
        store.error = StoreFull(errno.ENOSPC, "No space left on device")
        await parts.take(checked(block(0, 0, b"x" * (64 << 10))), FRAME)
        await parts.waiters.changed()
        assert parts.flusher.failing_since is not None
        await parts.flusher.ended(parts.core.drop(EXCHANGE))
        while parts.core.unstored_bytes:
            await parts.waiters.changed()
        assert parts.flusher.failing_since is None
        await parts.flusher.stop()
        await parts.link.close()

    asyncio.run(main())


def test_senders_that_hung_up_are_not_remembered_beyond_their_exchange():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        parts = DaemonParts(store)
        await parts.take(checked(block(0, 0)), FRAME)
        for mapper in range(100):  # only one of them has sent anything
            parts.take_in.hung_up((mapper, 1), {KEY})
        assert parts.core._dedupe.hung_up_senders == 1
        parts.core.drop(EXCHANGE)
        assert not parts.core._dedupe.hung_up_senders
        await parts.link.close()

    asyncio.run(main())


def test_gaps_in_what_a_sender_sends_are_counted_as_memory():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        parts = DaemonParts(store)
        for start in range(0, 5000, 500):
            made = (block(0, row) for row in range(2 * start, 2 * start + 1000, 2))
            await parts.take(checked(*made), FRAME)
        held = parts.core.assignment(KEY)
        sets = [one for sender in held.dedupe._senders.values() for one in sender.values()]
        assert sum(map(len, sets)) == held.dedupe.entries == parts.core._dedupe.entries
        assert held.dedupe.entries <= parts.core._dedupe.entries_max
        await parts.link.close()

    asyncio.run(main())
