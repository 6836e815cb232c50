"""What a daemon holds, and what it decides: no IO, no clock, no event loop.

`DaemonCore` owns the page pool, the buffers and the copies of every assignment it was told
of, and the account of what it forwarded. The server feeds it checked frames, the flusher
asks it what to write next, readers take snapshots. All memory it uses is in its arena, but
for bookkeeping, which is bounded by counting (`cosco.shuffle_service.state.buffers.limits`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cosco.errors import CoscoError, DataCorrupted, ExchangeClosed
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.mark import Mark
from cosco.protocol.records import Assignment, PartitionRange
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers, NotAssigned, Settle
from cosco.shuffle_service.state.buffers.dedupe import DedupeBound, Sender
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, check_frame
from cosco.shuffle_service.state.buffers.limits import (
    PoolShares,
    boards_bytes_max,
    dedupe_entries_max,
    forwards_max,
)
from cosco.shuffle_service.state.buffers.mark_boards import Boards
from cosco.shuffle_service.state.buffers.partition_buffer import (
    AssignmentKey,
    Chunk,
    ChunkState,
    PartitionBuffer,
)
from cosco.shuffle_service.state.buffers.pool import PagePool
from cosco.shuffle_service.state.flush_order import FlushOrder
from cosco.shuffle_service.state.known_assignments import AlikeAssignments
from cosco.shuffle_service.state.replication.copy_log import Copy, CopyLog
from cosco.shuffle_service.state.replication.replication_log import ReplicationLog


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
        self.shares = PoolShares(self.pool)
        self.copies = CopyLog(self.pool, arena, self.shares)
        self.copies.on_last_gone = self._copies_gone
        self.replication = ReplicationLog(
            incarnation=incarnation, frames_max=forwards_max(len(arena))
        )
        self.cluster_id = ""  # known after registration
        self._assignments: dict[AssignmentKey, AssignmentBuffers] = {}
        self._to_flush = FlushOrder(self.replication)
        self._numbers: dict[int, list[AssignmentKey]] = {}
        self.alike = AlikeAssignments()
        self.boards = Boards(boards_bytes_max(len(arena)))
        self._dedupe = DedupeBound(dedupe_entries_max(len(arena)))

    # --- assignments ----------------------------------------------------------------------

    def assignment(self, key: AssignmentKey) -> AssignmentBuffers | None:
        return self._assignments.get(key)

    def find(self, key: AssignmentKey) -> AssignmentBuffers | None:
        """The same, also of one that what was told of another exchange admits."""
        held = self._assignments.get(key)
        if held is None and (found := self.alike.find(key)) is not None:
            self.admit(key[0], found.assignment, found.partition_range, found.mappers)
            held = self._assignments.get(key)
        return held

    def is_dropped(self, number: int) -> bool:
        return self.alike.is_dropped(number)

    def admit(
        self, number: int, assignment: Assignment, partitions: PartitionRange, mappers: int = 0
    ) -> None:
        """Serve an assignment the metadata service confirmed as this daemon's.

        `mappers`: of an exchange of a group. Nothing changes for an assignment that names this
        daemon neither as primary nor as replica.
        """
        key = (number, assignment.range_index, assignment.epoch)
        if key in self._assignments or self.is_dropped(number):
            return
        primary = assignment.primary.incarnation
        if primary == self.incarnation:
            replica = assignment.replicas[0] if assignment.replicas else None
            held = AssignmentBuffers(key, partitions, replica)
        elif any(ref.incarnation == self.incarnation for ref in assignment.replicas):
            held = AssignmentBuffers(key, partitions, copied_from=primary)
            self.shares.has_copies = True
        else:
            return
        held.sealed = assignment.sealed or self.alike.was_sealed(key)
        held.mappers = mappers
        if mappers and not held.sealed:
            held.board = self.boards.open(mappers, partitions.count)
        self._assignments[key] = held
        self._numbers.setdefault(number, []).append(key)

    def learn(self, key: AssignmentKey, found: FoundAssignment) -> None:
        """Admit what a look-up of `key` found, for as many exchanges as it holds for."""
        self.admit(key[0], found.assignment, found.partition_range, found.mappers)
        held = self._assignments.get(key)
        if held is not None and not found.assignment.sealed:
            self.alike.learn(key, found)

    def seal(self, keys: Iterable[AssignmentKey]) -> int:
        """Take nothing for these assignments any more, known or not, and store what is held.

        Frames that wait are refused, frames that are in and not safe as well. Returns the
        bytes of these assignments that are in no store yet; copies, which are to be settled,
        included.
        """
        known: list[AssignmentBuffers] = []
        errors: dict[AssignmentKey, CoscoError] = {}
        for key in keys:
            held = self._assignments.get(key)
            if held is None:
                self.alike.sealed(key)
                continue
            known.append(held)
            if not held.sealed:
                held.sealed = True
                what = f"range {key[1]} of exchange {key[0]} was sealed in epoch {key[2]}"
                errors[key] = NotAssigned(what)
        if errors:
            self.replication.refuse(errors)
            self.copies.refuse(errors)
        for held in known:
            if held.board is not None:
                held.board.end()
            self._hurry(held)
        return sum(held.unstored_bytes() + self.copies.bytes_of(held.key) for held in known)

    def _copies_gone(self, key: AssignmentKey) -> None:
        held = self._assignments.get(key)
        if held is not None:
            self._hurry(held)

    def _hurry(self, held: AssignmentBuffers) -> None:
        """Have what a sealed assignment has in memory stored, once its copies are gone."""
        if held.sealed and not self.copies.has(held.key):
            for buffer in held.buffers.values():
                if buffer.flushing is None:
                    self._to_flush.hurry(buffer)

    # --- taking in ------------------------------------------------------------------------

    def take(self, held: AssignmentBuffers, frame: CheckedFrame, first_run: int) -> Taken:
        """Append the new blocks of a frame, from `first_run` on, as far as pages are free.

        The frame may be acknowledged once `next_run` is the number of its runs, and it is
        safe. Until then the rest waits; what is in already can be flushed, so it never waits
        for itself. Raises NotAssigned for a sealed assignment, and at its replica.
        """
        held.check_takes(0)
        return self._take(held, frame, first_run)

    def _take(self, held: AssignmentBuffers, frame: CheckedFrame, first_run: int) -> Taken:
        blocks = duplicates = taken_bytes = 0
        next_run, entries = first_run, held.dedupe.entries
        for run in frame.runs[first_run:]:
            buffer = held.buffers.get(run.partition)
            if buffer is None:
                buffer = PartitionBuffer(held.key, run.partition)
                held.buffers[run.partition] = buffer
            chunk = buffer.open or _EMPTY
            # A run of which some is held already may need less than this.
            grows = chunk.length + len(run.data) > chunk.capacity
            if grows and chunk.room_needed(len(run.data)) > self.shares.buffers_room:
                break
            blocks += len(run.blocks)
            duplicates += len(run.blocks)
            for data, count in held.fresh(frame.sender, run):
                self._append(buffer, data, count)
                duplicates -= count
                taken_bytes += len(data)
            next_run += 1
        self._dedupe.grew(held.dedupe, held.dedupe.entries - entries)
        return Taken(next_run, blocks, duplicates, taken_bytes)

    def _append(self, buffer: PartitionBuffer, data: memoryview, blocks: int) -> None:
        chunk = buffer.open
        if chunk is None:
            chunk = buffer.open = Chunk(buffer)
            self._to_flush.opened(buffer)
        if chunk.length + len(data) > chunk.capacity:
            need = chunk.room_needed(len(data))
            chunk.grow(self.pool, need, max(0, self.shares.ahead - len(data)))
        chunk.append(self.arena, data)
        chunk.blocks += blocks
        if chunk.length >= self.chunk_bytes and buffer.flushing is None:
            self._to_flush.filled(buffer)

    def _path(self, key: AssignmentKey, partition: int) -> str:
        return f"{self.folder(key)}{partition}-{self.incarnation:016x}"

    def folder(self, key: AssignmentKey) -> str:
        """Where the files of an assignment are, by any daemon that wrote them."""
        number, range_index, epoch = key
        return f"{self.cluster_id}/{number}/{range_index}-{epoch}/"

    def count(self, held: AssignmentBuffers, mark: Mark) -> bool:
        """Every copy has the frame that ends with a mark; whether it is its mapper's first."""
        # What its sender sends again is stored twice, and dropped by readers.
        self._dedupe.forget(held.dedupe, (mark.mapper, mark.attempt))
        return held.board is not None and held.board.add(mark)

    def hung_up(self, sender: Sender, keys: set[AssignmentKey]) -> None:
        """The sender's stream to these assignments ended: it is forgotten before others."""
        held = (self._assignments.get(key) for key in keys)
        self._dedupe.hung_up(sender, [one.dedupe for one in held if one is not None])

    # --- copies ---------------------------------------------------------------------------

    def take_copy(
        self,
        held: AssignmentBuffers,
        frame: CheckedFrame,
        data: memoryview,
        primary: int,
        *,
        stream: object,
        now: float,
        settle: Settle,
    ) -> None:
        """Keep a frame, which `data` is, that `primary` forwarded; see `CopyLog.offer`.

        Raises NotAssigned, ExchangeClosed or DataCorrupted, and calls `settle` no more then.
        """
        if self.is_dropped(held.key[0]):
            raise ExchangeClosed(f"exchange {held.key[0]} is closed")
        held.check_takes(primary)
        held.check_partitions(frame)
        settle = self._counting(held, frame, settle)
        copy_id = (primary, frame.header.sequence)
        self.copies.offer(copy_id, held.key, data, stream=stream, now=now, settle=settle)

    def _counting(self, held: AssignmentBuffers, frame: CheckedFrame, settle: Settle) -> Settle:
        """Has a forwarded mark counted here too, as soon as its copy is held."""
        mark = held.mark_of(frame)
        if mark is None:
            return settle

        def settled(error: CoscoError | None) -> None:
            if error is None:
                self.count(held, mark)
            settle(error)

        return settled

    def settle_copy(self, copy: Copy) -> bool:
        """Put a copy through the buffers as far as pages are free; whether that is done."""
        held = self._assignments.get(copy.key)
        if held is None or not self.copies.holds(copy):
            return True
        try:
            frame = check_frame(memoryview(self.copies.content(copy)))
        except DataCorrupted:  # it was whole when it came: readers will miss it, and look on
            self.copies.settled(copy)
            return True
        copy.next_run = self._take(held, frame, copy.next_run).next_run
        if copy.next_run < len(frame.runs):
            return False
        self.copies.settled(copy)
        if frame.mark is not None:
            self._dedupe.forget(held.dedupe, frame.sender)
        self.hung_up(frame.sender, {copy.key})  # it is not expected again
        return True

    # --- flushing -------------------------------------------------------------------------

    def under_pressure(self, waiting_bytes: int = 0) -> bool:
        """Whether memory is short, counting what is being written as free."""
        return self.shares.is_low(waiting_bytes + self.copies.pages_wanted)

    def next_flush(self, *, everything: bool = False, waiting_bytes: int = 0) -> Flush | None:
        """The chunk to write next, under pressure or with `everything` any; see FlushOrder."""
        pressed = everything or self.under_pressure(waiting_bytes)
        buffer = self._to_flush.take(pressed=pressed)
        if buffer is None:
            return None
        if not buffer.path:
            buffer.path = self._path(buffer.key, buffer.partition)
        chunk, parts = buffer.begin_flush(self.incarnation, self.arena)
        self.shares.flushing += chunk.capacity
        return Flush(buffer, chunk, parts)

    def restart_file(self, flush: Flush) -> Flush:
        """The same write to a new file, as the old one is gone or was cut short."""
        parts = flush.buffer.restart_file(self.incarnation, self.arena)
        return Flush(flush.buffer, flush.chunk, parts)

    def end_flush(self, flush: Flush) -> None:
        """The chunk is durable: its pages are free."""
        self.shares.flushing -= flush.chunk.capacity
        buffer = flush.buffer
        if flush.chunk.state is ChunkState.DROPPED:
            self._release(flush.chunk)
            buffer.flushing = None
        else:
            chunk = buffer.end_flush()
            self._release(chunk)
            self.replication.stored(chunk)
            if buffer.open is not None and buffer.open.length >= self.chunk_bytes:
                self._to_flush.filled(buffer)
            held = self._assignments.get(buffer.key)
            if held is not None and held.sealed:
                self._to_flush.hurry(buffer)
        self.copies.store_waiting()

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
        self.alike.drop(number)
        dropped = [self._assignments.pop(key) for key in self._numbers.pop(number, ())]
        chunks = [chunk for held in dropped for chunk in held.in_memory()]
        self.replication.drop(number, chunks, ExchangeClosed(f"exchange {number} is closed"))
        self.copies.drop(number)
        busy = [chunk for chunk in chunks if chunk.state is ChunkState.FLUSHING]
        for held in dropped:
            for buffer in held.buffers.values():
                self._to_flush.forget(buffer)
                for chunk in buffer.chunks():
                    chunk.state = ChunkState.DROPPED
                if buffer.open is not None:
                    self._release(buffer.open)
                    buffer.open = None
            self._dedupe.dropped(held.dedupe)
            if held.board is not None:
                self.boards.close(held.board)
        self.copies.store_waiting()
        return busy

    def exchanges(self) -> set[int]:
        """The numbers of the exchanges it holds anything of."""
        return set(self._numbers)

    @property
    def assignments(self) -> int:
        return len(self._assignments)

    @property
    def takes(self) -> bool:
        """Whether it holds an assignment that is not sealed."""
        return any(not held.sealed for held in self._assignments.values())

    @property
    def unstored_bytes(self) -> int:
        """Bytes of pages that are in use, by buffers and copies alike."""
        return self.pool.capacity_bytes - self.pool.free_bytes


_EMPTY: Final = Chunk(PartitionBuffer((0, 0, 0), 0))
