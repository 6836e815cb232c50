"""The flusher over a real store that fails when told to."""

from __future__ import annotations

import asyncio
import errno
import math
import time

import numpy as np
import pytest
from support.daemon_mechanics import check_frame
from support.daemon_parts import DaemonParts
from support.fetching import one_partition
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.tracing import traced

from cosco.dfs import MemoryStore, StoreFull
from cosco.errors import CapacityExceeded, CoscoError
from cosco.format.chunk import ALIGNMENT
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_reply
from cosco.shuffle_service.io.arena import Arena
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

KEY = AssignmentKey(EXCHANGE, 0, 1)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class FullStore(MemoryStore):
    """A store that is full until `room` is set, and says when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.room = asyncio.Event()
        self.asked = asyncio.Event()

    async def put(self, path, parts):
        self.asked.set()
        if not self.room.is_set():
            raise StoreFull(errno.ENOSPC, "No space left on device")
        await super().put(path, parts)


async def no_copies(key) -> None:
    """There are none to absorb."""


class Rig:
    """A daemon's parts without its server."""

    def __init__(
        self,
        store,
        pages: int = 8,
        *,
        incarnation: int = INCARNATION,
        idle_s: float = 0.0,
        timeout_s: float = math.inf,
        arena: memoryview | None = None,
    ) -> None:
        self.store = store
        if arena is None:
            arena = memoryview(bytearray(pages * MAX_PAGE_BYTES))
        self.core = DaemonCore(
            arena=arena,
            incarnation=incarnation,
            segment_bytes=64 << 10,
            store_idle_s=idle_s,
            store_timeout_s=timeout_s,
        )
        self.core.cluster_id = "c"
        primary = DaemonRef(INCARNATION, "a")
        self.core.admit(EXCHANGE, Assignment(0, 1, 1, primary), PartitionRange(0, 0, 9))
        self.metrics = DaemonMetrics()
        self.flusher = Flusher(self.core, store, self.metrics, writers=2)
        self.fetch = FetchService(
            self.core,
            store,
            ReadMemory(memoryview(bytearray(4 << 20))),
            self.metrics,
            no_copies,
        )

    def put(self, *blocks: bytes) -> None:
        checked = check_frame(memoryview(frame(blocks)), EXCHANGE, MapperAttempt(1, 1))
        held = self.core.assignment(KEY)
        assert self.core.append_frame(held, checked, 0).next_run == checked.run_count
        self.core.kick()

    async def read(self, partition: int) -> bytes:
        replies = [fetch_reply(m) async for m in self.fetch.serve(one_partition(KEY, partition))]
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
        await rig.flusher.until(lambda: rig.core.flushes.failing_since is not None)
        assert "No space" in rig.core.flushes.failure
        assert await rig.read(0) == made
        store.room.set()
        await rig.flusher.flush_everything()
        assert rig.core.flushes.failing_since is None
        assert await rig.read(0) == made
        assert rig.core.unstored_bytes == 0
        await rig.flusher.stop()

    asyncio.run(main())


def test_each_try_to_write_is_a_span_of_the_exchange():
    async def main() -> None:
        store = FullStore()
        await store.open()
        rig = Rig(store)
        rig.core.assignment(KEY).trace = TRACE
        rig.flusher.start()
        made = [block(partition, 0, b"x" * (40 << 10)) for partition in (2, 3)]
        rig.put(*made)
        rig.flusher.store_all()
        await store.asked.wait()
        await rig.flusher.until(lambda: rig.core.flushes.failing_since is not None)
        store.room.set()
        await rig.flusher.flush_everything()
        await rig.flusher.stop()

    with traced() as found:
        asyncio.run(main())
    *failed, last = found.spans("cosco flush")
    assert failed
    assert all("StoreFull" in span.status.description for span in failed)
    assert last.status.description is None
    for span in (*failed, last):
        assert format(span.parent.span_id, "x") == TRACE.split("-")[2]
        about = dict(span.attributes)
        assert about.pop("error.type", "StoreFull") == "StoreFull"
        assert about.pop("cosco.flush.chunk_bytes") < about.pop("cosco.flush.bytes")
        assert about == {
            "cosco.exchange.number": EXCHANGE,
            "cosco.daemon.incarnation": INCARNATION,
            "cosco.range": 0,
            "cosco.epoch": 1,
            "cosco.flush.first_partition": 2,
            "cosco.flush.chunks": 2,
        }


