"""How chunks are found in segments: by their indexes, which are kept, or by walking the headers."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pyroaring import BitMap
from support.segments import chunk, path_of, segment

from cosco.dfs import MemoryStore, StoredFile
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, padded
from cosco.format.segment import SegmentId, SegmentIndex, index_bytes
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.io.read.segment_files import SegmentIndexes, SegmentsOfOthers
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment
from cosco.shuffle_service.state.segments.segment_indexes import KeptIndexes

ID = SegmentId(exchange=7, range_index=0, epoch=1, incarnation=99, serial=1)
KEY = AssignmentKey(7, 0, 1)
OWN = 11


class Store(MemoryStore):
    """Notes reads. `fails`: paths that cannot be read. `gate`: what every read waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, int, int]] = []
        self.fails: dict[str, OSError] = {}
        self.listed: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most = 0

    async def read(self, path: str, offset: int, length: int) -> bytes:
        self.reads.append((path, offset, length))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            if (error := self.fails.get(path)) is not None:
                raise error
            return await super().read(path, offset, length)
        finally:
            self.under_way -= 1

    async def list(self, prefix: str) -> list[StoredFile]:
        self.listed.append(prefix)
        return await super().list(prefix)


class Rig:
    """Indexes of a store that a test fills; `now` is its clock."""

    def __init__(self, *, kept_bytes: int = 1 << 20) -> None:
        self.now = 1000.0
        self.store = Store()
        self.kept = KeptIndexes(kept_bytes)
        self.indexes = SegmentIndexes(self.store, self.kept, lambda: self.now)

    def lay(self, data: bytes, serial: int = 1, first: int = 0, last: int = 9) -> StoredSegment:
        id = replace(ID, serial=serial)  # noqa: A001
        path = path_of(id, first, last)
        self.store._files[path] = data
        return StoredSegment(id, path, len(data), first, last)

    async def of(self, *segments: StoredSegment) -> list[SegmentIndex | OSError]:
        found = [one async for one in self.indexes.of(segments)]
        assert [segment for segment, _ in found] == list(segments)
        return [index for _, index in found]

    async def one(self, segment: StoredSegment) -> tuple[dict[int, int], bool]:
        """The places that are found, by partition, and whether there is damage."""
        [index] = await self.of(segment)
        assert isinstance(index, SegmentIndex)
        return dict(zip(index.partitions, index.offsets, strict=True)), bool(index.damage)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def bodies_of(lengths: Sequence[int]) -> dict[int, bytes]:
    """Blocks of some lengths, of partitions 0 to 9 or as far as there are lengths."""
    rng = random.Random(4)
    return {partition: rng.randbytes(length) for partition, length in enumerate(lengths)}


BODIES = bodies_of([100, 5000, 4032, 20_000])
PLACES = {0: 0, 1: 4096, 2: 12288, 3: 16384}
WHOLE = segment(ID, BODIES.items())
INDEX = len(WHOLE) - ALIGNMENT


def flipped(data: bytes, *places: int) -> bytes:
    changed = bytearray(data)
    for at in places:
        changed[at] ^= 16
    return bytes(changed)


# --- indexes ------------------------------------------------------------------------------


def test_an_index_is_read_from_the_end_and_kept() -> None:
    async def main() -> None:
        rig = Rig()
        segment = rig.lay(WHOLE)
        assert not rig.indexes.has(segment)
        for _ in range(2):
            assert await rig.one(segment) == (PLACES, False)
            assert rig.indexes.has(segment)
            [(path, offset, length)] = rig.store.reads
            assert (path, offset + length) == (segment.path, len(WHOLE))
            assert length <= 16 << 10  # not the rows
        assert rig.kept.used_bytes > 0

    run(main())


@pytest.mark.parametrize("chunks", [168, 169, 700])
def test_an_index_that_is_longer_than_what_is_read_of_the_end(chunks: int) -> None:
    async def main() -> None:
        rig = Rig()
        segment_ = segment(ID, ((2 * p, b"x" * (p + 1)) for p in range(chunks)))
        place = await rig.one(rig.lay(segment_, last=2 * chunks - 2))
        assert place == ({2 * p: ALIGNMENT * p for p in range(chunks)}, False)
        assert len(rig.store.reads) == (2 if index_bytes(chunks) > 16 << 10 else 1)
        read = sum(length for *_, length in rig.store.reads)
        assert read <= index_bytes(chunks) + (16 << 10)

    run(main())


