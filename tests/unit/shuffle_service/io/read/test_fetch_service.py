"""What readers are given of segments that others wrote, whatever happened to them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.daemon_mechanics import check_frame
from support.fetching import one_partition
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.segments import chunk, path_of, segment

from cosco.dfs import MemoryStore
from cosco.errors import ExchangeClosed, ServiceUnavailable
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, padded
from cosco.format.segment import SegmentId
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_reply, spb
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

KEY = AssignmentKey(EXCHANGE, 0, 1)
FOLDER = f"c/{EXCHANGE}/0-1/"
OTHER = 99
ID = SegmentId(exchange=EXCHANGE, range_index=0, epoch=1, incarnation=OTHER, serial=1)
LATER = replace(ID, incarnation=OTHER + 1)
PATH = path_of(ID, 0, 3)
#: By partition: small, of more than a page, and of several reads.
BODIES = {
    0: block(0, 0, b"a" * 100),
    1: block(1, 1, b"b" * 5_000),
    3: b"".join(block(3, 2 + n, b"c" * (1 << 20)) for n in range(3)),
}
WHOLE = segment(ID, BODIES.items())
SECOND = ALIGNMENT
THIRD = SECOND + 2 * ALIGNMENT
INDEX = len(WHOLE) - ALIGNMENT


class FaultyStore(MemoryStore):
    """Calls `before_read` with the path, offset and length of each read, and notes them.

    `gate`: what reads into memory wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._began = asyncio.Event()
        self.before_read: Callable[[str, int, int], None] = lambda *_: None

    async def read(self, path: str, offset: int, length: int) -> bytes:
        self.reads.append((path, offset, length))
        self.before_read(path, offset, length)
        return await super().read(path, offset, length)

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        self.reads.append((path, offset, sum(map(len, parts))))
        self._began.set()
        self.before_read(path, offset, sum(map(len, parts)))
        await self.gate.wait()
        return await super().read_into(path, offset, parts)

    async def begun(self, count: int) -> None:
        """Wait until so many reads have begun."""
        while len(self.reads) < count:
            self._began.clear()
            await self._began.wait()

    def lay(self, path: str, data: bytes) -> None:
        self._files[path] = data

    def cut(self, path: str, length: int) -> None:
        self._files[path] = self._files[path][:length]

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
        self.begin_service()
        self.flusher = Flusher(self.core, self.store, self.metrics, writers=1)

    def begin_service(self) -> None:
        self.fetch = FetchService(self.core, self.store, self.reads, self.metrics, self.absorb)

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

    async def ask(
        self, partition: int = 0, *, files: bool = False
    ) -> tuple[list[bytes], list[str]]:
        """The bodies of sections in order, and the errors; checks that lengths are kept."""
        bodies: list[bytearray] = []
        errors: list[str] = []
        left = 0
        async for message in self.fetch.serve(one_partition(KEY, partition, files=files)):
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


def changed(partition: int = 1, offset: int = SECOND, **fields: int) -> bytes:
    """A segment whose second chunk has a header of another place, and which has no index."""
    second = chunk(replace(ID, **fields), partition, offset, BODIES[1])
    return WHOLE[:SECOND] + second + WHOLE[THIRD:INDEX]


BAD_INDEX = flipped(WHOLE, len(WHOLE) - 64 + 4)
ALL = {0, 1, 3}

