"""Several partitions, or some mappers' rows, in one fetch of a daemon."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from pyroaring import BitMap
from support.daemon_mechanics import check_frame
from support.fetching import one_partition
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.segments import path_of, segment

from cosco.dfs import MemoryStore
from cosco.errors import DataCorrupted, ExchangeClosed, InvalidArgument, ServiceUnavailable
from cosco.format.block import HEADER_BYTES, parse_header, walk_blocks
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES
from cosco.format.segment import SegmentId
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import FetchReply, fetch_replies, spb
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.io.read.segment_files import SegmentsOfOthers
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

OTHER = 99
#: Partitions of a range.
PARTITIONS = 500


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []
        self.reads = 0
        self.hangs = False
        self.fails_at: int | None = None

    async def list(self, prefix: str) -> Any:
        self.listed.append(prefix)
        return await super().list(prefix)

    async def read_into(self, path: str, offset: int, parts: Any) -> int:
        self.reads += 1
        if self.hangs:
            raise TimeoutError(errno.ETIMEDOUT, "the store has not answered for 30 s")
        if offset == self.fails_at:
            raise OSError(errno.EIO, "Input/output error")
        return await super().read_into(path, offset, parts)

    def lay(self, id: SegmentId, bodies: dict[int, bytes]) -> str:
        """Have a segment of some partitions; returns its path."""
        path = path_of(id, min(bodies), max(bodies))
        self._files[path] = segment(id, sorted(bodies.items()))
        return path


class Found:
    """What a reader was sent, in order; checks what holds of every reply."""

    def __init__(self, ask: FetchRequest) -> None:
        self.expected = sorted((p, i) for i, part in enumerate(ask.parts) for p in part.partitions)
        self.ends: list[tuple[int, int]] = []
        self.blocks: dict[tuple[int, int], list[bytes]] = {}
        self.headers: dict[tuple[int, int], list[bytes]] = {}
        self.errors: dict[tuple[int, int], list[str]] = {}
        self.messages = self.largest = self.bytes = self.left = 0
        self.body_bytes = self.rows = 0
        self.is_whole = True
        self._body = bytearray()
        self._is_headers = False

    def feed(self, message: bytes) -> None:
        self.messages += 1
        self.bytes += len(message)
        self.largest = max(self.largest, len(message))
        for reply in fetch_replies(message):
            self._reply(reply)

    def _reply(self, reply: FetchReply) -> None:
        place = self.expected[len(self.ends)] if len(self.ends) < len(self.expected) else (-1, -1)
        if isinstance(reply, spb.PartEnd):
            assert not self.left
            assert (reply.partition, reply.part) == place
            self.ends.append(place)
        elif isinstance(reply, spb.Section):
            assert not self.left
            self._body, self.left, self._is_headers = bytearray(), reply.body_bytes, reply.headers
            if reply.error:
                self.errors.setdefault(place, []).append(reply.error)
        else:
            self._body += reply
            self.body_bytes += len(reply)
            self.left -= len(reply)
            assert self.left >= 0
            if not self.left:
                self._section(place)

    def _section(self, place: tuple[int, int]) -> None:
        body = bytes(self._body)
        if self._is_headers:
            assert len(body) % HEADER_BYTES == 0
            cut = [body[at : at + HEADER_BYTES] for at in range(0, len(body), HEADER_BYTES)]
            assert all(parse_header(one).partition == place[0] for one in cut)
            self.headers.setdefault(place, []).extend(cut)
            return
        try:
            headers = list(walk_blocks(memoryview(body)))
            walked = [body[at : at + header.block_bytes] for at, header in headers]
            self.rows += sum(header.rows for _, header in headers)
        except DataCorrupted:
            walked, self.is_whole = [body], False  # the reader judges it
        self.blocks.setdefault(place, []).extend(walked)


class Rig:
    """A daemon's reading half. It is the primary of ranges 0 and 1, of PARTITIONS each."""

    def __init__(self, pages: int = 128) -> None:
        self.store = CountingStore()
        self.core = DaemonCore(
            arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            segment_bytes=4 << 20,
        )
        self.core.cluster_id = "c"
        self.metrics = DaemonMetrics()
        self.reads = ReadMemory(memoryview(bytearray(4 << 20)))
        self.absorbed: list[AssignmentKey] = []
        self.fetch = FetchService(self.core, self.store, self.reads, self.metrics, self.absorb)
        self.flusher = Flusher(self.core, self.store, self.metrics, writers=1)
        for index in range(2):
            self.admit(AssignmentKey(EXCHANGE, index, 1))

    async def absorb(self, key: AssignmentKey) -> None:
        self.absorbed.append(key)

    def admit(self, key: AssignmentKey) -> None:
        assignment = Assignment(key.range_index, key.epoch, 1, DaemonRef(INCARNATION, "a"))
        span = PartitionRange(key.range_index, key.range_index * PARTITIONS, PARTITIONS)
        self.core.admit(key.number, assignment, span)

    def hold(self, blocks: Iterable[bytes], index: int = 0, epoch: int = 1) -> None:
        """Take blocks of one mapper, the long ones in a frame of their own each."""
        blocks = list(blocks)
        while sum(map(len, blocks)) > 1 << 20 and len(blocks) > 1:
            self.hold(blocks[:1], index, epoch)
            blocks = blocks[1:]
        key = AssignmentKey(EXCHANGE, index, epoch)
        if self.core.assignment(key) is None:
            self.admit(key)
        held = self.core.assignment(key)
        assert held is not None
        data = frame(blocks, range_index=index, epoch=epoch)
        mapper = parse_header(data, data.index(b"CBK1")).mapper
        checked = check_frame(memoryview(data), EXCHANGE, MapperAttempt(mapper, 1))
        assert self.core.append_frame(held, checked, 0).next_run == checked.run_count

    async def ask(self, request: FetchRequest) -> Found:
        found, before = Found(request), self.counted()
        async for message in self.fetch.serve(request):
            found.feed(message)
        assert not found.left
        counted = [now - then for now, then in zip(self.counted(), before, strict=True)]
        assert not found.is_whole or counted == [found.body_bytes, found.rows]
        if request.several:
            assert found.ends == found.expected
        return found

    def counted(self) -> list[float]:
        """Bytes and rows that were sent to readers."""
        names = ("cosco_bytes_fetched_total", "cosco_rows_fetched_total")
        return [self.metrics.registry.get_sample_value(name) or 0.0 for name in names]


