"""Taking frames in: what is refused, what waits, and what is forgotten when a stream ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import pytest
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.errors import (
    CapacityExceeded,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    InvalidArgument,
    ServiceUnavailable,
)
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.messages import Hello, PushReply, PushRequest
from cosco.protocol.push.receiver import Intake, PushReceiver
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import RESTS_AFTER_S, Found, Intakes
from cosco.shuffle_service.state.replication.replica import Replica
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

KEY = AssignmentKey(EXCHANGE, 0, 1)
COPIED = AssignmentKey(EXCHANGE, 0, 2)
PRIMARY = INCARNATION + 1
HERE, THERE = DaemonRef(INCARNATION, "a"), DaemonRef(PRIMARY, "b")
OWN = Assignment(0, 1, 1, HERE)
COPIES = Assignment(0, 2, 1, THERE, (HERE,))
PARTITIONS = PartitionRange(0, 0, 9)
WRITER = Hello(EXCHANGE, 1, 1, INCARNATION)
FORWARDER = Hello(0, 0, 0, INCARNATION, primary=PRIMARY)


class Rig:
    """A daemon's core, look-ups that the test answers, and what senders were told."""

    def __init__(self, *, knows: bool = True) -> None:
        self.core = DaemonCore(
            arena=memoryview(bytearray(4 * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            segment_bytes=64 << 10,
        )
        if knows:
            self.core.admit(EXCHANGE, OWN, PARTITIONS)
        self.counts: defaultdict[str, float] = defaultdict(float)
        self.asked: list[tuple[AssignmentKey, Found]] = []
        self.intakes = Intakes(self.core, self._count, self._look_up)
        self.told: list[tuple[int, CoscoError | None]] = []
        self.cut_off: list[Hello] = []
        self.resumed = 0

    def _count(self, what: str, amount: float) -> None:
        self.counts[what] += amount

    def _look_up(self, key: AssignmentKey, found: Found) -> Callable[[], object]:
        asked = key, found
        self.asked.append(asked)
        return lambda: self.asked.remove(asked)

    def answer_look_up(self, error: CoscoError | None = None) -> None:
        key, found = self.asked.pop(0)
        if error is None:
            self.core.admit(EXCHANGE, OWN if key == KEY else COPIES, PARTITIONS)
        held = self.core.assignment(key)
        result = error or held
        assert result is not None
        found(result, 0.0)

    def open(self, hello: Hello = WRITER) -> Intake:
        stream = PushReceiver(INCARNATION, FrameBudgets(1 << 20), self.intakes.open)
        stream.cut_off = lambda: self.cut_off.append(hello)
        stream.wake = self._wake
        return self.intakes.open(hello, stream, 0.0)

    def _wake(self) -> None:
        self.resumed += 1

    def take_in(self, intake: Intake, *blocks: bytes, sequence: int = 1, **header: int) -> bool:
        def answer(error: CoscoError | None) -> None:
            self.told.append((sequence, error))

        data = memoryview(frame(blocks, sequence=sequence, **header))
        is_in = intake.take_in(data, answer, 0.0)
        intake.settle(0.0)
        return is_in

    def errors(self) -> list[type[CoscoError] | None]:
        return [None if error is None else type(error) for _, error in self.told]


# --- streams of tenants -------------------------------------------------------------------


def test_a_stream_counts_as_its_tenants_until_it_ends() -> None:
    rig = Rig()
    rig.intakes.streams = streams = TenantStreams(2)
    receiver = PushReceiver(INCARNATION, FrameBudgets(1 << 20), rig.intakes.open)
    intakes = [rig.intakes.open(WRITER, receiver, 0.0, tenant) for tenant in (7, 7, 8, 0)]
    assert [intake.tenant for intake in intakes] == [7, 7, 8, 0]
    with pytest.raises(ServiceUnavailable):
        rig.intakes.open(WRITER, receiver, 0.0, 7)
    assert (streams.of(7), streams.of(8)) == (2, 1)
    for intake in (*intakes, *intakes):
        intake.hung_up(0.0)
    assert (streams.of(7), streams.of(8)) == (0, 0)


def test_who_goes_on_with_a_stream_is_counted_in_the_place_of_who_had_it() -> None:
    rig = Rig()
    rig.intakes.streams = streams = TenantStreams(1)
    tenants = {1: 7, 2: 8}

    def open_intake(hello: Hello, stream: PushReceiver, now: float) -> Intake:
        return rig.intakes.open(hello, stream, now, tenants[hello.mapper])

    budgets = FrameBudgets(16 << 20)
    receiver = PushReceiver(INCARNATION, budgets, open_intake)
    for mapper in (1, 2, 1, 1):
        hello = Hello(EXCHANGE, mapper, 1, INCARNATION)
        receiver.on_requests([PushRequest(hello)], 0.0)
        assert [streams.of(tenant) for tenant in (7, 8)] == [mapper == 1, mapper == 2]
        assert list(budgets.writers._lent_to) == [tenants[mapper]]
    receiver.close(0.0)
    assert (streams.of(7), streams.of(8)) == (0, 0)
    assert not budgets.writers._lent_to


@pytest.mark.parametrize("busy", ["", "announced", "granted", "unanswered", "new"])
def test_a_stream_that_rests_makes_room_for_another_of_its_tenant(busy: str) -> None:
    rig = Rig()
    rig.intakes.streams = streams = TenantStreams(1)
    budgets = FrameBudgets(16 << 20)

    def receiver() -> PushReceiver:
        return PushReceiver(INCARNATION, budgets, partial(rig.intakes.open, tenant=7))

    first, second = receiver(), receiver()
    first.cut_off = lambda: first.close(1.0)
    requests = [PushRequest[memoryview](WRITER)]
    if busy in ("announced", "granted"):
        requests.append(PushRequest(announce=[1000]))
        budgets.writers.budget_bytes = 0 if busy == "announced" else 16 << 20
        budgets.writers._in_flight_bytes = 1
    elif busy == "unanswered":
        held = rig.core.assignment(KEY)
        assert held is not None
        held.replica = THERE  # who never answers
        requests.append(PushRequest(eager=True, frame=memoryview(frame([block(0, 0)]))))
    first.on_requests(requests, 0.0)
    now = RESTS_AFTER_S - 0.1 if busy == "new" else RESTS_AFTER_S
    if busy:
        with pytest.raises(ServiceUnavailable):
            second.on_requests([PushRequest(WRITER)], now)
        assert first._share is not None
    else:
        second.on_requests([PushRequest(WRITER)], now)
        assert first._share is None
    assert streams.of(7) == 1


# --- writers ------------------------------------------------------------------------------


def test_a_frame_of_a_single_copy_is_answered_at_once() -> None:
    rig = Rig()
    assert rig.take_in(rig.open(), block(0, 0), block(1, 0, rows=7), sequence=5)
    assert rig.told == [(5, None)]
    length = len(frame([block(0, 0), block(1, 0)]))
    assert rig.counts == {"blocks_received": 2, "rows_received": 8, "bytes_received": length}
    assert rig.resumed == 0  # nobody waited


@pytest.mark.parametrize(
    ("blocks", "options", "error"),
    [
        ([block(9, 0)], {}, DataCorrupted),  # of another range
        ([block(0, 0, mapper=2)], {}, DataCorrupted),
        ([block(0, 0, exchange=8)], {"exchange": 8}, DataCorrupted),
        ([block(0, 0)], {"incarnation": INCARNATION + 1}, NotAssigned),
    ],
)
def test_a_frame_that_is_refused_changes_nothing(
    blocks: list[bytes], options: dict[str, int], error: type[CoscoError]
) -> None:
    rig = Rig()
    assert rig.take_in(rig.open(), *blocks, **options)
    assert rig.errors() == [error]
    assert rig.core.unstored_bytes == 0


def test_a_sealed_assignment_takes_nothing() -> None:
    rig = Rig()
    rig.core.seal([KEY])
    rig.take_in(rig.open(), block(0, 0))
    assert rig.errors() == [NotAssigned]


def test_a_frame_waits_for_its_assignment_and_the_stream_for_it() -> None:
    rig = Rig(knows=False)
    intake = rig.open()
    assert not rig.take_in(intake, block(0, 0))
    assert rig.told == []
    rig.answer_look_up()
    assert rig.told == [(1, None)]
    assert rig.resumed == 1
    assert rig.counts["blocks_received"] == 1
    assert rig.take_in(intake, block(0, 1), sequence=2)


@pytest.mark.parametrize("error", [NotAssigned("nobody's"), ExchangeClosed("over")])
def test_what_no_look_up_finds_is_refused(error: CoscoError) -> None:
    rig = Rig(knows=False)
    rig.take_in(rig.open(), block(0, 0))
    rig.answer_look_up(error)
    assert rig.told == [(1, error)]
    assert rig.resumed == 1


def test_a_frame_with_a_partition_of_another_range_is_refused_after_its_look_up() -> None:
    rig = Rig(knows=False)
    rig.take_in(rig.open(), block(0, 0), block(9, 0))
    rig.answer_look_up()
    assert rig.errors() == [DataCorrupted]
    assert rig.core.unstored_bytes == 0


def test_a_look_up_is_of_no_use_when_its_stream_has_ended() -> None:
    rig = Rig(knows=False)
    intake = rig.open()
    rig.take_in(intake, block(0, 0))
    intake.hung_up(0.0)
    assert rig.asked == []
    assert rig.told == []
    intake.hung_up(0.0)


def test_frames_that_wait_for_pages_come_in_in_order() -> None:
    rig = Rig()
    pages = rig.core.pool.allocate(rig.core.pool.free_bytes)
    for sequence in (1, 2, 3):
        assert not rig.take_in(rig.open(), block(sequence, 0), sequence=sequence)
    assert rig.core.page_queue.waiting_bytes == 3 * len(frame([block(0, 0)]))
    rig.core.pool.free(pages)
    rig.core.changed(0.0)
    assert rig.told == [(1, None), (2, None), (3, None)]
    assert rig.core.page_queue.waiting_bytes == 0


def test_frames_that_wait_for_pages_end_when_their_exchange_does() -> None:
    rig = Rig()
    rig.core.pool.allocate(rig.core.pool.free_bytes)
    for partition in range(3):
        rig.take_in(rig.open(), block(partition, 0))
    rig.core.drop(EXCHANGE)
    rig.core.changed(0.0)
    assert rig.errors() == [ExchangeClosed] * 3
    assert rig.core.page_queue.waiting_bytes == 0


def test_a_stream_that_ends_leaves_its_place_to_the_next() -> None:
    rig = Rig()
    pages = rig.core.pool.allocate(rig.core.pool.free_bytes - 4096)
    first, second = rig.open(), rig.open()
    rig.take_in(first, block(0, 0), block(1, 0), sequence=1)  # one of two fits
    rig.core.pool.free(pages[-1:])
    rig.take_in(second, block(0, 1), sequence=2)
    assert rig.told == []
    first.hung_up(0.0)
    assert rig.told == [(2, None)]


def test_seconds_that_frames_waited_are_counted_once_they_are_over() -> None:
    rig = Rig()
    rig.core.pool.allocate(rig.core.pool.free_bytes)
    assert not rig.take_in(rig.open(), block(0, 0))
    assert not rig.counts["writers_waited_seconds"]
    rig.core.drop(EXCHANGE)
    rig.core.changed(2.5)
    assert rig.counts["writers_waited_seconds"] == 2.5
    rig.core.changed(9.0)
    assert rig.counts["writers_waited_seconds"] == 2.5


def test_of_a_tenant_that_has_all_stored_that_it_may_nothing_is_taken() -> None:
    rig = Rig(knows=False)
    rig.core.admit(EXCHANGE, OWN, PARTITIONS, 0, 7)
    intake = rig.open()
    rig.core.tenants.set_full([8])
    assert rig.take_in(intake, block(0, 0), sequence=1)
    rig.core.tenants.set_full([7, 8])
    assert rig.take_in(intake, block(0, 1), sequence=2)
    assert rig.errors() == [None, CapacityExceeded]
    rig.core.tenants.set_full([])
    assert rig.take_in(intake, block(0, 2), sequence=3)
    assert rig.errors()[2] is None


def test_something_is_flushed_for_who_waits() -> None:
    rig, woken = Rig(), []
    rig.core.on_work = lambda: woken.append(True)
    rig.take_in(rig.open(), block(0, 0))
    assert not woken
    rig.core.pool.allocate(rig.core.pool.free_bytes)
    rig.take_in(rig.open(), block(1, 0))
    assert woken
    assert rig.core.next_flush() is not None


def test_senders_that_hung_up_are_not_remembered_beyond_their_exchange() -> None:
    rig = Rig()
    intake = rig.open()
    rig.take_in(intake, block(0, 0))
    intake.hung_up(0.0)
    for mapper in range(2, 100):  # none of them has sent anything
        rig.core.hung_up(MapperAttempt(mapper, 1), {KEY})
    assert len(rig.core._dedupe._hung_up) == 1
    rig.core.drop(EXCHANGE)
    assert not rig.core._dedupe._hung_up


def test_gaps_in_what_a_sender_sends_are_counted_as_memory() -> None:
    rig = Rig()
    intake = rig.open()
    for start in range(0, 5000, 500):
        rig.take_in(intake, *(block(0, row) for row in range(2 * start, 2 * start + 1000, 2)))
    held = rig.core.assignment(KEY)
    assert held is not None
    assert held.dedupe.entries == rig.core._dedupe.entries
    assert held.dedupe.entries <= rig.core._dedupe.entries_max


def replicated() -> Rig:
    rig = Rig(knows=False)
    rig.core.admit(EXCHANGE, Assignment(0, 1, 1, HERE, (THERE,)), PARTITIONS)
    return rig


def sent_to(replica: Replica) -> list[int]:
    """The sequences of all that the primary sends."""
    replica.begin_stream()
    sequences: list[int] = []
    while (request := replica.next_request()) is not None:
        if request.announce:
            replica.on_reply(PushReply(granted=len(request.announce)), 0.0)
        if request.frame is not None:
            sequences.append(request.frame.sequence)
    return sequences


def test_a_replicated_frame_is_answered_when_its_replica_has_it() -> None:
    rig = replicated()
    intake = rig.open()
    assert rig.take_in(intake, block(0, 0), sequence=5)  # the next one may come
    assert rig.take_in(intake, block(0, 1), sequence=6)
    assert rig.told == []
    replica = rig.core.replication.replicas[PRIMARY]
    first, second = sent_to(replica)
    replica.on_reply(PushReply([second]), 0.0)
    assert rig.told == [(6, None)]
    replica.on_reply(PushReply([first]), 0.0)
    assert rig.told == [(6, None), (5, None)]


def test_what_is_not_safe_when_its_stream_ends_is_released_and_answered_to_nobody() -> None:
    rig = replicated()
    intake = rig.open()
    rig.take_in(intake, block(0, 0))
    replica = rig.core.replication.replicas[PRIMARY]
    [sequence] = sent_to(replica)
    intake.hung_up(0.0)
    assert len(rig.core.replication) == 0
    request = replica.next_request()
    assert request is not None
    assert list(request.released) == [sequence]
    assert rig.told == []


def test_a_frame_waits_while_too_many_are_forwarded() -> None:
    rig = replicated()
    rig.core.replication._frames_max = 1
    first, second = rig.open(), rig.open()
    assert rig.take_in(first, block(0, 0), sequence=1)
    assert not rig.take_in(second, block(0, 1), sequence=2)
    first.hung_up(0.0)
    rig.core.changed(0.0)
    assert len(rig.core.replication) == 1
    assert rig.resumed == 1


def test_a_seal_refuses_a_frame_that_is_half_in() -> None:
    rig = replicated()
    pages = rig.core.pool.allocate(rig.core.pool.free_bytes - 4096)
    assert not rig.take_in(rig.open(), block(0, 0), block(1, 0))
    rig.core.seal([KEY])
    rig.core.pool.free(pages)
    rig.core.changed(0.0)
    assert rig.errors() == [NotAssigned]
    assert len(rig.core.replication) == 0


def test_a_writer_releases_nothing() -> None:
    with pytest.raises(InvalidArgument):
        Rig().open().released([1], 0.0)


# --- copies -------------------------------------------------------------------------------


def test_a_copy_waits_for_its_assignment_and_the_next_does_not_wait_for_it() -> None:
    rig = Rig()
    intake = rig.open(FORWARDER)
    assert rig.take_in(intake, block(0, 0), sequence=1, epoch=2)
    assert rig.take_in(intake, block(0, 1), sequence=2, epoch=2)
    assert rig.told == []
    rig.answer_look_up()
    rig.answer_look_up()
    assert rig.told == [(1, None), (2, None)]
    assert len(rig.core.copies) == 2


def test_a_copy_that_no_look_up_finds_is_refused() -> None:
    rig = Rig()
    rig.take_in(rig.open(FORWARDER), block(0, 0), epoch=2)
    rig.answer_look_up(error := NotAssigned("nobody's"))
    assert rig.told == [(1, error)]


def test_a_frame_that_is_released_while_it_is_looked_up_is_not_kept() -> None:
    rig = Rig()
    intake = rig.open(FORWARDER)
    rig.take_in(intake, block(0, 0), sequence=1, epoch=2)
    rig.take_in(intake, block(0, 1), sequence=2, epoch=2)
    intake.released([1], 0.0)
    assert rig.told == [(1, None)]
    rig.answer_look_up()
    assert rig.told == [(1, None), (2, None)]
    assert rig.asked == []
    intake.released([2], 0.0)
    assert rig.core.unstored_bytes == 0


def test_a_frame_that_is_released_twice_at_once_while_it_is_looked_up_is_answered_once() -> None:
    """Also by who means harm: no message may end a stream by surprise."""
    rig = Rig()
    intake = rig.open(FORWARDER)
    rig.take_in(intake, block(0, 0), sequence=1, epoch=COPIED.epoch)
    intake.released([1, 1, 2, 1], 0.0)
    assert rig.errors() == [None]
    assert not rig.asked


def test_a_copy_that_comes_twice_while_it_is_looked_up_is_not_acknowledged_for_that() -> None:
    rig = Rig()
    intake = rig.open(FORWARDER)
    rig.take_in(intake, block(0, 0), epoch=2)
    rig.take_in(intake, block(0, 0), epoch=2)
    assert rig.errors() == [DataCorrupted]
    rig.answer_look_up()
    assert rig.errors() == [DataCorrupted, None]


def test_another_stream_of_a_primary_cuts_the_first_one_off() -> None:
    rig = Rig()
    old = rig.open(FORWARDER)
    rig.take_in(old, block(0, 0), epoch=2)
    new = rig.open(FORWARDER)
    assert rig.cut_off == [FORWARDER]
    assert rig.asked == []
    old.hung_up(0.0)
    rig.take_in(new, block(0, 0), epoch=2)
    rig.answer_look_up()
    assert rig.told == [(1, None)]


def test_no_daemon_forwards_to_itself() -> None:
    with pytest.raises(InvalidArgument):
        Rig().open(FORWARDER._replace(primary=INCARNATION))


def test_room_that_copies_leave_is_for_who_waits_for_pages() -> None:
    rig = Rig()
    rig.core.admit(EXCHANGE, COPIES, PARTITIONS)
    copies = rig.open(FORWARDER)
    rig.take_in(copies, block(0, 0, bytes(500_000)), epoch=2)
    rig.core.pool.allocate(rig.core.pool.free_bytes)
    rig.take_in(rig.open(), block(0, 0), sequence=2)
    assert rig.told == [(1, None)]
    copies.released([1], 0.0)
    assert rig.told == [(1, None), (2, None)]
