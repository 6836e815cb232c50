"""When marks count: at a daemon alone, and between a primary and its replica."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from support.copies import keep_copy
from support.daemon_mechanics import check_frame
from support.daemon_parts import DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.mark_making import PARTITIONS, found, mark

from cosco.dfs import MemoryStore
from cosco.errors import CoscoError, DataCorrupted
from cosco.format.frame import FRAME_HEADER_BYTES, encode_frame_header
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.push.messages import PushReply
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.replication.replica import STALL_S

GROUP = 500
KEY = AssignmentKey(GROUP, 0, 1)
REPLICA = 22


class Service:
    """What the metadata service answers to every look-up."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked: list[int] = []

    async def lookup(self, number, *_):
        self.asked.append(number)
        return self.answer


class Rig:
    """A daemon of a group's exchange, and what the senders of frames were told."""

    def __init__(self, parts: DaemonParts) -> None:
        self.parts = parts
        self.core = parts.core
        self.told: list[CoscoError | None] = []
        self.sequence = 0

    async def push(self, *blocks: bytes, number: int = GROUP, mapper: int = 0, attempt: int = 1):
        """Take a frame in; raises what it is refused for."""
        told: list[CoscoError | None] = []

        def answer(error: CoscoError | None) -> None:
            told.append(error)
            self.told.append(error)

        data = frame(blocks, exchange=number)
        intake = await self.parts.push(data, answer, MapperAttempt(mapper, attempt), number)
        if told and told[0] is not None:
            raise told[0]
        return intake

    @property
    def done(self) -> list[int]:
        return list(self.core.assignment(KEY).board.done())

    @property
    def replica(self):
        return self.core.replication.replicas[REPLICA]

    def answer(self) -> None:
        """The replica acknowledges all that it has not yet."""
        self.replica.begin_stream()
        sequences: list[int] = []
        while (request := self.replica.next_request()) is not None:
            if request.announce:
                self.replica.on_reply(PushReply(granted=len(request.announce)), 0.0)
            if request.frame is not None:
                sequences.append(request.frame.sequence)
        self.replica.on_reply(PushReply(sequences), 0.0)


def run(test, *, mappers: int = 2, replicas: tuple[int, ...] = (), **options) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        answer = found(mappers, first=GROUP, size=100, replicas=replicas, **options)
        await test(Rig(DaemonParts(store, link=Service(answer))))

    asyncio.run(main())


def rows(partition: int, mapper: int = 0, attempt: int = 1, first_row: int = 0) -> bytes:
    return block(partition, first_row, exchange=GROUP, mapper=mapper, attempt=attempt)


def done(mapper: int = 0, attempt: int = 1) -> bytes:
    return mark(mapper, attempt, exchange=GROUP, p0=(1, 2, 3))


def test_a_mark_counts_before_its_sender_is_told():
    async def test(rig: Rig) -> None:
        counted: list[list[int]] = []
        data = frame([rows(0), done()], exchange=GROUP)
        await rig.parts.push(data, lambda _: counted.append(rig.done), MapperAttempt(0, 1), GROUP)
        assert counted == [[0]]
        await rig.push(done(1), mapper=1)
        held = rig.core.assignment(KEY)
        assert held.board.is_complete
        assert held.board.attempts().tolist() == [1, 1]
        assert held.board.sums(0) == (2, 4, 6)
        assert list(held.buffers) == [0]
        assert rig.core.snapshot(KEY, 0).pieces[0].body_bytes == len(rows(0))
        assert rig.parts.metrics.marks._value.get() == 2

    run(test)


@pytest.mark.parametrize("mapper", [0, 1])
def test_marks_that_come_twice_count_once(mapper):
    async def test(rig: Rig) -> None:
        await rig.push(done(mapper, 5), mapper=mapper, attempt=5)
        await rig.push(done(mapper, 5), mapper=mapper, attempt=5)
        await rig.push(done(mapper, 6), mapper=mapper, attempt=6)
        assert rig.done == [mapper]
        assert rig.told == [None] * 3
        await rig.push(done(1 - mapper), mapper=1 - mapper)
        board = rig.core.assignment(KEY).board
        assert board.attempts()[mapper] == 5
        assert board.sums(0) == (2, 4, 6)
        assert rig.parts.metrics.marks._value.get() == 2

    run(test)