def run(main: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def with_rig() -> None:
        rig = Rig()
        await rig.store.open()
        await main(rig)
        await rig.flusher.stop()
        assert (rig.reads.used_bytes, rig.reads.readers) == (0, 0)

    asyncio.run(with_rig())


def part(partitions: Iterable[int], index: int = 0, epoch: int = 1, **options: bool) -> FetchPart:
    return FetchPart(index, epoch, BitMap(partitions), **options)


def asked(*parts: FetchPart, mappers: Iterable[int] = ()) -> FetchRequest:
    return FetchRequest(EXCHANGE, parts, BitMap(mappers))


def id_of(serial: int = 1, index: int = 0, incarnation: int = OTHER) -> SegmentId:
    return SegmentId(EXCHANGE, index, 1, incarnation, serial)


# --- order and packing --------------------------------------------------------------------


def test_partitions_come_ascending_and_each_part_of_one_in_its_turn() -> None:
    async def main(rig: Rig) -> None:
        second = [block(p, 9, b"second") for p in (1, 3)]
        rig.hold([block(p, 0, b"first") for p in (1, 2, 3)])
        rig.hold(second, epoch=2)
        rig.hold([block(PARTITIONS + 4, 0, b"other range")], index=1)
        found = await rig.ask(
            asked(part([1, 3], epoch=2), part([3, 1, 2]), part([PARTITIONS + 4], 1))
        )
        assert found.ends == [(1, 0), (1, 1), (2, 1), (3, 0), (3, 1), (PARTITIONS + 4, 2)]
        assert found.blocks[1, 0] == [second[0]]
        assert found.blocks[3, 1] == [block(3, 0, b"first")]
        assert len(found.blocks) == 6
        assert rig.absorbed == [AssignmentKey(EXCHANGE, *at) for at in ((0, 2), (0, 1), (1, 1))]

    run(main)


def test_what_is_not_there_ends_as_well() -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(2, 0)])
        found = await rig.ask(asked(part([1, 2, 3]), part([2], epoch=7)))
        assert list(found.blocks) == [(2, 0)]
        assert not found.errors

    run(main)


