"""Which chunks are written together, and how they become a segment. No IO.

Why neighbours, and why half: docs/architecture/segments.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosco.format.segment import (
    SegmentId,
    SegmentIndex,
    SegmentName,
    encode_index,
    segment_name,
)
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import PartitionRange
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, PartitionBuffer
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment


@dataclass(slots=True, eq=False)
class Flush:
    """One segment to write.

    parts: the bytes of its chunks, in pages. index_bytes: what follows them. length: of both
    together. capacity: bytes of the pages. tenant: whose rows; 0: nobody's. retry_s: the wait
    before it is tried again, once it has failed. began_at: when the store was given it, while it is
    under way. hangs: whether that has been for too long.
    """

    key: AssignmentKey
    id: SegmentId
    path: str
    chunks: list[Chunk]
    parts: list[memoryview]
    index: SegmentIndex
    index_bytes: bytes
    length: int
    capacity: int
    tenant: int = 0
    retry_s: float = 0.0
    began_at: float | None = None
    hangs: bool = False

    @property
    def body_bytes(self) -> int:
        """Return the length of all its blocks."""
        return sum(self.index.body_bytes)

    def is_dropped(self) -> bool:
        """Whether its assignment was dropped; may change while something else is awaited."""
        return self.chunks[0].is_dropped()


def neighbours(
    seed: PartitionBuffer,
    buffers: Mapping[int, PartitionBuffer],
    partition_range: PartitionRange,
    segment_bytes: int,
    *,
    takes_all: bool,
) -> list[PartitionBuffer]:
    """Return the buffers whose open chunks go into one segment with that of `seed`, ascending.

    The nearest that have half of its length or more, or any with `takes_all`, until there are
    `segment_bytes`. One that has these by itself gets a segment of its own.
    """
    assert seed.open is not None
    total = seed.open.length
    least_bytes = 0 if takes_all else total / 2
    found = [seed]
    for distance in range(1, partition_range.count):
        if total >= segment_bytes:
            break
        for partition in (seed.partition - distance, seed.partition + distance):
            buffer = buffers.get(partition)
            if buffer is None or buffer.open is None or buffer.flushing is not None:
                continue
            if least_bytes <= buffer.open.length < segment_bytes and total < segment_bytes:
                found.append(buffer)
                total += buffer.open.length
    return sorted(found, key=lambda buffer: buffer.partition)


def begin_segment(
    buffers: Sequence[PartitionBuffer],
    arena: memoryview,
    incarnation: int,
    serial: int,
    folder: str,
) -> Flush:
    """Close the open chunks of some buffers of one assignment, ascending, and lay them out."""
    key = buffers[0].key
    name = SegmentName(buffers[0].partition, buffers[-1].partition, incarnation, serial)
    path = folder + segment_name(name)
    laid = mechanics_choice.CHOSEN.lay_out(buffers, arena, incarnation, path)
    segment_id = SegmentId(key.number, key.range_index, key.epoch, incarnation, serial)
    tail = encode_index(segment_id, laid.index, laid.end)
    return Flush(
        key=key,
        id=segment_id,
        path=path,
        chunks=laid.chunks,
        parts=laid.parts,
        index=laid.index,
        index_bytes=tail,
        length=laid.end + len(tail),
        capacity=laid.capacity,
    )


def stored_segment(flush: Flush) -> StoredSegment:
    """Return what is kept of a flush that is durable."""
    partitions = flush.index.partitions
    return StoredSegment(flush.id, flush.path, flush.length, partitions[0], partitions[-1])
