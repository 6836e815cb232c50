"""Copies at the replica: kept once, released, waiting in order, absorbed."""

from __future__ import annotations

import pytest
from support.copies import keep_copy
from support.daemon_mechanics import check_frame, page_pool
from support.frame_making import EXCHANGE, block, frame
from support.replica_pair import Pair, blocks_of

from cosco.errors import DataCorrupted, ExchangeClosed
from cosco.protocol.keys import AssignmentKey, CopyId
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.replication.copy_log import PRESSED_S, Copy, CopyLog
from cosco.shuffle_service.state.replication.replica import Replica

KEY, OTHER = AssignmentKey(EXCHANGE, 0, 1), AssignmentKey(EXCHANGE + 1, 0, 1)
PRIMARY = 5
MOST = 5 * MAX_PAGE_BYTES  # that copies may have of a pool of eight pages


class Rig:
    def __init__(self) -> None:
        self.pool = page_pool(8 * MAX_PAGE_BYTES)
        self.shares = PoolShares(self.pool)
        arena = memoryview(bytearray(self.pool.capacity_bytes))
        self.log = CopyLog(self.pool, arena, self.shares)
        self.told: list[object] = []

    def offer(self, sequence, length, *, key=KEY, stream="stream", now=0.0, primary=PRIMARY):
        data = bytes([sequence]) * length
        self.log.offer(
            Copy(
                CopyId(primary, sequence), key, length, memoryview(data), stream, now,
                lambda error: self.told.append((sequence, error)),
            )
        )  # fmt: skip
        return data


def test_a_frame_is_kept_whole_over_many_pages_and_goes_when_it_is_released():
    rig = Rig()
    data = rig.offer(7, 150_001)
    assert rig.told == [(7, None)]
    copy = rig.log.oldest(KEY)
    assert len(copy.pages) > 1
    assert rig.log.content(copy) == data
    assert rig.shares.copies == rig.pool.capacity_bytes - rig.pool.free_bytes >= len(data)
    rig.log.released(PRIMARY + 1, [7])  # another primary's sequence
    assert rig.log.has(KEY)
    rig.log.released(PRIMARY, [6, 7, 8])
    assert not rig.log.has(KEY)
    assert rig.pool.free_bytes == rig.pool.capacity_bytes
    assert rig.shares.copies == 0


def test_a_frame_that_comes_again_is_acknowledged_again_and_kept_once():
    rig = Rig()
    rig.offer(1, 10)
    rig.offer(1, 10, stream="another")
    assert rig.told == [(1, None), (1, None)]
    assert len(rig.log) == 1


def test_a_frame_that_comes_again_on_its_stream_while_it_waits_is_refused_once():
    rig = Rig()
    rig.offer(1, MOST)
    rig.offer(2, 10)
    rig.offer(2, 10)
    [(_, first), (sequence, error)] = rig.told
    assert first is None
    assert sequence == 2
    assert isinstance(error, DataCorrupted)
    rig.offer(2, 10, stream="another")  # the one before has broken: nobody is told
    rig.log.released(PRIMARY, [1])
    assert [told[0] for told in rig.told] == [1, 2, 2]


def test_copies_take_five_eighths_of_the_pool_and_the_rest_waits_in_order():
    rig = Rig()
    rig.offer(1, MOST - 4096)
    rig.offer(2, 8192)
    rig.offer(3, 1)  # would fit, and does not overtake
    assert [sequence for sequence, _ in rig.told] == [1]
    assert rig.log.waiting_bytes == 8192 + 4096
    assert rig.shares.copies <= MOST
    rig.log.released(PRIMARY, [1])
    assert [sequence for sequence, _ in rig.told] == [1, 2, 3]
    assert rig.log.waiting_bytes == 0


def test_copies_wait_for_pages_that_buffers_have():
    rig = Rig()
    pages = rig.pool.allocate(rig.pool.free_bytes)
    rig.offer(1, 8192)
    assert rig.told == []
    assert rig.log.pages_wanted == 8192
    assert not rig.log.pressed(100.0)  # other copies are not what it waits for
    rig.pool.free(pages)
    rig.log.keep_waiting()
    assert rig.told == [(1, None)]