def test_small_partitions_share_messages() -> None:
    async def main(rig: Rig) -> None:
        made = {p: block(p, 0, b"x" * 100) for p in range(200)}
        rig.hold(made.values())
        found = await rig.ask(asked(part(range(200))))
        assert found.messages <= 3
        assert {p: blocks for (p, _), blocks in found.blocks.items()} == {
            p: [one] for p, one in made.items()
        }
        assert rig.counted() == [sum(map(len, made.values())), 200]

    run(main)


def test_no_message_is_longer_than_one_of_a_large_partition() -> None:
    async def main(rig: Rig) -> None:
        made = {
            p: [block(p, n, bytes([n]) * 700_000) for n in range((p + 2) % 3)]
            + [block(p, 9, b"small")]
            for p in range(9)
        }
        for blocks in made.values():
            rig.hold(blocks)
        rig.flusher.start()
        for _ in ("in memory", "stored"):
            for mappers in ([], [1]):  # all of them are the named mapper's
                found = await rig.ask(asked(part(range(9)), mappers=mappers))
                assert {p: blocks for (p, _), blocks in found.blocks.items()} == made
                assert not found.headers
                assert found.largest <= (1 << 20) + 1000
            await rig.flusher.flush_everything()

    run(main)


def test_a_request_of_one_partition_is_answered_without_ends_and_unpacked() -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(2, 0)])
        found = await rig.ask(one_partition(AssignmentKey(EXCHANGE, 0, 1), 2))
        assert (found.messages, found.ends) == (2, [])

    run(main)


def test_partitions_of_another_range_are_refused() -> None:
    async def main(rig: Rig) -> None:
        for partitions, index in (([3, PARTITIONS], 0), ([0, PARTITIONS], 1)):
            with pytest.raises(InvalidArgument, match=f"range {index}"):
                await rig.ask(asked(part([1]), part(partitions, index)))

    run(main)


# --- the look, and readers that are slow ----------------------------------------------------


def test_each_partition_is_looked_at_in_its_turn_and_a_slow_reader_holds_no_pages() -> None:
    async def main(rig: Rig) -> None:
        large = [block(0, n, bytes([n]) * 900_000) for n in range(4)]
        rig.hold(large)
        rig.hold([block(5, 0)])
        found = Found(request := asked(part([0, 5])))
        messages = rig.fetch.serve(request)
        found.feed(await anext(messages))
        rig.hold([block(5, 1)])
        rig.hold([block(0, 9, b"too late")])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        assert rig.core.pool.free_bytes == rig.core.pool.capacity_bytes
        async for message in messages:
            found.feed(message)
        assert found.blocks == {(0, 0): large, (5, 0): [block(5, 0), block(5, 1)]}

    run(main)


def test_an_exchange_that_is_closed_meanwhile_ends_the_call_before_the_next_end() -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(0, n, bytes(900_000)) for n in range(4)])
        found = Found(request := asked(part([0, 5])))
        messages = rig.fetch.serve(request)
        found.feed(await anext(messages))
        rig.core.drop(EXCHANGE)
        with pytest.raises(ExchangeClosed):
            async for message in messages:
                found.feed(message)
        assert not found.ends

    run(main)


def test_an_exchange_that_is_closed_while_copies_are_absorbed_does_not_look_empty() -> None:
    async def main(rig: Rig) -> None:
        async def absorb(_: AssignmentKey) -> None:
            rig.core.drop(EXCHANGE)

        rig.fetch._absorb = absorb
        with pytest.raises(ExchangeClosed):
            await rig.ask(asked(part([0, 5])))

    run(main)


