"""Which partitions are written together, and the bytes that are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon_mechanics import chunk as make_chunk
from support.daemon_mechanics import page_pool, partition_buffer
from support.segments import chunks_of

from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, parse_chunk_header
from cosco.format.segment import FOOTER_BYTES, SegmentId, index_place, parse_index
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import PartitionRange
from cosco.shuffle_service.state.buffers.partition_buffer import (
    ChunkState,
    PartitionBuffer,
)
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES, PagePool
from cosco.shuffle_service.state.segments.segment_choice import (
    begin_segment,
    neighbours,
    stored_segment,
)

KEY = AssignmentKey(7, 3, 2)
RANGE = PartitionRange(3, 100, 50)
FOLDER = "c/7/3-2/"

#: The length of an open chunk, by partition; None: it has none. With a minus it has one of
#: that length, and an earlier one that is being written.
Lengths = Mapping[int, int | None]


def buffers_of(lengths: Lengths) -> dict[int, PartitionBuffer]:
    found = {}
    for partition, length in lengths.items():
        buffer = found[partition] = partition_buffer(KEY, partition)
        if length is not None:
            buffer.open = make_chunk(buffer, length=abs(length))
            if length < 0:
                buffer.flushing = make_chunk(buffer, state=ChunkState.FLUSHING)
    return found


def chosen(
    seed: int, lengths: Lengths, segment_bytes: int = 1000, *, takes_all: bool = False
) -> list[int]:
    buffers = buffers_of(lengths)
    found = neighbours(buffers[seed], buffers, RANGE, segment_bytes, takes_all=takes_all)
    assert all(buffers[one.partition] is one for one in found)
    return [one.partition for one in found]


#: What it shows → (the first, the lengths, what is chosen, and what with `takes_all`).
CHOICES: dict[str, tuple[int, Lengths, list[int], list[int]]] = {
    "one that is alone": (120, {120: 100}, [120], [120]),
    "half of its length is enough": (
        120, {118: 50, 119: 49, 120: 100, 121: 50, 122: 49},
        [118, 120, 121], [118, 119, 120, 121, 122],
    ),
    "half of an odd length is more than half rounded down": (
        120, {119: 50, 120: 101, 121: 51}, [120, 121], [119, 120, 121],
    ),
    "larger ones come along": (120, {119: 900, 120: 100}, [119, 120], [119, 120]),
    "the nearest come first": (
        120, {110: 400, 118: 400, 120: 400, 123: 400, 124: 400},
        [118, 120, 123], [118, 120, 123],
    ),
    "no more than are needed": (
        120, {119: 400, 120: 600, 121: 400}, [119, 120], [119, 120],
    ),
    "one byte less, and there is one more": (
        120, {119: 399, 120: 600, 121: 400}, [119, 120, 121], [119, 120, 121],
    ),
    "one that fills a segment is alone": (120, {119: 999, 120: 1000}, [120], [120]),
    "nor is it taken along": (
        120, {119: 1000, 120: 100, 121: 2000, 122: 100}, [120, 122], [120, 122],
    ),
    "not those that are being written": (
        120, {119: -100, 120: 100, 121: -5, 122: 100}, [120, 122], [120, 122],
    ),
    "nor those that have nothing": (
        120, {119: None, 120: 100, 121: None, 123: 100}, [120, 123], [120, 123],
    ),
    "from the first to the last of the range": (
        100, {100: 10, 149: 10}, [100, 149], [100, 149],
    ),
    "and from the last to the first": (149, {100: 10, 149: 10}, [100, 149], [100, 149]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_neighbours(case: str) -> None:
    seed, lengths, expected, with_all = CHOICES[case]
    assert chosen(seed, lengths) == expected
    assert chosen(seed, lengths, takes_all=True) == with_all


LENGTHS = st.dictionaries(
    st.integers(100, 149), st.none() | st.integers(64, 2000) | st.integers(-2000, -64), min_size=1
)


@given(LENGTHS, st.integers(1, 3000), st.booleans(), st.data())
def test_what_holds_of_every_choice(
    lengths: dict[int, int | None], segment_bytes: int, takes_all: bool, data: st.DataObject
) -> None:
    seed = data.draw(st.sampled_from(sorted(lengths)))
    lengths[seed] = own = abs(lengths[seed] or 64)
    found = chosen(seed, lengths, segment_bytes, takes_all=takes_all)
    assert found == sorted(set(found))
    assert seed in found
    may = {
        partition
        for partition, length in lengths.items()
        if length is not None and 0 < length < segment_bytes and (takes_all or 2 * length >= own)
    } | {seed}
    assert set(found) <= may

    def order(partition: int) -> tuple[int, int]:
        return abs(partition - seed), partition

    taken, left = sorted(found, key=order), may - set(found)
    lasts = [lengths[partition] or 0 for partition in taken]
    if len(taken) > 1:
        assert sum(lasts[:-1]) < segment_bytes  # the last one was needed
    if left:
        assert sum(lasts) >= segment_bytes
        assert order(taken[-1]) < min(map(order, left))  # none is passed over


# --- what is written ----------------------------------------------------------------------


def filled(
    pool: PagePool, arena: memoryview, bodies: Iterable[tuple[int, bytes, int]]
) -> list[PartitionBuffer]:
    """Buffers with an open chunk each, of some (partition, body, number of blocks)."""
    found = []
    for partition, body, blocks in bodies:
        buffer = partition_buffer(KEY, partition)
        chunk = buffer.open = make_chunk(buffer)
        for start in range(0, len(body), 5000):
            data = memoryview(body)[start : start + 5000]
            if chunk.length + len(data) > chunk.capacity:
                chunk.grow(pool, chunk.room_needed(len(data)), 0)
            chunk.append(arena, data)
        chunk.blocks = blocks
        found.append(buffer)
    return found


BODIES = [
    (100, b"a" * 10, 1),
    (101, b"b" * 4032, 2),  # a whole page with its header
    (103, b"c" * 4033, 3),
    (149, b"d" * 200_000, 4),
]


def test_chunks_are_laid_out_as_the_format_says() -> None:
    arena = memoryview(bytearray(b"\xff" * (4 * MAX_PAGE_BYTES)))  # pages are never clean
    pool = page_pool(len(arena))
    buffers = filled(pool, arena, BODIES)
    flush = begin_segment(buffers, arena, 11, 0x1F, FOLDER)
    assert flush.path == "c/7/3-2/100-149-000000000000000b-1f"
    assert flush.id == SegmentId(exchange=7, range_index=3, epoch=2, incarnation=11, serial=0x1F)
    assert flush.key == KEY
    file = b"".join(flush.parts) + flush.index_bytes
    assert len(file) == flush.length
    assert all(len(part) % ALIGNMENT == 0 for part in flush.parts)  # direct IO
    offset = 0
    for partition, body, blocks in BODIES:
        header = parse_chunk_header(file[offset : offset + CHUNK_HEADER_BYTES])
        assert (header.exchange, header.range_index, header.epoch) == KEY
        assert (header.incarnation, header.offset) == (11, offset)
        assert (header.partition, header.blocks, header.body_bytes) == (
            partition,
            blocks,
            len(body),
        )
        start = offset + CHUNK_HEADER_BYTES
        assert file[start : start + len(body)] == body
        offset += header.padded_bytes
        assert not any(file[start + len(body) : offset])  # nothing of others' rows
    assert index_place(flush.id, len(file), file[-FOOTER_BYTES:]) == offset
    index = parse_index(file[offset:], offset)
    assert list(index.partitions) == [partition for partition, *_ in BODIES]
    assert list(index.blocks) == [1, 2, 3, 4]
    assert chunks_of(file) == {partition: body for partition, body, _ in BODIES}
    assert flush.body_bytes == sum(len(body) for _, body, _ in BODIES)
    assert flush.capacity == pool.capacity_bytes - pool.free_bytes


def test_a_segment_that_is_begun_closes_its_chunks() -> None:
    arena = memoryview(bytearray(4 * MAX_PAGE_BYTES))
    buffers = filled(page_pool(len(arena)), arena, BODIES)
    opened = [buffer.open for buffer in buffers]
    flush = begin_segment(buffers, arena, 11, 1, FOLDER)
    assert flush.chunks == opened
    file = b"".join(flush.parts)
    for buffer, chunk in zip(buffers, flush.chunks, strict=True):
        assert (buffer.open, buffer.flushing) == (None, chunk)
        assert (chunk.state, chunk.path) == (ChunkState.FLUSHING, flush.path)
        assert parse_chunk_header(file[chunk.offset :]).partition == buffer.partition


def test_what_is_kept_of_a_segment_names_its_file_and_its_partitions() -> None:
    arena = memoryview(bytearray(4 * MAX_PAGE_BYTES))
    buffers = filled(page_pool(len(arena)), arena, BODIES[1:3])
    flush = begin_segment(buffers, arena, 11, 1, FOLDER)
    kept = stored_segment(flush)
    assert (kept.id, kept.path, kept.size_bytes) == (flush.id, flush.path, flush.length)
    assert (kept.first, kept.last) == (101, 103)
    assert kept.path.startswith(f"{FOLDER}101-103-")


def test_a_segment_is_dropped_with_its_exchange() -> None:
    arena = memoryview(bytearray(4 * MAX_PAGE_BYTES))
    flush = begin_segment(filled(page_pool(len(arena)), arena, BODIES), arena, 11, 1, FOLDER)
    assert not flush.is_dropped()
    for chunk in flush.chunks:
        chunk.state = ChunkState.DROPPED
    assert flush.is_dropped()
