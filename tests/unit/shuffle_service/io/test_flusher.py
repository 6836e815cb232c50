"""The flusher over a real store that fails when told to."""

from __future__ import annotations

import asyncio
import errno
import time

from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore, StoreFull
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_reply
from cosco.shuffle_service.io.flusher import FAILING_AFTER_S, Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.page_waiters import PageWaiters
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.frame_check import check_frame
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

KEY = (EXCHANGE, 0, 1)


class FullStore(MemoryStore):
    """A store that is full until `room` is set, and says when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.room = asyncio.Event()
        self.asked = asyncio.Event()

    async def append(self, path, offset, parts):
        self.asked.set()
        if not self.room.is_set():
            raise StoreFull(errno.ENOSPC, "No space left on device")
        await super().append(path, offset, parts)


async def no_copies(key) -> None:
    """There are none to settle."""


class Rig:
    """A daemon's parts without its server."""

    def __init__(self, store, pages: int = 8, *, incarnation: int = INCARNATION) -> None:
        self.store = store
        arena = memoryview(bytearray(pages * MAX_PAGE_BYTES))
        self.core = DaemonCore(arena=arena, incarnation=incarnation, chunk_bytes=64 << 10)
        self.core.cluster_id = "c"
        primary = DaemonRef(INCARNATION, "a")
        self.core.admit(EXCHANGE, Assignment(0, 1, 1, primary), PartitionRange(0, 0, 9))
        self.metrics = DaemonMetrics()
        self.waiters = PageWaiters()
        self.flusher = Flusher(self.core, store, self.waiters, self.metrics, writers=2)
        self.fetch = FetchService(
            self.core,
            store,
            ReadMemory(memoryview(bytearray(4 << 20))),
            self.metrics,
            no_copies,
        )

    def put(self, *blocks: bytes) -> None:
        checked = check_frame(memoryview(frame(blocks)), EXCHANGE, (1, 1))
        held = self.core.assignment(KEY)
        assert self.core.take(held, checked, 0).next_run == len(checked.runs)
        self.flusher.kick()

    async def read(self, partition: int) -> bytes:
        replies = [fetch_reply(m) async for m in self.fetch.serve(KEY, partition)]
        return b"".join(bytes(r) for r in replies if isinstance(r, memoryview))


def test_a_full_store_loses_nothing_and_is_written_when_there_is_room():
    async def main() -> None:
        store = FullStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        made = block(0, 0, b"x" * (64 << 10))
        rig.put(made)
        await store.asked.wait()
        await rig.waiters.changed()
        assert rig.flusher.failing_since is not None
        assert "No space" in rig.flusher.failure
        assert await rig.read(0) == made
        store.room.set()
        await rig.flusher.flush_everything()
        assert rig.flusher.failing_since is None
        assert await rig.read(0) == made
        assert rig.core.unstored_bytes == 0
        await rig.flusher.stop()

    asyncio.run(main())


def test_everything_is_stored_once_nothing_came_for_a_while():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher = Flusher(rig.core, store, rig.waiters, rig.metrics, writers=2, idle_s=0.05)
        rig.flusher.start()
        for number in range(2):  # the second one ends the first rest
            rig.put(block(number, 0, b"x"))
            rig.flusher.taken()
            assert rig.core.unstored_bytes
            while rig.core.unstored_bytes:
                await rig.waiters.changed()
            assert len(await store.list("c/")) == number + 1
        rig.put(block(2, 0, b"y"))
        rig.flusher.taken()
        assert rig.core.next_flush() is None  # it is not written at once
        assert rig.core.unstored_bytes
        await rig.flusher.stop()

    asyncio.run(main())