def test_one_that_was_not_kept_for_want_of_room_is_read_again() -> None:
    async def main() -> None:
        rig = Rig(kept_bytes=600)  # there is room for one
        first, second = rig.lay(WHOLE), rig.lay(segment(replace(ID, serial=2), BODIES.items()), 2)
        for segment_ in (first, first, second, first):
            assert await rig.one(segment_) == (PLACES, False)
            assert rig.kept.used_bytes <= 600
        assert [path for path, *_ in rig.store.reads] == [first.path, second.path, first.path]

    run(main())


def test_indexes_are_read_some_at_once_and_come_in_order() -> None:
    async def main() -> None:
        rig = Rig()
        segments = [
            rig.lay(segment(replace(ID, serial=n), [(n, b"x")]), n, n, n) for n in range(1, 50)
        ]
        [kept] = await rig.of(segments[5])
        rig.store.gate.clear()
        asked = asyncio.create_task(rig.of(*segments))
        for _ in range(10):
            await asyncio.sleep(0)
        assert rig.store.under_way == 15  # of the first 16, one of which is kept
        rig.store.gate.set()
        found = await asked
        assert found[5] is kept
        partitions = [list(one.partitions) for one in found if isinstance(one, SegmentIndex)]
        assert partitions == [[n] for n in range(1, 50)]
        assert rig.store.most == 15
        assert len(rig.store.reads) == 49

    run(main())


def test_one_that_cannot_be_read_leaves_the_others() -> None:
    async def main() -> None:
        rig = Rig()
        first = rig.lay(WHOLE)
        gone, broken = replace(first, path=first.path + "0"), rig.lay(WHOLE, 2)
        rig.store.fails[broken.path] = OSError(errno.EIO, "Input/output error")
        found = await rig.of(gone, broken, first)
        assert isinstance(found[0], FileNotFoundError)
        assert found[1] is rig.store.fails.pop(broken.path)
        assert isinstance(found[2], SegmentIndex)
        [again] = await rig.of(rig.lay(segment(replace(ID, serial=2), BODIES.items()), 2))
        assert isinstance(again, SegmentIndex)  # what failed is not remembered

    run(main())


def test_a_store_that_hangs_is_told_as_such() -> None:
    async def main() -> None:
        rig = Rig()
        first = rig.lay(WHOLE)
        rig.store.fails[first.path] = TimeoutError(errno.ETIMEDOUT, "has not answered for 30 s")
        with pytest.raises(TimeoutError, match="has not answered"):
            await rig.of(first)

    run(main())


# --- walks --------------------------------------------------------------------------------


def test_a_torn_segment_is_served_as_far_as_it_is_whole() -> None:
    async def main() -> None:
        for size_bytes in range(0, len(WHOLE), 512):
            rig = Rig()
            whole = {
                partition: place
                for partition, place in PLACES.items()
                if place + padded(CHUNK_HEADER_BYTES + len(BODIES[partition])) <= size_bytes
            }
            assert await rig.one(rig.lay(WHOLE[:size_bytes])) == (whole, False), size_bytes

    run(main())


def test_space_without_a_write_is_a_torn_tail() -> None:
    async def main() -> None:
        for count, size_bytes in enumerate((*PLACES.values(), INDEX)):
            for zeros in (ALIGNMENT, 2 * ALIGNMENT, 1 << 20):
                rig = Rig()
                found = await rig.one(rig.lay(WHOLE[:size_bytes] + bytes(zeros)))
                assert found == (dict(list(PLACES.items())[:count]), False), (count, zeros)

    run(main())


def test_zeros_with_data_behind_are_damage_however_far_behind_it_is() -> None:
    async def main() -> None:
        for zeros in (8192, 256 << 10, 1 << 20):
            rig = Rig()
            data = WHOLE[:4096] + bytes(zeros) + b"x" + bytes(4095)
            assert await rig.one(rig.lay(data)) == ({0: 0}, True)

    run(main())


