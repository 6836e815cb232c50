"""One assignment as a daemon holds it, as its primary or as its replica."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cosco.errors import DataCorrupted
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.mark import Mark, decode_mark
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.records import DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.dedupe import DedupeIndex
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoard
from cosco.shuffle_service.state.buffers.partition_buffer import (
    Chunk,
    ChunkState,
    PartitionBuffer,
)
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment


def _new_index() -> DedupeIndex:
    return mechanics_choice.CHOSEN.dedupe_index()


@dataclass(slots=True, eq=False)
class AssignmentBuffers:
    """One assignment of this daemon: what its primary puts there, or the copies it absorbed.

    replica: to whom frames are forwarded; None for a single copy, and at the replica.
    copied_from: at the replica, the incarnation of the primary; 0 at the primary.
    build: of the range, which the epoch is of.
    tenant: the tag of the tenant whose rows it has; 0: nobody's.
    trace: the span that made the exchange, as of its `ExchangeSpec`.
    mappers: of an exchange of a group, else 0. board: their marks; None if there is no room.
    segments: those that are stored, oldest first.
    """

    key: AssignmentKey
    partition_range: PartitionRange
    replica: DaemonRef | None = None
    copied_from: int = 0
    sealed: bool = False
    build: int = 1
    tenant: int = 0
    trace: str = ""
    mappers: int = 0
    board: MarkBoard | None = None
    buffers: dict[int, PartitionBuffer] = field(default_factory=dict)
    dedupe: DedupeIndex = field(default_factory=_new_index)
    segments: list[StoredSegment] = field(default_factory=list)

    def check_takes_in(self, primary: int) -> None:
        """Raise NotAssigned unless frames are taken here from `primary` (0: from writers)."""
        if self.sealed:
            raise NotAssigned(f"{self.key} is sealed; ask for the assignment again")
        if self.copied_from != primary:
            raise NotAssigned(
                f"{self.key} is another daemon's to take; ask for the assignment again"
            )

    def check_partitions(self, frame: CheckedFrame) -> None:
        """Raise DataCorrupted for a frame with a partition outside of the range."""
        first = self.partition_range.first
        if (partition := frame.outside(first, first + self.partition_range.count)) is not None:
            where = f"in a frame of range {self.key.range_index}"
            raise DataCorrupted(f"a block of partition {partition} {where}")

    def mark_of(self, frame: CheckedFrame) -> Mark | None:
        """Return the mark that a frame ends with; raises DataCorrupted if it belongs elsewhere."""
        if frame.mark is None:
            return None
        if not self.mappers:
            raise DataCorrupted(f"a mark in exchange {self.key.number}, which is of no group")
        mark = decode_mark(*frame.mark, self.partition_range)
        if mark.mapper >= self.mappers:
            raise DataCorrupted(f"a mark of mapper {mark.mapper} of {self.mappers}")
        return mark

    def unstored_chunks(self, frame: CheckedFrame) -> Iterator[Chunk]:
        """Yield the last chunk that is not durable of each partition of the frame.

        Chunks of a buffer become durable in order. So when these are, all blocks of a frame
        that was taken whole are, also those that were dropped as held already. With a mark, of
        each partition of the range: it speaks of earlier frames.
        """
        of_frame = set(frame.partitions())
        for partition in of_frame if frame.mark is None else self.buffers:
            buffer = self.buffers.get(partition)
            if buffer is not None:
                chunk = buffer.open or buffer.flushing
                if chunk is not None or buffer.waiting:
                    yield chunk or buffer.waiting[-1]

    def segments_of(self, partition: int) -> list[StoredSegment]:
        """Return the segments that may have chunks of a partition."""
        return [one for one in self.segments if one.first <= partition <= one.last]

    def in_memory(self) -> Iterator[Chunk]:
        """Yield all chunks that are in no store."""
        for buffer in self.buffers.values():
            yield from buffer.chunks()

    def unstored_bytes(self) -> int:
        """Return the bytes of blocks in buffers that are in no store yet."""
        return sum(chunk.body_bytes for chunk in self.in_memory())

    def drop(self) -> Iterator[Chunk]:
        """Give up all rows in memory. Yields the chunks whose pages are free now: one that is
        being written keeps its own until that has ended."""
        for chunk in self.in_memory():
            chunk.state = ChunkState.DROPPED
        for buffer in self.buffers.values():
            if buffer.open is not None:
                yield buffer.open
                buffer.open = None