#: name → (the file, which of its chunks are served, whether each of its partitions has an error)
FILES = {
    "whole": (WHOLE, ALL, False),
    "empty": (b"", set(), False),
    "a flipped bit in a header": (flipped(WHOLE, SECOND + 20), ALL, False),
    "a flipped bit in the footer": (BAD_INDEX, ALL, False),
    "a flipped bit in an entry": (flipped(WHOLE, INDEX + 8), ALL, False),
    "in the index and the first header": (flipped(BAD_INDEX, 60), set(), True),
    "in the index and a header in the middle": (flipped(BAD_INDEX, SECOND + 20), {0}, True),
    "in the index and the last header": (flipped(BAD_INDEX, THIRD + 49), {0, 1}, True),
    "in a header, without an index": (flipped(WHOLE[:INDEX], SECOND + 20), {0}, True),
    "a chunk of another exchange": (changed(exchange=8), {0}, True),
    "a chunk of another range": (changed(range_index=1), {0}, True),
    "a chunk of another epoch": (changed(epoch=2), {0}, True),
    "a chunk of another incarnation": (changed(incarnation=98), {0}, True),
    "a chunk of another offset": (changed(offset=0), {0}, True),
    "a partition twice": (changed(partition=0), {0}, True),
    "the index of another segment": (
        WHOLE[:INDEX] + segment(replace(ID, serial=2), BODIES.items())[INDEX:], ALL, False,
    ),
    "another segment": (segment(replace(ID, epoch=2), BODIES.items()), set(), True),
    "torn at the index": (WHOLE[:INDEX], ALL, False),
    "torn within the index": (WHOLE[: INDEX + 512], ALL, False),
    "torn within the last header": (WHOLE[: THIRD + 50], {0, 1}, False),
    "torn after the last header": (WHOLE[: THIRD + ALIGNMENT], {0, 1}, False),
    "torn within the last body": (WHOLE[: THIRD + 100_001], {0, 1}, False),
    "torn at the padding": (WHOLE[: INDEX - 1], {0, 1}, False),
    "space without a write": (WHOLE[:THIRD] + bytes(3 << 20), {0, 1}, False),
    "zeros with data behind": (WHOLE[:SECOND] + bytes(2 << 20) + WHOLE[THIRD:], {0}, True),
    "less than a page of nonsense": (WHOLE[:THIRD] + b"x" * 4095, {0, 1}, False),
    "nonsense where the index would be": (WHOLE[:THIRD] + b"x" * 4096, {0, 1}, False),
    "more nonsense than that": (WHOLE[:THIRD] + b"x" * 8192, {0, 1}, True),
    "more than a segment": (WHOLE + b"x" * 4096, ALL, True),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_a_segment_is_worth(name: str) -> None:
    data, served, has_errors = FILES[name]

    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, data)
        later = {p: block(p, 99, b"later") for p in range(5)}
        rig.store.lay(path_of(LATER, 0, 4), segment(LATER, later.items()))
        for partition in range(5):
            bodies, errors = await rig.ask(partition)
            # The other segment is served in any case.
            expected = [BODIES[partition]] if partition in served else []
            assert bodies == [*expected, later[partition]]
            # Rows of each partition that its name spans may be lost with it, and of no other.
            assert len(errors) == (has_errors and partition <= 3)
            assert all(PATH in error for error in errors)
        assert rig.reads.used_bytes == 0

    run(main)


def test_foreign_names_and_other_partitions_are_passed_over() -> None:
    async def main(rig: Rig) -> None:
        name = PATH.removeprefix(FOLDER)
        for foreign in (
            "0-readme",
            f"0-{OTHER:016x}",
            name + "/x",
            name + ".tmp",
            "0" + name,
            name.replace("0-3", "3-0", 1),
            name.replace("0-3", "5-0", 1),
            name.replace("0-3", "0-9999999999", 1),
        ):
            rig.store.lay(FOLDER + foreign, WHOLE)
        rig.store.lay(path_of(ID, 1, 3), WHOLE)
        rig.store.lay(path_of(replace(ID, epoch=10), 0, 3), WHOLE)
        rig.store.lay(path_of(replace(ID, exchange=10 * EXCHANGE), 0, 3), WHOLE)
        assert await rig.ask() == ([], [])

    run(main)


def test_segments_of_others_come_as_they_were_written() -> None:
    """By names they would not: a reader would hold more to put rows in order."""

    async def main(rig: Rig) -> None:
        made = {n: block(2, n, bytes([n])) for n in range(1, 20)}
        for n, body in made.items():
            one = replace(ID, serial=n)
            rig.store.lay(path_of(one, n % 3, 2 + n % 2), segment(one, [(2, body)]))
        assert await rig.ask(2) == (list(made.values()), [])

    run(main)


def test_its_own_chunks_come_from_memory_and_others_segments_when_they_are_asked_for() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, WHOLE)
        own = block(0, 50, b"own")
        rig.hold(own)
        assert await rig.ask() == ([own], [])
        assert await rig.ask(files=True) == ([own, BODIES[0]], [])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        assert len(await rig.store.list(FOLDER)) == 2
        assert await rig.ask(files=True) == ([own, BODIES[0]], [])  # its own is not read twice
        assert rig.absorbed == [KEY] * 3  # before each look

    run(main)