def test_a_reader_that_leaves_gives_its_memory_back() -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(0, n, bytes(900_000)) for n in range(4)])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        messages = rig.fetch.serve(asked(part([0, 1]), mappers=[1]))
        await anext(messages)
        assert rig.reads.used_bytes > 0
        await messages.aclose()

    run(main)


# --- the store ----------------------------------------------------------------------------


def test_a_folder_is_listed_once_for_many_partitions() -> None:
    async def main(rig: Rig) -> None:
        folder, blocks = f"c/{EXCHANGE}/0-1/", {}
        for p in range(0, 250, 3):
            blocks[p, 0] = [block(p, n, bytes([n]) * 2500 * n) for n in range(3)]
        for n in range(3):  # segments with one block of some partitions each
            for first in range(-n, 250, 20):
                span = [p for p in range(first, first + 20) if (p, 0) in blocks]
                rig.store.lay(id_of(1000 * (n + 1) + first), {p: blocks[p, 0][n] for p in span})
        own = rig.store.lay(id_of(1, incarnation=INCARNATION), {3: b"of which it knows"})
        rig.store._files[own.replace("3-3-", "03-3-")] = b"nobody's"
        rig.store.lay(id_of(index=1), {600: block(600, 0)})
        found = await rig.ask(asked(part(range(250), files=True), part([600], 1)))
        assert found.blocks == blocks  # segments of range 1 were not asked for
        assert not found.errors
        assert rig.store.listed == [folder]
        rig.store.listed.clear()
        await rig.ask(asked(part([3], files=True), part([600], 1, files=True)))
        assert rig.store.listed == [folder, f"c/{EXCHANGE}/1-1/"]

    run(main)


def test_of_a_folder_no_more_is_kept_than_may_have_what_is_asked_for() -> None:
    async def main(rig: Rig) -> None:
        paths = [rig.store.lay(id_of(p), {p: b"x", p + 2: b"y"}) for p in range(20)]
        key = AssignmentKey(EXCHANGE, 0, 1)
        files = SegmentsOfOthers(
            rig.store, f"c/{EXCHANGE}/0-1/", key, BitMap([3, 7, 30]), INCARNATION
        )
        assert [one.path for one in await files.of(3)] == paths[1:4]
        assert [one.path for one in await files.of(7)] == paths[5:8]
        assert await files.of(30) == []
        assert files._found is not None
        assert len(files._found) == 6
        assert len(rig.store.listed) == 1

    run(main)


def test_the_index_of_a_segment_is_read_once_for_all_its_partitions() -> None:
    async def main(rig: Rig) -> None:
        bodies = {p: block(p, 0, b"x" * 100) for p in range(100)}
        rig.store.lay(id_of(), bodies)
        looks = 0
        read = rig.store.read

        async def count(path: str, offset: int, length: int) -> bytes:
            nonlocal looks
            looks += 1
            return await read(path, offset, length)

        rig.store.read = count  # type: ignore[method-assign]
        found = await rig.ask(asked(part(range(100), files=True)))
        assert found.blocks == {(p, 0): [body] for p, body in bodies.items()}
        assert (looks, rig.store.reads) == (1, 100)

    run(main)


def test_a_chunk_that_cannot_be_read_costs_the_other_partitions_nothing() -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(p, 0, bytes([p]) * 1000) for p in range(5)])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        assert len(await rig.store.list("")) == 1
        rig.store.fails_at = 2 * ALIGNMENT
        found = await rig.ask(asked(part(range(5))))
        assert [p for p, _ in found.blocks] == [0, 1, 3, 4]
        assert list(found.errors) == [(2, 0)]

    run(main)


def test_a_store_that_hangs_takes_nothing_back() -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(2, 0, bytes(1000))])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        rig.hold([block(p, 0, b"in memory") for p in (0, 1)])
        rig.store.hangs = True
        found = Found(request := asked(part(range(5))))
        with pytest.raises(ServiceUnavailable, match="has not answered"):
            async for message in rig.fetch.serve(request):
                found.feed(message)
        assert found.ends == [(0, 0), (1, 0)]
        assert not found.errors

    run(main)


