"""What a primary tells writers and replicas about the frames that it forwarded."""

from __future__ import annotations

import pytest
from support.daemon_mechanics import chunk as make_chunk
from support.daemon_mechanics import partition_buffer
from support.frame_making import EXCHANGE, block

from cosco.errors import CapacityExceeded, DataCorrupted, ExchangeClosed
from cosco.format.frame import FrameHeader
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.push.messages import PushReply, Refusal, RefusalCode
from cosco.protocol.push.sender import MAX_RESENDS, ProtocolBroken
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.replication.replica import (
    STALL_OLDEST_S,
    STALL_S,
    ReplicaReplaced,
    ReplicationLog,
)

KEY = AssignmentKey(EXCHANGE, 0, 1)
REF = DaemonRef(22, "there")
BODY = memoryview(block(0, 0))


class Rig:
    """A log with one replica and a stream to it; `told` is what writers were told."""

    def __init__(self, *, volatile: bool = False, frames_max: int = 1000) -> None:
        self.log = ReplicationLog(incarnation=11, frames_max=frames_max)
        self.log.volatile = volatile
        self.links = []
        self.log.on_replica = self.links.append
        self.told: list[object] = []
        self.now = 0.0

    def forward(self, *, key=KEY, ref=REF):
        header = FrameHeader(key.number, 11, 5, key.range_index, key.epoch, len(BODY), 1)
        is_first = not self.log.replicas
        frame = self.log.forward(key, ref, header, BODY, now=self.now, answer=self.told.append)
        if is_first:
            self.begin()
        return frame

    def begin(self):
        """Begin a stream, with its hello."""
        self.replica.begin_stream()
        self.unheard = []
        request = self.replica.next_request()
        assert (request.hello.incarnation, request.hello.primary) == (22, 11)

    @property
    def replica(self):
        return self.log.replicas[REF.incarnation]

    def say(self):
        """Everything that the replica is told now."""
        said, self.unheard = self.unheard, []
        while (request := self.replica.next_request()) is not None:
            said.append(request)
        return said

    def send(self):
        """Announce, be granted, send; what went out."""
        self.reply()  # whose end has others announced
        said = self.say()
        self.reply(granted=sum(len(request.announce) for request in said))
        return [request.frame for request in [*said, *self.say()] if request.frame is not None]

    def reply(self, *acknowledged, now=0.0, refused=(), **fields):
        """What the replica says; the assignments that are sealed there."""
        sequences = [frame.sequence for frame in acknowledged]
        return self.replica.on_reply(PushReply(sequences, refused=refused, **fields), now)

    def released(self):
        """The sequences that the replica is told of now; what else is said is for `send`."""
        said = self.say()
        self.unheard = [request for request in said if not request.released]
        return [sequence for request in said for sequence in request.released]


def chunk(partition: int = 0, number: int = EXCHANGE) -> Chunk:
    buffer = partition_buffer(AssignmentKey(number, 0, 1), partition)
    buffer.open = make_chunk(buffer)
    return buffer.open


def test_a_frame_is_acknowledged_once_it_is_taken_and_its_replica_has_it():
    rig = Rig()
    for order in ("taken first", "copied first"):
        frame = rig.forward()
        assert rig.send() == [frame]
        assert frame.payload == (BODY,)
        assert (frame.header.incarnation, frame.header.sequence) == (22, frame.sequence)
        steps = [
            lambda frame=frame: rig.replica.taken(frame, [chunk()]),
            lambda frame=frame: rig.reply(frame),
        ]
        first, second = steps if order == "taken first" else steps[::-1]
        first()
        assert rig.told == []
        second()
        assert rig.told == [None]
        assert frame.payload is None
        rig.told.clear()
    assert len(rig.log) == 2  # not released yet
    assert rig.links == [rig.replica]


def test_a_frame_is_safe_and_released_when_all_its_chunks_are_durable():
    rig = Rig()
    one, other = chunk(0), chunk(1)
    first, second = rig.forward(), rig.forward()
    rig.send()
    rig.replica.taken(first, [one, other])
    rig.replica.taken(second, [other])
    rig.reply(first)
    assert rig.told == [None]
    rig.log.stored(other)
    assert rig.told == [None, None]  # the second one, which no replica has
    assert rig.released() == [second.sequence]
    rig.log.stored(one)
    assert rig.released() == [first.sequence]
    assert rig.replica.is_idle


def test_a_frame_of_blocks_that_are_all_durable_already_is_safe_at_once():
    rig = Rig()
    rig.replica_told = rig.forward()
    rig.log.replicas[22].taken(rig.replica_told, [])
    assert rig.told == [None]
    assert rig.send() == []
    assert rig.released() == []  # it was never sent
    assert rig.replica.is_idle


