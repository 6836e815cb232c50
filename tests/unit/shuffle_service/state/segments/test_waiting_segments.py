"""When copies may go of segments that become durable after they were stored."""

from __future__ import annotations

import pytest
from support.daemon_mechanics import chunk as make_chunk
from support.daemon_mechanics import partition_buffer

from cosco.format.segment import SegmentId, SegmentIndex
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.replication.replica import ReplicationLog
from cosco.shuffle_service.state.segments.segment_choice import Flush
from cosco.shuffle_service.state.segments.waiting_segments import WaitingSegments

KEY = AssignmentKey(1, 0, 1)


class Rig:
    """An assignment with two partitions, and what was said to be durable of it."""

    def __init__(self, *, copies: bool = True) -> None:
        self.durable: list[str] = []
        self.hurried: list[str] = []
        self.log = ReplicationLog(incarnation=1, frames_max=100)
        self.log.stored = lambda chunk: self.durable.append(f"{chunk.path}:{chunk.offset}")  # type: ignore[method-assign]
        self.waiting = WaitingSegments(self.log)
        self.waiting.hurry = self.hurried.append
        replica = DaemonRef(2, "host:1") if copies else None
        self.held = AssignmentBuffers(KEY, PartitionRange(0, 0, 2), replica)
        for partition in range(2):
            self.held.buffers[partition] = partition_buffer(KEY, partition)

    def store(self, path: str, *partitions: int, is_durable: bool = False) -> None:
        chunks = [make_chunk(self.held.buffers[p], path=path, offset=p) for p in partitions]
        segment_id = SegmentId(1, 0, 1, 1, 1)
        flush = Flush(KEY, segment_id, path, chunks, [], SegmentIndex(), b"", 0, 0)
        self.waiting.stored(self.held, flush, is_durable=is_durable)

    def taken(self) -> list[str]:
        """The segments that a frame would wait for that is taken in now."""
        return [buffer.waiting[-1].path for buffer in self.held.buffers.values() if buffer.waiting]


def test_copies_go_when_their_segment_is_durable() -> None:
    rig = Rig()
    rig.store("a", 0, 1)
    assert (rig.durable, rig.hurried, rig.log.on_their_way) == ([], ["a"], 1)
    assert rig.taken() == ["a", "a"]
    rig.waiting.durable("a")
    assert rig.durable == ["a:0", "a:1"]
    assert rig.log.on_their_way == len(rig.waiting) == rig.waiting.of(KEY) == 0
    rig.waiting.durable("a")
    assert rig.durable == ["a:0", "a:1"]


def test_a_segment_that_is_durable_at_once_is_as_it_always_was() -> None:
    rig = Rig()
    rig.store("a", 0, 1, is_durable=True)
    assert (rig.durable, rig.hurried, len(rig.waiting)) == (["a:0", "a:1"], [], 0)


def test_the_chunks_of_a_partition_count_in_their_order() -> None:
    rig = Rig()
    rig.store("a", 0)
    rig.store("b", 0, 1)
    rig.store("c", 0, 1, is_durable=True)  # past a flash that was full
    rig.waiting.durable("b")
    assert rig.durable == ["b:1", "c:1"]
    assert rig.taken() == ["c"]
    rig.waiting.durable("a")
    assert rig.durable == ["b:1", "c:1", "a:0", "b:0", "c:0"]
    assert rig.taken() == []


def test_what_is_lost_holds_up_no_others_and_keeps_its_copies() -> None:
    rig = Rig()
    rig.store("a", 0)
    rig.store("b", 0)
    rig.waiting.durable("b")
    rig.waiting.lost("a")
    assert rig.durable == ["b:0"]
    assert rig.log.on_their_way == len(rig.waiting) == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_without_copies_nothing_is_kept_and_only_a_seal_hurries(sealed: bool) -> None:
    rig = Rig(copies=False)
    rig.held.sealed = sealed
    rig.store("a", 0, 1)
    assert rig.hurried == (["a"] if sealed else [])
    assert rig.taken() == []
    assert rig.waiting.of(KEY) == 1
    assert rig.log.on_their_way == 0
    rig.waiting.durable("a")
    assert rig.durable == []
    assert rig.waiting.of(KEY) == 0


def test_what_is_dropped_is_forgotten() -> None:
    rig = Rig()
    rig.store("a", 0)
    rig.store("b", 0, 1)
    dropped = rig.waiting.drop([rig.held])
    assert sorted((chunk.path, chunk.offset) for chunk in dropped) == [
        ("a", 0), ("b", 0), ("b", 1),
    ]  # fmt: skip
    assert rig.log.on_their_way == len(rig.waiting) == 0
    rig.waiting.durable("a")
    assert rig.durable == []