def test_a_frame_released_while_it_waits_is_not_stored():
    rig = Rig()
    rig.offer(1, MOST)
    rig.offer(2, MOST)
    rig.log.released(PRIMARY, [2])
    assert rig.told == [(1, None), (2, None)]
    rig.log.released(PRIMARY, [1])
    assert len(rig.log) == 0
    assert rig.log.waiting_bytes == 0


def test_what_waits_of_a_stream_that_ended_is_forgotten_and_comes_again():
    rig = Rig()
    rig.offer(1, MOST)
    rig.offer(2, MOST, stream="old")
    rig.offer(2, MOST, stream="new")
    rig.log.hung_up("old")
    assert rig.told == [(1, None)]
    rig.log.released(PRIMARY, [1])
    assert rig.told == [(1, None), (2, None)]
    rig.offer(3, MOST, stream="new")
    rig.log.hung_up("new")
    rig.log.released(PRIMARY, [2])
    assert len(rig.log) == 0
    assert len(rig.told) == 2


def test_a_dropped_exchange_takes_its_copies_along_and_no_others():
    rig = Rig()
    rig.offer(1, 8192)
    rig.offer(2, 8192, key=OTHER)
    rig.offer(3, MOST)
    rig.offer(4, 8192, key=OTHER)
    rig.log.drop(Going(EXCHANGE), ExchangeClosed("closed"))
    assert [sequence for sequence, error in rig.told if error is None] == [1, 2, 4]
    assert [type(error) for sequence, error in rig.told if sequence == 3] == [ExchangeClosed]
    assert not rig.log.has(KEY)
    assert rig.log.bytes_of(OTHER) == 2 * 8192
    rig.log.drop(Going(OTHER.number, {OTHER.range_index: 1}), ExchangeClosed("closed"))
    assert rig.log.bytes_of(OTHER) == 2 * 8192  # as it is of no epoch before that
    rig.log.drop(Going(OTHER.number, {OTHER.range_index: 2}), ExchangeClosed("closed"))
    assert rig.pool.free_bytes == rig.pool.capacity_bytes


def test_copies_press_when_others_have_waited_long_enough_for_them():
    rig = Rig()
    rig.offer(1, MOST)
    rig.offer(2, 4096, now=10.0)
    assert not rig.log.pressed(10.0 + PRESSED_S - 0.01)
    assert rig.log.pressed(10.0 + PRESSED_S)
    assert rig.log.pressed(10.0, patience_s=0.0)
    rig.log.released(PRIMARY, [1])
    assert not rig.log.pressed(100.0)


# --- at the core --------------------------------------------------------------------------


def copy_of(pair: Pair, blocks, *, sequence=1, primary=1, told=None):
    """A frame of range 0, forwarded to daemon 2 by hand."""
    data = frame(blocks, incarnation=2, sequence=sequence)
    keep_copy(pair.cores[2], data, primary, (told if told is not None else []).append)


def test_absorbed_copies_are_stored_in_segments_of_the_replica_with_no_block_twice():
    pair = Pair()
    blocks = [block(p, 0, b"x" * 5000) for p in range(3)]
    copy_of(pair, blocks[:2], sequence=1)
    copy_of(pair, blocks[1:], sequence=2)
    core = pair.cores[2]
    assert core.snapshot(pair.key(1), 0).pieces == []
    while (copy := core.copies.oldest(pair.key(1))) is not None:
        assert core.absorb_copy(copy)
    assert not core.copies.has(pair.key(1))
    assert [piece.body_bytes for piece in core.snapshot(pair.key(1), 1).pieces] == [len(blocks[1])]
    pair.store_all(2)
    assert pair.stored_blocks(2) == set(blocks)
    assert core.unstored_bytes == 0