def test_a_walk_reads_what_it_needs_in_large_pieces() -> None:
    async def main() -> None:
        rig, bodies = Rig(), dict.fromkeys(range(500), b"x" * 3000)
        bodies[500] = b"y" * (3 << 20)  # is stepped over
        bodies[501] = b"z"
        data = segment(ID, bodies.items())
        places, damage = await rig.one(rig.lay(flipped(data, len(data) - 60), last=501))
        assert not damage
        assert list(places) == list(bodies)
        assert places[501] == 500 * ALIGNMENT + padded(64 + (3 << 20))
        read = sum(length for *_, length in rig.store.reads)
        assert read < 4 << 20
        assert len(rig.store.reads) < 20

    run(main())


#: Where the header of each chunk is damaged: what is found by a walk then.
BEFORE = {0: {}, 1: {0: 0}, 2: {0: 0, 1: 4096}, 3: {0: 0, 1: 4096, 2: 12288}}


@pytest.mark.parametrize("partition", PLACES)
@pytest.mark.parametrize("field", [0, 4, 8, 16, 24, 32, 36, 40, 44, 48, 56])
def test_a_damaged_header_matters_if_the_index_is_damaged_as_well(
    partition: int, field: int
) -> None:
    async def main() -> None:
        at = PLACES[partition] + field
        rig = Rig()
        assert await rig.one(rig.lay(flipped(WHOLE, at))) == (PLACES, False)
        for index_at in (INDEX, INDEX + 95, len(WHOLE) - 64, len(WHOLE) - 60, len(WHOLE) - 9):
            rig = Rig()
            assert await rig.one(rig.lay(flipped(WHOLE, index_at))) == (PLACES, False)
            rig = Rig()
            found = await rig.one(rig.lay(flipped(WHOLE, at, index_at)))
            assert found == (BEFORE[partition], True)

    run(main())


def test_headers_of_other_places_are_damage() -> None:
    async def main() -> None:
        wrong = {
            "exchange": chunk(replace(ID, exchange=8), 1, 4096, b"x"),
            "range": chunk(replace(ID, range_index=1), 1, 4096, b"x"),
            "epoch": chunk(replace(ID, epoch=2), 1, 4096, b"x"),
            "incarnation": chunk(replace(ID, incarnation=98), 1, 4096, b"x"),
            "place": chunk(ID, 1, 0, b"x"),
            "partition again": chunk(ID, 0, 4096, b"x"),
        }
        for what, second in wrong.items():
            rig = Rig()
            data = WHOLE[:4096] + second + WHOLE[8192:INDEX]
            assert await rig.one(rig.lay(data)) == ({0: 0}, True), what

    run(main())


def test_damage_names_the_segment_and_the_place() -> None:
    async def main() -> None:
        rig = Rig()
        laid = rig.lay(flipped(WHOLE, 12288, INDEX))
        [index] = await rig.of(laid)
        assert isinstance(index, SegmentIndex)
        assert index.damage.startswith(f"{laid.path} at 12288: ")

    run(main())


def test_what_a_walk_found_is_believed_for_five_seconds_and_no_longer() -> None:
    """Another daemon may still be writing."""

    async def main() -> None:
        rig = Rig()
        torn = rig.lay(WHOLE[:12288].ljust(len(WHOLE), b"\0"))
        first = {0: 0, 1: 4096}
        assert await rig.one(torn) == (first, False)
        rig.store._files[torn.path] = WHOLE  # the rest has come
        reads = len(rig.store.reads)
        rig.now += 4.9
        assert await rig.one(torn) == (first, False)
        assert len(rig.store.reads) == reads
        rig.now += 0.2
        assert await rig.one(torn) == (PLACES, False)
        rig.now += 1000.0  # it is whole: that is for good
        reads = len(rig.store.reads)
        assert await rig.one(torn) == (PLACES, False)
        assert len(rig.store.reads) == reads

    run(main())


def test_a_segment_that_is_listed_with_another_length_is_looked_at_anew() -> None:
    async def main() -> None:
        rig = Rig()
        assert await rig.one(rig.lay(WHOLE[:12288])) == ({0: 0, 1: 4096}, False)
        assert await rig.one(rig.lay(WHOLE)) == (PLACES, False)

    run(main())


