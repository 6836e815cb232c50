"""What a daemon holds, and what it decides: no IO, no clock, no event loop.

`DaemonCore` owns the page pool, the buffers and the copies of every assignment it was told
of, and the account of what it forwarded. Intakes feed it checked frames, the flusher asks it
what to write next, readers look at snapshots. All memory it uses is in its arena, but
for bookkeeping, which is bounded by counting (`cosco.shuffle_service.state.buffers.limits`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from cosco.errors import CoscoError, DataCorrupted, ExchangeClosed
from cosco.protocol.events import Event, EventKind, EventLog
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.mark import Mark
from cosco.protocol.push.answers import Answer, NotAssigned
from cosco.protocol.records import Assignment, PartitionRange
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.dedupe import DedupeBound
from cosco.shuffle_service.state.buffers.frame_append import Appended, Room
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.buffers.held_assignments import HeldAssignments
from cosco.shuffle_service.state.buffers.limits import (
    PoolShares,
    boards_bytes_max,
    dedupe_entries_max,
    forwards_max,
    indexes_bytes_max,
)
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoards
from cosco.shuffle_service.state.buffers.old_epochs import Going, OldEpochs
from cosco.shuffle_service.state.buffers.partition_buffer import PartitionBuffer
from cosco.shuffle_service.state.flush_plan import FlushPlan
from cosco.shuffle_service.state.known_assignments import AlikeAssignments
from cosco.shuffle_service.state.page_queue import PageQueue
from cosco.shuffle_service.state.replication.copy_log import Copy, CopyLog
from cosco.shuffle_service.state.replication.replica import ReplicationLog
from cosco.shuffle_service.state.segments.segment_choice import (
    Flush,
    begin_segment,
    neighbours,
    stored_segment,
)
from cosco.shuffle_service.state.segments.segment_indexes import KeptIndexes
from cosco.shuffle_service.state.segments.stored_tally import StoredTally
from cosco.shuffle_service.state.segments.waiting_segments import WaitingSegments
from cosco.shuffle_service.state.snapshots import Snapshot, look_at
from cosco.shuffle_service.state.tenants.tenant_memory import TenantMemory


class DaemonCore:
    """The buffers of one daemon. `arena` is the memory that its page pool shares out.

    segment_bytes: a chunk of this size is flushed by itself, smaller ones together.
    full_store_wait_s: who waits for pages is refused when the store took nothing for this long.
    store_idle_s, store_timeout_s: see FlushPlan. tenant_memory_share: see TenantMemory.
    """

    def __init__(
        self,
        *,
        arena: memoryview,
        incarnation: int,
        segment_bytes: int,
        full_store_wait_s: float = math.inf,
        store_idle_s: float = 0.0,
        store_timeout_s: float = math.inf,
        tenant_memory_share: float = 1.0,
    ) -> None:
        self.arena = arena
        self.incarnation = incarnation
        self.segment_bytes = segment_bytes
        self.pool = mechanics_choice.CHOSEN.page_pool(len(arena))
        self.shares = PoolShares(self.pool)
        self.copies = CopyLog(self.pool, arena, self.shares)
        self.copies.on_last_gone = lambda key: self._hurry(self._assignments.get(key))
        self.replication = ReplicationLog(
            incarnation=incarnation, frames_max=forwards_max(len(arena))
        )
        self.waiting = WaitingSegments(self.replication)
        self.cluster_id = ""  # known after registration
        #: What operators are told.
        self.events = EventLog()
        self._assignments = HeldAssignments()
        self.old_epochs = OldEpochs()
        self.flushes = FlushPlan(self.replication, store_idle_s, store_timeout_s)
        self.tenants = TenantMemory(self.shares, len(arena), tenant_memory_share)
        self.page_queue = PageQueue(self.flushes, full_store_wait_s, self.tenants)
        #: Called when there is something to flush.
        self.on_work: Callable[[], None] = lambda: None
        #: Called when something changed that whoever waits for it may look at.
        self.on_change: Callable[[], None] = lambda: None
        self.alike = AlikeAssignments()
        self.mark_boards = MarkBoards(boards_bytes_max(len(arena)))
        self._dedupe = DedupeBound(dedupe_entries_max(len(arena)))
        self.indexes = KeptIndexes(indexes_bytes_max(len(arena)))
        self.stored = StoredTally()
        self._serial = 0  # of the last segment

    # --- assignments ----------------------------------------------------------------------

    def assignment(self, key: AssignmentKey) -> AssignmentBuffers | None:
        return self._assignments.get(key)

    def find(self, key: AssignmentKey) -> AssignmentBuffers | None:
        """Return the same; admit it first if a look-up for an exchange alike holds for it."""
        held = self._assignments.get(key)
        if held is None and (found := self.alike.find(key)) is not None:
            self.admit(key.number, *found.told)
            held = self._assignments.get(key)
        return held

    def is_dropped(self, number: int) -> bool:
        return self.alike.is_dropped(number)

    def admit(
        self,
        number: int,
        assignment: Assignment,
        partition_range: PartitionRange,
        mappers: int = 0,
        tenant: int = 0,
        trace: str = "",
    ) -> None:
        """Serve an assignment the metadata service confirmed as this daemon's.

        mappers, tenant, trace: see `FoundAssignment`.
        Nothing changes for an assignment that names this daemon neither as primary nor as replica.
        """
        key = AssignmentKey(number, assignment.range_index, assignment.epoch)
        if key in self._assignments or self.is_dropped(number) or key in self.old_epochs:
            return
        primary = assignment.primary.incarnation
        if primary == self.incarnation:
            replica = assignment.replicas[0] if assignment.replicas else None
            held = AssignmentBuffers(key, partition_range, replica)
        elif any(ref.incarnation == self.incarnation for ref in assignment.replicas):
            held = AssignmentBuffers(key, partition_range, copied_from=primary)
            self.shares.has_copies = True
        else:
            return
        held.sealed = assignment.sealed or self.alike.was_sealed(key)
        held.build, held.mappers, held.tenant = assignment.build, mappers, tenant
        held.trace = trace
        if mappers and not held.sealed:
            held.board = self.mark_boards.open(mappers, partition_range.count)
        self._assignments.add(held)

    def learn(self, key: AssignmentKey, found: FoundAssignment) -> None:
        """Admit what a look-up of `key` found, for as many exchanges as it holds for."""
        self.admit(key.number, *found.told)
        held = self._assignments.get(key)
        if held is not None and not found.assignment.sealed:
            self.alike.learn(key, found)

    def seal(self, keys: Iterable[AssignmentKey]) -> int:
        """Take nothing in for these assignments any more, known or not, and store what is held.

        Frames that wait are refused, frames that are in and not safe as well. Returns the
        bytes of these assignments that are in no store yet; copies, which are to be absorbed,
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
                errors[key] = NotAssigned(f"{key} was sealed")
                self.events.add(_fenced(held.key))
        if errors:
            self.replication.refuse(errors)
            self.copies.refuse(errors)
        for held in known:
            if held.board is not None:
                held.board.end()
            self._hurry(held)
            self.waiting.hurry(self.folder(held.key))
        self.kick()
        return sum(held.unstored_bytes() + self.copies.bytes_of(held.key) for held in known)

    def _hurry(self, held: AssignmentBuffers | None) -> None:
        """Have what a sealed assignment has in memory stored, once its copies are gone."""
        if held is not None and held.sealed and not self.copies.has(held.key):
            for buffer in held.buffers.values():
                if buffer.flushing is None:
                    self.flushes.hurry(buffer)

    # --- taking in ------------------------------------------------------------------------

    def append_frame(
        self, held: AssignmentBuffers, frame: CheckedFrame, first_run: int
    ) -> Appended:
        """Append the new blocks of a frame, from `first_run` on, as far as pages are free.

        The frame may be acknowledged once `next_run` is the count of its runs, and it is
        safe. Until then the rest waits; what is in already can be flushed, so it never waits
        for itself. Raises NotAssigned for a sealed assignment, and at its replica.
        """
        held.check_takes_in(0)
        return self._append_frame(held, frame, first_run, self.tenants.room(held.tenant))

    def _append_frame(
        self, held: AssignmentBuffers, frame: CheckedFrame, first_run: int, room: Room
    ) -> Appended:
        entries, free_bytes = held.dedupe.entries, self.pool.free_bytes
        appended = mechanics_choice.CHOSEN.append_frame(
            self.arena,
            self.pool,
            held.dedupe,
            held.buffers,
            held.key,
            frame,
            first_run,
            room,
            self.segment_bytes,
        )
        self.tenants.took(held.tenant, free_bytes - self.pool.free_bytes)
        for buffer in appended.opened:
            self.flushes.opened(buffer, held.tenant)
        for buffer in appended.filled:
            self.flushes.filled(buffer)
        self._dedupe.grew(held.dedupe, held.dedupe.entries - entries)
        return appended

    def folder(self, key: AssignmentKey) -> str:
        """Return where the files of an assignment are, by any daemon that wrote them."""
        return f"{self.cluster_id}/{key.number}/{key.range_index}-{key.epoch}/"

    def count(self, held: AssignmentBuffers, mark: Mark) -> bool:
        """Count a mark that every copy has. Returns whether it is its mapper's first."""
        # What its attempt sends again is stored twice, and dropped by readers.
        self._dedupe.forget(held.dedupe, MapperAttempt(mark.mapper, mark.attempt))
        return held.board is not None and held.board.add(mark)

    def counting(
        self,
        held: AssignmentBuffers,
        frame: CheckedFrame,
        answer: Answer,
        on_count: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Return an answer that counts the frame's mark, if it has one, before its sender is told.

        on_count: called if it counts. Raises DataCorrupted for a mark that belongs elsewhere.
        """
        mark = held.mark_of(frame)
        if mark is None:
            return answer

        def count_and_answer(error: CoscoError | None) -> None:
            if error is None and self.count(held, mark):
                on_count()
            answer(error)

        return count_and_answer

    def hung_up(self, mapper_attempt: MapperAttempt, keys: set[AssignmentKey]) -> None:
        """Have a mapper's attempt forgotten before others: its stream to these has ended."""
        held = (self._assignments.get(key) for key in keys)
        self._dedupe.hung_up(mapper_attempt, [one.dedupe for one in held if one is not None])

    # --- copies ---------------------------------------------------------------------------

    def keep_copy(self, held: AssignmentBuffers, frame: CheckedFrame, copy: Copy) -> None:
        """Keep a frame that its primary forwarded; see `CopyLog.offer`.

        Raises NotAssigned, ExchangeClosed or DataCorrupted, and does not call its answer then.
        """
        if self.is_dropped(held.key.number):
            raise ExchangeClosed(f"exchange {held.key.number} is closed")
        held.check_takes_in(copy.id.primary)
        held.check_partitions(frame)
        copy.answer = self.counting(held, frame, copy.answer)
        self.copies.offer(copy)

    def absorb_copy(self, copy: Copy) -> bool:
        """Put a copy through the buffers as far as pages are free. Returns whether it is done."""
        held = self._assignments.get(copy.key)
        if held is None or not self.copies.holds(copy):
            return True
        try:
            data = memoryview(self.copies.content(copy))
            frame = mechanics_choice.CHOSEN.check_frame(data)
        except DataCorrupted:  # it was whole when it came: readers will miss it, and look on
            self.copies.absorbed(copy)
            return True
        copy.next_run = self._append_frame(held, frame, copy.next_run, self.shares.room).next_run
        if copy.next_run < frame.run_count:
            return False
        self.copies.absorbed(copy)
        if frame.mark is not None:
            self._dedupe.forget(held.dedupe, frame.mapper_attempt)
        self.hung_up(frame.mapper_attempt, {copy.key})  # it is not expected again
        return True

    # --- waiting --------------------------------------------------------------------------

    def frame_came(self, now: float) -> None:
        """Look for something to flush after a frame, and do not count as idle."""
        self.flushes.frame_came(now)
        self.kick()

    def kick(self) -> None:
        """Have something flushed if there is need."""
        tenants = self.page_queue.pressed_tenants()
        if self.flushes.has_work(pressed=self.is_pressed, tenants=tenants):
            self.on_work()

    def changed(self, now: float) -> None:
        """Let those who wait try again: pages were freed, frames became safe, or the like."""
        self.page_queue.serve(now)
        self.kick()
        self.on_change()

    # --- flushing -------------------------------------------------------------------------

    @property
    def is_pressed(self) -> bool:
        """Whether buffers are flushed that are not full: memory is short, or all is stored."""
        wanted_bytes, hanging = self.page_queue.wanted_bytes, self.flushes.hanging_bytes
        wanted_bytes += self.copies.pages_wanted
        return self.flushes.writes_all or self.shares.is_low(wanted_bytes, hanging_bytes=hanging)

    def next_flush(self) -> Flush | None:
        """Begin the next write, None if there is no need of one; see FlushPlan."""
        tenants = self.page_queue.pressed_tenants()
        seed = self.flushes.next_buffer(pressed=self.is_pressed, tenants=tenants)
        if seed is None:
            return None
        key, held = seed.key, self._assignments[seed.key]
        takes_all = self.flushes.writes_all or (held.sealed and not self.copies.has(key))
        buffers = neighbours(
            seed, held.buffers, held.partition_range, self.segment_bytes, takes_all=takes_all
        )
        for buffer in buffers:
            self.flushes.forget(buffer)
        self._serial += 1
        flush = begin_segment(buffers, self.arena, self.incarnation, self._serial, self.folder(key))
        flush.tenant = held.tenant
        self.tenants.begin_flush(flush.tenant, flush.capacity)
        return flush

    def flush_waits(self, flush: Flush, now: float) -> float:
        """Take note of a write that is under way still; see `FlushPlan.waits`."""
        again_s = self.flushes.waits(flush, now)
        if flush.hangs:
            self.changed(now)  # who waits for pages may want to give up
        return again_s

    def flush_failed(self, flush: Flush, error: OSError, now: float) -> None:
        """Have a write tried again."""
        self.flushes.failed(flush, error, now)
        self.changed(now)  # who waits for pages may want to give up

    def end_flush(self, flush: Flush, now: float, *, is_durable: bool = True) -> bool:
        """Free the pages of a segment that is stored. Returns whether its exchange is open.

        is_durable: whether its copies may go; else `waiting` is to be told later.
        """
        self.flushes.ended()
        self.tenants.end_flush(flush.tenant, flush.capacity)
        is_stored = not flush.is_dropped()
        if is_stored:
            held = self._assignments[flush.key]
            held.segments.append(stored_segment(flush))
            self.stored.wrote(flush.key.number, flush.length)
            self.indexes.put(flush.path, flush.length, flush.index)
        going_on = mechanics_choice.CHOSEN.end_flush(flush.chunks, self.pool)
        if is_stored:
            for buffer in going_on:
                self._go_on(held, buffer)
            self.waiting.stored(held, flush, is_durable=is_durable)
        self.copies.keep_waiting()
        self.changed(now)
        return is_stored

    def _go_on(self, held: AssignmentBuffers, buffer: PartitionBuffer) -> None:
        """Look whether the open chunk of a buffer is to be flushed, now that no other one is."""
        if buffer.open is not None and buffer.open.length >= self.segment_bytes:
            self.flushes.filled(buffer)
        if held.sealed:
            self.flushes.hurry(buffer)

    # --- reading --------------------------------------------------------------------------

    def snapshot(self, key: AssignmentKey, partition: int) -> Snapshot | None:
        """Look at a partition once; None for an assignment that is not held here."""
        held = self._assignments.get(key)
        return None if held is None else look_at(held, partition, self.indexes)

    # --- dropping -------------------------------------------------------------------------

    def drop(self, number: int) -> None:
        """Forget an exchange. What is being written of it keeps its pages until that has ended."""
        self.alike.drop(number)
        self.old_epochs.forget(number)
        dropped = self._drop(Going(number), ExchangeClosed(f"exchange {number} is closed"))
        self.stored.closed(number)
        if any(not held.mappers for held in dropped):  # of groups there are too many
            self.events.add(_dropped(number, len(dropped)))

    def drop_epochs(self, number: int, before: Mapping[int, int]) -> None:
        """Forget the epochs of ranges before some, in the same way: they are of old builds."""
        going = Going(number, before)
        self.old_epochs.add(going)
        self.alike.end(going)
        self.seal(list(self._assignments.keys_of(going)))  # who waits finds that they are
        self._drop(going, NotAssigned("the epoch is over, and its rows were written anew"))

    def _drop(self, going: Going, error: CoscoError) -> list[AssignmentBuffers]:
        """Forget assignments; `error`: what is told to who waits. Returns them."""
        dropped = self._assignments.pop(going)
        chunks = [chunk for held in dropped for chunk in held.in_memory()]
        chunks += self.waiting.drop(dropped)
        self.replication.drop(going, chunks, error)
        self.copies.drop(going, error)
        for held in dropped:
            for buffer in held.buffers.values():
                self.flushes.forget(buffer)
            self.tenants.release(held.tenant, held.drop(), self.pool)
            self.indexes.forget_all(held.segments)
            self.stored.wrote(held.key.number, -sum(one.size_bytes for one in held.segments))
            self._dedupe.dropped(held.dedupe)
            if held.board is not None:
                self.mark_boards.close(held.board)
        self.copies.keep_waiting()
        return dropped

    def exchanges(self) -> set[int]:
        """Return the numbers of the exchanges it holds anything of."""
        return set(self._assignments.numbers())

    @property
    def assignments(self) -> int:
        return len(self._assignments)

    @property
    def takes_in(self) -> bool:
        """Whether it holds an assignment that is not sealed."""
        return any(not held.sealed for held in self._assignments.values())

    @property
    def unstored_bytes(self) -> int:
        """Return the bytes of pages that are in use, by buffers and copies alike."""
        return self.pool.capacity_bytes - self.pool.free_bytes


def _dropped(number: int, ranges: int) -> Event:
    return Event(kind=EventKind.EXCHANGE_DROPPED, number=number, ranges=ranges)


def _fenced(key: AssignmentKey) -> Event:
    ranges = (key.range_index,)
    return Event(
        kind=EventKind.EPOCHS_FENCED, number=key.number, range_indexes=ranges, epoch=key.epoch
    )
