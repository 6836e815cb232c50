"""What a primary tells writers and replicas about the frames that it forwarded."""

from __future__ import annotations

import pytest
from support.frame_making import EXCHANGE, block

from cosco.errors import CapacityExceeded, ExchangeClosed
from cosco.format.frame import FRAME_HEADER_BYTES, FrameHeader
from cosco.protocol.push.window import MAX_RESENDS, ProtocolBroken
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.state.buffers.assignments import NotAssigned
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, PartitionBuffer
from cosco.shuffle_service.state.replication.replica import (
    MAX_RELEASED,
    MAX_UNDER_WAY,
    STALL_OLDEST_S,
    STALL_S,
)
from cosco.shuffle_service.state.replication.replication_log import ReplicationLog

KEY = (EXCHANGE, 0, 1)
REF = DaemonRef(22, "there")
BODY = memoryview(block(0, 0))


class Rig:
    """A log with one replica and a stream to it; `told` is what writers were told."""

    def __init__(self, *, volatile: bool = False, frames_max: int = 1000) -> None:
        self.log = ReplicationLog(frames_max=frames_max)
        self.log.volatile = volatile
        self.links = []
        self.log.on_replica = self.links.append
        self.told: list[object] = []
        self.now = 0.0

    def forward(self, *, key=KEY, ref=REF):
        header = FrameHeader(key[0], 11, 5, key[1], key[2], len(BODY), 1)
        return self.log.forward(key, ref, header, BODY, now=self.now, settle=self.told.append)

    @property
    def replica(self):
        return self.log.replicas[REF.incarnation]

    def send(self, *frames):
        """Announce, be granted, send; what went out."""
        return self.replica.granted(len(self.replica.announce()))


def chunk(partition: int = 0, number: int = EXCHANGE) -> Chunk:
    buffer = PartitionBuffer((number, 0, 1), partition, f"p{partition}")
    buffer.open = Chunk(buffer)
    return buffer.open


def test_a_frame_is_acknowledged_once_it_is_taken_and_its_replica_has_it():
    rig = Rig()
    for order in ("taken first", "copied first"):
        frame = rig.forward()
        [(header, body)] = rig.send()
        assert body is BODY
        assert (header.incarnation, header.sequence) == (22, frame.sequence)
        steps = [
            lambda frame=frame: rig.replica.taken(frame, [chunk()]),
            lambda frame=frame: rig.replica.acknowledged([frame.sequence], 0.0),
        ]
        first, second = steps if order == "taken first" else steps[::-1]
        first()
        assert rig.told == []
        second()
        assert rig.told == [None]
        assert frame.body is None
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
    rig.replica.acknowledged([first.sequence], 0.0)
    assert rig.told == [None]
    rig.log.stored(other)
    assert rig.told == [None, None]  # the second one, which no replica has
    assert rig.replica.take_released() == [second.sequence]
    rig.log.stored(one)
    assert rig.replica.take_released() == [first.sequence]
    assert rig.replica.is_idle


def test_a_frame_of_blocks_that_are_all_durable_already_is_safe_at_once():
    rig = Rig()
    rig.replica_told = rig.forward()
    rig.log.replicas[22].taken(rig.replica_told, [])
    assert rig.told == [None]
    assert rig.send() == []
    assert rig.replica.take_released() == []  # it was never sent
    assert rig.replica.is_idle


def test_what_is_stored_in_memory_is_neither_safe_nor_released():
    rig = Rig(volatile=True)
    frame, held = rig.forward(), chunk()
    rig.send()
    rig.replica.taken(frame, [held])
    rig.log.stored(held)
    assert rig.told == []
    rig.replica.acknowledged([frame.sequence], 0.0)
    assert rig.told == [None]
    assert rig.replica.take_released() == []
    assert rig.replica.is_idle  # its copy stays, and nothing is to be said of it


def test_a_frame_that_became_safe_before_it_was_sent_leaves_an_empty_place():
    """It was announced, so its grant comes; and the receiver does not answer it."""
    rig = Rig()
    frames = [rig.forward() for _ in range(3)]
    assert len(rig.replica.announce()) == 3
    rig.replica.taken(frames[1], [])
    assert [item and item[0].sequence for item in rig.replica.granted(3)] == [
        frames[0].sequence, None, frames[2].sequence,
    ]  # fmt: skip
    assert rig.replica.take_released() == []
    rig.replica.acknowledged([frames[0].sequence, frames[2].sequence], 0.0)
    with pytest.raises(ProtocolBroken):
        rig.replica.acknowledged([frames[1].sequence], 0.0)


