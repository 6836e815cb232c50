"""The daemon's decisions: taking in, flushing, reading, dropping; no IO anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.errors import DataCorrupted
from cosco.format.block import walk_blocks
from cosco.format.chunk import CHUNK_HEADER_BYTES, parse_chunk_header
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.frame_check import check_frame
from cosco.shuffle_service.state.buffers.partition_buffer import ChunkState
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore

MAPPER_ATTEMPT = MapperAttempt(1, 1)
KEY = AssignmentKey(EXCHANGE, 0, 1)


def make_core(*, pages: int = 4, segment_bytes: int = 64 << 10, partitions: int = 100):
    core = DaemonCore(
        arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
        incarnation=INCARNATION,
        segment_bytes=segment_bytes,
    )
    core.cluster_id = "c"
    assignment = Assignment(0, 1, 1, DaemonRef(INCARNATION, "a"))
    core.admit(EXCHANGE, assignment, PartitionRange(0, 0, partitions))
    return core


def put(core, blocks, mapper_attempt=MAPPER_ATTEMPT):
    """Take a frame in; returns (runs left over, what was taken)."""
    checked = check_frame(memoryview(frame(blocks)), EXCHANGE, mapper_attempt)
    taken = core.append_frame(core.assignment(KEY), checked, 0)
    return len(checked.runs) - taken.next_run, taken


def read(core, files, partition):
    """All blocks of a partition as a reader gets them, from memory and from `files`."""
    out = []
    for piece in core.snapshot(KEY, partition):
        chunk, end = piece.chunk, CHUNK_HEADER_BYTES + piece.body_bytes
        if chunk.state is ChunkState.STORED:
            file = files[chunk.buffer.path]
            data = file[chunk.offset + CHUNK_HEADER_BYTES : chunk.offset + end]
        else:
            data = b"".join(chunk.memory(core.arena, CHUNK_HEADER_BYTES, end))
        for offset, header in walk_blocks(memoryview(data)):
            out.append(data[offset : offset + header.block_bytes])
    return out


def flush_any(core):
    """The next write as if all were to be stored."""
    core.flushes.everything = True
    flush = core.next_flush()
    core.flushes.everything = False
    return flush


def write(files, flush):
    data = b"".join(flush.parts)
    file = files.setdefault(flush.buffer.path, bytearray())
    assert len(file) == flush.chunk.offset  # a file has no holes
    header = parse_chunk_header(data)
    assert (header.exchange, header.range_index, header.epoch) == KEY
    assert header.padded_bytes == len(data)
    assert not any(data[CHUNK_HEADER_BYTES + header.body_bytes :])
    file += data


def test_a_duplicate_is_dropped_also_inside_one_frame_and_in_parts():
    core = make_core()
    first, second, third = block(0, 0), block(0, 1), block(0, 2)
    _, taken = put(core, [first, first])
    assert (taken.blocks, taken.duplicates) == (2, 1)
    _, taken = put(core, [second, first, third])
    assert (taken.blocks, taken.duplicates) == (3, 1)
    assert read(core, {}, 0) == [first, second, third]


def test_another_attempt_is_no_duplicate():
    core = make_core()
    put(core, [block(0, 0)])
    other = block(0, 0, attempt=2)
    _, taken = put(core, [other], mapper_attempt=(1, 2))
    assert taken.duplicates == 0
    assert read(core, {}, 0) == [block(0, 0), other]


def test_a_full_chunk_is_flushed_and_one_that_is_not_stays():
    core, files = make_core(segment_bytes=64 << 10), {}
    put(core, [block(1, 0, b"y" * 1000)])
    assert core.next_flush() is None
    big = block(0, 0, b"x" * (64 << 10))
    put(core, [big])
    flush = core.next_flush()
    write(files, flush)
    assert flush.buffer.partition == 0
    assert core.next_flush() is None
    before = core.pool.free_bytes
    assert read(core, files, 0) == [big]
    core.end_flush(flush, 0.0)
    assert core.pool.free_bytes > before
    assert read(core, files, 0) == [big]


def test_under_pressure_the_largest_goes_first():
    core, files = make_core(pages=4, segment_bytes=1 << 30), {}
    for partition, size in ((0, 200_000), (1, 400_000), (2, 300_000)):
        put(core, [block(partition, 0, b"x" * size)])
    sizes = []
    while (flush := flush_any(core)) is not None:
        write(files, flush)
        sizes.append(flush.buffer.partition)
        core.end_flush(flush, 0.0)
    assert sizes == [1, 2, 0]
    assert core.pool.free_bytes == core.pool.capacity_bytes


def test_beside_copies_the_oldest_goes_before_the_largest_unless_it_is_much_smaller():
    core = make_core(pages=4, segment_bytes=1 << 30)
    held, replica = core.assignment(KEY), DaemonRef(INCARNATION + 1, "b")
    for partition, size in ((0, 100_000), (1, 190_000), (2, 300_000)):
        data = memoryview(frame([block(partition, 0, b"x" * size)]))
        checked = check_frame(data, EXCHANGE, MAPPER_ATTEMPT)
        forward = core.replication.forward(
            KEY, replica, checked.header, data[48:], now=0.0, answer=lambda _: None
        )
        core.append_frame(held, checked, 0)
        forward.replica.taken(forward, held.unstored_chunks(checked))
    assert core.next_flush() is None  # there is no need
    sizes = []
    while (flush := flush_any(core)) is not None:
        sizes.append(flush.buffer.partition)
        core.end_flush(flush, 0.0)
        assert len(core.replication) == 3 - len(sizes)
    assert sizes == [2, 0, 1]


def test_one_write_of_a_file_is_under_way_at_a_time():
    core, files = make_core(segment_bytes=64 << 10), {}
    put(core, [block(0, 0, b"x" * (64 << 10))])
    first = core.next_flush()
    put(core, [block(0, 1, b"y" * (64 << 10))])
    assert core.next_flush() is None
    assert flush_any(core) is None
    write(files, first)
    core.end_flush(first, 0.0)
    second = core.next_flush()
    write(files, second)
    core.end_flush(second, 0.0)
    assert len(read(core, files, 0)) == 2


def test_a_frame_that_needs_more_pages_than_there_are_is_taken_in_parts():
    core, files = make_core(pages=1, partitions=200), {}
    blocks = [block(partition, 0) for partition in range(200)]  # 200 pages of 4 KiB, 64 there
    checked = check_frame(memoryview(frame(blocks)), EXCHANGE, MAPPER_ATTEMPT)
    held, next_run, turns = core.assignment(KEY), 0, 0
    while next_run < len(checked.runs):
        next_run = core.append_frame(held, checked, next_run).next_run
        while (flush := flush_any(core)) is not None:
            write(files, flush)
            core.end_flush(flush, 0.0)
        turns += 1
    assert turns == 4
    assert [read(core, files, p) for p in range(200)] == [[b] for b in blocks]


def test_a_stray_partition_is_found_before_anything_is_taken():
    core = make_core(partitions=5)
    checked = check_frame(memoryview(frame([block(4, 0), block(5, 0)])), EXCHANGE, MAPPER_ATTEMPT)
    with pytest.raises(DataCorrupted, match="partition 5"):
        core.assignment(KEY).check_partitions(checked)


@pytest.mark.parametrize("flushing", [False, True])
def test_a_dropped_exchange_gives_its_pages_back(flushing):
    core = make_core()
    put(core, [block(0, 0, b"x" * 70_000)])
    put(core, [block(1, 0, b"x" * 1_000)])
    flush = core.next_flush() if flushing else None
    core.drop(EXCHANGE)
    if flush is not None:
        assert core.pool.free_bytes < core.pool.capacity_bytes  # some are being written
        core.end_flush(flush, 0.0)
    assert core.pool.free_bytes == core.pool.capacity_bytes
    assert core.is_dropped(EXCHANGE)
    assert core.assignment(KEY) is None
    assert core.snapshot(KEY, 0) is None
    core.admit(EXCHANGE, Assignment(0, 1, 1, DaemonRef(INCARNATION, "a")), PartitionRange(0, 0, 1))
    assert core.assignment(KEY) is None  # a late look-up does not bring it back
    assert flush_any(core) is None


def test_deduplication_is_bounded_and_forgets_who_has_hung_up_first():
    core = make_core(pages=1, partitions=1000)
    bound = core._dedupe.entries_max
    assert 0 < bound < 200
    put(core, [block(0, 0, mapper=1)])
    put(core, [block(0, 0, mapper=2)], mapper_attempt=(2, 1))
    core.hung_up((2, 1), {KEY})
    for mapper in itertools.count(3):
        if core.assignment(KEY).dedupe.entries < mapper - 1:
            break
        put(core, [block(0, 0, mapper=mapper)], mapper_attempt=(mapper, 1))
    assert core.assignment(KEY).dedupe.entries == bound
    _, again = put(core, [block(0, 0, mapper=1)])
    assert again.duplicates == 1
    _, again = put(core, [block(0, 0, mapper=2)], mapper_attempt=(2, 1))
    assert again.duplicates == 0


@given(st.data())
def test_whatever_happens_each_block_is_read_once(data):
    core, files = make_core(pages=2, segment_bytes=16 << 10, partitions=4), {}
    expected: dict[int, list[bytes]] = {p: [] for p in range(4)}
    rows = dict.fromkeys(range(4), 0)
    flushes = []
    for _ in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["put", "put", "again", "begin", "end"]))
        if action == "put":
            partition = data.draw(st.integers(0, 3))
            size = data.draw(st.integers(0, 30_000))
            new = block(partition, rows[partition], b"z" * size)
            if put(core, [new])[0] == 0:
                rows[partition] += 1
                expected[partition].append(new)
        elif action == "again" and any(expected.values()):
            old = data.draw(st.sampled_from([b for p in expected.values() for b in p]))
            left, taken = put(core, [old])
            assert left or taken.duplicates == 1
        elif action == "begin":
            flush = flush_any(core) if data.draw(st.booleans()) else core.next_flush()
            if flush is not None:
                write(files, flush)
                flushes.append(flush)
        elif action == "end" and flushes:
            core.end_flush(flushes.pop(data.draw(st.integers(0, len(flushes) - 1))), 0.0)
        for partition in range(4):
            assert read(core, files, partition) == expected[partition]
    for flush in flushes:
        core.end_flush(flush, 0.0)
    while (flush := flush_any(core)) is not None:
        write(files, flush)
        core.end_flush(flush, 0.0)
    assert core.pool.free_bytes == core.pool.capacity_bytes
    for partition in range(4):
        assert read(core, files, partition) == expected[partition]


def test_a_frame_that_needs_a_page_for_its_chunks_header_alone_is_flushed_for():
    core = make_core(pages=16, segment_bytes=1 << 20)
    core.shares.has_copies = True
    put(core, [block(1, 0)])
    made = block(0, 0, b"x" * (4096 - 50 - len(block(0, 0, b""))))
    core.pool.allocate(core.shares.buffers_room - 4096)  # other buffers
    left, _ = put(core, [made])
    assert left == 1  # with the chunk's header it needs two pages, and there is one
    core.page_queue.waiting_bytes = len(frame([made]))
    assert core.next_flush() is not None