def test_a_replica_serves_the_segments_of_its_primary_in_any_case() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, WHOLE)
        primary, replica = DaemonRef(OTHER, "b"), DaemonRef(INCARNATION, "a")
        assignment = Assignment(0, 1, 1, primary, (replica,))
        rig.core.admit(EXCHANGE, assignment, PartitionRange(0, 0, 9))
        assert await rig.ask() == ([BODIES[0]], [])

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


#: The reads of PATH: of its index, and of the body in pieces.
@pytest.mark.parametrize("faulty_read", [0, 1, 2])
@pytest.mark.parametrize("fault", [_remove, _cut, _fail])
def test_a_segment_that_fails_while_it_is_read_costs_its_own_rows(
    fault: Callable[[FaultyStore], None], faulty_read: int
) -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, WHOLE)
        later = block(3, 90, b"later")
        rig.store.lay(path_of(LATER, 3, 3), segment(LATER, [(3, later)]))
        reads = 0

        def count(path: str, _offset: int, _length: int) -> None:
            nonlocal reads
            if path == PATH:
                reads += 1
                if reads > faulty_read:
                    fault(rig.store)

        rig.store.before_read = count
        bodies, errors = await rig.ask(3)
        assert reads > faulty_read
        assert bodies[-1] == later
        assert len(errors) == 1
        assert PATH in errors[0]
        assert len(bodies) == (2 if faulty_read == 2 else 1)
        for body in bodies[:-1]:  # it was begun, and its end is nothing that a reader takes
            assert len(body) == len(BODIES[3])
            assert body.startswith(BODIES[3][: 1 << 20])
            assert body.endswith(bytes(1 << 20))
        assert rig.reads.used_bytes == 0

    run(main)


def test_an_own_segment_that_was_deleted_or_cut_is_an_error_of_its_own_chunk() -> None:
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


@pytest.mark.parametrize("kept", [True, False])
def test_an_own_segment_that_was_cut_is_missed_with_its_index_and_without(kept: bool) -> None:
    """It was durable: what is gone of it is no torn tail."""

    async def main(rig: Rig) -> None:
        made = {p: block(p, 0, bytes([p]) * 5000) for p in range(3)}
        rig.hold(*made.values())
        rig.flusher.start()
        await rig.flusher.flush_everything()
        (file,) = await rig.store.list(FOLDER)
        whole = rig.store._files[file.path]
        for length in range(0, file.size_bytes, ALIGNMENT):
            rig.store.lay(file.path, whole[:length])
            rig.begin_service()  # one that remembers no walk
            for partition, body in made.items():
                if not kept:
                    rig.core.indexes.forget(file.path, file.size_bytes)
                bodies, errors = await rig.ask(partition)
                is_whole = length >= 2 * ALIGNMENT * partition + CHUNK_HEADER_BYTES + len(body)
                assert bodies == ([body] if is_whole else [])
                assert errors or is_whole

    run(main)


async def store_three(rig: Rig) -> tuple[list[bytes], list[str]]:
    """Three chunks of its own of one partition, each in a segment; returns them and the paths."""
    made = [block(0, n, bytes([n]) * 70_000) for n in range(3)]
    rig.flusher.start()
    for one in made:
        rig.hold(one)
        await rig.flusher.flush_everything()
    return made, [file.path for file in await rig.store.list(FOLDER)]


def test_chunks_of_several_segments_are_asked_for_at_once() -> None:
    async def main(rig: Rig) -> None:
        made, paths = await store_three(rig)
        rig.hold(last := block(0, 9, b"in memory"))
        length = padded(CHUNK_HEADER_BYTES + len(made[0]))
        rig.store.gate.clear()
        asked = asyncio.create_task(rig.ask())
        await rig.store.begun(3)
        rig.store.gate.set()
        assert await asked == ([*made, last], [])
        assert rig.store.reads == [(path, 0, length) for path in paths]  # and no index
        assert rig.reads.used_bytes == 0

    run(main)


