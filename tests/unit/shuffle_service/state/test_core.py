"""The daemon's decisions: taking in, flushing, reading, dropping; no IO anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon_mechanics import check_frame
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.segments import chunks_of

from cosco.errors import DataCorrupted
from cosco.format.block import (
    CODEC_NONE,
    MAX_FRAGMENTS,
    MAX_ROWS,
    encode_block,
    walk_blocks,
)
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.format.segment import FOOTER_BYTES, index_place, parse_index
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.old_epochs import Going
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
    return checked.run_count - taken.next_run, taken


def read(core, files, partition):
    """All blocks of a partition as a reader gets them, from memory and from `files`."""
    return blocks_in(core, files, core.snapshot(KEY, partition), partition)


def blocks_in(core, files, snapshot, partition):
    """All blocks of a look, which may be one of a while ago."""
    bodies = []
    for segment in snapshot.segments:
        file = files[segment.path]
        assert segment.size_bytes == len(file)
        place = index_place(segment.id, len(file), file[-FOOTER_BYTES:])
        if (found := parse_index(file[place:], place).find(partition)) is not None:
            start = found.offset + CHUNK_HEADER_BYTES
            bodies.append(file[start : start + found.body_bytes])
    for piece in snapshot.pieces:
        chunk, end = piece.chunk, CHUNK_HEADER_BYTES + piece.body_bytes
        if chunk.state is ChunkState.STORED:
            file = files[chunk.path]
            bodies.append(file[chunk.offset + CHUNK_HEADER_BYTES : chunk.offset + end])
        else:
            bodies.append(b"".join(chunk.memory(core.arena, CHUNK_HEADER_BYTES, end)))
    return [
        body[offset : offset + header.block_bytes]
        for body in bodies
        for offset, header in walk_blocks(memoryview(body))
    ]


def flush_any(core):
    """The next write as if all were to be stored."""
    core.flushes.everything = True
    flush = core.next_flush()
    core.flushes.everything = False
    return flush


def write(files, flush):
    data = b"".join(flush.parts) + flush.index_bytes
    assert len(data) == flush.length
    assert flush.path not in files  # a name is never used for others
    files[flush.path] = data
    assert list(chunks_of(data)) == partitions_of(flush)
    return partitions_of(flush)


def partitions_of(flush):
    return [chunk.buffer.partition for chunk in flush.chunks]


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
    assert write(files, flush) == [0]
    assert core.next_flush() is None
    before = core.pool.free_bytes
    assert read(core, files, 0) == [big]
    core.end_flush(flush, 0.0)
    assert core.pool.free_bytes > before
    assert read(core, files, 0) == [big]


def pressed(core):
    """The next write as if memory were short."""
    core.page_queue.waiting_bytes = 1 << 40
    flush = core.next_flush()
    core.page_queue.waiting_bytes = 0
    return flush


def test_under_pressure_the_largest_goes_first():
    core, files = make_core(pages=4, segment_bytes=1 << 30), {}
    for partition, size in ((0, 100_000), (1, 400_000), (2, 190_000)):
        put(core, [block(partition, 0, b"x" * size)])
    written = []
    while (flush := pressed(core)) is not None:
        written.append(write(files, flush))
        core.end_flush(flush, 0.0)
    assert written == [[1], [0, 2]]  # and with it who is not much smaller
    assert core.pool.free_bytes == core.pool.capacity_bytes


def test_when_all_is_to_be_stored_size_does_not_matter():
    core, files = make_core(pages=4, segment_bytes=1 << 30), {}
    for partition, size in ((0, 1), (1, 400_000), (2, 100), (7, 50_000)):
        put(core, [block(partition, 0, b"x" * size)])
    assert write(files, flush_any(core)) == [0, 1, 2, 7]


def test_a_sealed_range_is_stored_in_few_segments():
    core, files = make_core(pages=4, segment_bytes=300_000), {}
    for partition, size in ((3, 200_000), (0, 1), (1, 400_000), (2, 100), (4, 5), (50, 5)):
        put(core, [block(partition, 0, b"x" * size)])
    core.seal([KEY])
    written = []
    while (flush := core.next_flush()) is not None:
        written.append(write(files, flush))
    assert sorted(written) == [[0, 2, 3, 4, 50], [1]]  # one fills a segment by itself


def test_only_of_its_own_range_are_partitions_written_together():
    core, files = make_core(partitions=2), {}
    other = Assignment(1, 1, 1, DaemonRef(INCARNATION, "a"))
    core.admit(EXCHANGE, other, PartitionRange(1, 2, 2))
    put(core, [block(1, 0)])
    data = memoryview(frame([block(2, 0)], range_index=1))
    held = core.assignment(AssignmentKey(EXCHANGE, 1, 1))
    core.append_frame(held, check_frame(data, EXCHANGE, MAPPER_ATTEMPT), 0)
    flushes = [flush_any(core), flush_any(core)]
    assert sorted(write(files, flush) for flush in flushes) == [[1], [2]]
    folders = {path.rpartition("/")[0] for path in files}
    assert folders == {f"c/{EXCHANGE}/0-1", f"c/{EXCHANGE}/1-1"}


def test_the_chunks_of_a_segment_become_durable_together_and_not_before():
    """A frame whose rows are in two of them is acknowledged once, when its put has returned."""
    core, files = make_core(pages=4, segment_bytes=1 << 30), {}
    blocks = [block(p, 0, b"x" * 10_000) for p in range(3)]
    data, told = memoryview(frame(blocks)), []
    checked, held = check_frame(data, EXCHANGE, MAPPER_ATTEMPT), core.assignment(KEY)
    replica = DaemonRef(INCARNATION + 1, "b")
    forward = core.replication.forward(
        KEY, replica, checked.header, data[48:], now=0.0, answer=told.append
    )
    core.append_frame(held, checked, 0)
    forward.replica.taken(forward, held.unstored_chunks(checked))
    flush = flush_any(core)
    assert write(files, flush) == [0, 1, 2]
    before = core.pool.free_bytes
    for partition in range(3):
        looked = core.snapshot(KEY, partition)
        assert looked.segments == []
        assert [piece.chunk.state for piece in looked.pieces] == [ChunkState.FLUSHING]
    assert told == []
    assert core.end_flush(flush, 0.0)
    assert told == [None]
    assert core.pool.free_bytes == core.pool.capacity_bytes > before
    for partition in range(3):
        looked = core.snapshot(KEY, partition)
        assert [one.path for one in looked.segments] == [flush.path]
        assert looked.pieces == []
        assert read(core, files, partition) == [blocks[partition]]


def test_a_write_that_failed_is_repeated_with_the_same_bytes_and_the_same_name():
    core, files = make_core(), {}
    made = [block(p, 0, b"x" * 40_000) for p in range(2)]
    put(core, made)
    flush = flush_any(core)
    path, data = flush.path, b"".join(flush.parts)
    core.flush_failed(flush, OSError(28, "No space left on device"), 0.0)
    put(core, [block(0, 1, b"later")])  # goes to another chunk
    assert (flush.path, b"".join(flush.parts)) == (path, data)
    write(files, flush)
    core.end_flush(flush, 1.0)
    assert read(core, files, 0) == [made[0], block(0, 1, b"later")]
    second = flush_any(core)
    assert second.path != path
    assert second.id.serial > flush.id.serial


def test_a_reader_finds_what_was_in_memory_when_it_looked():
    core, files = make_core(), {}
    put(core, [block(0, 0)])
    first = flush_any(core)
    put(core, [block(0, 1)])
    looked = core.snapshot(KEY, 0)
    assert [piece.chunk.state for piece in looked.pieces] == [ChunkState.FLUSHING, ChunkState.OPEN]
    write(files, first)
    core.end_flush(first, 0.0)
    second = flush_any(core)
    write(files, second)
    core.end_flush(second, 0.0)
    put(core, [block(0, 2)])
    assert blocks_in(core, files, looked, 0) == [block(0, 0), block(0, 1)]


def test_a_look_names_no_segment_that_is_known_to_have_nothing_of_a_partition():
    core, files = make_core(), {}
    put(core, [block(0, 0), block(4, 0)])
    first = flush_any(core)
    write(files, first)
    core.end_flush(first, 0.0)
    assert [core.snapshot(KEY, p).segments == [] for p in (0, 2, 4, 5)] == [
        False, True, False, True,
    ]  # fmt: skip
    core.indexes.forget(first.path, first.length)  # then only its name tells
    assert [core.snapshot(KEY, p).segments == [] for p in (0, 2, 4, 5)] == [
        False, False, False, True,
    ]  # fmt: skip
    assert read(core, files, 2) == []
    assert read(core, files, 4) == [block(4, 0)]


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
    core.segment_bytes = 1  # each partition gets a segment of its own
    sizes = []
    while (flush := flush_any(core)) is not None:
        sizes += partitions_of(flush)
        core.end_flush(flush, 0.0)
        assert len(core.replication) == 3 - len(sizes)
    assert sizes == [2, 0, 1]


def test_a_partition_that_is_being_written_is_no_neighbour():
    core, files = make_core(), {}
    put(core, [block(p, 0) for p in range(3)])
    put(core, [block(1, 1, b"x" * (64 << 10))])
    first = core.next_flush()
    assert write(files, first) == [1]
    put(core, [block(1, 2)])
    second = flush_any(core)
    assert write(files, second) == [0, 2]
    core.end_flush(second, 0.0)
    core.end_flush(first, 0.0)
    third = flush_any(core)
    assert write(files, third) == [1]
    core.end_flush(third, 0.0)
    assert read(core, files, 1) == [block(1, 0), block(1, 1, b"x" * (64 << 10)), block(1, 2)]


def test_one_chunk_of_a_partition_is_under_way_at_a_time():
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
    while next_run < checked.run_count:
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


@pytest.mark.parametrize("flushing", [False, True])
def test_dropped_epochs_give_their_pages_back_and_the_present_ones_stay(flushing):
    core = make_core()
    put(core, [block(0, 0, b"x" * 70_000)])
    flush = core.next_flush() if flushing else None
    present = AssignmentKey(EXCHANGE, 0, 2)
    assignment = Assignment(0, 2, 2, DaemonRef(INCARNATION, "a"))
    core.admit(EXCHANGE, assignment, PartitionRange(0, 0, 100))
    new = block(1, 0, b"y" * 1_000)
    checked = check_frame(memoryview(frame([new], epoch=2)), EXCHANGE, MAPPER_ATTEMPT)
    core.append_frame(core.assignment(present), checked, 0)
    old = core.assignment(KEY)
    core.drop_epochs(EXCHANGE, {0: 2, 1: 9})
    assert old.sealed  # so that a frame that waits for pages is not taken in
    assert core.assignment(KEY) is None
    assert core.snapshot(KEY, 0) is None
    if flush is not None:
        assert flush.is_dropped()
        assert core.flushes.is_writing(Going(EXCHANGE)) is False  # nobody has begun it here
        core.end_flush(flush, 0.0)
    assert read_held(core, present, 1) == [new]
    first = Assignment(0, 1, 1, DaemonRef(INCARNATION, "a"))
    core.admit(EXCHANGE, first, PartitionRange(0, 0, 100))
    assert core.assignment(KEY) is None  # a late look-up does not bring it back
    assert core.exchanges() == {EXCHANGE}
    core.drop_epochs(EXCHANGE, {0: 3})
    assert core.exchanges() == set()
    assert core.pool.free_bytes == core.pool.capacity_bytes
    assert flush_any(core) is None


def test_the_indexes_of_dropped_segments_are_forgotten():
    core, files = make_core(), {}
    put(core, [block(0, 0, b"x" * 70_000)])
    flush = core.next_flush()
    write(files, flush)
    core.end_flush(flush, 0.0)
    assert core.indexes.used_bytes
    core.drop_epochs(EXCHANGE, {0: 2})
    assert not core.indexes.used_bytes


def read_held(core, key, partition):
    """The blocks of a partition that are in memory."""
    return blocks_in(core, {}, core.snapshot(key, partition), partition)


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


def test_what_is_in_stores_is_counted_and_what_was_removed_is_not():
    core, files = make_core(), {}

    def stored() -> dict[int, int]:
        return {one.number: one.stored_bytes for one in core.stored.to_tell()}

    put(core, [block(0, 0)])
    flush = flush_any(core)
    assert stored() == {}  # it is under way
    write(files, flush)
    core.end_flush(flush, 0.0)
    assert stored() == {EXCHANGE: len(files[flush.path])}
    put(core, [block(1, 0)])
    going = flush_any(core)
    core.drop_epochs(EXCHANGE, {KEY.range_index: KEY.epoch + 1})
    assert stored() == {EXCHANGE: 0}
    core.end_flush(going, 0.0)  # its file is removed once it is written
    assert stored() == {EXCHANGE: 0}
    core.drop(EXCHANGE)
    assert stored() == {}


def test_rows_of_blocks_and_of_fragments_are_counted() -> None:
    """A row that is cut counts where it ends; the last row and fragment that there may be, too."""

    def part(row: int, fragment: int, *, last: bool = False) -> bytes:
        header, stored, _ = encode_block(
            exchange=EXCHANGE, partition=0, mapper=1, attempt=1, first_row=row, rows=int(last),
            content=b"x", codec=CODEC_NONE, fragment=fragment, last=last,
        )  # fmt: skip
        return header + stored

    core = make_core()
    last_row = MAX_ROWS - 1
    blocks = [block(0, 0, rows=5), part(5, 0), part(5, 1), part(5, 2, last=True), block(0, 6)]
    assert put(core, blocks)[1].rows == 7
    assert put(core, blocks)[1].rows == 7  # of duplicates, too
    assert put(core, [part(9, 0), part(9, MAX_FRAGMENTS - 1, last=True)])[1].rows == 1
    assert put(core, [block(1, last_row - 1, rows=2)])[1].rows == 2
    assert put(core, [block(2, last_row)])[1].rows == 1