@pytest.mark.parametrize(
    ("mappers", "bad"),
    [
        (0, done()),
        (2, done(2)),
        (2, mark(0, exchange=GROUP, part=type(PARTITIONS)(0, 1, 8))),
        (2, mark(0, exchange=GROUP, part=type(PARTITIONS)(0, 0, 7))),
        (2, mark(0, exchange=GROUP, part=type(PARTITIONS)(0, 0, 9))),
    ],
    ids=["of no group", "no such mapper", "another range", "too short", "too long"],
)
def test_nothing_is_taken_of_a_frame_with_a_bad_mark(mappers, bad):
    async def test(rig: Rig) -> None:
        mapper = check_frame(memoryview(frame([bad], exchange=GROUP))).mapper_attempt[0]
        with pytest.raises(DataCorrupted, match=None if mappers else "of no group"):
            await rig.push(rows(0, mapper), bad, mapper=mapper)
        assert rig.core.unstored_bytes == 0
        assert [type(error) for error in rig.told] == [DataCorrupted]
        assert len(rig.core.replication) == 0
        held = rig.core.assignment(KEY)
        assert held.board is None or rig.done == []

    run(test, mappers=mappers)


def test_what_a_sender_that_is_done_sends_again_is_not_remembered():
    async def test(rig: Rig) -> None:
        await rig.push(rows(0), rows(1))
        dedupe = rig.core.assignment(KEY).dedupe
        assert dedupe.entries == 2
        await rig.push(rows(2), done())
        assert dedupe.entries == rig.core._dedupe.entries == 0
        await rig.push(rows(2), done())
        assert dedupe.entries == rig.core._dedupe.entries == 0
        assert rig.core.snapshot(KEY, 2).pieces[0].body_bytes == 2 * len(rows(2))

    run(test)


def test_one_look_up_serves_a_whole_group():
    async def test(rig: Rig) -> None:
        for number in range(GROUP, GROUP + 100):
            await rig.push(mark(0, exchange=number), number=number)
        assert rig.parts.link.asked == [GROUP]
        assert len(rig.core.exchanges()) == 101

    run(test)


def test_what_was_sealed_before_it_was_met_is_not_open():
    async def test(rig: Rig) -> None:
        await rig.push(done())
        sealed = GROUP + 5
        rig.core.seal([AssignmentKey(sealed, 0, 1)])
        rig.parts.link.answer = found(sealed=True)
        with pytest.raises(NotAssigned):
            await rig.push(mark(0, exchange=sealed), number=sealed)
        assert rig.parts.link.asked == [GROUP, sealed]
        await rig.push(mark(0, exchange=sealed + 1), number=sealed + 1)

    run(test)


def test_boards_without_room_keep_frames_and_count_nothing():
    async def test(rig: Rig) -> None:
        while rig.core.mark_boards.add_follower():
            pass
        await rig.push(rows(0), done())
        assert rig.told == [None]
        assert rig.core.assignment(KEY).board is None
        assert rig.parts.metrics.marks._value.get() == 0

    run(test)


def test_a_dropped_exchange_gives_its_boards_back():
    async def test(rig: Rig) -> None:
        await rig.push(done())
        assert rig.core.mark_boards.used_bytes > 0
        rig.core.drop(GROUP)
        assert rig.core.mark_boards.used_bytes == 0
        assert rig.core.exchanges() == {EXCHANGE}

    run(test)


@pytest.mark.parametrize("blocks", [[done()], [rows(0), done()]], ids=["alone", "with rows"])
def test_a_mark_counts_when_the_replica_has_it(blocks):
    async def test(rig: Rig) -> None:
        await rig.push(rows(1))
        await rig.push(*blocks)
        assert rig.done == []
        assert rig.told == []
        rig.answer()
        assert rig.done == [0]
        assert rig.told == [None, None]

    run(test, replicas=(REPLICA,))


def test_a_mark_alone_is_released_as_soon_as_the_replica_has_it():
    async def test(rig: Rig) -> None:
        await rig.push(done())
        assert len(rig.core.replication) == 1
        rig.answer()
        assert len(rig.core.replication) == 0
        request = rig.replica.next_request()
        assert request is not None
        assert list(request.released) == [1]

    run(test, replicas=(REPLICA,))


@pytest.mark.parametrize("how", ["stalls", "is lost"])
def test_beside_a_replica_that_does_not_answer_a_mark_counts_when_all_before_it_is_stored(how):
    async def test(rig: Rig) -> None:
        await rig.push(rows(1))
        await rig.push(rows(0))
        await rig.push(done())
        await rig.push(done(1), mapper=1)
        if how == "stalls":
            rig.core.replication.tick(STALL_S + 1e9)
        else:
            rig.core.replication.gone(REPLICA)
        assert rig.done == []
        rig.core.segment_bytes = 1  # each partition gets a segment of its own
        for left in (1, 0):
            rig.core.flushes.everything = True
            flush = rig.core.next_flush()
            rig.core.end_flush(flush, 0.0)
            assert rig.done == ([] if left else [0, 1])
        assert rig.told == [None] * 4
        assert len(rig.core.replication) == 0

    run(test, replicas=(REPLICA,))