def test_what_is_stored_in_memory_is_neither_safe_nor_released():
    rig = Rig(volatile=True)
    frame, held = rig.forward(), chunk()
    rig.send()
    rig.replica.taken(frame, [held])
    rig.log.stored(held)
    assert rig.told == []
    rig.reply(frame)
    assert rig.told == [None]
    assert rig.released() == []
    assert rig.replica.is_idle  # its copy stays, and nothing is to be said of it


def test_a_frame_that_became_safe_before_it_was_sent_is_withdrawn_in_its_turn():
    """It was announced, so its grant comes; and the receiver does not answer it."""
    rig = Rig()
    frames = [rig.forward() for _ in range(3)]
    [announced] = rig.say()
    assert len(announced.announce) == 3
    rig.replica.taken(frames[1], [])
    rig.reply(granted=3)
    said = rig.say()
    assert [request.frame for request in said] == [frames[0], None, frames[2]]
    assert [request.withdrawn for request in said] == [False, True, False]
    rig.reply(frames[0], frames[2])
    with pytest.raises(ProtocolBroken):
        rig.reply(frames[1])


def test_a_frame_that_was_sent_and_abandoned_is_released_on_the_next_stream_too():
    rig = Rig()
    frames = [rig.forward() for _ in range(2)]
    rig.replica.taken(frames[1], [])  # safe already: not sent
    rig.reply(eager_bytes=1 << 20)
    assert rig.send() == [frames[0]]
    rig.replica.taken(frames[0], [chunk()])
    rig.reply(frames[0])
    assert rig.told == [None] * 2
    rig.replica.abandon(frames[0])
    assert rig.released() == [frames[0].sequence]
    rig.begin()
    assert rig.released() == [frames[0].sequence]


def test_a_broken_stream_sends_again_what_was_not_answered_under_the_same_sequence():
    rig = Rig()
    frames = [rig.forward() for _ in range(4)]
    for frame in frames:
        rig.replica.taken(frame, [chunk()])
    rig.send()
    rig.reply(frames[1])
    rig.replica.abandon(frames[2])
    rig.begin()
    assert rig.released() == [frames[2].sequence]  # it may have come
    assert rig.send() == [frames[0], frames[3]]


def test_what_is_released_is_told_until_a_later_frame_is_answered():
    rig = Rig()
    held = [chunk(n) for n in range(3)]
    frames = [rig.forward() for _ in range(3)]
    rig.send()
    for frame, one in zip(frames, held, strict=True):
        rig.replica.taken(frame, [one])
    rig.log.stored(held[0])
    assert rig.released() == [frames[0].sequence]
    rig.reply(frames[1])  # sent before the release was
    rig.begin()
    assert rig.released() == [frames[0].sequence]
    rig.send()
    rig.reply(frames[2])  # sent after it
    rig.begin()
    assert rig.released() == []
    rig.log.stored(held[1])
    assert rig.released() == [frames[1].sequence]
    rig.replica.end_stream()  # the replica has read everything, and said so
    rig.begin()
    assert rig.released() == []


def test_a_frame_that_nobody_waits_for_is_released_and_answers_nothing():
    rig = Rig()
    sent, unsent = rig.forward(), None
    rig.send()
    unsent = rig.forward()
    for frame in (sent, unsent):
        rig.replica.abandon(frame)
        assert frame.payload is None
    assert rig.released() == [sent.sequence]
    assert rig.send() == []
    rig.reply(sent)
    rig.replica.taken(sent, [chunk()])
    assert rig.told == []
    assert rig.replica.is_idle


def test_what_is_sealed_is_refused_unless_it_was_acknowledged():
    rig = Rig()
    safe, unsafe, untaken, other = (
        rig.forward(), rig.forward(), rig.forward(), rig.forward(key=AssignmentKey(EXCHANGE, 1, 1)),
    )  # fmt: skip
    rig.send()
    held = chunk()
    for frame in (safe, unsafe, other):
        rig.replica.taken(frame, [held])
    rig.reply(safe)
    error = NotAssigned("sealed")
    rig.log.refuse({KEY: error})
    assert rig.told == [None, error]
    rig.replica.taken(untaken, [])  # whoever takes it is told only now
    assert rig.told == [None, error, error]
    assert rig.released() == [unsafe.sequence, untaken.sequence]
    rig.log.stored(held)
    assert rig.told == [None, error, error, None]
    assert rig.released() == [safe.sequence, other.sequence]


