"""The code broken on purpose, to see how many seeds it takes until that is noticed.

Each break replaces something of Cosco in this process, after `patches.install`, and stays.
"""

# mypy: ignore-errors

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from cosco.client.driver import driver
from cosco.client.groups import commit_outbox, mark_watch
from cosco.client.read import commit_watch, direct_reads, gather, row_source
from cosco.client.read.state import block_count, merge, read_plan, shared_reading
from cosco.client.write.state import routes
from cosco.dfs.tiers import flash_tier, mover, tiered_store
from cosco.dfs.tiers.state import tier_table
from cosco.errors import ServiceUnavailable
from cosco.format import block, segment
from cosco.mechanics import NATIVE
from cosco.metadata.service import journal
from cosco.metadata.state import lost_stores, old_builds
from cosco.metadata.state.applications import application_table
from cosco.metadata.state.daemons import claims, failover, forgotten_stores, members
from cosco.metadata.state.exchange import builds, dropped_builds, epochs, exchange_state, losses
from cosco.metadata.state.groups import group_table
from cosco.metadata.state.records import capability_keys
from cosco.metadata.state.records.changes import Change
from cosco.protocol.fetch_records import Reference
from cosco.protocol.keys import RangeKey
from cosco.protocol.mark import Mark
from cosco.protocol.push.credits import FrameBudget
from cosco.protocol.push.sender import OutFrame, PushSender
from cosco.protocol.records import DaemonOrders, EpochsDrop, RowKind
from cosco.shuffle_service.io import daemon_store, epoch_removal, flusher, membership
from cosco.shuffle_service.io.push import copy_keeper, direct_push
from cosco.shuffle_service.io.read import fetch_service
from cosco.shuffle_service.state import core, flush_plan, intake, known_assignments
from cosco.shuffle_service.state.buffers import (
    assignments,
    limits,
    mark_boards,
    partition_buffer,
)
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.page_queue import PageQueue
from cosco.shuffle_service.state.replication import copy_log, replica
from cosco.shuffle_service.state.segments import segment_indexes, waiting_segments
from cosco.shuffle_service.state.tenants import tenant_memory

from . import patches


@dataclass(frozen=True, slots=True)
class Break:
    """`what` is wrong with the code once `apply` was called; `groups`, `applications`, `tiers`:
    that of these alone."""

    what: str
    apply: Callable[[], None]
    groups: bool
    applications: bool
    tiers: bool


BREAKS: dict[str, Break] = {}


