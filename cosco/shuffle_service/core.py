"""What a daemon holds, and what it decides: no IO, no clock, no event loop.

`DaemonCore` owns the page pool and the buffers of every assignment it was told of. The
server feeds it checked frames, the flusher asks it what to write next, readers take
snapshots. All memory it uses is in its arena, but for bookkeeping, which is bounded by
counting (`_BOOKKEEPING_SHARE` of `--memory` is left to it).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from cosco.records import Assignment, PartitionRange
from cosco.shuffle_service.buffers import AssignmentKey, Chunk, ChunkState, PartitionBuffer
from cosco.shuffle_service.dedupe import ENTRY_BYTES, DedupeIndex, Sender
from cosco.shuffle_service.intake import CheckedFrame, Run
from cosco.shuffle_service.pool import MAX_PAGE_BYTES, PagePool

#: This part of the memory is for bookkeeping rather than for pages.
_BOOKKEEPING_SHARE: Final = 1 / 16
#: Below this share of free pages the largest buffers are flushed, whatever their size.
_LOW_WATER_SHARE: Final = 1 / 4
#: Pages are taken ahead of need only while more than this share is free.
_ROOMY_SHARE: Final = 1 / 2
#: Numbers of dropped exchanges that are remembered, to refuse what still comes for them.
_REMEMBERED_DROPS: Final = 4096


def pool_bytes(memory_bytes: int) -> int:
    """How much of `--memory` becomes pages."""
    pages = int(memory_bytes * (1 - _BOOKKEEPING_SHARE))
    return pages // MAX_PAGE_BYTES * MAX_PAGE_BYTES


@dataclass(slots=True, eq=False)
class AssignmentBuffers:
    """One assignment this daemon serves as its primary."""

    key: AssignmentKey
    partitions: PartitionRange
    buffers: dict[int, PartitionBuffer] = field(default_factory=dict)
    dedupe: DedupeIndex = field(default_factory=DedupeIndex)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a frame's blocks up to run `next_run`."""

    next_run: int
    blocks: int
    duplicates: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Flush:
    """One write to make: the chunk, its file, and its bytes, padded to whole pages."""

    buffer: PartitionBuffer
    chunk: Chunk
    parts: list[memoryview]


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of a snapshot, at its length of that moment."""

    chunk: Chunk
    body_bytes: int


class DaemonCore:
    """The buffers of one daemon. `arena` has `pool_bytes(memory_bytes)` bytes."""

    def __init__(self, *, arena: memoryview, incarnation: int, chunk_bytes: int) -> None:
        self.arena = arena
        self.incarnation = incarnation
        self.chunk_bytes = chunk_bytes
        self.pool = PagePool(len(arena))
        self.cluster_id = ""  # known after registration
        self._assignments: dict[AssignmentKey, AssignmentBuffers] = {}
        self._ready: OrderedDict[PartitionBuffer, None] = OrderedDict()  # chunk_bytes or more
        self._open: dict[PartitionBuffer, None] = {}
        self._largest: list[Chunk] = []  # candidates of the last search
        self._flushing_bytes = 0
        self._dropped: OrderedDict[int, None] = OrderedDict()
        self._hung_up: OrderedDict[tuple[AssignmentKey, Sender], None] = OrderedDict()
        self._dedupe_entries_max = int(
            len(arena) / (1 - _BOOKKEEPING_SHARE) * _BOOKKEEPING_SHARE / ENTRY_BYTES
        )
        self._dedupe_entries = 0

    # --- assignments ----------------------------------------------------------------------

    def assignment(self, key: AssignmentKey) -> AssignmentBuffers | None:
        return self._assignments.get(key)

    def is_dropped(self, number: int) -> bool:
        return number in self._dropped

    def admit(self, number: int, assignment: Assignment, partitions: PartitionRange) -> None:
        """Serve an assignment the metadata service confirmed as this daemon's."""
        key = (number, assignment.range_index, assignment.epoch)
        if key not in self._assignments and number not in self._dropped:
            self._assignments[key] = AssignmentBuffers(key, partitions)

    # --- taking in ------------------------------------------------------------------------

    def stray_partition(self, held: AssignmentBuffers, frame: CheckedFrame) -> int | None:
        """A partition of the frame that is outside its assignment's range, if there is one."""
        first, end = held.partitions.first, held.partitions.first + held.partitions.count
        return next((r.partition for r in frame.runs if not first <= r.partition < end), None)

    def take(self, held: AssignmentBuffers, frame: CheckedFrame, first_run: int) -> Taken:
        """Append the new blocks of a frame, from `first_run` on, as far as pages are free.

        The frame may be acknowledged once `next_run` is the number of its runs. Until then
        the rest waits; what is in already can be flushed, so it never waits for itself.
        """
        blocks = duplicates = taken_bytes = 0
        next_run = first_run
        for run in frame.runs[first_run:]:
            if self._pages_needed(held, run) > self.pool.free_bytes:
                break
            fresh = self._fresh(held, frame.sender, run)
            blocks += len(run.blocks)
            duplicates += len(run.blocks) - sum(count for _, count in fresh)
            for data, count in fresh:
                self._append(held, run.partition, data, count)
                taken_bytes += len(data)
            next_run += 1
        self._bound_dedupe()
        return Taken(next_run, blocks, duplicates, taken_bytes)

    def _pages_needed(self, held: AssignmentBuffers, run: Run) -> int:
        buffer = held.buffers.get(run.partition)
        chunk = buffer.open if buffer is not None else None
        return (chunk or _EMPTY).room_needed(len(run.data))

    def _fresh(
        self, held: AssignmentBuffers, sender: Sender, run: Run
    ) -> list[tuple[memoryview, int]]:
        """The parts of a run that are not held yet, as (bytes, blocks); marks them held."""
        dedupe, partition = held.dedupe, run.partition
        before = dedupe.entries
        fresh: list[tuple[memoryview, int]] = []
        start = offset = count = 0
        for block in run.blocks:
            end = offset + block.block_bytes
            if dedupe.holds(sender, partition, block.position, block.end):
                if count:
                    fresh.append((run.data[start:offset], count))
                start, count = end, 0
            else:
                dedupe.add(sender, partition, block.position, block.end)
                count += 1
            offset = end
        if count:
            fresh.append((run.data[start:offset], count))
        self._dedupe_entries += dedupe.entries - before
        return fresh

    def _append(
        self, held: AssignmentBuffers, partition: int, data: memoryview, blocks: int
    ) -> None:
        buffer = held.buffers.get(partition)
        if buffer is None:
            buffer = held.buffers[partition] = PartitionBuffer(
                held.key, partition, self._path(held.key, partition)
            )
        chunk = buffer.open
        if chunk is None:
            chunk = buffer.open = Chunk(buffer)
            self._open[buffer] = None
        roomy = self.pool.free_bytes - int(self.pool.capacity_bytes * _ROOMY_SHARE)
        chunk.append(self.pool, self.arena, data, max(0, roomy - len(data)))
        chunk.blocks += blocks
        if chunk.length >= self.chunk_bytes and buffer.flushing is None:
            self._ready[buffer] = None

    def _path(self, key: AssignmentKey, partition: int) -> str:
        return f"{self.folder(key)}{partition}-{self.incarnation:016x}"

    def folder(self, key: AssignmentKey) -> str:
        """Where the files of an assignment are, by any daemon that wrote them."""
        number, range_index, epoch = key
        return f"{self.cluster_id}/{number}/{range_index}-{epoch}/"

    # --- deduplication's bound ------------------------------------------------------------

    def hung_up(self, sender: Sender, keys: set[AssignmentKey]) -> None:
        """The sender's stream to these assignments ended: it is forgotten before others."""
        for key in keys:
            held = self._assignments.get(key)
            if held is not None and held.dedupe.knows(sender):
                self._hung_up[key, sender] = None
                self._hung_up.move_to_end((key, sender))
        self._bound_hung_up()

    def _bound_hung_up(self) -> None:
        """Each has an entry to forget; what is more are those of dropped exchanges."""
        while len(self._hung_up) > self._dedupe_entries:
            self._hung_up.popitem(last=False)

    def _bound_dedupe(self) -> None:
        while self._dedupe_entries > self._dedupe_entries_max:
            if self._hung_up:
                (key, sender), _ = self._hung_up.popitem(last=False)
                held = self._assignments.get(key)
                victim: Sender | None = sender
            else:
                held = max(self._assignments.values(), key=lambda a: a.dedupe.entries)
                victim = held.dedupe.oldest()
            if held is not None and victim is not None:
                before = held.dedupe.entries
                held.dedupe.forget(victim)
                self._dedupe_entries -= before - held.dedupe.entries

    # --- flushing -------------------------------------------------------------------------

    def under_pressure(self, waiting_bytes: int = 0) -> bool:
        """Whether memory is short, counting what is being written as free."""
        soon_free = self.pool.free_bytes + self._flushing_bytes
        return soon_free < self.pool.capacity_bytes * _LOW_WATER_SHARE + waiting_bytes

    def next_flush(self, *, everything: bool = False, waiting_bytes: int = 0) -> Flush | None:
        """The chunk to write next: a full one, or under pressure the largest there is."""
        buffer = None
        if self._ready:
            buffer, _ = self._ready.popitem(last=False)
        elif everything or self.under_pressure(waiting_bytes):
            buffer = self._pick_largest()
        if buffer is None:
            return None
        self._open.pop(buffer, None)
        chunk, parts = buffer.begin_flush(self.incarnation, self.arena)
        self._flushing_bytes += chunk.capacity
        return Flush(buffer, chunk, parts)

    def _pick_largest(self) -> PartitionBuffer | None:
        """One search serves many picks: sizes change little while they are used up."""
        for _ in range(2):
            while self._largest:
                chunk = self._largest.pop()
                buffer = chunk.buffer
                if buffer.open is chunk and buffer.flushing is None:
                    self._ready.pop(buffer, None)
                    return buffer
            candidates = (b.open for b in self._open if b.flushing is None and b.open)
            self._largest = heapq.nlargest(64, candidates, key=lambda chunk: chunk.length)
            self._largest.reverse()
        return None

    def restart_file(self, flush: Flush) -> Flush:
        """The same write to a new file, as the old one is gone or was cut short."""
        parts = flush.buffer.restart_file(self.incarnation, self.arena)
        return Flush(flush.buffer, flush.chunk, parts)

    def end_flush(self, flush: Flush) -> None:
        """The chunk is durable: its pages are free."""
        self._flushing_bytes -= flush.chunk.capacity
        buffer = flush.buffer
        if flush.chunk.state is ChunkState.DROPPED:
            self._release(flush.chunk)
            buffer.flushing = None
            return
        self._release(buffer.end_flush())
        if buffer.open is not None and buffer.open.length >= self.chunk_bytes:
            self._ready[buffer] = None

    def _release(self, chunk: Chunk) -> None:
        self.pool.free(chunk.pages)
        chunk.pages = []
        chunk.capacity = 0

    # --- reading --------------------------------------------------------------------------

    def snapshot(self, key: AssignmentKey, partition: int) -> list[Piece] | None:
        """One look at a partition's chunks; None for an assignment that is not held here."""
        held = self._assignments.get(key)
        if held is None:
            return None
        buffer = held.buffers.get(partition)
        return [] if buffer is None else [Piece(c, c.body_bytes) for c in buffer.chunks()]

    # --- dropping -------------------------------------------------------------------------

    def drop(self, number: int) -> list[Chunk]:
        """Forget an exchange; returns chunks that are being written and must end first."""
        self._dropped[number] = None
        if len(self._dropped) > _REMEMBERED_DROPS:
            self._dropped.popitem(last=False)
        busy = []
        for key in [key for key in self._assignments if key[0] == number]:
            held = self._assignments.pop(key)
            self._dedupe_entries -= held.dedupe.entries
            for buffer in held.buffers.values():
                self._ready.pop(buffer, None)
                self._open.pop(buffer, None)
                for chunk in buffer.stored:
                    chunk.state = ChunkState.DROPPED
                if buffer.open is not None:
                    buffer.open.state = ChunkState.DROPPED
                    self._release(buffer.open)
                    buffer.open = None
                if buffer.flushing is not None:
                    buffer.flushing.state = ChunkState.DROPPED
                    busy.append(buffer.flushing)
        self._bound_hung_up()
        return busy

    def exchanges(self) -> set[int]:
        """The numbers of the exchanges it holds anything of."""
        return {key[0] for key in self._assignments}

    @property
    def assignments(self) -> int:
        return len(self._assignments)

    @property
    def unstored_bytes(self) -> int:
        """Bytes of pages that are in use."""
        return self.pool.capacity_bytes - self.pool.free_bytes


_EMPTY: Final = Chunk(PartitionBuffer((0, 0, 0), 0, ""))