def test_of_an_exchange_without_a_trace_nothing_is_traced():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.put(block(0, 0, b"x"))
        await rig.flusher.flush_everything()
        await rig.flusher.stop()

    with traced() as found:
        asyncio.run(main())
    assert found.spans() == []


def test_everything_is_stored_once_nothing_came_for_a_while():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store, idle_s=0.05)
        rig.flusher.start()
        for number in range(2):  # the second one ends the first rest
            rig.put(block(number, 0, b"x"))
            rig.core.frame_came(time.monotonic())
            assert rig.core.unstored_bytes
            await rig.flusher.until(lambda: not rig.core.unstored_bytes)
            assert len(await store.list("c/")) == number + 1
        rig.put(block(2, 0, b"y"))
        rig.core.frame_came(time.monotonic())
        assert rig.core.next_flush() is None  # it is not written at once
        assert rig.core.unstored_bytes
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
        await rig.flusher.until(lambda: not rig.core.unstored_bytes)
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
        rig.core.drop(EXCHANGE)
        await rig.flusher.ended(Going(EXCHANGE))
        await rig.flusher.until(lambda: not rig.core.unstored_bytes)
        assert await store.list("") == []
        await rig.flusher.stop()

    asyncio.run(main())


def test_everything_is_flushed_to_segments_that_describe_themselves():
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
        reading = rig.fetch.serve(one_partition(KEY, 0))
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


def test_a_deleted_segment_costs_its_own_rows_and_nobody_elses():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * 70_000), block(1, 0, b"y" * 70_000))
        await rig.flusher.flush_everything()
        (file,) = await store.list(f"c/{EXCHANGE}/0-1/0-")
        del store._files[file.path]
        later = [block(0, 1, b"z" * 30_000), block(1, 1, b"y" * 30_000)]
        rig.put(*later)
        await rig.flusher.flush_everything()
        assert rig.core.flushes.failing_since is None
        replies = [fetch_reply(message) async for message in rig.fetch.serve(one_partition(KEY, 0))]
        errors = [reply.error for reply in replies if not isinstance(reply, memoryview)]
        assert sum(map(bool, errors)) == 1  # what was stored is lost, and said to be
        assert b"".join(bytes(r) for r in replies if isinstance(r, memoryview)) == later[0]
        assert await rig.read(1) == block(1, 0, b"y" * 70_000) + later[1]
        # The next segment describes itself.
        other = Rig(store, incarnation=INCARNATION + 1)
        assert await other.read(0) == later[0]
        await rig.flusher.stop()

    asyncio.run(main())


