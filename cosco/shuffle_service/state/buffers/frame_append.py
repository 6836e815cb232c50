"""Appends what is new of a frame to the buffers of its partitions, as far as there is room.

Bookkeeping over an arena of bytes that is passed in; who may have how much is decided by
`cosco.shuffle_service.state.buffers.limits`, and what is flushed when by the caller, who is told
which chunks were opened and which fill a segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from cosco.format.block import HEADER_BYTES, POSITION_SHIFT
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.shuffle_service.state.buffers.dedupe import DedupeIndex
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, Run
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, PartitionBuffer
from cosco.shuffle_service.state.buffers.pool import PagePool


class Room(NamedTuple):
    """What buffers may have of the pool beside what they have, in bytes.

    ahead: what of that they may take beyond their need; less than 0: nothing. Each page that is
    taken lessens both by its size.
    """

    bytes: int
    ahead: int


class Appended(NamedTuple):
    """How far a frame is in, and how many blocks of it were looked at and held already.

    rows: of all blocks that were looked at.
    next_run: the first of its runs that is not in. opened: the buffers that have an open chunk
    now, and had none. filled: those whose open chunk fills a segment, and none of whose is being
    written, once for each append; both in the order in which that happened.
    """

    next_run: int
    blocks: int
    duplicates: int
    rows: int
    opened: list[PartitionBuffer]
    filled: list[PartitionBuffer]


def append_frame(
    arena: memoryview,
    pool: PagePool,
    dedupe: DedupeIndex,
    buffers: dict[int, PartitionBuffer],
    key: AssignmentKey,
    frame: CheckedFrame,
    first_run: int,
    room: Room,
    segment_bytes: int,
) -> Appended:
    """Append the new blocks of a frame, from `first_run` on, until a run does not fit.

    dedupe, buffers: of the assignment `key`; a partition without a buffer is given one.
    segment_bytes: the length of a chunk that fills a segment.
    """
    appending = _Appending(arena, pool, room, segment_bytes, [], [])
    blocks = duplicates = rows = 0
    next_run = first_run
    for run in frame.runs[first_run:]:
        buffer = buffers.get(run.partition)
        if buffer is None:
            buffer = buffers[run.partition] = PartitionBuffer(key, run.partition)
        chunk = buffer.open or _EMPTY
        # A run of which some is held already may need less than this.
        grows = chunk.length + len(run.data) > chunk.capacity
        if grows and chunk.room_needed(len(run.data)) > appending.room.bytes:
            break
        blocks += len(run.blocks)
        duplicates += len(run.blocks)
        rows += sum((b.end >> POSITION_SHIFT) - (b.position >> POSITION_SHIFT) for b in run.blocks)
        for data, count in _fresh(dedupe, frame.mapper_attempt, run):
            appending.append(buffer, data, count)
            duplicates -= count
        next_run += 1
    return Appended(next_run, blocks, duplicates, rows, appending.opened, appending.filled)


@dataclass(slots=True)
class _Appending:
    """Appends to chunks, and what came of it; see `append_frame`."""

    arena: memoryview
    pool: PagePool
    room: Room
    segment_bytes: int
    opened: list[PartitionBuffer]
    filled: list[PartitionBuffer]

    def append(self, buffer: PartitionBuffer, data: memoryview, blocks: int) -> None:
        chunk = buffer.open
        if chunk is None:
            chunk = buffer.open = Chunk(buffer)
            self.opened.append(buffer)
        if chunk.length + len(data) > chunk.capacity:
            before = chunk.capacity
            chunk.grow(self.pool, chunk.room_needed(len(data)), max(0, self.room.ahead - len(data)))
            taken = chunk.capacity - before
            self.room = Room(self.room.bytes - taken, self.room.ahead - taken)
        chunk.append(self.arena, data)
        chunk.blocks += blocks
        if chunk.length >= self.segment_bytes and buffer.flushing is None:
            self.filled.append(buffer)


def _fresh(
    dedupe: DedupeIndex, mapper_attempt: MapperAttempt, run: Run
) -> list[tuple[memoryview, int]]:
    """Note that all of a run is held. Returns the parts that were not: (bytes, blocks)."""
    claim, partition = dedupe.claim, run.partition
    fresh: list[tuple[memoryview, int]] = []
    start = offset = count = 0
    for block in run.blocks:
        end = offset + HEADER_BYTES + block.stored_bytes
        if claim(mapper_attempt, partition, block.position, block.end):
            count += 1
        else:
            if count:
                fresh.append((run.data[start:offset], count))
            start, count = end, 0
        offset = end
    if count:
        fresh.append((run.data[start:offset] if fresh or start else run.data, count))
    return fresh


#: What a buffer without an open chunk is as good as.
_EMPTY: Final = Chunk(PartitionBuffer(AssignmentKey(0, 0, 0), 0))
