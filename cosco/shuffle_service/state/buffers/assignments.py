"""One assignment as a daemon holds it, as its primary or as its replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cosco.errors import CoscoError, DataCorrupted
from cosco.format.block import HEADER_BYTES
from cosco.protocol.mark import Mark, decode_mark
from cosco.protocol.records import DaemonRef, PartitionRange
from cosco.shuffle_service.state.buffers.dedupe import DedupeIndex, Sender
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, Run
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoard
from cosco.shuffle_service.state.buffers.partition_buffer import (
    AssignmentKey,
    Chunk,
    PartitionBuffer,
)

#: Tells whoever sent a frame what became of it: None if it is held, or why it is not.
Settle = Callable[[CoscoError | None], None]


class NotAssigned(CoscoError):
    """The assignment is not this daemon's, or it is sealed."""


@dataclass(slots=True, eq=False)
class AssignmentBuffers:
    """One assignment of this daemon: what its primary puts there, or its settled copies.

    replica: to whom frames are forwarded; None for a single copy, and at the replica.
    copied_from: at the replica, the incarnation of the primary; 0 at the primary.
    mappers: of an exchange of a group, else 0. board: their marks; None if there is no room.
    """

    key: AssignmentKey
    partitions: PartitionRange
    replica: DaemonRef | None = None
    copied_from: int = 0
    sealed: bool = False
    mappers: int = 0
    board: MarkBoard | None = None
    buffers: dict[int, PartitionBuffer] = field(default_factory=dict)
    dedupe: DedupeIndex = field(default_factory=DedupeIndex)

    def check_takes(self, primary: int) -> None:
        """Raise NotAssigned unless frames are taken here from `primary` (0: from writers)."""
        number, range_index, epoch = self.key
        if self.sealed:
            raise NotAssigned(
                f"range {range_index} of exchange {number} is sealed in epoch {epoch}; ask for "
                "the assignment again"
            )
        if self.copied_from != primary:
            raise NotAssigned(
                f"range {range_index} of exchange {number} in epoch {epoch} is another daemon's "
                "to take; ask for the assignment again"
            )

    def check_partitions(self, frame: CheckedFrame) -> None:
        """Raise DataCorrupted for a frame with a partition outside of the range."""
        first, end = self.partitions.first, self.partitions.first + self.partitions.count
        for run in frame.runs:
            if not first <= run.partition < end:
                raise DataCorrupted(
                    f"a block of partition {run.partition} in a frame of range {self.key[1]}"
                )

    def mark_of(self, frame: CheckedFrame) -> Mark | None:
        """The mark that a frame ends with; raises DataCorrupted for one that is none of here."""
        if frame.mark is None:
            return None
        if not self.mappers:
            raise DataCorrupted(f"a mark in exchange {self.key[0]}, which is of no group")
        mark = decode_mark(*frame.mark, self.partitions)
        if mark.mapper >= self.mappers:
            raise DataCorrupted(f"a mark of mapper {mark.mapper} of {self.mappers}")
        return mark

    def fresh(self, sender: Sender, run: Run) -> list[tuple[memoryview, int]]:
        """The parts of a run that are not held yet, as (bytes, blocks); marks them held."""
        claim, partition = self.dedupe.claim, run.partition
        fresh: list[tuple[memoryview, int]] = []
        start = offset = count = 0
        for block in run.blocks:
            end = offset + HEADER_BYTES + block.stored_bytes
            if claim(sender, partition, block.position, block.end):
                count += 1
            else:
                if count:
                    fresh.append((run.data[start:offset], count))
                start, count = end, 0
            offset = end
        if count:
            fresh.append((run.data[start:offset] if fresh or start else run.data, count))
        return fresh

    def unstored_chunks(self, frame: CheckedFrame) -> Iterator[Chunk]:
        """Of each partition of the frame the last chunk that is not durable.

        Chunks of a buffer become durable in order. So when these are, all blocks of a frame
        that was taken whole are, also those that were dropped as held already. With a mark, of
        each partition of the range: it speaks of earlier frames.
        """
        of_frame = {run.partition for run in frame.runs}
        for partition in of_frame if frame.mark is None else self.buffers:
            buffer = self.buffers.get(partition)
            chunk = (buffer.open or buffer.flushing) if buffer is not None else None
            if chunk is not None:
                yield chunk

    def in_memory(self) -> Iterator[Chunk]:
        """All chunks that are not durable."""
        for buffer in self.buffers.values():
            for chunk in (buffer.flushing, buffer.open):
                if chunk is not None:
                    yield chunk

    def unstored_bytes(self) -> int:
        """Bytes of blocks in buffers that are in no store yet."""
        return sum(chunk.body_bytes for chunk in self.in_memory())