def _break(
    name: str,
    what: str,
    *,
    groups: bool = False,
    applications: bool = False,
    tiers: bool = False,
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        BREAKS[name] = Break(what, function, groups, applications, tiers)
        return function

    return register


_applied: list[str] = []


def apply(name: str) -> None:
    """Break the code of this process, once."""
    if name not in _applied:
        patches.install()
        BREAKS[name].apply()
        _applied.append(name)


# --- acknowledgements ---------------------------------------------------------------------


@_break("early-ack", "the primary acknowledges a frame before its replica has it")
def _early_ack() -> None:
    def taken(self: replica.Replica, frame: replica.Forward, chunks: Any) -> None:
        before(self, frame, chunks)
        if frame.refusal is None:
            self._answer(frame, None)

    before = replica.Replica.taken
    replica.Replica.taken = taken


@_break("early-copy-ack", "the replica acknowledges a frame that waits for room")
def _early_copy_ack() -> None:
    def offer(self: copy_log.CopyLog, copy: copy_log.Copy) -> None:
        copy.answer(None)
        copy.answer = lambda _: None
        before(self, copy)

    before = copy_log.CopyLog.offer
    copy_log.CopyLog.offer = offer


@_break("early-release", "copies are released before the chunks of their rows are durable")
def _early_release() -> None:
    assignments.AssignmentBuffers.unstored_chunks = lambda self, frame: iter(())


@_break("early-dedupe", "a block is noted as held when its frame came, not when it is in pages")
def _early_dedupe() -> None:
    def append_frame(self: core.DaemonCore, held: Any, frame: Any, first_run: int) -> core.Appended:
        if not first_run:
            for run, partition in list(enumerate(frame.partitions()))[1:]:
                for start, end in frame.positions(run):
                    held.dedupe.claim(frame.mapper_attempt, partition, start, end)
        return before(self, held, frame, first_run)

    before = core.DaemonCore._append_frame
    core.DaemonCore._append_frame = append_frame


@_break("acks-of-sealed", "a writer takes what a sealed epoch never acknowledged as acknowledged")
def _acks_of_sealed() -> None:
    def restamp(self: routes.Routes, frame: OutFrame, assignment: Any) -> None:
        self.frames -= 1
        self.frame_bytes -= frame.frame_bytes
        self._acknowledged.add(frame.range_epoch)

    routes.Routes._restamp = restamp


@_break("sent-is-acked", "of a broken stream a writer sends again only what it had not sent")
def _sent_is_acked() -> None:
    def begin_stream(self: PushSender, eager_bytes: int = 0) -> None:
        sent = {s: f for s, f in self._sent.items() if s in self._kept}
        before(self, eager_bytes)
        self._sent |= sent
        self._waiting = deque(f for f in self._waiting if f.sequence not in sent)

    before = PushSender.begin_stream
    PushSender.begin_stream = begin_stream


# --- sealing ------------------------------------------------------------------------------


@_break("no-fence", "survivors of a sealed epoch are not fenced")
def _no_fence() -> None:
    def begin_move(self: failover.Failover, exchange: Any, index: int) -> None:
        key = RangeKey(exchange.number, index)
        self._moves[key] = failover._Move(exchange.current(index).epoch, set())
        self._place(key)

    failover.Failover._fence = lambda *_: None
    failover.Failover._fence_returned = lambda *_: None
    failover.Failover._begin_move = begin_move


@_break("no-absorb", "a fenced replica does not store its copies")
def _no_absorb() -> None:
    copy_keeper.CopyKeeper.sealed = lambda *_: None


@_break("seal-forgotten", "the seal of an epoch is not in the database")
def _seal_forgotten() -> None:
    def put(self: epochs.Epochs, placed: Any) -> None:
        if not placed.assignment.sealed:
            before(self, placed)

    before = epochs.Epochs._put
    epochs.Epochs._put = put


@_break("epoch-without-copies", "an epoch that lost its replica goes on without another")
def _epoch_without_copies() -> None:
    def seal_all_of(self: failover.Failover, incarnation: int, cause: str | None = None) -> None:
        for number, index in list(self._current.get(incarnation, ())):
            exchange = self._exchanges[number]
            if exchange.current(index).primary.incarnation == incarnation:
                self.seal(exchange, index)

    failover.Failover.seal_all_of = seal_all_of
    failover.Failover._restore_copies = lambda self: None


# --- stores -------------------------------------------------------------------------------


@_break("failed-write-stored", "a write that failed counts as durable")
def _failed_write_stored() -> None:
    async def write(self: flusher.Flusher, flush: Any) -> None:
        with contextlib.suppress(OSError):
            await self._store.put(flush.path, [*flush.parts, memoryview(flush.index_bytes)])

    flusher.Flusher._write = write


@_break("hung-unnoticed", "a write may be under way for ever, and nobody is told")
def _hung_unnoticed() -> None:
    flush_plan.FlushPlan.waits = lambda self, flush, now: 1.0


@_break("hung-stored", "a write that takes too long counts as durable")
def _hung_stored() -> None:
    _given_up(lambda flush: None)


@_break("hung-repeated", "a write that takes too long is made again while it is under way")
def _hung_repeated() -> None:
    def fail(flush: Any) -> None:
        raise TimeoutError

    _given_up(fail)


def _given_up(then: Callable[[Any], None]) -> None:
    """Have a write that takes too long waited for no more."""

    async def put(self: flusher.Flusher, flush: Any) -> None:
        parts = [*flush.parts, memoryview(flush.index_bytes)]
        writing = asyncio.ensure_future(self._store.put(flush.path, parts))
        self.writes.add(writing)
        writing.add_done_callback(self._forget)
        left_s = self._core.flushes.began(flush, time.monotonic())
        await asyncio.wait({writing}, timeout=left_s)
        self._core.flushes.returned(flush)
        if writing.done():
            writing.result()
        else:
            then(flush)

    flusher.Flusher._put = put


@_break("last-comer", "whoever registers an address has it, whoever answers there")
def _last_comer() -> None:
    members.Members.claim = lambda self, ref: claims.Claim.GRANTED


@_break("pages-freed-early", "the pages of a chunk are free while it is being written")
def _pages_freed_early() -> None:
    def next_flush(self: core.DaemonCore) -> Any:
        flush = before(self)
        if flush is not None:
            for chunk in flush.chunks:
                self.pool.free(chunk.pages)
                freed.add(id(chunk))
        return flush

    def end_flush(self: core.DaemonCore, flush: Any, now: float, **options: bool) -> bool:
        for chunk in flush.chunks:
            if id(chunk) in freed:
                freed.discard(id(chunk))
                chunk.pages = []
        return before_end(self, flush, now, **options)

    freed: set[int] = set()
    before, before_end = core.DaemonCore.next_flush, core.DaemonCore.end_flush
    core.DaemonCore.next_flush = next_flush
    core.DaemonCore.end_flush = end_flush


@_break("no-other-files", "readers are not given the files that others wrote for an epoch")
def _no_other_files() -> None:
    async def from_files(
        self: fetch_service.FetchService, part: Any, partition: int, sender: Any
    ) -> Any:
        for nothing in ():
            yield nothing

    fetch_service.FetchService._from_files = from_files


# --- tiers --------------------------------------------------------------------------------


@_break("flash-is-durable", "copies may go when flash has the rows", tiers=True)
def _flash_is_durable() -> None:
    tiered_store.TieredStore.is_durable = lambda self, path: True


@_break("moved-early", "a move counts before the slow tier has the segment", tiers=True)
def _moved_early() -> None:
    async def try_move(self: mover.Mover, move: Any) -> None:
        self.on_durable(move.path)
        await before(self, move)

    before = mover.Mover._try_move
    mover.Mover._try_move = try_move


@_break("gone-early", "a segment goes from flash before the slow tier has it", tiers=True)
def _gone_early() -> None:
    def moved(self: tier_table.TierTable, move: Any, now: float) -> bool:
        return True

    async def try_move(self: mover.Mover, move: Any) -> None:
        file = self._table._moving[move]
        file.put_at = -1e9
        self._table._set_moved(file, -1e9)
        self.wake()
        await before(self, move)

    before = mover.Mover._try_move
    mover.Mover._try_move = try_move
    tier_table.TierTable.moved = moved


@_break("moved-after-deletion", "a deletion does not wait for moves, nor do they stop", tiers=True)
def _moved_after_deletion() -> None:
    tier_table.TierTable.drop = lambda self, prefix: []
    tier_table.TierTable.dropped = lambda self, prefix: (0, 0)


@_break("moved-unchecked", "a segment is copied from flash as it is", tiers=True)
def _moved_unchecked() -> None:
    def init(self: flash_tier.FlashTier, *args: Any, **options: Any) -> None:
        before(self, *args, **options | {"check": lambda path, data: None})

    before = flash_tier.FlashTier.__init__
    flash_tier.FlashTier.__init__ = init


@_break("moved-out-of-order", "a chunk counts as durable before earlier ones do", tiers=True)
def _moved_out_of_order() -> None:
    def durable(self: waiting_segments.WaitingSegments, path: str) -> None:
        for chunk in self._forget(path):
            chunk.is_durable = True
            chunk.buffer.waiting.remove(chunk)
            self._replication.stored(chunk)

    waiting_segments.WaitingSegments.durable = durable


@_break("left-forgotten", "what an earlier start left on flash is forgotten", tiers=True)
def _left_forgotten() -> None:
    tier_table.TierTable.found = lambda self, path, length, now: None


@_break("sealed-not-hurried", "what a sealed range has on flash alone moves by age", tiers=True)
def _sealed_not_hurried() -> None:
    def stored(
        self: waiting_segments.WaitingSegments, held: Any, flush: Any, *, is_durable: bool
    ) -> None:
        sealed, held.sealed = held.sealed, False
        before(self, held, flush, is_durable=is_durable)
        held.sealed = sealed

    before = waiting_segments.WaitingSegments.stored
    waiting_segments.WaitingSegments.stored = stored


@_break("drained-with-flash", "a daemon ends with segments on flash alone", tiers=True)
def _drained_with_flash() -> None:
    daemon_store.DaemonStore.unmoved_bytes = 0
    daemon_store.DaemonStore.nothing_pending = lambda self: asyncio.sleep(0)


# --- segments -----------------------------------------------------------------------------


@_break("serial-reused", "two segments of the same partitions have one name")
def _serial_reused() -> None:
    def begin_segment(*args: Any) -> Any:
        return before(*args[:3], 1, *args[4:])

    before = core.begin_segment
    core.begin_segment = begin_segment


@_break("index-lacks-last", "the last chunk of a segment is not in its index")
def _index_lacks_last() -> None:
    def add(self: segment.SegmentIndex, *chunk: int) -> None:
        before(self, *chunk)
        if len(self) > 1:
            self.partitions[-1] = 0xFFFFFFFF  # which no partition is

    before = segment.SegmentIndex.add
    segment.SegmentIndex.add = add


@_break("index-misplaced", "a segment's index names the place of another chunk")
def _index_misplaced() -> None:
    def find(self: segment.SegmentIndex, partition: int) -> Any:
        found = before(self, partition)
        if found is not None and len(self) > 1:
            return segment.FoundChunk(self.offsets[0], self.body_bytes[0])
        return found

    before = segment.SegmentIndex.find
    segment.SegmentIndex.find = find


@_break("last-partition-missed", "a segment is not looked into for the last of its partitions")
def _last_partition_missed() -> None:
    def segments_of(self: assignments.AssignmentBuffers, partition: int) -> Any:
        return [one for one in self.segments if one.first <= partition < max(one.last, 1)]

    assignments.AssignmentBuffers.segments_of = segments_of


@_break("one-chunk-durable", "of a segment that is durable one chunk counts as stored")
def _one_chunk_durable() -> None:
    def end_flush(self: core.DaemonCore, flush: Any, now: float, **options: bool) -> bool:
        stored = self.replication.stored
        self.replication.stored = lambda chunk: stored(chunk) if chunk is flush.chunks[0] else None
        try:
            return before(self, flush, now, **options)
        finally:
            self.replication.stored = stored

    before = core.DaemonCore.end_flush
    core.DaemonCore.end_flush = end_flush


@_break("segment-late", "the pages of a segment are free before readers are told of it")
def _segment_late() -> None:
    def end_flush(self: core.DaemonCore, flush: Any, now: float, **options: bool) -> bool:
        is_stored = before(self, flush, now, **options)
        held = self._assignments.get(flush.key)
        if is_stored and held is not None:
            late = held.segments.pop()
            asyncio.get_running_loop().call_later(0.5, held.segments.append, late)
        return is_stored

    before = core.DaemonCore.end_flush
    core.DaemonCore.end_flush = end_flush


@_break("sealed-rest", "what came while a sealed range was being written is not stored")
def _sealed_rest() -> None:
    core.DaemonCore._go_on = lambda self, held, buffer: None


@_break("retry-changed", "a put that failed is repeated with other bytes")
def _retry_changed() -> None:
    def failed(self: flush_plan.FlushPlan, flush: Any, error: Any, now: float) -> None:
        before(self, flush, error, now)
        flush.index_bytes = bytes(len(flush.index_bytes))

    before = flush_plan.FlushPlan.failed
    flush_plan.FlushPlan.failed = failed


@_break("kept-for-ever", "no index of a segment is ever forgotten")
def _kept_for_ever() -> None:
    def put(self: segment_indexes.KeptIndexes, path: str, size_bytes: int, index: Any) -> None:
        kept, self._bytes_max = self._bytes_max, 1 << 40
        before(self, path, size_bytes, index)
        self._bytes_max = kept

    before = segment_indexes.KeptIndexes.put
    segment_indexes.KeptIndexes.put = put


@_break("entry-cut", "of messages that enter a daemon together the last one is lost")
def _entry_cut() -> None:
    def on_messages(self: direct_push.DirectPush, messages: list[bytes]) -> None:
        before(self, messages[:-1] or messages)

    before = direct_push.DirectPush._on_messages
    direct_push.DirectPush._on_messages = on_messages


@_break("entry-turned", "messages that enter a daemon together are taken last one first")
def _entry_turned() -> None:
    def on_messages(self: direct_push.DirectPush, messages: list[bytes]) -> None:
        before(self, messages[::-1])

    before = direct_push.DirectPush._on_messages
    direct_push.DirectPush._on_messages = on_messages


# --- memory -------------------------------------------------------------------------------


@_break("no-budget", "frames are granted without regard to those under way")
def _no_budget() -> None:
    def give_out(self: FrameBudget) -> None:
        kept = self.budget_bytes, self._stream_bytes
        self.budget_bytes = self._stream_bytes = 1 << 40
        try:
            before(self)
        finally:
            self.budget_bytes, self._stream_bytes = kept

    before = FrameBudget.give_out
    FrameBudget.give_out = give_out


@_break("tenant-unflushed", "who has all that is a tenant's waits for others to need pages")
def _tenant_unflushed() -> None:
    PageQueue.pressed_tenants = lambda _: []


@_break("kept-streams", "a stream that rests makes no room for another one of its tenant")
def _kept_streams() -> None:
    intake.WriterIntake.make_room = lambda *_: False


@_break("tenant-uncounted", "what is dropped with an exchange is counted as its tenant's on")
def _tenant_uncounted() -> None:
    tenant_memory.TenantMemory.freed = lambda *_: None


@_break("greedy-copies", "copies take all the pages there are")
def _greedy_copies() -> None:
    limits.PoolShares.copies_room = property(lambda self: self._pool.free_bytes)


# --- readers ------------------------------------------------------------------------------


def _break_counts(name: str) -> None:
    """Break the native count of blocks, if it was built for that; else count in Python.

    That is broken from here either way.
    """
    broken = getattr(NATIVE, "break_on_purpose", None)
    if broken is None:
        merge.COUNTING = block_count
    else:
        assert broken(name)


@_break("no-sums", "a reader does not compare what it found with the committed sums")
def _no_sums() -> None:
    def complete(self: merge.BlockMerge) -> bool:
        is_first = asked.setdefault(self, None) is None
        return is_first and bool(self.count.rows or not self._snapshot.rows)

    asked: dict[Any, None] = {}
    merge.BlockMerge.complete = complete


@_break("no-crc", "a reader checks no checksums and no digests")
def _no_crc() -> None:
    def complete(self: merge.BlockMerge) -> bool:
        count, snapshot = self.count, self._snapshot
        return (count.rows, count.row_bytes) == (snapshot.rows, snapshot.raw_bytes)

    def content(header: Any, stored: Any) -> bytes:
        data = bytes(stored)
        return data if header.codec == block.CODEC_NONE else before(header, stored)

    _break_counts("no-crc")
    before = block_count.decode_content
    block_count.check_block = lambda *_: None
    block_count.decode_content = content
    merge.BlockMerge.complete = complete


@_break("no-reader-dedupe", "a reader does not drop blocks that it has seen")
def _no_reader_dedupe() -> None:
    class Nothing:
        def covers(self, start: int, end: int) -> bool:
            return False

        overlaps = covers

        def add(self, start: int, end: int) -> None:
            pass

    _break_counts("no-reader-dedupe")
    block_count.IntervalSet = Nothing


@_break("any-attempt", "a reader takes the rows of any attempt")
def _any_attempt() -> None:
    def accept(self: block_count.BlockCount, header: Any, stored: Any) -> Any:
        if header.mapper in self._attempts.committed:
            self._attempts.committed[header.mapper] = header.attempt
        return before(self, header, stored)

    _break_counts("any-attempt")
    before = block_count.BlockCount._accept
    block_count.BlockCount._accept = accept


@_break("others-sums", "a partition is verified by the sums of another one of its reader")
def _others_sums() -> None:
    def complete(self: merge.BlockMerge) -> bool:
        _, good = verified.setdefault(id(self._named), (self._named, set()))
        found = self.count.rows, self.count.row_bytes, self.count.digest
        if before(self):
            good.add(found)
        return found in good

    verified: dict[int, tuple[Any, set[Any]]] = {}
    before = merge.BlockMerge.complete
    merge.BlockMerge.complete = complete


@_break("headers-for-rows", "headers make up for rows of mappers that are named")
def _headers_for_rows() -> None:
    def to_name(snapshot: Any, named: Any) -> Any:
        return named - type(named)([named.max()]) if len(named) > 1 else named

    def accept(self: block_count.BlockCount, header: Any) -> None:
        attempts = self._attempts
        self._attempts = SimpleNamespace(committed=attempts.committed, named=frozenset())
        before(self, header)
        self._attempts = attempts

    _break_counts("headers-for-rows")
    before = block_count.BlockCount._accept_bare
    block_count.BlockCount._accept_bare = accept
    merge.mappers_to_name = shared_reading.mappers_to_name = to_name


@_break("given-again", "after a loss a reader gives its other partitions again")
def _given_again() -> None:
    def report_loss(self: gather.Gatherer, *arguments: Any) -> None:
        lost.append(self)
        before(self, *arguments)

    def each(self: row_source.RowSource) -> Any:
        partitions = list(self._partitions)
        while partitions:
            self.present = partitions.pop(0)
            self._watch.come_to(self.present)
            yield self.present
            if self._gatherer in lost:
                lost.remove(self._gatherer)
                partitions = list(self._partitions)
        self._watch.end_pass()

    lost: list[Any] = []
    before = gather.Gatherer._report_loss
    gather.Gatherer._report_loss = report_loss
    row_source.RowSource._each = each


# --- commits ------------------------------------------------------------------------------


@_break("torn-commit", "a batch of changes is written in many transactions")
def _torn_commit() -> None:
    async def write(self: journal.Journal, changes: list[Change]) -> None:
        for change in changes:
            await before(self, [change])

    before = journal.Journal._write_until_done
    journal.Journal._write_until_done = write


@_break("early-answer", "the metadata service answers before its transaction")
def _early_answer() -> None:
    def batch(self: journal.Journal) -> None:  # which all ask that wait for a transaction
        before(self)  # it is written all the same

    before = journal.Journal._batch
    journal.Journal._batch = batch


@_break("second-commit", "a second attempt's commit is counted as well")
def _second_commit() -> None:
    def commit(self: exchange_state.ExchangeState, request: Any) -> bool:
        written = exchange_state.check_commit(
            request, self.spec, self.attempts, self._epochs, self.builds
        )
        if not request.partial:
            self._count_first(request, written, b"")
            return True
        return before(self, request)

    before = exchange_state.ExchangeState.commit
    exchange_state.ExchangeState.commit = commit


@_break("second-sums", "what an attempt commits again is not compared with what it said first")
def _second_sums() -> None:
    exchange_state.commit_digest = lambda _: b"the same"


# --- losses -------------------------------------------------------------------------------


@_break("blind-schema", "a schema takes the place of one that its writer has not seen")
def _blind_schema() -> None:
    def fix(
        self: exchange_state.ExchangeState, kind: RowKind, schema: bytes, seen: bytes | None = None
    ) -> None:
        before(self, kind, schema, seen if seen is None else self.schema)

    before = exchange_state.ExchangeState.fix_row_kind
    exchange_state.ExchangeState.fix_row_kind = fix


@_break("stale-schema", "a reader goes by the schema that it was told when it was made")
def _stale_schema() -> None:
    commit_watch.CommitWatch.describe_again = lambda self: self.describe()


@_break("stale-loss", "a report of a loss in an older build ends the present one")
def _stale_loss() -> None:
    def reported(self: exchange_state.ExchangeState, report: Any) -> int | None:
        index = self.builds.index_of(report.partition)
        return before(self, replace(report, generation=self.generation, build=self.build(index)))

    before = exchange_state.ExchangeState.reported
    exchange_state.ExchangeState.reported = reported


@_break("loss-forgotten", "losses are forgotten when the metadata service is started again")
def _loss_forgotten() -> None:
    losses.Losses.restore = losses.Losses.restore_pending = lambda *_: None


@_break("mixed-attempts", "a range that was sent again is read with its mappers' first attempts")
def _mixed_attempts() -> None:
    def recount(self: builds.Builds, index: int, mapper: int, resent: Any, sums: Any) -> None:
        before(self, index, mapper, resent, sums)
        del self._ranges[index].resent[mapper]
        self._changes.delete("resent", (self._number, index, mapper))

    before = builds.Builds.recount
    builds.Builds.recount = recount


@_break("lost-call", "the driver is told of a loss once, whether or not it heard")
def _lost_call() -> None:
    def calls(self: losses.Losses) -> Any:
        found = before(self)
        for call in found:
            self._losses[call.loss_id].state = losses.LossState.ARRANGED
        return found

    before = losses.Losses.calls
    losses.Losses.calls = calls


@_break("range-by-range", "what a store had is found lost by readers, a range at a time")
def _range_by_range() -> None:
    lost_stores.LostStores._find = lambda self, *_: lost_stores.Found([], 0)


@_break("copies-left", "a source is taken for gone with one of its daemons")
def _copies_left() -> None:
    lost_stores.all = any


@_break("lost-half", "of ranges that are lost at once one is forgotten")
def _lost_half() -> None:
    def begin(self: losses.Losses, lost: Any, *rest: Any) -> None:
        before(self, dict(list(lost.items())[: max(1, len(lost) - 1)]), *rest)

    before = losses.Losses.begin
    losses.Losses.begin = begin


# --- ends ---------------------------------------------------------------------------------


@_break("old-build-early", "an old build goes before all is written anew")
def _old_build_early() -> None:
    dropped_builds.DroppedBuilds.first_kept = lambda self, index: self._first(index, 0)


@_break("old-build-graceless", "an old build goes as soon as the next one is complete")
def _old_build_graceless() -> None:
    def look(self: old_builds.OldBuilds, exchange: Any, graces: Any, now: float) -> bool:
        before(self, exchange, graces, now)
        return before(self, exchange, graces, now + self._grace_s)

    before = old_builds.OldBuilds._look
    old_builds.OldBuilds._look = look


@_break(
    "old-build-beyond", "with the old builds of a range the first epoch of the present one goes"
)
def _old_build_beyond() -> None:
    def after(self: dropped_builds.DroppedBuilds, sequence: int, most: int) -> list[EpochsDrop]:
        return [replace(drop, before=drop.before + 1) for drop in before(self, sequence, most)]

    before = dropped_builds.DroppedBuilds.after
    dropped_builds.DroppedBuilds.after = after


@_break("old-build-kept", "the files of old builds are not deleted")
def _old_build_kept() -> None:
    async def remove(self: epoch_removal.EpochRemoval, number: int, order: Any) -> None:
        pass

    epoch_removal.EpochRemoval._remove = remove


@_break("old-build-own", "of old builds daemons delete the files alone that they hold in memory")
def _old_build_own() -> None:
    async def remove(self: epoch_removal.EpochRemoval, number: int, order: Any) -> None:
        if held.get(self):
            await before(self, number, order)

    async def forget_all(self: epoch_removal.EpochRemoval) -> None:
        keys = [one.key for one in self._core._assignments.values()]
        going = [Going(number, order.before) for number, order in self._to_forget.items()]
        held[self] = any(key in one for key in keys for one in going)
        await before_forget(self)

    held: dict[Any, bool] = {}
    before, before_forget = (
        epoch_removal.EpochRemoval._remove,
        epoch_removal.EpochRemoval._forget_all,
    )
    epoch_removal.EpochRemoval._remove = remove
    epoch_removal.EpochRemoval._forget_all = forget_all


@_break("awaited-store", "a forgotten store is waited for all the same")
def _awaited_store() -> None:
    forgotten_stores.ForgottenStores.__contains__ = lambda *_: False


@_break("early-confirm", "a daemon confirms that an exchange is gone before its files are")
def _early_confirm() -> None:
    def order(self: membership.Membership, orders: DaemonOrders) -> None:
        self._dropped.update(orders.drop)
        before(self, orders)

    before = membership.Membership._order
    membership.Membership._order = order


# --- groups -------------------------------------------------------------------------------


@_break("early-mark", "a mark counts before its copy is safe", groups=True)
def _early_mark() -> None:
    def counting(self: core.DaemonCore, held: Any, frame: Any, answer: Any, *on_count: Any) -> Any:
        mark = held.mark_of(frame)
        if mark is not None:
            self.count(held, mark)
        return answer

    core.DaemonCore.counting = counting


@_break("second-mark", "the mark of a mapper's second attempt counts as well", groups=True)
def _second_mark() -> None:
    def add(self: mark_boards.MarkBoard, mark: Mark) -> bool:
        if self._done is not None and not self.is_complete:
            self._done.discard(mark.mapper)
        return before(self, mark)

    before = mark_boards.MarkBoard.add
    mark_boards.MarkBoard.add = add


@_break("short-keys", "a key of capabilities goes as the next one is in use")
def _short_keys() -> None:
    def turn(self: capability_keys.CapabilityKeys, *given: Any, **named: Any) -> None:
        before(self, *given, **named | {"oldest_open": named["last_number"] + 1})

    before = capability_keys.CapabilityKeys.turn
    capability_keys.CapabilityKeys.turn = turn


@_break("unkept-keys", "keys are made anew when the metadata service starts again")
def _unkept_keys() -> None:
    before = capability_keys.CapabilityKeys.__init__
    capability_keys.CapabilityKeys.__init__ = lambda self, _, changes: before(self, (), changes)


@_break(
    "unsent-mark",
    "what ends with a mark is not sent again to a new epoch",
    groups=True,
)
def _unsent_mark() -> None:
    def restamp(self: routes.Routes, frame: OutFrame, assignment: Any) -> None:
        body = memoryview(b"".join(frame.payload))
        if not any(header.is_mark for _, header in block.walk_blocks(body)):
            before(self, frame, assignment)
            return
        self.frames -= 1
        self.frame_bytes -= frame.frame_bytes
        self._acknowledged.add(frame.range_epoch)

    before = routes.Routes._restamp
    routes.Routes._restamp = restamp


@_break(
    "unmet-seal",
    "a seal of what a daemon has not admitted yet is forgotten",
    groups=True,
)
def _unmet_seal() -> None:
    known_assignments.AlikeAssignments.sealed = lambda *_: None


@_break("admitted-again", "a daemon forgets which exchanges it has dropped", groups=True)
def _admitted_again() -> None:
    known_assignments.AlikeAssignments.drop = lambda *_: None


@_break(
    "no-mark-sums",
    "a reader does not compare what it found with the sums of marks",
    groups=True,
)
def _no_mark_sums() -> None:
    def complete(self: merge.BlockMerge) -> bool:
        if self._snapshot.build == read_plan.MARKS_BUILD and self not in asked:
            asked[self] = None  # it asks before the first fetch
            return False
        return self._snapshot.build == read_plan.MARKS_BUILD or before(self)

    asked: dict[Any, None] = {}
    before = merge.BlockMerge.complete
    merge.BlockMerge.complete = complete


@_break(
    "forgotten-orphans",
    "mappers that die before they commit are never reported",
    groups=True,
)
def _forgotten_orphans() -> None:
    group_table.Groups.report_uncommitted = lambda *_, **__: None


@_break(
    "moved-orphans",
    "marks of ranges that moved are asked for at first epochs only",
    groups=True,
)
def _moved_orphans() -> None:
    def look(self: mark_watch.OrphanWatch, missing: Any) -> Any:
        self._describe = lambda: self._info
        self._partly.clear()
        return before(self, missing)

    before = mark_watch.OrphanWatch.look
    mark_watch.OrphanWatch.look = look


@_break("dropped-commits", "commits are tried once, and dropped if that fails", groups=True)
def _dropped_commits() -> None:
    def deliver(self: commit_outbox.BatchOutbox, batch: Any) -> None:
        with contextlib.suppress(ServiceUnavailable):
            self._send(batch, 1.0)

    commit_outbox.BatchOutbox._deliver = deliver


@_break("no-release", "the release of an exchange is forgotten", groups=True)
def _no_release() -> None:
    group_table.Groups.release = lambda *_, **__: []


@_break(
    "sleeping-followers",
    "readers that wait for marks are not told of a seal",
    groups=True,
)
def _sleeping_followers() -> None:
    def end(self: mark_boards.MarkBoard) -> None:
        self.ended = True

    mark_boards.MarkBoard.end = end


@_break(
    "lost-extension",
    "an extension that is asked for again makes exchanges again",
    groups=True,
)
def _lost_extension() -> None:
    def create(
        self: group_table.Groups,
        spec: Any,
        mappers: int,
        size: int,
        first: int,
        *rest: Any,
        **o: Any,
    ) -> Any:
        group = self._groups.get(spec.shuffle_id)
        if group is not None and first:
            first = group.exchanges
        return before(self, spec, mappers, size, first, *rest, **o)

    before = group_table.Groups.create
    group_table.Groups.create = create


# --- applications -------------------------------------------------------------------------


@_break(
    "serial-callbacks",
    "callbacks of an application's exchanges wait for each other",
    applications=True,
)
def _serial_callbacks() -> None:
    driver._DriverWork._queue = lambda self, call: self.callbacks.add(0, call)


@_break(
    "unrenewed-application",
    "a poll does not renew the lease of an application",
    applications=True,
)
def _unrenewed_application() -> None:
    def renew(
        self: application_table.Applications, application_id: str, owner: bytes, now: float
    ) -> Any:
        return self._get(application_id)

    application_table.Applications.renew = renew


@_break(
    "forgotten-member",
    "the database does not have which exchanges an application owns",
    applications=True,
)
def _forgotten_member() -> None:
    def add(
        self: application_table.Applications,
        application_id: str,
        owner: bytes,
        exchange: exchange_state.ExchangeState,
        now: float,
    ) -> None:
        self._join(self.renew(application_id, owner, now), exchange.number)

    application_table.Applications.add = add


# --- direct reads -------------------------------------------------------------------------


@_break("direct-undurable", "readers are referred to what is still being written")
def _direct_undurable() -> None:
    async def partition(
        self: fetch_service.FetchService, part: Any, partition: int, sender: Any
    ) -> Any:
        snapshot = self._core.snapshot(part.key, partition)
        for piece in snapshot.pieces if snapshot is not None and part.direct else ():
            if piece.chunk.state is partition_buffer.ChunkState.FLUSHING:
                path = piece.chunk.path
                url = await self._urls.url(path)
                reference = Reference(url or "", path, 1 << 20, 0)
                for message in sender.add_reference(
                    piece.body_bytes, piece.chunk.offset, reference
                ):
                    yield message
        async for message in before(self, part, partition, sender):
            yield message

    before = fetch_service.FetchService._partition
    fetch_service.FetchService._partition = partition


@_break("direct-alone", "what a reader cannot read itself is taken for what is not there")
def _direct_alone() -> None:
    def not_direct(self: read_plan.ReadPlan, fetch: read_plan.Fetch) -> None:
        self.answered(fetch, "it cannot be read")

    def is_direct(self: read_plan.ReadPlan, source: Any, daemon: Any, now: float) -> bool:
        return self._direct is not None and bool(source.store_of(daemon))

    read_plan.ReadPlan.not_direct = not_direct
    read_plan.ReadPlan._is_direct = is_direct


@_break("direct-unbounded", "a read of a store that hangs is waited for")
def _direct_unbounded() -> None:
    direct_reads.WAIT_S = 1e9
