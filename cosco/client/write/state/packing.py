"""Packing: rows → blocks, sorted by partition → frames of one partition range each.

A packer buffers rows until it has about `buffer_bytes` of them: the more rows of a partition
lie in the buffer, the longer its blocks, and all that comes after is paid by the block. It
holds its buffer, a sort buffer of at most as much that is not sorted yet, and one frame.

Frames are made lazily, by generators. A packer whose generator was dropped half-way has lost
the rows that were under way, so its attempt must be aborted; nothing else goes wrong.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content.arrow import (
    ContentEncoder,
    decode_plain,
    encode_plain,
)
from cosco.client.content.arrow_binding import unbound_columns
from cosco.client.content.arrow_schema import Conversion, Conversions, normalize_schema
from cosco.client.content.arrow_transport import transport
from cosco.client.content.byte_rows import MAX_ROW_BYTES
from cosco.client.content.row_costs import batch_bytes, batch_costs
from cosco.client.write.state.batch_arguments import (
    BATCH_ROW_OVERHEAD,
    BatchPartitions,
    BatchRows,
    RowPartitions,
    RowRun,
    batch_partitions,
    byte_view,
    checked_partition,
    cuts,
    offsets_of,
    slice_partitions,
)
from cosco.client.write.state.batch_sorting import BatchPart, joined_or_none
from cosco.client.write.state.framing import FrameBuilder, PackedFrame
from cosco.client.write.state.packing_parts import batch_sorter, row_sorter
from cosco.client.write.state.sorting import places, sort_buffer_bytes
from cosco.errors import InvalidRow, SchemaMismatch
from cosco.format.block import MAX_CONTENT_BYTES, Buffer
from cosco.protocol.records import AttemptSums, OpenedAttempt

#: Buffers are kept below this, so that offsets of 32 bits reach everywhere in them.
MAX_BUFFER_BYTES: Final = 1 << 30
_MAX_PENDING_ROWS: Final = 2048
_MIN_PENDING_ROWS: Final = 16
#: What each small batch takes besides its rows.
_PIECE_OVERHEAD: Final = 512
#: Batches expected to be shorter are encoded without being measured before.
_SURE_TO_FIT_BYTES: Final = MAX_CONTENT_BYTES // 2
#: Codes of dictionaries take four bytes in the buffer and down to one in a block: up to this length
#: it is tried whether a batch is one block.
_MAY_FIT_BYTES: Final = MAX_CONTENT_BYTES * 4
#: References to values may be cut to a quarter for a block.
_MAX_PLAIN_ROW_BYTES: Final = 4 * MAX_ROW_BYTES
#: What a batch that is too long for a block is cut to; rows differ in length.
_ARROW_TARGET_BYTES: Final = MAX_CONTENT_BYTES * 7 // 8

_Batch = TypeVar("_Batch")


class PendingRows:
    """A few rows that were collected one by one, to which any thread may add without a lock.

    They stay pending while they are few: joined while they are in the cache, and their objects
    given back for the caller to use again, rows cost a fraction of what they cost when a whole
    buffer of them is joined.

    Adding is one `extend` of `pairs`, and draining deletes as many rows from the front as it has
    copied before: the interpreter makes each of the three whole, and what is added comes behind
    what is deleted, so no row is lost, nor drained twice. Threads that drain or remove must take
    turns.
    """

    def __init__(self, buffer_bytes: int) -> None:
        """Set the bounds for a buffer of `buffer_bytes`: at most a quarter of that is pending."""
        rows = min(max(buffer_bytes >> 14, _MIN_PENDING_ROWS), _MAX_PENDING_ROWS)
        #: partition, row, partition, row, …; the same list for ever.
        self.pairs: Final[list[Any]] = []
        #: The rows are to be joined when `pairs` has this length,
        self.due_length: Final = 2 * rows
        #: or when one of them has more bytes than this.
        self.short_bytes: Final = buffer_bytes // 4 // rows

    def add(self, partition: int, row: bytes) -> bool:
        """Add a valid row.

        Returns: whether the rows are to be joined now.
        """
        self.pairs.extend((partition, row))
        return len(row) > self.short_bytes or len(self.pairs) >= self.due_length

    def drain(self) -> tuple[list[int], list[bytes]]:
        """Remove all rows.

        Returns: the partition of each row, and the rows.
        """
        pairs = self.pairs.copy()
        del self.pairs[: len(pairs)]
        return pairs[::2], pairs[1::2]

    def remove(self, partition: int, row: bytes) -> bool:
        """Remove a row that was added.

        Any of equal rows will do: as many are removed as were not drained.

        Returns: False if it was drained before.
        """
        for index in range(0, len(self.pairs), 2):
            if self.pairs[index] == partition and self.pairs[index + 1] == row:
                del self.pairs[index : index + 2]
                return True
        return False


class Packer(ABC, Generic[_Batch]):
    """What packers of both kinds share: the frames, and when the buffer is full."""

    def __init__(self, opened: OpenedAttempt, buffer_bytes: int) -> None:
        """Begin with an empty buffer and row 0 of every partition."""
        self._frames = FrameBuilder(opened)
        self._limit = min(buffer_bytes, MAX_BUFFER_BYTES)
        #: Memory that buffered rows take, overhead included.
        self.buffered_bytes = 0

    def sums(self) -> AttemptSums:
        """Return what all blocks made so far add up to."""
        return self._frames.sums()

    def drain(self, *, marks: bool = False) -> Iterator[PackedFrame]:
        """Yield everything that is buffered, in frames.

        marks: the last frame of each range ends with its mark, and nothing comes after that.
        """
        if marks:
            self._frames.begin_marks()
        yield from self._empty()

    @abstractmethod
    def close(self) -> None:
        """Leave the buffers to the next packer of this process, after the last `drain`."""

    @abstractmethod
    def _pack_buffered(self) -> Iterator[PackedFrame]:
        """Make the blocks of all that is buffered, and leave the buffer empty."""

    @abstractmethod
    def _append(self, row_partitions: BatchPartitions, batch: _Batch) -> None:
        """Copy rows to the end of the buffer."""

    def _make_room(self, cost: int) -> Iterator[PackedFrame]:
        """Pack what is buffered if `cost` bytes do not fit in beside it."""
        if self.buffered_bytes + cost > self._limit:
            yield from self._empty()

    def _empty_if_full(self) -> Iterator[PackedFrame]:
        if self._room() == self._limit:
            yield from self._empty()

    def _room(self) -> int:
        """Return how many bytes to add next: what is free, or if that is little, a full buffer."""
        room = self._limit - self.buffered_bytes
        return room if room > self._limit // 8 else self._limit

    def _empty(self) -> Iterator[PackedFrame]:
        """Pack everything that is buffered, and end the open frame."""
        yield from self._pack_buffered()
        yield from self._frames.end()

    def _partitions_of_rows(self, partitions: Any, rows: int) -> BatchPartitions:
        return batch_partitions(partitions, rows=rows, partitions=self._frames.partitions)

    def _is_unwanted(self, row_partitions: BatchPartitions) -> bool:
        """Whether no row of a batch is wanted."""
        wanted = self._frames.wanted
        return wanted is not None and not wanted[row_partitions].any()


class RowPacker(Packer[RowRun]):
    """Packs rows that are bytes."""

    def __init__(self, opened: OpenedAttempt, buffer_bytes: int) -> None:
        super().__init__(opened, buffer_bytes)
        #: Rows that were collected one by one and not joined yet.
        self.pending: Final = PendingRows(self._limit)
        self._sorter = row_sorter(self._frames.partitions, self._limit)

    def collect(self, partition: int, row: bytes) -> bool:
        """Add one row to those that are pending, or check and drop it if it is not wanted.

        Returns: whether `join_pending` is due.
        Raises: PartitionOutOfRange, InvalidRow.
        """
        partition = checked_partition(partition, self._frames.partitions)
        view = byte_view(row)
        if self._frames.wanted is not None and not self._frames.wanted[partition]:
            return False
        return self.pending.add(partition, bytes(view))

    def join_pending(self) -> Iterator[PackedFrame]:
        """Buffer the rows that are pending, and yield frames whenever the buffer is full."""
        found, rows = self.pending.drain()
        if not rows:  # another thread was faster, say
            return
        cost = sum(map(len, rows)) + BATCH_ROW_OVERHEAD * len(rows)
        if cost <= self._room():
            yield from self._make_room(cost)
            if self._sorter.append_rows(found, rows):
                self.buffered_bytes += cost + _PIECE_OVERHEAD
                yield from self._empty_if_full()
                return
        row_partitions = _partition_array(found, self._frames.partitions)
        del found
        offsets, data = offsets_of(rows), np.frombuffer(b"".join(rows), np.uint8)
        del rows  # they are in `data`
        for first, end in cuts(offsets, self._room):
            run = RowRun(offsets[first : end + 1], data)
            yield from self._add(row_partitions[first:end], run)

    def collect_batch(self, partitions: Any, rows: Any) -> Iterator[PackedFrame]:
        """Buffer many rows, and yield frames whenever the buffer is full.

        partitions: a one-dimensional array or sequence of integers, or one for all rows. rows: an
        Arrow array of binary or a sequence of bytes-likes, of the same length. All are checked by
        this call, before any is buffered.

        Raises: InvalidRow, InvalidArgument, PartitionOutOfRange.
        """
        batch = BatchRows(rows)
        return self._add_batch(self._partitions_of_rows(partitions, len(batch)), batch)

    def _add_batch(
        self, row_partitions: BatchPartitions, batch: BatchRows
    ) -> Iterator[PackedFrame]:
        if self._is_unwanted(row_partitions):
            return
        if self._frames.wanted is not None and not isinstance(row_partitions, int):
            keep = self._frames.wanted[row_partitions]
            row_partitions = row_partitions[keep]
            batch.select(keep)
        yield from self.join_pending()
        done = 0
        for run in batch.runs(self._room):
            first, done = done, done + run.rows
            yield from self._add(slice_partitions(row_partitions, first, done), run)

    def _add(self, row_partitions: BatchPartitions, run: RowRun) -> Iterator[PackedFrame]:
        """Buffer or pack rows, at most about a full buffer of them."""
        yield from self._make_room(run.row_bytes + BATCH_ROW_OVERHEAD * run.rows)
        self._append(row_partitions, run)
        yield from self._empty_if_full()

    def drain(self, *, marks: bool = False) -> Iterator[PackedFrame]:
        """See `Packer.drain`."""
        yield from self.join_pending()
        yield from super().drain(marks=marks)

    def close(self) -> None:
        """See `Packer.close`."""
        self._sorter.close()

    def _append(self, row_partitions: BatchPartitions, batch: RowRun) -> None:
        if isinstance(row_partitions, int):
            self._sorter.append_sorted(row_partitions, batch)
        else:
            self._sorter.append(row_partitions, batch)
        self.buffered_bytes += batch.row_bytes + BATCH_ROW_OVERHEAD * batch.rows + _PIECE_OVERHEAD

    def _pack_buffered(self) -> Iterator[PackedFrame]:
        self.buffered_bytes = 0
        rows = self._sorter.drain()
        while rows.partition() is not None:
            yield from self._frames.add_sorted(rows)
            if (partition := rows.partition()) is not None:
                yield from self._frames.add_long_row(partition, rows.take_long_row())
        self._sorter.reuse(rows)


class ArrowPacker(Packer[pa.RecordBatch]):
    """Packs rows of Arrow batches of one schema.

    What is buffered are plain batches, and the pools of the values they name: see
    `cosco.client.content.arrow_transport`.
    """

    def __init__(self, opened: OpenedAttempt, buffer_bytes: int, schema: pa.Schema) -> None:
        """Begin with an empty buffer.

        Raises: SchemaMismatch for a schema with types that cannot be sorted.
        """
        super().__init__(opened, buffer_bytes)
        self._set_schema(schema)
        # The sort buffer, with rows as they came: see cosco.client.write.state.sorting.
        self._unsorted: list[pa.RecordBatch] = []
        self._row_partitions: list[RowPartitions] = []
        self._sort_buffer_used = 0
        self._sort_buffer_bytes = sort_buffer_bytes(self._frames.partitions, self._limit)

    def collect_batch(self, partitions: Any, batch: Any) -> Iterator[PackedFrame]:
        """Buffer the rows of a RecordBatch or Table, and yield frames whenever the buffer is full.

        `partitions` are as for `RowPacker.collect_batch`. All is checked by this call, before any
        row is buffered.

        Raises: SchemaMismatch, InvalidRow, InvalidArgument, PartitionOutOfRange.
        """
        if not isinstance(batch, pa.RecordBatch | pa.Table):
            raise SchemaMismatch(
                f"it takes Arrow batches, not {type(batch).__name__}: give a RecordBatch or a "
                "Table of its schema"
            )
        change = self._conversions.of(batch.schema)
        change.check(batch)
        row_partitions = self._partitions_of_rows(partitions, batch.num_rows)
        batches = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        is_plain = self._way.is_plain and not any(change.converts)
        costs = [None if is_plain else _checked_costs(one) for one in batches]
        return self._add_batches(change, row_partitions, batches, costs)

    def _add_batches(
        self,
        change: Conversion,
        row_partitions: BatchPartitions,
        batches: list[pa.RecordBatch],
        costs: list[npt.NDArray[np.int64] | None],
    ) -> Iterator[PackedFrame]:
        if self._is_unwanted(row_partitions):
            return
        done = 0
        for whole, row_costs in zip(batches, costs, strict=True):
            cuts = self._plain_cuts(whole) if row_costs is None else self._cuts(whole, row_costs)
            for part, cost in cuts:
                first, done = done, done + part.num_rows
                where = slice_partitions(row_partitions, first, done)
                yield from self._add_part(change.apply(part), where, cost)

    def bind(self, schema: pa.Schema) -> Iterator[PackedFrame]:
        """Go on with a finer schema, and yield frames of the rows that came before.

        Their blocks say themselves which columns have no type yet. Nothing is packed for the schema
        that it goes by already, which is the same object as a rule.
        """
        if schema is not self._bound:
            yield from self._empty()
            self._set_schema(schema)

    def close(self) -> None:
        """See `Packer.close`."""
        self._sorter.close()

    def _set_schema(self, schema: pa.Schema) -> None:
        self._bound = schema
        self._schema = normalize_schema(schema)
        self._conversions = Conversions(self._schema, strict=True)
        #: Whether every column has a type, so that `bind` has nothing to add.
        self.is_bound = not unbound_columns(self._schema)
        self._way = transport(self._schema)
        self._pools = self._way.new_pools()
        self._encoder = ContentEncoder(self._way)
        self._sorter = batch_sorter(self._way, self._frames.partitions, self._limit)

    def _add_part(
        self, part: pa.RecordBatch, row_partitions: BatchPartitions, cost: int
    ) -> Iterator[PackedFrame]:
        """Buffer rows that are not plain yet; `cost`: their bytes when they are."""
        # Before the values go to the pools: when the buffer is packed, those begin anew.
        yield from self._make_room(cost + BATCH_ROW_OVERHEAD * part.num_rows)
        kept, kept_partitions = self._select(self._way.to_plain(part, self._pools), row_partitions)
        for pool in self._pools:
            self.buffered_bytes += pool.added_bytes
            pool.added_bytes = 0
        if kept.num_rows:
            self._append(kept_partitions, kept)
        yield from self._empty_if_full()

    def _pack_buffered(self) -> Iterator[PackedFrame]:
        self._sort()
        pools, self._pools = self._pools, self._way.new_pools()
        self.buffered_bytes = 0
        sorter, encoder = self._sorter, self._encoder
        sure_bytes = _MAY_FIT_BYTES if pools else _SURE_TO_FIT_BYTES
        rows = sorter.drain(sure_bytes, lambda plain: memoryview(encoder.encode(plain, pools)))
        while rows.partition() is not None:
            yield from self._frames.add_sorted(rows)
            if (partition := rows.partition()) is not None:
                for part in rows.take():
                    yield from self._pack_partition(partition, part, rows.row_bytes(), sure_bytes)
        sorter.reuse(rows)

    def _plain_cuts(self, whole: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield the rows of a plain batch, each time as many as there is room for."""
        start = 0
        while start < whole.num_rows:
            row_bytes = batch_bytes(whole) / whole.num_rows + BATCH_ROW_OVERHEAD
            count = max(1, int(self._room() / row_bytes))
            yield from self._halves(whole.slice(start, count))
            start += count

    def _halves(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Cut `batch` in halves until each is short: rows may differ much in length."""
        count, size = batch.num_rows, batch_bytes(batch)
        if count == 1 or size <= 2 * self._limit:
            yield batch, size
            return
        yield from self._halves(batch.slice(0, count // 2))
        yield from self._halves(batch.slice(count // 2))

    def _cuts(
        self, whole: pa.RecordBatch, costs: npt.NDArray[np.int64]
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield the rows of any batch, each time as many as there is room for once plain."""
        ends = np.cumsum(costs + BATCH_ROW_OVERHEAD)
        start, before = 0, 0
        while start < whole.num_rows:
            end = int(np.searchsorted(ends, before + self._room(), "right"))
            end = max(start + 1, end)
            cost = int(ends[end - 1]) - before - BATCH_ROW_OVERHEAD * (end - start)
            yield whole.slice(start, end - start), cost
            start, before = end, int(ends[end - 1])

    def _select(
        self, batch: pa.RecordBatch, row_partitions: BatchPartitions
    ) -> tuple[pa.RecordBatch, BatchPartitions]:
        """Return the rows of a batch that are wanted, and their partitions.

        Where one partition is given for all, they are.
        """
        if self._frames.wanted is None or isinstance(row_partitions, int):
            return batch, row_partitions
        kept = np.flatnonzero(self._frames.wanted[row_partitions])
        return batch.take(places(kept)), row_partitions[kept]

    def _append(self, row_partitions: BatchPartitions, batch: pa.RecordBatch) -> None:
        count, size = batch.num_rows, self._way.plain_bytes(batch)
        self.buffered_bytes += size + BATCH_ROW_OVERHEAD * count + _PIECE_OVERHEAD
        if isinstance(row_partitions, int):
            self._sort()  # some of it may be for this partition, and come before
            self._sorter.append(row_partitions, batch)
            return
        step = max(1, count * self._sort_buffer_bytes // max(1, size))
        for first in range(0, count, step):
            part, few = batch.slice(first, step), row_partitions[first : first + step]
            part_bytes = len(few) * size // count
            if self._sort_buffer_used + part_bytes > self._sort_buffer_bytes:
                self._sort()
            if part_bytes > self._sort_buffer_bytes // 2:
                # As good as a full sort buffer: sorted out of the caller's memory, and not
                # copied before.
                self._sort()
                self._sorter.append(few, part)
                continue
            content = encode_plain(part)
            self._unsorted.append(decode_plain(content, self._way.plain))
            self._row_partitions.append(few)
            self._sort_buffer_used += content.size

    def _sort(self) -> None:
        unsorted, self._unsorted = self._unsorted, []
        row_partitions, self._row_partitions = self._row_partitions, []
        self._sort_buffer_used = 0
        if len(unsorted) > 1 and (joined := joined_or_none(unsorted)) is not None:
            unsorted, row_partitions = [joined], [np.concatenate(row_partitions)]
        for few, batch in zip(row_partitions, unsorted, strict=True):
            self._sorter.append(few, batch)

    def _pack_partition(
        self, partition: int, part: BatchPart, row_bytes: float, sure_bytes: int
    ) -> Iterator[PackedFrame]:
        """Make blocks of one partition's rows, of about `row_bytes` each."""
        rows = part.num_rows
        content: Buffer | None = None
        if rows == 1 or rows * row_bytes <= sure_bytes:
            content = part.encode()
            length = len(content)
        else:
            length = part.plain_bytes()
        if length > MAX_CONTENT_BYTES and rows > 1:
            count = -(-rows // -(-length // _ARROW_TARGET_BYTES))
            for start in range(0, rows, count):
                few = part.slice(start, count)
                yield from self._pack_partition(partition, few, row_bytes, sure_bytes)
            return
        if content is None:
            content = part.encode()
            length = len(content)
        if length > MAX_CONTENT_BYTES and rows == 1:
            yield from self._frames.add_long_row(partition, memoryview(content))
            return
        if length > MAX_CONTENT_BYTES:  # with its schema, or its values
            half = rows // 2
            for few in (part.slice(0, half), part.slice(half, rows - half)):
                yield from self._pack_partition(partition, few, row_bytes, sure_bytes)
            return
        yield from self._frames.add(partition, rows, content)


def _partition_array(row_partitions: list[int], partitions: int) -> npt.NDArray[Any]:
    """Return the partitions of rows, as integers that are just wide enough."""
    # An order of magnitude faster than numpy makes an array of a list of integers.
    packed = struct.pack(f"={len(row_partitions)}I", *row_partitions)
    return np.frombuffer(packed, np.uint32).astype(np.min_scalar_type(partitions - 1))


def _checked_costs(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return what each row of a batch takes once it is plain.

    Raises: InvalidRow for one that is too long for any block to carry.
    """
    costs = batch_costs(batch)
    longest = int(costs.max(initial=0))
    if longest > _MAX_PLAIN_ROW_BYTES:
        raise InvalidRow(
            f"a row of {longest} bytes once its runs and shared values are written out, the limit "
            f"is {MAX_ROW_BYTES}: cut it in two"
        )
    return costs