def test_a_replica_that_is_gone_makes_nothing_safe_and_stores_do():
    rig = Rig()
    acknowledged, sent, unsent = rig.forward(), rig.forward(), rig.forward()
    rig.send()
    rig.reply(acknowledged)
    held = chunk()
    rig.log.gone(REF.incarnation)
    late = rig.forward()
    assert rig.links == [rig.replica]  # no link is made again
    for frame in (acknowledged, sent, unsent, late):
        assert frame.payload is None
        rig.replica.taken(frame, [held])
    assert rig.told == []  # not even the first one: its copy is gone
    assert rig.log.oldest_chunk() is held
    rig.log.stored(held)
    assert rig.told == [None] * 4
    rig.log.tick(1.0)
    assert not rig.log.replicas
    frame = rig.forward()
    assert rig.replica.is_gone
    assert frame.payload is None


def test_a_broken_frame_is_sent_again_a_few_times_and_then_refused():
    rig = Rig()
    frame = rig.forward()
    rig.replica.taken(frame, [chunk()])
    refusal = Refusal(frame.sequence, RefusalCode.BAD_FRAME, "torn")
    for _ in range(MAX_RESENDS + 1):
        assert rig.told == []
        assert rig.send() == [frame]
        assert rig.reply(refused=[refusal]) == []
    [error] = rig.told
    assert isinstance(error, DataCorrupted)
    assert rig.released() == [frame.sequence]  # whatever it has of it


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (RefusalCode.NOT_ASSIGNED, NotAssigned),
        (RefusalCode.EXCHANGE_CLOSED, ExchangeClosed),
    ],
)
def test_what_a_replica_refuses_is_refused_to_its_writer(code, kind):
    rig = Rig()
    frames = [rig.forward(), rig.forward(key=AssignmentKey(EXCHANGE, 1, 1))]
    for frame in frames:
        rig.replica.taken(frame, [chunk()])
    rig.send()
    sealed = rig.reply(refused=[Refusal(frames[1].sequence, code, "no")])
    assert sealed == ([(EXCHANGE, 1, 1)] if kind is NotAssigned else [])
    [error] = rig.told
    assert type(error) is kind
    assert frames[0].answer is not None


def test_a_reply_that_ends_the_stream_refuses_no_frame():
    """Or a seal that it tells of would be forgotten: it is told again on the next stream."""
    rig = Rig()
    frame = rig.forward()
    rig.replica.taken(frame, [chunk()])
    rig.send()
    refused = [
        Refusal(frame.sequence, RefusalCode.NOT_ASSIGNED, "sealed"),
        Refusal(0, RefusalCode.PROTOCOL, "rules"),
    ]
    with pytest.raises(ProtocolBroken):
        rig.reply(refused=refused)
    assert rig.told == []
    rig.begin()
    assert rig.send() == [frame]
    assert rig.reply(refused=refused[:1]) == [KEY]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal(0, RefusalCode.WRONG_INCARNATION, "new"), ReplicaReplaced),
        (Refusal(0, RefusalCode.PROTOCOL, "rules"), ProtocolBroken),
        (Refusal(0, RefusalCode.BAD_FRAME, "of none"), ProtocolBroken),
        (Refusal(1, RefusalCode.NO_CAPACITY, "full"), ProtocolBroken),
    ],
)
def test_other_refusals_end_the_stream(refusal, error):
    rig = Rig()
    rig.forward()
    rig.send()
    with pytest.raises(error):
        rig.reply(refused=[refusal])


def test_a_replica_stalls_when_it_answers_nothing_or_one_frame_too_late():
    rig = Rig()
    held = chunk()
    first = rig.forward()
    rig.replica.taken(first, [held])
    rig.send()
    assert not rig.log.tick(STALL_S - 0.01)
    assert rig.log.tick(STALL_S)
    rig.now = STALL_S
    second = rig.forward()
    rig.replica.taken(second, [held])
    rig.send()
    rig.reply(second, now=STALL_S)
    assert rig.log.oldest_chunk() is None
    assert not rig.log.tick(STALL_S + 0.1)
    rig.now = STALL_OLDEST_S
    third = rig.forward()
    rig.send()
    rig.reply(third, now=STALL_OLDEST_S)
    assert rig.log.tick(STALL_OLDEST_S)  # the first one is still not answered


def test_silence_is_counted_from_when_there_was_something_to_answer():
    rig = Rig()
    rig.now = 100.0
    frame = rig.forward()
    rig.replica.taken(frame, [chunk()])
    assert not rig.log.tick(100.0 + STALL_S / 2)