# --- some mappers -------------------------------------------------------------------------


def mixed(count: int = 40, length: int = 3000) -> dict[int, list[bytes]]:
    """By mapper: its blocks of partition 0."""
    return {
        m: [block(0, n, bytes([m, n]) * length, mapper=m) for n in range(count)] for m in (3, 4, 5)
    }


def check_chosen(found: Found, made: dict[int, list[bytes]], place: tuple[int, int]) -> None:
    assert sorted(found.blocks[place]) == sorted(made[3])
    others = [one[:HEADER_BYTES] for m in (4, 5) for one in made[m]]
    assert sorted(found.headers[place]) == sorted(others)


@pytest.mark.parametrize("several", [False, True])
def test_others_blocks_come_as_headers_alone(several: bool) -> None:
    async def main(rig: Rig) -> None:
        made = mixed()
        for n in range(0, 40, 8):  # some of each mapper, in turns
            for m in made:
                rig.hold(made[m][n : n + 8])
        request = asked(part([0]), mappers=[3])
        if not several:
            request = one_partition(AssignmentKey(EXCHANGE, 0, 1), 0, mappers=(3,))
        found = await rig.ask(request)
        place = found.expected[0]
        check_chosen(found, made, place)
        assert found.bytes < 40 * 6064 + 80 * 64 + 2000
        rig.flusher.start()
        await rig.flusher.flush_everything()
        found = await rig.ask(request)
        check_chosen(found, made, place)
        assert found.bytes < 40 * 6064 + 80 * 64 + 2000

    run(main)


def test_blocks_longer_than_a_piece_of_the_store_are_chosen_as_well() -> None:
    async def main(rig: Rig) -> None:
        made = mixed(count=6, length=(1 << 19) - 100)
        for n in range(6):
            for m in made:
                rig.hold([made[m][n]])
        check_chosen(await rig.ask(asked(part([0]), mappers=[3])), made, (0, 0))
        rig.flusher.start()
        await rig.flusher.flush_everything()
        rig.fetch._active += 200  # as with many readers: messages are shorter than blocks
        found = await rig.ask(asked(part([0]), mappers=[3]))
        check_chosen(found, made, (0, 0))
        assert found.largest < 100_000

    run(main)


def test_others_segments_are_chosen_from_too() -> None:
    async def main(rig: Rig) -> None:
        made = mixed(count=5)
        for m in made:
            rig.store.lay(id_of(m), {0: b"".join(made[m]), 1: b"another's"})
        found = await rig.ask(asked(part([0], files=True), mappers=[3]))
        check_chosen(found, made, (0, 0))

    run(main)


def test_a_chunk_of_named_mappers_alone_is_sent_as_it_is() -> None:
    async def main(rig: Rig) -> None:
        made = mixed()
        for m in made:
            rig.hold(made[m])
        found = await rig.ask(asked(part([0]), mappers=[3, 4, 5, 6]))
        assert found.blocks[0, 0] == [one for m in made for one in made[m]]
        assert not found.headers

    run(main)


@pytest.mark.parametrize("stored", [False, True])
def test_what_does_not_parse_is_sent_for_the_reader_to_judge(stored: bool) -> None:
    async def main(rig: Rig) -> None:
        made = mixed(count=3)
        for m in made:
            rig.hold(made[m])
        # The magic of the fifth block, of mapper 4.
        at = CHUNK_HEADER_BYTES + 4 * len(made[3][0])
        if stored:
            rig.flusher.start()
            await rig.flusher.flush_everything()
            [file] = await rig.store.list(f"c/{EXCHANGE}/")
            changed = bytearray(rig.store._files[file.path])
            changed[at] ^= 1
            rig.store._files[file.path] = bytes(changed)
        else:
            held = rig.core.assignment(AssignmentKey(EXCHANGE, 0, 1))
            assert held is not None
            chunk = held.buffers[0].open
            assert chunk is not None
            [byte] = chunk.memory(rig.core.arena, at, at + 1)
            byte[0] ^= 1
        found = await rig.ask(asked(part([0]), mappers=[3]))
        assert found.headers[0, 0] == [made[4][0][:HEADER_BYTES]]
        assert found.blocks[0, 0][:3] == made[3]
        [rest] = found.blocks[0, 0][3:]
        assert len(rest) == 5 * len(made[4][0])
        assert rest.endswith(b"".join(made[5]))
        assert not found.errors

    run(main)