class Recorder(MemoryStore):
    """Notes what is put, and fails the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.puts: list[tuple[str, bytes]] = []
        self.addresses: list[int] = []

    async def put(self, path, parts):
        self.puts.append((path, b"".join(parts)))
        self.addresses += [np.frombuffer(part, np.uint8).ctypes.data for part in parts]
        if len(self.puts) <= self.failures:
            raise OSError(errno.EIO, "Input/output error")
        await super().put(path, parts)


def test_a_write_is_repeated_with_its_own_name_and_bytes_until_it_lands():
    async def main() -> None:
        store = Recorder(failures=2)
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        made = [block(0, 0, b"x" * 70_000), block(0, 1, b"later")]
        rig.put(made[0])
        await rig.flusher.until(lambda: rig.core.flushes.failing_since is not None)
        rig.put(made[1])
        await rig.flusher.flush_everything()
        first, second, third, later = store.puts
        assert first == second == third
        assert later[0] != first[0]
        assert await rig.read(0) == b"".join(made)
        assert len(await store.list("")) == 2
        await rig.flusher.stop()

    asyncio.run(main())


def test_what_is_written_is_where_direct_io_can_take_it_from():
    async def main() -> None:
        store = Recorder()
        await store.open()
        arena = Arena(8 * MAX_PAGE_BYTES)
        rig = Rig(store, arena=arena.memory)
        rig.flusher.start()
        for partition in range(3):
            rig.put(block(partition, 0, b"x" * 1000 * (partition + 1)))
        await rig.flusher.flush_everything()
        assert [len(data) % ALIGNMENT for _, data in store.puts] == [0]
        assert [address % ALIGNMENT for address in store.addresses] == [0] * 4  # and the index
        await rig.flusher.stop()

    asyncio.run(main())


def test_partitions_that_are_small_share_a_segment_and_are_counted_each():
    async def main() -> None:
        store = Recorder()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        blocks = [block(p, 0, b"x" * 1000) for p in range(5)]
        rig.put(*blocks)
        await rig.flusher.flush_everything()
        assert len(store.puts) == 1
        value = rig.metrics.registry.get_sample_value
        assert value("cosco_segments_stored_total") == 1
        assert value("cosco_chunks_stored_total") == 5
        assert value("cosco_bytes_stored_total") == sum(map(len, blocks))
        await rig.flusher.stop()

    asyncio.run(main())


class BrokenStore(MemoryStore):
    """A store that raises `error` for as long as there is one."""

    error: Exception | None = None

    async def put(self, path, parts):
        if self.error is not None:
            raise self.error
        await super().put(path, parts)


@pytest.mark.parametrize(
    "error",
    [
        StoreFull(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "no such file in the store"),
        TimeoutError(errno.ETIMEDOUT, "the store has not answered for 30 s"),
    ],
)
def test_a_store_that_takes_nothing_loses_nothing_and_ends_no_task(error):
    async def main() -> None:
        store = BrokenStore()
        await store.open()
        parts = DaemonParts(store)
        flushes = parts.core.flushes
        parts.flusher.start()
        store.error = error
        made = block(0, 0, b"x" * (64 << 10))
        await parts.take(made)
        await parts.flusher.until(lambda: flushes.failing_since is not None)
        assert flushes.failure
        assert await parts.read(0) == made
        pages = parts.core.pool.allocate(parts.core.pool.free_bytes)
        answers: list[CoscoError | None] = []
        waiting = [
            asyncio.create_task(parts.push(frame([block(p, 0)]), answers.append)) for p in (1, 2)
        ]
        await asyncio.sleep(0)
        assert parts.core.page_queue.waiting_bytes > 0
        flushes.failing_since -= 5.0  # it has been so for `full_store_wait_s`
        parts.core.changed(time.monotonic())
        await asyncio.gather(*waiting)
        assert [type(answer) for answer in answers] == [CapacityExceeded] * 2
        parts.core.pool.free(pages)
        assert not any(task.done() for task in parts.flusher.tasks)
        store.error = None
        await parts.flusher.flush_everything()
        assert await parts.read(0) == made
        await parts.flusher.stop()
        await parts.link.close()

    asyncio.run(main())


def test_a_store_whose_failing_writes_were_dropped_is_not_thought_to_fail_for_ever():
    """Or the next one to wait for pages, however much later, would be refused at once."""

    async def main() -> None:
        store = FullStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * (64 << 10)))
        await rig.flusher.until(lambda: rig.core.flushes.failing_since is not None)
        rig.core.drop(EXCHANGE)
        await rig.flusher.ended(Going(EXCHANGE))
        await rig.flusher.until(lambda: not rig.core.unstored_bytes)
        assert rig.core.flushes.failing_since is None
        await rig.flusher.stop()

    asyncio.run(main())


def test_writers_are_not_woken_by_a_frame_that_needs_no_flush():
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(store)
        rig.flusher.start()
        for _ in range(5):
            await asyncio.sleep(0)
        for row in range(10):
            rig.put(block(0, row))
        assert not rig.flusher._work.is_set()
        rig.put(block(0, 10, b"x" * (64 << 10)))
        assert rig.flusher._work.is_set()
        await rig.flusher.stop()

    asyncio.run(main())


class HangingStore(MemoryStore):
    """A store that ends no write until `go` is set; `error` is how it ends them then."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.begun = 0
        self.error: Exception | None = None

    async def put(self, path, parts):
        self.begun += 1
        await self.go.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        await super().put(path, parts)