def test_a_copy_is_absorbed_in_parts_when_pages_are_short_and_goes_when_all_of_it_is_in():
    pair = Pair(pages=1)  # 64 pages of 4 KiB
    blocks = [block(p, 0, b"y" * 14_000) for p in range(8)]  # 28 to keep, 32 to absorb
    copy_of(pair, blocks)
    core = pair.cores[2]
    room = core.pool.allocate(core.pool.free_bytes - 3 * 16384)
    copy = core.copies.oldest(None)
    assert not core.absorb_copy(copy)
    assert 0 < copy.next_run < 8
    assert core.copies.holds(copy)
    core.pool.free(room)
    assert core.absorb_copy(copy)
    assert not core.copies.holds(copy)
    pair.store_all(2)
    assert pair.stored_blocks(2) == set(blocks)


def test_a_sealed_replica_takes_no_copy_and_hurries_once_all_are_absorbed():
    pair = Pair()
    copy_of(pair, [block(0, 0)], sequence=1)
    copy_of(pair, [block(0, 1)], sequence=2)
    core, key, told = pair.cores[2], pair.key(1), []
    waiting = core.pool.allocate(core.pool.free_bytes)
    copy_of(pair, [block(0, 2)], sequence=3, told=told)
    assert told == []
    assert core.seal([key]) > 2 * len(block(0, 0))
    assert [type(error) for error in told] == [NotAssigned]
    with pytest.raises(NotAssigned):
        copy_of(pair, [block(0, 2)], sequence=4)
    core.pool.free(waiting)
    core.absorb_copy(core.copies.oldest(key))
    assert core.next_flush() is None  # one chunk of all copies rather than one of each
    core.absorb_copy(core.copies.oldest(key))
    assert pair.begin_flush(2)
    assert pair.end_flush()
    assert core.seal([key]) == 0


def test_a_sealed_replica_stores_what_was_absorbed_when_the_rest_is_released():
    pair = Pair()
    copy_of(pair, [block(0, 0)], sequence=1)
    copy_of(pair, [block(0, 1)], sequence=2)
    core, key = pair.cores[2], pair.key(1)
    core.seal([key])
    core.absorb_copy(core.copies.oldest(key))
    assert core.next_flush() is None
    core.copies.released(1, [2])
    pair.begin_flush(2)
    pair.end_flush()
    assert pair.stored_blocks(2) == {block(0, 0)}
    assert core.unstored_bytes == 0


def test_many_assignments_are_sealed_in_one_look_at_the_frames(monkeypatch):
    pair = Pair()
    core, looks = pair.cores[1], []
    here, there = DaemonRef(1, "one"), DaemonRef(2, "two")
    for index in range(10, 110):
        core.admit(EXCHANGE, Assignment(index, 1, 1, here, (there,)), PartitionRange(index, 0, 8))
    sent = pair.push(1, [block(0, 0)])
    unsafe = Replica.unsafe
    monkeypatch.setattr(Replica, "unsafe", lambda self: looks.append(self) or unsafe(self))
    core.seal([pair.key(1), *(AssignmentKey(EXCHANGE, index, 1) for index in range(10, 110))])
    assert isinstance(sent.error, NotAssigned)
    assert len(looks) == 1


@pytest.mark.parametrize("primary", [3, 0])
def test_only_the_primary_of_an_assignment_forwards_frames_of_it(primary):
    pair = Pair()
    with pytest.raises(NotAssigned):
        copy_of(pair, [block(0, 0)], primary=primary)


def test_a_writer_that_comes_to_the_replica_is_refused():
    pair = Pair()
    core = pair.cores[2]
    checked = check_frame(memoryview(frame([block(0, 0)], incarnation=2)))
    with pytest.raises(NotAssigned):
        core.append_frame(core.assignment(pair.key(1)), checked, 0)


def test_copies_of_another_range_or_a_closed_exchange_are_refused():
    pair = Pair()
    with pytest.raises(DataCorrupted):
        copy_of(pair, [block(8, 0)])
    core = pair.cores[2]
    held = core.assignment(pair.key(1))
    core.drop(EXCHANGE)
    data = memoryview(frame([block(0, 0)], incarnation=2))
    copy = Copy(CopyId(1, 1), held.key, len(data), data, None, 0.0, print)
    with pytest.raises(ExchangeClosed):
        core.keep_copy(held, check_frame(data), copy)