def test_small_frames_are_sent_without_a_grant_as_far_as_the_replica_allows():
    rig = Rig()
    frames = [rig.forward() for _ in range(4)]
    length = FRAME_HEADER_BYTES + frames[0].header.body_bytes
    assert rig.replica.send_eagerly() == []
    rig.replica.taken(frames[1], [])  # safe already: not sent, and takes no room
    rig.replica.allow_eager(2 * length)
    assert [h.sequence for h, _ in rig.replica.send_eagerly()] == [frames[0].sequence]
    assert [h.sequence for h, _ in rig.replica.send_eagerly()] == [frames[2].sequence]
    assert rig.replica.is_under_way
    assert rig.replica.send_eagerly() == []
    assert rig.replica.announce() == [length]
    for frame in (frames[0], frames[2]):
        rig.replica.taken(frame, [chunk()])
    rig.replica.acknowledged([frames[0].sequence, frames[2].sequence], 0.0)
    assert rig.told == [None] * 3
    rig.replica.abandon(frames[0])
    assert rig.replica.take_released() == [frames[0].sequence]  # it was sent
    rig.replica.begin_stream()
    assert rig.replica.send_eagerly() == []  # as the next stream has not allowed it
    assert rig.replica.announce() == [length]


def test_a_broken_stream_sends_again_what_was_not_answered_under_the_same_sequence():
    rig = Rig()
    frames = [rig.forward() for _ in range(4)]
    for frame in frames:
        rig.replica.taken(frame, [chunk()])
    rig.send()
    rig.replica.acknowledged([frames[1].sequence], 0.0)
    rig.replica.abandon(frames[2])
    rig.replica.begin_stream()
    assert rig.replica.take_released() == [frames[2].sequence]  # it may have come
    assert [header.sequence for header, _ in rig.send()] == [
        frames[0].sequence, frames[3].sequence,
    ]  # fmt: skip


def test_what_is_released_is_told_until_a_later_frame_is_answered():
    rig = Rig()
    held = [chunk(n) for n in range(3)]
    frames = [rig.forward() for _ in range(3)]
    rig.send()
    for frame, one in zip(frames, held, strict=True):
        rig.replica.taken(frame, [one])
    rig.log.stored(held[0])
    assert rig.replica.take_released() == [frames[0].sequence]
    rig.replica.acknowledged([frames[1].sequence], 0.0)  # sent before the release was
    rig.replica.begin_stream()
    assert rig.replica.take_released() == [frames[0].sequence]
    rig.send()
    rig.replica.acknowledged([frames[2].sequence], 0.0)  # sent after it
    rig.replica.begin_stream()
    assert rig.replica.take_released() == []
    rig.log.stored(held[1])
    assert rig.replica.take_released() == [frames[1].sequence]
    rig.replica.end_stream()  # the replica has read everything, and said so
    rig.replica.begin_stream()
    assert rig.replica.take_released() == []


def test_a_frame_that_nobody_waits_for_is_released_and_settles_nothing():
    rig = Rig()
    sent, unsent = rig.forward(), None
    rig.send()
    unsent = rig.forward()
    for frame in (sent, unsent):
        rig.replica.abandon(frame)
        assert frame.body is None
    assert rig.replica.take_released() == [sent.sequence]
    assert rig.send() == []
    rig.replica.acknowledged([sent.sequence], 0.0)
    rig.replica.taken(sent, [chunk()])
    assert rig.told == []
    assert rig.replica.is_idle


def test_what_is_sealed_is_refused_unless_it_was_acknowledged():
    rig = Rig()
    safe, unsafe, untaken, other = (
        rig.forward(), rig.forward(), rig.forward(), rig.forward(key=(EXCHANGE, 1, 1)),
    )  # fmt: skip
    rig.send()
    held = chunk()
    for frame in (safe, unsafe, other):
        rig.replica.taken(frame, [held])
    rig.replica.acknowledged([safe.sequence], 0.0)
    error = NotAssigned("sealed")
    rig.log.refuse({KEY: error})
    assert rig.told == [None, error]
    rig.replica.taken(untaken, [])  # whoever takes it is told only now
    assert rig.told == [None, error, error]
    assert rig.replica.take_released() == [unsafe.sequence, untaken.sequence]
    rig.log.stored(held)
    assert rig.told == [None, error, error, None]
    assert rig.replica.take_released() == [safe.sequence, other.sequence]