def test_a_store_is_failing_when_it_has_taken_nothing_for_a_while():
    async def main() -> None:
        store = FullStore()
        await store.open()
        rig = Rig(store)
        assert not rig.flusher.failing(time.monotonic() + 3600)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * (64 << 10)))
        await store.asked.wait()
        await rig.waiters.changed()
        since = rig.flusher.failing_since
        assert not rig.flusher.failing(since + FAILING_AFTER_S - 0.1)
        assert rig.flusher.failing(since + FAILING_AFTER_S)
        store.room.set()
        await rig.flusher.flush_everything()
        assert not rig.flusher.failing(time.monotonic() + 3600)
        await rig.flusher.stop()

    asyncio.run(main())


def test_what_is_sealed_is_stored_at_once():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.put(made := block(0, 0, b"small"))
        await asyncio.sleep(0)
        assert await store.list("") == []
        assert rig.core.seal([KEY]) == len(made)
        rig.flusher.kick()
        while rig.core.unstored_bytes:
            await rig.waiters.changed()
        assert rig.core.seal([KEY]) == 0
        assert len(await store.list(f"c/{EXCHANGE}/0-1/0-")) == 1
        await rig.flusher.stop()

    asyncio.run(main())


def test_a_dropped_exchange_is_not_retried_for_ever():
    async def main() -> None:
        store = FullStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * (64 << 10)))
        await store.asked.wait()
        await rig.flusher.ended(rig.core.drop(EXCHANGE))
        while rig.core.unstored_bytes:
            await rig.waiters.changed()
        assert await store.list("") == []
        await rig.flusher.stop()

    asyncio.run(main())


def test_everything_is_flushed_to_files_that_describe_themselves():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        blocks = {p: [block(p, n, bytes([n]) * 30_000) for n in range(5)] for p in range(3)}
        for n in range(5):
            rig.put(*(blocks[p][n] for p in range(3)))
            await asyncio.sleep(0)
        await rig.flusher.flush_everything()
        assert rig.core.unstored_bytes == 0
        for partition, made in blocks.items():
            assert await rig.read(partition) == b"".join(made)
        # Another daemon of the store finds the same in the files alone.
        other = Rig(store, incarnation=INCARNATION + 1)
        for partition, made in blocks.items():
            assert await other.read(partition) == b"".join(made)
        await rig.flusher.stop()

    asyncio.run(main())


def test_a_reader_goes_on_from_the_store_when_the_chunk_is_flushed_meanwhile():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store, pages=64)
        made = [block(0, n, bytes([n]) * 900_000) for n in range(10)]
        for one in made:
            rig.put(one)
        reading = rig.fetch.serve(KEY, 0)
        replies = [fetch_reply(await anext(reading)), fetch_reply(await anext(reading))]
        assert len(replies[1]) < sum(map(len, made)) // 2  # most is still to come
        rig.flusher.start()
        await rig.flusher.flush_everything()
        rig.put(block(0, 2))  # later than the snapshot, in pages that were the chunk's
        replies += [fetch_reply(message) async for message in reading]
        data = b"".join(bytes(r) for r in replies if isinstance(r, memoryview))
        assert data == b"".join(made)
        await rig.flusher.stop()

    asyncio.run(main())


def test_a_deleted_file_costs_its_own_rows_and_nobody_elses():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * 30_000), block(1, 0, b"y" * 30_000))
        await rig.flusher.flush_everything()
        (file,) = await store.list(f"c/{EXCHANGE}/0-1/0-")
        del store._files[file.path]
        later = [block(0, 1, b"z" * 30_000), block(1, 1, b"y" * 30_000)]
        rig.put(*later)
        await rig.flusher.flush_everything()
        assert rig.flusher.failing_since is None
        replies = [fetch_reply(message) async for message in rig.fetch.serve(KEY, 0)]
        assert replies[0].error  # what was stored is lost, and said to be
        assert b"".join(bytes(r) for r in replies if isinstance(r, memoryview)) == later[0]
        assert await rig.read(1) == block(1, 0, b"y" * 30_000) + later[1]
        # The new file describes itself from its beginning.
        other = Rig(store, incarnation=INCARNATION + 1)
        assert await other.read(0) == later[0]
        await rig.flusher.stop()

    asyncio.run(main())
