"""What a reader that reads directly is sent: references to what is durable, bytes of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pyroaring import BitMap
from support.daemon_mechanics import check_frame
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.segments import chunks_of, path_of, segment

from cosco.dfs import MemoryStore
from cosco.format.chunk import CHUNK_HEADER_BYTES, parse_chunk_header
from cosco.format.segment import FOOTER_BYTES, SegmentId, check_footer
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_replies, reference_of, spb
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import DIRECT_MIN_BYTES, FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

KEY = AssignmentKey(EXCHANGE, 0, 1)
ID = SegmentId(exchange=EXCHANGE, range_index=0, epoch=1, incarnation=99, serial=1)
LARGE = block(1, 1, b"b" * (2 * DIRECT_MIN_BYTES))
SMALL = block(0, 0, b"a" * 100)
FILE = segment(ID, [(0, SMALL), (1, LARGE), (2, block(2, 2, b"c" * DIRECT_MIN_BYTES))])
PATH = path_of(ID, 0, 2)


class AccessStore(MemoryStore):
    """Notes what was read; `gives`: whether it gives URLs."""

    def __init__(self, *, gives: bool = True) -> None:
        super().__init__()
        self.gives = gives
        self.read_paths: list[tuple[str, int]] = []

    def lay(self, path: str, data: bytes) -> None:
        self._files[path] = data

    def file(self, path: str) -> bytes:
        return self._files[path]

    async def access(self, path: str, expires_s: float) -> str | None:
        return f"https://store/{path}?signed" if self.gives else None

    async def read_into(self, path: str, offset: int, parts: Any) -> int:
        self.read_paths.append((path, offset))
        return await super().read_into(path, offset, parts)


@dataclass
class Told:
    """What came of one partition of one part."""

    bodies: list[bytes] = field(default_factory=list)
    references: list[tuple[Reference, int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Rig:
    def __init__(self, *, gives: bool = True) -> None:
        self.store = AccessStore(gives=gives)
        self.core = DaemonCore(
            arena=memoryview(bytearray(64 * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            segment_bytes=64 << 10,
        )
        self.core.cluster_id = "c"
        self.metrics = DaemonMetrics()
        reads = ReadMemory(memoryview(bytearray(4 << 20)))
        self.fetch = FetchService(self.core, self.store, reads, self.metrics, self.absorb)
        self.flusher = Flusher(self.core, self.store, self.metrics, writers=1)

    async def absorb(self, key: AssignmentKey) -> None:
        pass

    def hold(self, *blocks: bytes) -> None:
        primary = DaemonRef(INCARNATION, "a")
        self.core.admit(EXCHANGE, Assignment(0, 1, 1, primary), PartitionRange(0, 0, 9))
        checked = check_frame(memoryview(frame(blocks)), EXCHANGE, MapperAttempt(1, 1))
        held = self.core.assignment(KEY)
        assert held is not None
        self.core.append_frame(held, checked, 0)

    async def ask(
        self, *partitions: int, direct: bool = True, mappers: tuple[int, ...] = ()
    ) -> list[Told]:
        part = FetchPart(0, 1, BitMap(partitions), files=True)
        request = FetchRequest(
            EXCHANGE, (part,), BitMap(mappers), several=len(partitions) > 1, direct=direct
        )
        told = [Told()]
        left = 0
        async for message in self.fetch.serve(request):
            for reply in fetch_replies(message):
                if isinstance(reply, spb.PartEnd):
                    assert not left
                    told.append(Told())
                elif isinstance(reply, memoryview):
                    left -= len(reply)
                    told[-1].bodies[-1] += bytes(reply)
                elif (reference := reference_of(reply)) is not None:
                    assert not left
                    assert reply.stored
                    told[-1].references.append((reference, reply.offset, reply.body_bytes))
                elif reply.error:
                    told[-1].errors.append(reply.error)
                else:
                    assert not left
                    left = reply.body_bytes
                    told[-1].bodies.append(b"")
        assert left == 0
        return told[:-1] if request.several else told

    def counted(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"cosco_{name}_total") or 0.0


def run(main: Callable[[Rig], Coroutine[Any, Any, None]], *, gives: bool = True) -> None:
    async def with_rig() -> None:
        rig = Rig(gives=gives)
        await rig.store.open()
        await main(rig)
        await rig.flusher.stop()

    asyncio.run(with_rig())


def followed(rig: Rig, told: Told, partition: int) -> list[bytes]:
    """The bodies that a reader finds by the references, which must be right in all they say."""
    bodies = []
    for reference, offset, body_bytes in told.references:
        assert reference.url == f"https://store/{reference.path}?signed"
        file = rig.store.file(reference.path)
        assert len(file) == reference.file_bytes
        header = parse_chunk_header(file[offset:])
        assert (header.exchange, header.partition) == (EXCHANGE, partition)
        assert (header.offset, header.body_bytes) == (offset, body_bytes)
        one = SegmentId(
            EXCHANGE, header.range_index, header.epoch, header.incarnation,
            int(reference.path.rpartition("-")[2], 16),
        )  # fmt: skip
        check_footer(one, len(file), file[-FOOTER_BYTES:], reference.index_crc)
        start = offset + CHUNK_HEADER_BYTES
        bodies.append(file[start : start + body_bytes])
    return bodies


def test_large_chunks_are_referred_to_and_small_ones_are_sent() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, FILE)
        [none, large, at_least] = await rig.ask(0, 1, 2)
        assert (none.bodies, none.references) == ([SMALL], [])
        assert followed(rig, large, 1) == [LARGE]
        assert followed(rig, at_least, 2) == [chunks_of(FILE)[2]]
        assert not large.bodies
        assert not at_least.bodies
        assert rig.store.read_paths == [(PATH, 0)]  # of the small one
        assert rig.counted("bytes_referenced") == len(LARGE) + len(chunks_of(FILE)[2])
        assert rig.counted("bytes_fetched") == len(SMALL)
        assert rig.counted("rows_fetched") == 1

    run(main)


@pytest.mark.parametrize("mappers", [(), (5,)])
def test_one_partition_alone_and_some_mappers(mappers: tuple[int, ...]) -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, FILE)
        [told] = await rig.ask(1, mappers=mappers)
        assert followed(rig, told, 1) == [LARGE]
        assert not told.bodies

    run(main)


def test_who_does_not_ask_for_it_is_sent_everything() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, FILE)
        [told] = await rig.ask(1, direct=False)
        assert (told.bodies, told.references) == ([LARGE], [])

    run(main)


def test_a_store_without_access_has_it_sent() -> None:
    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, FILE)
        [told] = await rig.ask(1)
        assert (told.bodies, told.references) == ([LARGE], [])

    run(main, gives=False)


def test_what_is_in_memory_is_sent_and_referred_to_once_it_is_durable() -> None:
    async def main(rig: Rig) -> None:
        rig.hold(LARGE)
        [told] = await rig.ask(1)
        assert (told.bodies, told.references) == ([LARGE], [])
        rig.flusher.start()
        await rig.flusher.flush_everything()
        later = block(1, 7, b"later")
        rig.hold(later)
        [told] = await rig.ask(1)
        assert followed(rig, told, 1) == [LARGE]
        assert told.bodies == [later]

    run(main)


@pytest.mark.parametrize(
    "file",
    [FILE[:-1], FILE[:-4088] + b"\xff" + FILE[-4087:], FILE[:-8192]],
    ids=["cut", "a damaged index", "torn"],
)
def test_a_segment_without_a_whole_index_is_never_referred_to(file: bytes) -> None:
    """Its daemon may have died amid the write, or write still."""

    async def main(rig: Rig) -> None:
        rig.store.lay(PATH, file)
        [told] = await rig.ask(1)
        assert not told.references
        assert told.bodies == [LARGE]

    run(main)


def test_many_references_come_in_messages_of_bounded_length() -> None:
    async def main(rig: Rig) -> None:
        for serial in range(1, 400):
            one = replace(ID, serial=serial)
            rig.store.lay(path_of(one, 1, 1), segment(one, [(1, LARGE)]))
        part = FetchPart(0, 1, BitMap([1]), files=True)
        request = FetchRequest(EXCHANGE, (part,), several=False, direct=True)
        messages = [message async for message in rig.fetch.serve(request)]
        assert len(messages) < 10
        assert max(map(len, messages)) < 1 << 20

    run(main)
