"""What readers are given of files that others wrote, whatever happened to them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from support.fetching import one_partition
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore
from cosco.errors import ExchangeClosed, ServiceUnavailable
from cosco.format.chunk import (
    ALIGNMENT,
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    encode_chunk_header,
    padded,
)
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_reply, spb
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.frame_check import check_frame
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

KEY = AssignmentKey(EXCHANGE, 0, 1)
FOLDER = f"c/{EXCHANGE}/0-1/"
OTHER = 99
PATH = f"{FOLDER}0-{OTHER:016x}"
#: Small, of one page, and of several reads.
BODIES = [
    block(0, 0, b"a" * 100),
    block(0, 1, b"b" * 5_000),
    b"".join(block(0, 2 + n, b"c" * (1 << 20)) for n in range(3)),
]


def chunk(body: bytes, offset: int, **changed: int) -> bytes:
    """A chunk as OTHER stores it."""
    fields = {
        "exchange": EXCHANGE, "incarnation": OTHER, "offset": offset, "range_index": 0, "epoch": 1,
        "partition": 0, "blocks": 1, "body_bytes": len(body),
    }  # fmt: skip
    data = encode_chunk_header(ChunkHeader(**(fields | changed))) + body
    return data.ljust(padded(len(data)), b"\0")


def file_of(bodies: list[bytes]) -> bytes:
    data = b""
    for body in bodies:
        data += chunk(body, len(data))
    return data


WHOLE = file_of(BODIES)
SECOND = len(file_of(BODIES[:1]))
THIRD = len(file_of(BODIES[:2]))


class FaultyStore(MemoryStore):
    """Calls `before_read` with the path, offset and length of each read."""

    def __init__(self) -> None:
        super().__init__()
        self.before_read: Callable[[str, int, int], None] = lambda *_: None

    async def read(self, path: str, offset: int, length: int) -> bytes:
        self.before_read(path, offset, length)
        return await super().read(path, offset, length)

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        self.before_read(path, offset, sum(map(len, parts)))
        return await super().read_into(path, offset, parts)

    def put(self, path: str, data: bytes) -> None:
        self._files[path] = bytearray(data)

    def cut(self, path: str, length: int) -> None:
        del self._files[path][length:]

    def remove(self, path: str) -> None:
        self._files.pop(path, None)


class Rig:
    """A daemon's reading half, which holds nothing until it is admitted."""

    def __init__(self) -> None:
        self.store = FaultyStore()
        self.core = DaemonCore(
            arena=memoryview(bytearray(64 * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            segment_bytes=64 << 10,
        )
        self.core.cluster_id = "c"
        self.metrics = DaemonMetrics()
        self.reads = ReadMemory(memoryview(bytearray(4 << 20)))
        self.absorbed: list[AssignmentKey] = []
        self.fetch = FetchService(self.core, self.store, self.reads, self.metrics, self.absorb)
        self.flusher = Flusher(self.core, self.store, self.metrics, writers=1)

    async def absorb(self, key: AssignmentKey) -> None:
        self.absorbed.append(key)

    def hold(self, *blocks: bytes) -> None:
        """Be the assignment's primary, and take these blocks."""
        primary = DaemonRef(INCARNATION, "a")
        self.core.admit(EXCHANGE, Assignment(0, 1, 1, primary), PartitionRange(0, 0, 9))
        checked = check_frame(memoryview(frame(blocks)), EXCHANGE, MapperAttempt(1, 1))
        held = self.core.assignment(KEY)
        assert held is not None
        self.core.append_frame(held, checked, 0)

    async def ask(self, *, files: bool = False) -> tuple[list[bytes], list[str]]:
        """The bodies of sections in order, and the errors; checks that lengths are kept."""
        bodies: list[bytearray] = []
        errors: list[str] = []
        left = 0
        async for message in self.fetch.serve(one_partition(KEY, 0, files=files)):
            reply = fetch_reply(message)
            if isinstance(reply, spb.Section):
                assert left == 0
                left = reply.body_bytes
                if reply.error:
                    assert not left
                    errors.append(reply.error)
                else:
                    bodies.append(bytearray())
            else:
                left -= len(reply)
                bodies[-1] += reply
        assert left == 0
        return [bytes(body) for body in bodies], errors


def run(main: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def with_rig() -> None:
        rig = Rig()
        await rig.store.open()
        await main(rig)
        await rig.flusher.stop()

    asyncio.run(with_rig())


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


#: name → (the file, how many of its chunks are served, whether an error is)
FILES = {
    "whole": (WHOLE, 3, False),
    "empty": (b"", 0, False),
    "a flipped bit in the first header": (flipped(WHOLE, 60), 0, True),
    "a flipped bit in a header in the middle": (flipped(WHOLE, SECOND + 20), 1, True),
    "a flipped bit in the last header": (flipped(WHOLE, THIRD + 49), 2, True),
    "a chunk of another partition": (WHOLE[:SECOND] + chunk(b"b", SECOND, partition=1), 1, True),
    "a chunk of another epoch": (WHOLE[:SECOND] + chunk(b"b", SECOND, epoch=2), 1, True),
    "a chunk of another offset": (WHOLE[:SECOND] + chunk(b"b", 0), 1, True),
    "torn within the last header": (WHOLE[: THIRD + 50], 2, False),
    "torn after the last header": (WHOLE[: THIRD + ALIGNMENT], 2, False),
    "torn within the last body": (WHOLE[: THIRD + 100_001], 2, False),
    "torn at the padding": (WHOLE[:-1], 2, False),
    "space without a write": (WHOLE[:THIRD] + bytes(3 << 20), 2, False),
    "zeros with data behind": (WHOLE[:SECOND] + bytes(2 << 20) + WHOLE[THIRD:], 1, True),
    "less than a page of nonsense": (WHOLE[:THIRD] + b"x" * 4095, 2, False),
    "a page of nonsense": (WHOLE[:THIRD] + b"x" * 4096, 2, True),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_is_worth(name: str) -> None:
    data, chunks, has_error = FILES[name]

    async def main(rig: Rig) -> None:
        rig.store.put(PATH, data)
        later = f"{FOLDER}0-{OTHER + 1:016x}"
        rig.store.put(later, chunk(BODIES[1], 0))
        bodies, errors = await rig.ask()
        assert bodies == [*BODIES[:chunks], BODIES[1]]  # the other file is served in any case
        assert bool(errors) == has_error
        assert all(PATH in error for error in errors)

    run(main)


def test_foreign_names_and_other_partitions_are_passed_over() -> None:
    async def main(rig: Rig) -> None:
        for name in (
            "0-readme",
            "0-99",
            f"0-{OTHER:016x}/x",
            f"0-{OTHER:016x}.tmp",
            f"00-{1:016x}",
        ):
            rig.store.put(FOLDER + name, WHOLE)
        rig.store.put(f"{FOLDER}01-{OTHER:016x}", WHOLE)
        rig.store.put(f"c/{EXCHANGE}/0-10/0-{OTHER:016x}", WHOLE)
        rig.store.put(f"c/{EXCHANGE}0/0-1/0-{OTHER:016x}", WHOLE)
        assert await rig.ask() == ([], [])

    run(main)


def test_its_own_chunks_come_from_memory_and_others_files_when_they_are_asked_for() -> None:
    async def main(rig: Rig) -> None:
        rig.store.put(PATH, file_of(BODIES[:1]))
        own = block(0, 50, b"own")
        rig.hold(own)
        assert await rig.ask() == ([own], [])
        assert await rig.ask(files=True) == ([own, BODIES[0]], [])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        assert len(await rig.store.list(FOLDER)) == 2
        assert await rig.ask(files=True) == ([own, BODIES[0]], [])  # its own file is not read twice
        assert rig.absorbed == [KEY] * 3  # before each look

    run(main)


def test_a_replica_serves_the_files_of_its_primary_in_any_case() -> None:
    async def main(rig: Rig) -> None:
        rig.store.put(PATH, file_of(BODIES[:1]))
        primary, replica = DaemonRef(OTHER, "b"), DaemonRef(INCARNATION, "a")
        assignment = Assignment(0, 1, 1, primary, (replica,))
        rig.core.admit(EXCHANGE, assignment, PartitionRange(0, 0, 9))
        assert await rig.ask() == (BODIES[:1], [])

    run(main)


def test_an_exchange_that_is_closed_while_its_copies_are_absorbed_does_not_look_empty() -> None:
    async def main(rig: Rig) -> None:
        rig.hold(BODIES[0])
        absorb = rig.absorb

        async def absorb_and_drop(key: AssignmentKey) -> None:
            await absorb(key)
            rig.core.drop(EXCHANGE)

        rig.fetch._absorb = absorb_and_drop
        with pytest.raises(ExchangeClosed):
            await rig.ask()

    run(main)


def _remove(store: FaultyStore) -> None:
    store.remove(PATH)


def _cut(store: FaultyStore) -> None:
    store.cut(PATH, SECOND)


def _fail(_store: FaultyStore) -> None:
    raise OSError(errno.EIO, "Input/output error")


#: The reads of PATH: header and body of the small ones, a header, and the body in pieces.
@pytest.mark.parametrize(("faulty_read", "chunks"), [(0, 0), (1, 0), (3, 1), (5, 2), (6, 2)])
@pytest.mark.parametrize("fault", [_remove, _cut, _fail])
def test_a_file_that_fails_while_it_is_read_costs_its_own_rows(
    fault: Callable[[FaultyStore], None], faulty_read: int, chunks: int
) -> None:
    async def main(rig: Rig) -> None:
        rig.store.put(PATH, WHOLE)
        rig.store.put(f"{FOLDER}0-{OTHER + 1:016x}", chunk(later := block(0, 90, b"later"), 0))
        reads = 0

        def count(path: str, _offset: int, _length: int) -> None:
            nonlocal reads
            if path == PATH:
                reads += 1
                if reads > faulty_read:
                    fault(rig.store)

        rig.store.before_read = count
        bodies, errors = await rig.ask()
        assert bodies[:chunks] == BODIES[:chunks]
        assert bodies[-1] == later
        assert errors
        for body in bodies[:-1]:
            if body not in BODIES:  # it was begun, and its end is nothing that a reader takes
                assert len(body) == len(BODIES[2])
                assert body.endswith(bytes(1 << 20))

    run(main)


def test_an_own_file_that_was_deleted_or_cut_is_an_error_of_its_own_chunk() -> None:
    async def main(rig: Rig) -> None:
        rig.hold(block(0, 0, b"a" * 70_000))
        rig.flusher.start()
        await rig.flusher.flush_everything()
        rig.hold(later := block(0, 1, b"b" * 10))
        (file,) = await rig.store.list(FOLDER)
        rig.store.cut(file.path, 2 * ALIGNMENT)
        bodies, errors = await rig.ask()
        assert bodies == [later]
        assert "cut short" in errors[0]
        rig.store.remove(file.path)
        bodies, errors = await rig.ask()
        assert bodies == [later]
        assert len(errors) == 1

    run(main)


async def store_three(rig: Rig) -> list[bytes]:
    """Three chunks of its own, one behind the other in a file."""
    made = [block(0, n, bytes([n]) * 70_000) for n in range(3)]
    rig.flusher.start()
    for one in made:
        rig.hold(one)
        await rig.flusher.flush_everything()
    return made


def test_chunks_that_follow_each_other_are_one_read() -> None:
    async def main(rig: Rig) -> None:
        made = await store_three(rig)
        rig.hold(last := block(0, 9, b"in memory"))
        reads: list[tuple[int, int]] = []
        rig.store.before_read = lambda _, offset, length: reads.append((offset, length))
        assert await rig.ask() == ([*made, last], [])
        assert reads == [(0, sum(padded(CHUNK_HEADER_BYTES + len(one)) for one in made))]
        assert rig.reads.used_bytes == 0

    run(main)


def test_a_chunk_that_cannot_be_read_costs_those_that_are_read_with_it_nothing() -> None:
    async def main(rig: Rig) -> None:
        made = await store_three(rig)
        starts = [0, padded(CHUNK_HEADER_BYTES + len(made[0]))]
        starts.append(2 * starts[1])

        def fail(_path: str, offset: int, length: int) -> None:
            if offset < starts[2] and starts[1] < offset + length:
                raise OSError(errno.EIO, "Input/output error")

        rig.store.before_read = fail
        bodies, errors = await rig.ask()
        assert bodies == [made[0], made[2]]
        assert len(errors) == 1
        (file,) = await rig.store.list(FOLDER)
        rig.store.before_read = lambda *_: None
        rig.store.cut(file.path, starts[1] + ALIGNMENT)
        bodies, errors = await rig.ask()
        assert bodies == [made[0]]
        assert len(errors) == 2
        assert rig.reads.used_bytes == 0

    run(main)


def test_a_reader_that_leaves_gives_its_memory_back() -> None:
    async def main(rig: Rig) -> None:
        rig.store.put(PATH, WHOLE)
        messages = rig.fetch.serve(one_partition(KEY, 0))
        for _ in range(6):  # it is in the middle of the large one
            await anext(messages)
        assert rig.reads.used_bytes > 0
        await messages.aclose()
        assert (rig.reads.used_bytes, rig.reads.readers) == (0, 0)

    run(main)


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_the_end() -> None:
    async def main(rig: Rig) -> None:
        own = block(0, 50, b"own")
        rig.hold(own)

        async def fail(prefix: str) -> list[Any]:
            raise OSError(errno.EIO, "Input/output error")

        rig.store.list = fail  # type: ignore[method-assign]
        bodies, errors = await rig.ask(files=True)
        assert bodies == [own]
        assert "listed" in errors[0]

    run(main)


def test_a_closed_exchange_is_said_to_be_closed_and_not_broken() -> None:
    async def main(rig: Rig) -> None:
        rig.store.put(PATH, WHOLE)

        def close(path: str, offset: int, length: int) -> None:
            if offset == THIRD and length > ALIGNMENT:
                rig.core.drop(EXCHANGE)
                rig.store.remove(PATH)

        rig.store.before_read = close
        with pytest.raises(ExchangeClosed):
            await rig.ask()
        with pytest.raises(ExchangeClosed):
            await rig.ask()

    run(main)


def test_a_chunk_that_is_stored_while_it_is_sent_goes_on_from_its_file() -> None:
    async def main(rig: Rig) -> None:
        made = [block(0, n, bytes([n]) * 900_000) for n in range(3)]
        for one in made:
            rig.hold(one)
        replies = rig.fetch.serve(one_partition(KEY, 0))
        assert isinstance(fetch_reply(await anext(replies)), spb.Section)
        rig.flusher.start()
        await rig.flusher.flush_everything()
        data = b"".join([bytes(fetch_reply(message)) async for message in replies])  # type: ignore[arg-type]
        assert data == b"".join(made)

    run(main)


@pytest.mark.parametrize("call", ["list", "read", "read_into"])
def test_a_store_that_hangs_ends_the_call_and_says_nothing_of_a_loss(call: str) -> None:
    """The reader asks other daemons then, and comes again."""

    async def main(rig: Rig) -> None:
        async def hang(*_: object) -> Any:
            if call == "read_into":  # which is bounded here
                await asyncio.Event().wait()
            raise TimeoutError(errno.ETIMEDOUT, "the store has not answered for 30 s")

        rig.store.put(PATH, WHOLE)
        whole: Any = getattr(rig.store, call)
        setattr(rig.store, call, hang)
        rig.fetch._timeout_s = 0.05
        replies = []
        with pytest.raises(ServiceUnavailable, match="has not answered for") as caught:
            async for message in rig.fetch.serve(one_partition(KEY, 0)):
                replies += [fetch_reply(message)]
        assert caught.value.retriable
        assert not replies  # no section of an error, which would count as a loss
        setattr(rig.store, call, whole)
        data = [fetch_reply(message) async for message in rig.fetch.serve(one_partition(KEY, 0))]
        assert b"".join(bytes(one) for one in data if isinstance(one, memoryview)) == b"".join(
            BODIES
        )

    asyncio.run(main(Rig()))