class HangingPartition(MemoryStore):
    """A store that ends no write of partition 0 until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def put(self, path, parts):
        if path.startswith(f"c/{EXCHANGE}/0-1/0-"):
            await self.go.wait()
        await super().put(path, parts)


def test_writes_that_succeed_beside_one_that_hangs_tell_no_recovery():
    async def main() -> None:
        store = HangingPartition()
        await store.open()
        rig = Rig(store, pages=64, timeout_s=0.01)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * (64 << 10)))
        await rig.flusher.until(lambda: rig.core.flushes.hanging == 1)
        for row in range(3):
            await rig.flusher.until(lambda: rig.core.flushes.failing_since is not None)
            rig.put(block(1, row, b"x" * (64 << 10)))
            await rig.flusher.until(lambda: rig.core.flushes.failing_since is None)
        store.go.set()
        await rig.flusher.flush_everything()
        told = [(event.kind.label, event.times) for event in rig.core.events.pop_all()]
        assert told == [("store_hangs", 1), ("store_answers", 1)]
        await rig.flusher.stop()

    asyncio.run(main())


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error")])
def test_a_write_that_hangs_keeps_its_pages_and_is_not_repeated(error):
    async def main() -> None:
        store = HangingStore()
        await store.open()
        store.error = error
        rig = Rig(store, timeout_s=0.05)
        flushes, shares = rig.core.flushes, rig.core.shares
        rig.flusher.start()
        made = block(0, 0, b"x" * (64 << 10))
        rig.put(made)
        await rig.flusher.until(lambda: flushes.failing(time.monotonic()))
        assert flushes.hanging == store.begun == 1
        assert flushes.hanging_bytes == shares.flushing > len(made)  # not counted as soon free
        assert await rig.read(0) == made
        await asyncio.sleep(0.2)
        assert store.begun == 1
        store.go.set()
        await rig.flusher.flush_everything()
        assert not flushes.failing(time.monotonic())
        assert (flushes.hanging_bytes, shares.flushing, rig.core.unstored_bytes) == (0, 0, 0)
        assert await rig.read(0) == made
        assert len(await store.read(*(await files(store)), 0, 1 << 20)) < 2 * len(made)
        assert rig.metrics.registry.get_sample_value("cosco_flush_failures_total") == (
            1 if error is None else 2
        )
        await rig.flusher.stop()

    asyncio.run(main())


async def files(store: MemoryStore) -> list[str]:
    """The paths of a store."""
    return [file.path for file in await store.list("")]


def test_a_dropped_exchange_frees_the_pages_of_a_write_that_hangs_when_it_ends():
    async def main() -> None:
        store = HangingStore()
        await store.open()
        rig = Rig(store, timeout_s=0.05)
        rig.flusher.start()
        rig.put(block(0, 0, b"x" * (64 << 10)), block(1, 0, b"y" * 1000))
        await rig.flusher.until(lambda: rig.core.flushes.hanging == 1)
        rig.core.drop(EXCHANGE)
        assert rig.core.unstored_bytes == rig.core.flushes.hanging_bytes > 0
        ended = asyncio.ensure_future(rig.flusher.ended(Going(EXCHANGE)))
        await asyncio.sleep(0.01)
        assert not ended.done()
        store.go.set()
        await ended
        await rig.flusher.until(lambda: not rig.core.unstored_bytes)
        assert rig.core.flushes.hanging_bytes == 0
        await rig.flusher.stop()

    asyncio.run(main())


def test_all_writes_hang_and_the_flusher_ends_all_the_same():
    async def main() -> None:
        store = HangingStore()
        await store.open()
        rig = Rig(store, timeout_s=0.05)
        rig.flusher.start()
        for partition in range(4):
            rig.put(block(partition, 0, b"x" * (64 << 10)))
        await rig.flusher.until(lambda: rig.core.flushes.hanging == 2)
        await asyncio.wait_for(rig.flusher.stop(), 10)
        assert len(rig.flusher.writes) == 2
        store.go.set()
        await asyncio.gather(*rig.flusher.writes)
        assert len(await files(store)) == 2  # what landed late is whole

    asyncio.run(main())