def test_a_segment_that_is_cut_while_its_blocks_are_chosen_is_an_error_of_its_own() -> None:
    async def main(rig: Rig) -> None:
        made = mixed(count=6, length=(1 << 19) - 100)
        for m in made:
            rig.hold(made[m])
        rig.hold([block(1, 0)])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        [file] = await rig.store.list(f"c/{EXCHANGE}/0-1/0-")
        rig.store._files[file.path] = rig.store._files[file.path][: 5 << 20]
        found = await rig.ask(asked(part([0, 1]), mappers=[3]))
        assert [p for p, _ in found.errors] == [0]
        assert "cut short" in found.errors[0, 0][0]
        assert found.blocks[0, 0][:4] == made[3][:4]
        assert found.headers[1, 0] == [block(1, 0)[:HEADER_BYTES]]

    run(main)


# --- rows that are counted ----------------------------------------------------------------


def test_rows_are_counted_in_memory_and_stored_however_a_section_is_cut() -> None:
    async def main(rig: Rig) -> None:
        large = [block(0, n * 10, bytes(700_000), rows=n + 5) for n in range(4)]
        small = [block(0, 90, b"small", rows=3), block(1, 0, b"short", rows=4)]
        rig.hold([*large, *small])
        rig.flusher.start()
        length = sum(map(len, large + small))
        for times in (1, 3):
            await rig.ask(asked(part([0, 1])))
            assert rig.counted() == [times * length, times * (5 + 6 + 7 + 8 + 3 + 4)]
            rig.fetch._active += 200  # as with many readers: messages are shorter than blocks
            await rig.ask(asked(part([0, 1])))
            assert rig.counted() == [(times + 1) * length, (times + 1) * 33]
            rig.fetch._active -= 200
            await rig.flusher.flush_everything()

    run(main)


@pytest.mark.parametrize("length", [3000, 500_000])
def test_rows_of_blocks_that_are_left_out_are_not_counted(length: int) -> None:
    async def main(rig: Rig) -> None:
        for n in range(3):
            for mapper in (3, 4):
                rows = 7 if mapper == 3 else 1000
                rig.hold([block(0, n * 1000, bytes(length), rows=rows, mapper=mapper)])
        rig.flusher.start()
        for times in (1, 3):
            await rig.ask(asked(part([0]), mappers=[3]))
            rig.fetch._active += 200  # a wanted block is sent by itself, if it is long
            await rig.ask(asked(part([0]), mappers=[3]))
            rig.fetch._active -= 200
            assert rig.counted() == [(times + 1) * (3 * (128 + length)), (times + 1) * 21]
            await rig.flusher.flush_everything()

    run(main)


@pytest.mark.parametrize("mappers", [(), (1,)])
def test_of_a_chunk_that_cannot_be_read_to_its_end_what_was_read_is_counted(
    mappers: tuple[int, ...],
) -> None:
    async def main(rig: Rig) -> None:
        rig.hold([block(0, n * 10, b"x" * 700_000, rows=5) for n in range(6)])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        rig.hold([block(2, 0, rows=100)])
        [file] = await rig.store.list(f"c/{EXCHANGE}/")
        rig.store._files[file.path] = rig.store._files[file.path][: 3 << 20]
        found = await rig.ask(asked(part([0, 2]), mappers=mappers))
        assert list(found.errors) == [(0, 0)]
        sent = b"".join(found.blocks[0, 0]).rstrip(b"\0")
        headers = sent.count(b"CBK1")
        assert 2 < headers < 6
        assert rig.counted() == [len(sent) + len(block(2, 0)), 5 * headers + 100]

    run(main)