def test_walks_that_are_remembered_take_up_no_more_than_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.read.segment_files._WALKED_BYTES", 64 * 424)

    async def main() -> None:
        rig = Rig()
        torn = [rig.lay(chunk(replace(ID, serial=n), 0, 0, b"x"), n) for n in range(1, 200)]
        for one in torn:
            assert await rig.one(one) == ({0: 0}, False)
        assert len(rig.indexes._walked) == 64
        reads = len(rig.store.reads)
        assert await rig.one(torn[-1]) == ({0: 0}, False)
        assert len(rig.store.reads) == reads
        await rig.one(torn[0])
        assert len(rig.store.reads) > reads
        assert (len(rig.kept), rig.kept.used_bytes) == (0, 0)  # a walk is no index

    run(main())


def test_a_segment_that_is_cut_since_it_was_listed_is_damage() -> None:
    async def main() -> None:
        for size_bytes in range(0, INDEX, ALIGNMENT):
            rig = Rig()
            laid = rig.lay(WHOLE)
            rig.store._files[laid.path] = WHOLE[:size_bytes]
            places, damage = await rig.one(laid)
            assert damage or 3 in places  # then the read of its body tells
            assert places.items() <= PLACES.items()

    run(main())


# --- segments of others -------------------------------------------------------------------

FOLDER = "c/7/0-1/"


def others(store: Store, partitions: Sequence[int]) -> SegmentsOfOthers:
    return SegmentsOfOthers(store, FOLDER, KEY, BitMap(partitions), OWN)


def test_segments_of_others_are_listed_once_and_found_by_their_names() -> None:
    async def main() -> None:
        rig = Rig()
        spans = {1: (0, 3), 2: (2, 8), 3: (4, 4), 0x10: (0, 9), 0xA: (3, 5)}
        for serial, (first, last) in spans.items():
            rig.lay(WHOLE, serial, first, last)
        own = path_of(replace(ID, incarnation=OWN), 0, 9)
        rig.store._files[own] = WHOLE
        foreign = ("readme", "0-3-x-1", "3-0-0000000000000063-1", "9-2-0000000000000063-1")
        for name in (*foreign, "0-9-0000000000000063-1/x", "0-9-0000000000000063-1.tmp"):
            rig.store._files[FOLDER + name] = WHOLE
        found = others(rig.store, range(10))
        for partition in (0, 3, 4, 9):
            segments = await found.of(partition)
            assert [one.id.serial for one in segments] == [
                serial
                for serial, (first, last) in sorted(spans.items())
                if first <= partition <= last
            ]
            for one in segments:
                assert one.id == replace(ID, serial=one.id.serial)
                assert (one.first, one.last) == spans[one.id.serial]
                assert (one.path, one.size_bytes) == (
                    path_of(one.id, *spans[one.id.serial]),
                    len(WHOLE),
                )
        assert rig.store.listed == [FOLDER]

    run(main())


def test_those_that_have_nothing_of_what_is_asked_for_are_not_kept() -> None:
    async def main() -> None:
        rig = Rig()
        for serial, (first, last) in enumerate([(0, 3), (4, 6), (5, 5), (7, 9)], 1):
            rig.lay(WHOLE, serial, first, last)
        found = others(rig.store, [4, 6])
        assert [one.first for one in await found.of(4)] == [4]
        assert found._found is not None
        assert len(found._found) == 1

    run(main())


def test_the_segments_of_several_daemons_come_each_daemons_oldest_first() -> None:
    async def main() -> None:
        rig = Rig()
        for incarnation in (100, 12):
            for serial in (0x10, 2, 0xB, 1):
                id = replace(ID, incarnation=incarnation, serial=serial)  # noqa: A001
                rig.store._files[path_of(id, 0, serial % 3)] = WHOLE
        found = await others(rig.store, [0]).of(0)
        assert [(one.id.incarnation, one.id.serial) for one in found] == [
            (incarnation, serial) for incarnation in (12, 100) for serial in (1, 2, 0xB, 0x10)
        ]

    run(main())
