"""What a reader is given of a partition: one look at it. No IO."""

from __future__ import annotations

from dataclasses import dataclass

from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment
from cosco.shuffle_service.state.segments.segment_indexes import KeptIndexes


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of a snapshot, at its length of that moment."""

    chunk: Chunk
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A partition at one moment: the segments that may have some of it, and what is in memory."""

    segments: list[StoredSegment]
    pieces: list[Piece]


def look_at(held: AssignmentBuffers, partition: int, indexes: KeptIndexes) -> Snapshot:
    """Return what there is of a partition now.

    A segment whose index is kept is left out if it has nothing of it.
    """

    def may_have(segment: StoredSegment) -> bool:
        index = indexes.get(segment.path, segment.size_bytes)
        return index is None or index.find(partition) is not None

    buffer = held.buffers.get(partition)
    chunks = [] if buffer is None else buffer.chunks()
    return Snapshot(
        [segment for segment in held.segments_of(partition) if may_have(segment)],
        [Piece(chunk, chunk.body_bytes) for chunk in chunks],
    )