def test_an_assignment_sealed_while_it_is_looked_up_is_admitted_sealed():
    pair = Pair()
    core = pair.cores[1]
    unknown = AssignmentKey(EXCHANGE, 7, 3)
    core.alike.begin_look_up(unknown)
    assert core.seal([unknown]) == 0
    assert core.seal([AssignmentKey(EXCHANGE, 8, epoch) for epoch in range(1, 70_000)]) == 0
    here = DaemonRef(1, "one")
    core.admit(EXCHANGE, Assignment(7, 3, 1, here), PartitionRange(7, 0, 8))
    core.alike.end_look_up(unknown)
    checked = check_frame(memoryview(frame([block(0, 0)], incarnation=1, range_index=7)))
    with pytest.raises(NotAssigned, match="sealed"):
        core.append_frame(core.assignment(unknown), checked, 0)


def test_a_sealed_primary_stores_what_it_has_at_once_and_refuses_the_rest():
    pair = Pair(pages=1)
    core = pair.cores[1]
    small = pair.push(1, [block(0, 0)])
    room = core.pool.allocate(core.shares.buffers_room - 4096)
    half = pair.push(1, [block(1, 0), block(2, 0), block(3, 0)])
    assert not small.answered
    assert pair.buffered_blocks(1, pair.key(1)) == {block(0, 0), block(1, 0)}  # one of three
    core.pool.free(room)
    assert core.seal([pair.key(1)]) == len(block(0, 0)) + len(block(1, 0))
    pair.take_in(1)
    assert isinstance(small.error, NotAssigned)
    assert isinstance(half.error, NotAssigned)
    while pair.begin_flush(1):
        pass
    while pair.end_flush():
        pass
    assert pair.stored_blocks(1) == {block(0, 0), block(1, 0)}
    assert not core.takes_in or core.assignment(pair.key(1)).sealed


def test_a_copy_whose_pages_were_changed_does_not_hold_up_the_others():
    pair = Pair()
    copy_of(pair, [block(0, 0)], sequence=1)
    copy_of(pair, [block(0, 1)], sequence=2)
    core = pair.cores[2]
    first = core.copies.oldest(None)
    core.arena[first.pages[0].offset + 100] ^= 1
    assert core.absorb_copy(first)
    assert core.absorb_copy(core.copies.oldest(None))
    [piece] = core.snapshot(pair.key(1), 0).pieces
    data = b"".join(piece.chunk.memory(core.arena, 64, 64 + piece.body_bytes))
    assert blocks_of(data) == {block(0, 1)}


def test_primaries_are_told_of_all_the_room_and_share_what_is_too_much():
    rig = Rig()
    goal = rig.shares.copies_goal
    assert goal < rig.shares.copies_max
    assert rig.log.max_bytes_of(PRIMARY) == goal
    rig.offer(1, goal // 2, primary=1)
    held = rig.shares.copies
    assert not rig.log.is_over_goal
    assert rig.log.max_bytes_of(1) == goal
    assert rig.log.max_bytes_of(2) == goal - held
    rig.offer(2, goal, primary=2)  # which waits
    assert rig.log.is_over_goal
    assert 0 < rig.log.max_bytes_of(1) < held
    assert rig.log.max_bytes_of(2) == 1
    rig.log.released(1, [1])
    assert rig.log.max_bytes_of(1) == 1
    assert goal - 4096 <= rig.log.max_bytes_of(2) <= goal
    rig.log.released(2, [2])
    assert rig.log.max_bytes_of(2) == goal


def test_buffers_are_short_of_memory_before_they_have_all_they_may_beside_copies():
    rig = Rig()
    rig.shares.has_copies = True
    capacity = rig.pool.capacity_bytes
    rig.pool.allocate(capacity * 9 // 16)
    assert not rig.shares.is_low(0, hanging_bytes=0)
    rig.pool.allocate(capacity // 8)
    assert rig.shares.is_low(0, hanging_bytes=0)
    rig.shares.flushing += capacity // 8
    assert not rig.shares.is_low(0, hanging_bytes=0)