def test_stalled_chunks_are_flushed_oldest_first_and_one_of_a_buffer_at_a_time():
    rig = Rig()
    chunks = [chunk(n) for n in range(3)]
    frames = [rig.forward() for _ in range(3)]
    for frame, one in zip(frames, chunks, strict=True):
        rig.replica.taken(frame, [one, chunks[2]])
    assert rig.log.tick(1.0)
    assert rig.log.oldest_chunk() is chunks[0]
    buffer = chunks[0].buffer
    buffer.flushing = make_chunk(buffer)
    assert rig.log.oldest_chunk() is chunks[2]
    buffer.flushing = None
    rig.log.stored(chunks[0])
    assert rig.log.oldest_chunk() is chunks[2]


def test_records_are_bounded_by_flushing():
    rig = Rig(frames_max=4)
    held = chunk()
    for _ in range(4):
        assert not rig.log.is_full
        frame = rig.forward()
        rig.send()
        rig.replica.taken(frame, [held])
        rig.reply(frame)
    assert rig.log.is_full
    assert rig.log.oldest_chunk() is held
    rig.log.stored(held)
    assert not rig.log.is_full


def test_frames_that_were_given_up_are_counted_for_as_long_as_chunks_name_them():
    rig = Rig(frames_max=4)
    chunks = [chunk(n) for n in range(128)]
    for _ in range(4):
        assert not rig.log.is_full
        frame = rig.forward()
        rig.replica.taken(frame, chunks)
        rig.replica.abandon(frame)
    assert rig.log.is_full
    for one in chunks:
        rig.log.stored(one)
    assert not rig.log.is_full


def test_a_dropped_exchange_leaves_nothing():
    rig = Rig()
    held, others = chunk(), chunk(number=EXCHANGE + 1)
    frames = [rig.forward(), rig.forward(), rig.forward(key=AssignmentKey(EXCHANGE + 1, 0, 1))]
    rig.send()
    for frame, one in zip(frames, (held, held, others), strict=True):
        rig.replica.taken(frame, [one])
    rig.reply(frames[0])
    error = ExchangeClosed("closed")
    rig.log.drop(Going(EXCHANGE), [held], error)
    assert rig.told == [None, error]
    assert sorted(rig.released()) == [frames[0].sequence, frames[1].sequence]
    assert len(rig.log) == 1
    rig.log.stored(others)
    assert rig.told == [None, error, None]
    assert rig.replica.cost == 0


def test_dropped_epochs_leave_what_was_forwarded_of_later_ones():
    rig = Rig()
    old, later, other = (AssignmentKey(EXCHANGE, *place) for place in ((0, 1), (0, 2), (1, 1)))
    held, others = chunk(), chunk()
    frames = [rig.forward(key=key) for key in (old, later, other)]
    rig.send()
    for frame, one in zip(frames, (held, others, others), strict=True):
        rig.replica.taken(frame, [one])
    error = NotAssigned("over")
    rig.log.drop(Going(EXCHANGE, {0: 2}), [held], error)
    assert rig.told == [error]
    assert rig.released() == [frames[0].sequence]
    assert len(rig.log) == 2
    rig.log.stored(others)
    assert rig.told == [error, None, None]
    assert rig.replica.cost == 0


def test_only_those_who_have_waited_too_long_are_given_up():
    rig = Rig()
    first = rig.forward()
    rig.now = 5.0
    second = rig.forward()
    for frame in (first, second):
        rig.replica.taken(frame, [chunk()])
    error = CapacityExceeded("full")
    rig.log.give_up(4.0, error)
    assert rig.told == [error]
    assert second.answer is not None


def test_chunks_are_flushed_while_a_replica_holds_more_than_it_asked_for():
    rig = Rig()
    chunks = [chunk(n) for n in range(3)]
    for one in chunks:
        frame = rig.forward()
        rig.send()
        rig.replica.taken(frame, [one])
        rig.reply(frame)
    rig.reply(copies_max_bytes=0)
    assert rig.log.oldest_chunk() is None  # nothing was asked for
    rig.reply(copies_max_bytes=3 * len(BODY))
    assert rig.log.oldest_chunk() is None
    rig.reply(copies_max_bytes=2 * len(BODY) - 1)
    rig.reply(copies_max_bytes=0)  # a reply that says nothing of it
    assert rig.log.oldest_chunk() is chunks[0]
    rig.log.stored(chunks[0])
    assert rig.log.oldest_chunk() is chunks[1]
    rig.log.stored(chunks[1])
    assert rig.log.oldest_chunk() is None
    rig.forward()  # what was not sent takes no room there
    assert rig.log.oldest_chunk() is None