@pytest.mark.parametrize("how", ["stalls", "is lost"])
def test_a_mark_that_nothing_precedes_waits_for_the_replica_until_that(how):
    async def test(rig: Rig) -> None:
        await rig.push(done())
        rig.core.replication.tick(0.0)
        assert rig.done == []
        if how == "is lost":
            rig.core.replication.gone(REPLICA)
        rig.core.replication.tick(0.0 if how == "is lost" else STALL_S + 1e9)
        assert rig.done == [0]
        assert len(rig.core.replication) == 0

    run(test, replicas=(REPLICA,))


def test_no_mark_counts_of_a_frame_that_a_seal_refuses():
    async def test(rig: Rig) -> None:
        await rig.push(done())
        rig.core.seal([KEY])
        assert [type(error) for error in rig.told] == [NotAssigned]
        assert rig.done == []

    run(test, replicas=(REPLICA,))


def test_no_mark_counts_of_a_frame_whose_sender_has_left():
    async def test(rig: Rig) -> None:
        intake = await rig.push(done())
        intake.hung_up(0.0)
        rig.core.replication.tick(STALL_S + 1e9)
        assert rig.done == []

    run(test, replicas=(REPLICA,))


def replica_core(pages: int = 1) -> DaemonCore:
    core = DaemonCore(
        arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
        incarnation=REPLICA,
        segment_bytes=1 << 16,
    )
    core.cluster_id = "c"
    assignment = Assignment(0, 1, 1, DaemonRef(INCARNATION, "a"), (DaemonRef(REPLICA, "b"),))
    core.admit(GROUP, assignment, PARTITIONS, 2)
    return core


def forwarded(*blocks: bytes, sequence: int = 1) -> memoryview:
    data = memoryview(frame(blocks, exchange=GROUP, sequence=sequence))
    header = check_frame(data).header
    return memoryview(encode_frame_header(header) + bytes(data[FRAME_HEADER_BYTES:]))


def offer(core: DaemonCore, data: memoryview, told: list) -> None:
    keep_copy(core, data, INCARNATION, told.append)


def test_the_replica_counts_a_mark_when_it_holds_the_copy():
    core, told = replica_core(), []
    held = core.assignment(KEY)
    pages = core.pool.allocate(core.pool.free_bytes - 4096)
    offer(core, forwarded(rows(0), sequence=1), told)
    offer(core, forwarded(rows(1), done(), sequence=2), told)
    assert told == [None]
    assert list(held.board.done()) == []
    core.pool.free(pages)
    core.copies.keep_waiting()
    assert told == [None, None]
    assert list(held.board.done()) == [0]
    core.seal([KEY])
    for copy in core.copies.of(KEY):
        assert core.absorb_copy(copy)
    assert sorted(held.buffers) == [0, 1]
    assert list(held.board.done()) == [0]
    assert held.dedupe.entries == 0


def test_the_replica_counts_no_mark_of_a_copy_that_a_seal_refuses():
    core, told = replica_core(), []
    core.pool.allocate(core.pool.free_bytes)
    offer(core, forwarded(done()), told)
    core.seal([KEY])
    assert [type(error) for error in told] == [NotAssigned]
    assert list(core.assignment(KEY).board.done()) == []


def test_the_replica_refuses_a_bad_mark():
    core = replica_core()
    with pytest.raises(DataCorrupted):
        offer(core, forwarded(rows(0, 2), done(2)), [])
    assert len(core.copies) == 0


def test_a_small_exchange_costs_its_pages_and_little_more():
    """16 mappers, 16 partitions, a row of 100 bytes of each for each."""
    part, mappers, rows_bytes = PartitionRange(0, 0, 16), 16, 16 * 16 * 100
    core = DaemonCore(
        arena=memoryview(bytearray(16 * MAX_PAGE_BYTES)),
        incarnation=INCARNATION,
        segment_bytes=1 << 20,
    )
    core.cluster_id = "c"
    assignment = Assignment(0, 1, 1, DaemonRef(INCARNATION, "a"))

    def feed(number: int) -> None:
        core.admit(number, assignment, part, mappers)
        held = core.assignment((number, 0, 1))
        for mapper in range(mappers):
            of_mapper = {"exchange": number, "mapper": mapper, "attempt": 1 << 63 | mapper}
            blocks = [block(p, 0, bytes(104), **of_mapper) for p in range(16)]
            blocks.append(mark(mapper, 1 << 63 | mapper, exchange=number, part=part))
            checked = check_frame(memoryview(frame(blocks, exchange=number)))
            assert core.append_frame(held, checked, 0).next_run == 16
            core.count(held, held.mark_of(checked))
        assert held.board.is_complete

    for number in range(1, 10):  # what grows by doubling has room now
        feed(number)
    free_bytes = core.pool.free_bytes
    tracemalloc.start()
    for number in range(10, 30):
        feed(number)
    traced_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert free_bytes - core.pool.free_bytes + traced_bytes < 20 * (rows_bytes + (64 << 10))