def test_a_chunk_that_cannot_be_read_costs_those_that_are_read_with_it_nothing() -> None:
    async def main(rig: Rig) -> None:
        made, paths = await store_three(rig)

        def fail(path: str, _offset: int, _length: int) -> None:
            if path == paths[1]:
                raise OSError(errno.EIO, "Input/output error")

        rig.store.before_read = fail
        bodies, errors = await rig.ask()
        assert bodies == [made[0], made[2]]
        assert len(errors) == 1
        assert paths[1] in errors[0]
        rig.store.before_read = lambda *_: None
        rig.store.cut(paths[1], ALIGNMENT)
        bodies, errors = await rig.ask()
        assert bodies == [made[0], made[2]]
        assert len(errors) == 1
        assert rig.reads.used_bytes == 0

    run(main)


def test_a_reader_that_leaves_gives_its_memory_back() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, WHOLE)
        messages = rig.fetch.serve(one_partition(KEY, 3))
        for _ in range(3):  # it is in the middle
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
        rig.store.lay(PATH, WHOLE)

        def close(_path: str, offset: int, _length: int) -> None:
            if offset > THIRD and offset < INDEX:  # in the middle of the body
                rig.core.drop(EXCHANGE)
                rig.store.remove(PATH)

        rig.store.before_read = close
        for _ in range(2):
            with pytest.raises(ExchangeClosed):
                await rig.ask(3)

    run(main)


def test_an_epoch_that_is_over_is_said_to_be_over_and_not_empty_or_broken() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, WHOLE)
        assert await rig.ask(3) == ([BODIES[3]], [])

        def drop(_path: str, offset: int, _length: int) -> None:
            if offset > THIRD and offset < INDEX:  # in the middle of the body
                rig.core.drop_epochs(EXCHANGE, {0: 2})
                rig.store.remove(PATH)

        rig.store.before_read = drop
        for _ in range(2):
            with pytest.raises(ExchangeClosed, match=r"epoch 1 is over|is over: its rows"):
                await rig.ask(3)
        rig.store.before_read = lambda *_: None
        rig.core.old_epochs.forget(EXCHANGE)  # by a restart, say: it finds nothing
        assert await rig.ask(3) == ([], [])

    run(main)


def test_an_epoch_that_goes_while_its_copies_are_absorbed_does_not_look_empty() -> None:
    async def main(rig: Rig) -> None:
        rig.hold(BODIES[0])
        absorb = rig.absorb

        async def absorb_and_drop(key: AssignmentKey) -> None:
            await absorb(key)
            rig.core.drop_epochs(EXCHANGE, {0: 2})

        rig.fetch._absorb = absorb_and_drop
        with pytest.raises(ExchangeClosed):
            await rig.ask()

    run(main)


def test_a_chunk_in_memory_that_is_dropped_while_it_is_sent_ends_the_call() -> None:
    async def main(rig: Rig) -> None:
        for row in range(3):
            rig.hold(block(3, row, b"c" * (1 << 20)))
        asked = rig.fetch.serve(one_partition(KEY, 3))
        rig.fetch._message_bytes = lambda: 1 << 20  # type: ignore[method-assign]
        assert await anext(asked)
        rig.core.drop_epochs(EXCHANGE, {0: 2})
        with pytest.raises(ExchangeClosed):
            async for _ in asked:
                pass
        assert rig.core.pool.free_bytes == rig.core.pool.capacity_bytes

    run(main)


def test_a_present_epoch_is_served_beside_one_that_is_over() -> None:
    async def main(rig: Rig) -> None:
        rig.hold(BODIES[0])
        rig.core.drop_epochs(EXCHANGE, {0: 1, 1: 7})
        assert await rig.ask() == ([BODIES[0]], [])

    run(main)


def test_a_chunk_that_is_stored_while_it_is_sent_goes_on_from_its_segment() -> None:
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

        rig.store.lay(PATH, WHOLE)
        whole: Any = getattr(rig.store, call)
        setattr(rig.store, call, hang)
        rig.fetch._timeout_s = 0.05
        replies = []
        with pytest.raises(ServiceUnavailable, match="has not answered for") as caught:
            async for message in rig.fetch.serve(one_partition(KEY, 3)):
                replies += [fetch_reply(message)]
        assert caught.value.retriable
        assert not replies  # no section of an error, which would count as a loss
        setattr(rig.store, call, whole)
        assert await rig.ask(3) == ([BODIES[3]], [])

    asyncio.run(main(Rig()))