def test_a_replica_that_is_gone_makes_nothing_safe_and_stores_do():
    rig = Rig()
    acknowledged, sent, unsent = rig.forward(), rig.forward(), rig.forward()
    rig.send()
    rig.replica.acknowledged([acknowledged.sequence], 0.0)
    held = chunk()
    rig.log.lost(REF.incarnation)
    late = rig.forward()
    assert rig.links == [rig.replica]  # no link is made again
    for frame in (acknowledged, sent, unsent, late):
        assert frame.body is None
        rig.replica.taken(frame, [held])
    assert rig.told == []  # not even the first one: its copy is gone
    assert rig.log.oldest_chunk() is held
    rig.log.stored(held)
    assert rig.told == [None] * 4
    rig.log.tick(1.0)
    assert not rig.log.replicas
    frame = rig.forward()
    assert rig.replica.is_lost
    assert frame.body is None


def test_a_refused_frame_is_sent_again_a_few_times():
    rig = Rig()
    frame = rig.forward()
    for _ in range(MAX_RESENDS):
        assert len(rig.send()) == 1
        assert rig.replica.refused(frame.sequence) is frame
        assert rig.send() == []
        assert rig.replica.resend(frame)
    rig.send()
    assert rig.replica.refused(frame.sequence) is frame
    assert not rig.replica.resend(frame)


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
    rig.replica.acknowledged([second.sequence], STALL_S)
    assert rig.log.oldest_chunk() is None
    assert not rig.log.tick(STALL_S + 0.1)
    rig.now = STALL_OLDEST_S
    third = rig.forward()
    rig.send()
    rig.replica.acknowledged([third.sequence], STALL_OLDEST_S)
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
    buffer.flushing = Chunk(buffer)
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
        rig.replica.acknowledged([frame.sequence], 0.0)
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
    frames = [rig.forward(), rig.forward(), rig.forward(key=(EXCHANGE + 1, 0, 1))]
    rig.send()
    for frame, one in zip(frames, (held, held, others), strict=True):
        rig.replica.taken(frame, [one])
    rig.replica.acknowledged([frames[0].sequence], 0.0)
    error = ExchangeClosed("closed")
    rig.log.drop(EXCHANGE, [held], error)
    assert rig.told == [None, error]
    assert sorted(rig.replica.take_released()) == [frames[0].sequence, frames[1].sequence]
    assert len(rig.log) == 1
    rig.log.stored(others)
    assert rig.told == [None, error, None]
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
    assert second.settle is not None


def test_what_is_under_way_and_what_one_message_says_are_bounded():
    rig = Rig(frames_max=100_000)
    frames = [rig.forward() for _ in range(MAX_RELEASED + 1)]
    assert len(rig.replica.announce()) == MAX_UNDER_WAY
    assert rig.replica.announce() == []
    sent = 0
    while sent < len(frames):
        sequences = [header.sequence for header, _ in rig.replica.granted(1)]
        rig.replica.acknowledged(sequences, 0.0)
        rig.replica.announce()
        sent += 1
    for frame in frames:
        rig.replica.taken(frame, [])
    assert len(rig.replica.take_released()) == MAX_RELEASED
    assert len(rig.replica.take_released()) == 1


def test_chunks_are_flushed_while_a_replica_holds_more_than_it_asked_for():
    rig = Rig()
    chunks = [chunk(n) for n in range(3)]
    for one in chunks:
        frame = rig.forward()
        rig.send()
        rig.replica.taken(frame, [one])
        rig.replica.acknowledged([frame.sequence], 0.0)
    rig.replica.bounded(0)
    assert rig.log.oldest_chunk() is None  # nothing was asked for
    rig.replica.bounded(3 * len(BODY))
    assert rig.log.oldest_chunk() is None
    rig.replica.bounded(2 * len(BODY) - 1)
    rig.replica.bounded(0)  # a reply that says nothing of it
    assert rig.log.oldest_chunk() is chunks[0]
    rig.log.stored(chunks[0])
    assert rig.log.oldest_chunk() is chunks[1]
    rig.log.stored(chunks[1])
    assert rig.log.oldest_chunk() is None
    rig.forward()  # what was not sent takes no room there
    assert rig.log.oldest_chunk() is None
