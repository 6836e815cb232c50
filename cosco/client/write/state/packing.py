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
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cosco.client.content.arrow import (
    ARROW_POOL,
    check_schema,
    decode_batch,
    encode_batch,
    normalize_schema,
    to_transport,
    transport,
)
from cosco.client.content.byte_rows import block_cuts
from cosco.client.write.state.batch_arguments import (
    BATCH_ROW_OVERHEAD,
    BatchRows,
    RowPartitions,
    RowRun,
    byte_view,
    checked_partition,
    cuts,
    offsets_of,
    partition_array,
)
from cosco.client.write.state.framing import FrameBuilder, PackedFrame
from cosco.client.write.state.sorting import (
    PartitionRows,
    RowSorter,
    partition_bounds,
    places,
    sort_buffer_bytes,
)
from cosco.errors import InvalidRow, SchemaMismatch
from cosco.format.block import LENGTH_BYTES, MAX_CONTENT_BYTES
from cosco.protocol.records import U32, AttemptSums, OpenedAttempt

#: Buffers are kept below this, so that offsets of 32 bits reach everywhere in them.
MAX_BUFFER_BYTES: Final = 1 << 30
_MAX_PENDING_ROWS: Final = 2048
_MIN_PENDING_ROWS: Final = 16
#: What each small batch takes besides its rows.
_PIECE_OVERHEAD: Final = 512
#: Batches expected to be shorter are encoded without being measured before.
_SURE_TO_FIT_BYTES: Final = MAX_CONTENT_BYTES // 2
#: Dictionaries that cannot be cut to the values in use leave half of each block to the rows.
_MAX_DICTIONARY_BYTES: Final = MAX_CONTENT_BYTES // 2
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

    def drain(self) -> tuple[U32, list[bytes]]:
        """Remove all rows.

        Returns: the partition of each row, and the rows.
        """
        pairs = self.pairs.copy()
        del self.pairs[: len(pairs)]
        # An order of magnitude faster than numpy makes an array of a list of integers.
        row_partitions = struct.pack(f"={len(pairs) // 2}I", *pairs[::2])
        return np.frombuffer(row_partitions, np.uint32), pairs[1::2]

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
    def _pack_buffered(self) -> Iterator[PackedFrame]:
        """Make the blocks of all that is buffered, and leave the buffer empty."""

    @abstractmethod
    def _append(self, row_partitions: RowPartitions, batch: _Batch) -> None:
        """Copy rows to the end of the buffer."""

    def _add(
        self, row_partitions: RowPartitions, batch: _Batch, batch_bytes: int
    ) -> Iterator[PackedFrame]:
        """Buffer or pack rows, at most about a full buffer of them."""
        cost = batch_bytes + BATCH_ROW_OVERHEAD * len(row_partitions)
        if self.buffered_bytes + cost > self._limit:
            yield from self._empty()
        self._append(row_partitions, batch)
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

    def _partitions_of_rows(self, partitions: Any, rows: int) -> RowPartitions:
        return partition_array(partitions, rows=rows, partitions=self._frames.partitions)


class RowPacker(Packer[RowRun]):
    """Packs rows that are bytes."""

    def __init__(self, opened: OpenedAttempt, buffer_bytes: int) -> None:
        super().__init__(opened, buffer_bytes)
        #: Rows that were collected one by one and not joined yet.
        self.pending: Final = PendingRows(self._limit)
        self._sorter = RowSorter(self._frames.partitions, self._limit)

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
        row_partitions, rows = self.pending.drain()
        if not rows:  # another thread was faster, say
            return
        row_partitions = row_partitions.astype(np.min_scalar_type(self._frames.partitions - 1))
        offsets, data = offsets_of(rows), np.frombuffer(b"".join(rows), np.uint8)
        del rows  # they are in `data`
        for first, end in cuts(offsets, self._room):
            run = RowRun(offsets[first : end + 1], data)
            yield from self._add(row_partitions[first:end], run, run.row_bytes)

    def collect_batch(self, partitions: Any, rows: Any) -> Iterator[PackedFrame]:
        """Buffer many rows, and yield frames whenever the buffer is full.

        partitions: a one-dimensional array or sequence of integers. rows: an Arrow array of
        binary or a sequence of bytes-likes, of the same length. All are checked before any is
        buffered.

        Raises: InvalidRow, InvalidArgument, PartitionOutOfRange.
        """
        batch = BatchRows(rows)
        row_partitions = self._partitions_of_rows(partitions, len(batch))
        if self._frames.wanted is not None:
            keep = self._frames.wanted[row_partitions]
            row_partitions = row_partitions[keep]
            batch.select(keep)
        yield from self.join_pending()
        done = 0
        for run in batch.runs(self._room):
            first, done = done, done + len(run.offsets) - 1
            yield from self._add(row_partitions[first:done], run, run.row_bytes)

    def drain(self, *, marks: bool = False) -> Iterator[PackedFrame]:
        """See `Packer.drain`."""
        yield from self.join_pending()
        yield from super().drain(marks=marks)

    def close(self) -> None:
        """Leave the buffers to the next packer of this process, after the last `drain`."""
        self._sorter.close()

    def _append(self, row_partitions: RowPartitions, batch: RowRun) -> None:
        self._sorter.append(row_partitions, batch)
        self.buffered_bytes += (
            batch.row_bytes + BATCH_ROW_OVERHEAD * len(row_partitions) + _PIECE_OVERHEAD
        )

    def _pack_buffered(self) -> Iterator[PackedFrame]:
        self.buffered_bytes = 0
        for partition, rows in self._sorter.drain():
            yield from self._pack_partition(partition, rows)

    def _pack_partition(self, partition: int, rows: PartitionRows) -> Iterator[PackedFrame]:
        tables, pieces = rows.tables, rows.pieces
        table_bytes = sum(map(len, tables))
        if table_bytes + sum(map(len, pieces)) <= MAX_CONTENT_BYTES:
            count = table_bytes // LENGTH_BYTES
            content = b"".join((*tables, *pieces))
            yield from self._frames.add(partition, count, content, lengths=True)
            return
        table = memoryview(b"".join(tables))
        joined = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        ends = np.cumsum(np.frombuffer(table, "<u4"), dtype=np.int64)
        start = 0
        for first, last in block_cuts(ends + np.arange(1, len(ends) + 1) * LENGTH_BYTES, 0):
            end = int(ends[last - 1])
            part, start = joined[start:end], end
            if last - first == 1 and len(part) + LENGTH_BYTES > MAX_CONTENT_BYTES:
                yield from self._frames.add_long_row(partition, part)
                continue
            lengths = table[LENGTH_BYTES * first : LENGTH_BYTES * last]
            content = b"".join((lengths, part))
            yield from self._frames.add(partition, last - first, content, lengths=True)


class ArrowPacker(Packer[pa.RecordBatch]):
    """Packs rows of Arrow batches of one schema."""

    def __init__(self, opened: OpenedAttempt, buffer_bytes: int, schema: pa.Schema) -> None:
        """Begin with an empty buffer.

        Raises: SchemaMismatch for a schema with types that cannot be sorted.
        """
        super().__init__(opened, buffer_bytes)
        self._schema = normalize_schema(schema)
        self._sent, self._dictionaries = transport(self._schema)
        # The sort buffer, with rows as they came, and what was sorted of it before: see
        # cosco.client.write.state.sorting.
        self._unsorted: list[pa.RecordBatch] = []
        self._row_partitions: list[RowPartitions] = []
        self._sort_buffer_used = 0
        self._sort_buffer_bytes = sort_buffer_bytes(self._frames.partitions, self._limit)
        self._sorted: list[tuple[RowPartitions, pa.RecordBatch]] = []

    def collect_batch(self, partitions: Any, batch: Any) -> Iterator[PackedFrame]:
        """Buffer the rows of a RecordBatch or Table, and yield frames whenever the buffer is full.

        `partitions` are as for `RowPacker.collect_batch`. All is checked before any row is
        buffered.

        Raises: SchemaMismatch, InvalidRow, InvalidArgument, PartitionOutOfRange.
        """
        if not isinstance(batch, pa.RecordBatch | pa.Table):
            raise SchemaMismatch(
                f"it takes Arrow batches, not {type(batch).__name__}: give a RecordBatch or a "
                "Table of its schema"
            )
        check_schema(batch.schema, self._schema)
        row_partitions = self._partitions_of_rows(partitions, batch.num_rows)
        batches = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        for one in batches:
            length = self._dictionary_bytes(one)
            if length > _MAX_DICTIONARY_BYTES:
                raise InvalidRow(
                    f"ordered or nested dictionaries of {length} bytes would travel with every "
                    f"block, the limit is {_MAX_DICTIONARY_BYTES}: cast them to their values"
                )
        if self._frames.wanted is not None and not self._frames.wanted[row_partitions].any():
            return
        done = 0
        for part in self._parts(batches):
            first, done = done, done + part.num_rows
            kept, kept_partitions = self._select(part, row_partitions[first:done])
            if len(kept_partitions):
                yield from self._add(kept_partitions, kept, kept.nbytes)

    def _pack_buffered(self) -> Iterator[PackedFrame]:
        self._sort()
        runs, self._sorted = self._sorted, []
        self.buffered_bytes = 0
        if self._dictionaries and len(runs) > 1:
            batches = [batch for _, batch in runs]
            if (joined := self._joined(batches)) is not None:
                runs = [_sorted(np.concatenate([one for one, _ in runs]), joined)]
        pieces: defaultdict[int, list[tuple[pa.RecordBatch, int, int]]] = defaultdict(list)
        row_bytes = sum(batch.nbytes for _, batch in runs) / max(
            1, sum(len(row_partitions) for row_partitions, _ in runs)
        )
        for row_partitions, batch in runs:
            for first, end in pairwise(partition_bounds(row_partitions)):
                pieces[int(row_partitions[first])].append((batch, first, end))
        for partition in sorted(pieces):
            parts = [batch.slice(first, end - first) for batch, first, end in pieces.pop(partition)]
            if len(parts) > 1 and not self._dictionaries:
                joined = self._joined(parts)
                parts = parts if joined is None else [joined]
            for part in parts:
                yield from self._pack_partition(partition, part, row_bytes)

    def _parts(self, batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `batches`, each cut to what there is room for."""
        for whole in batches:
            start = 0
            while start < whole.num_rows:
                row_bytes = whole.nbytes / whole.num_rows + BATCH_ROW_OVERHEAD
                count = max(1, int(self._room() / row_bytes))
                yield from self._halves(to_transport(whole.slice(start, count), self._sent))
                start += count

    def _halves(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Cut `batch` in halves until each is short: rows may differ much in length."""
        count = batch.num_rows
        if count == 1 or self._dictionaries or batch.nbytes <= 2 * self._limit:
            yield batch
            return
        yield from self._halves(batch.slice(0, count // 2))
        yield from self._halves(batch.slice(count // 2))

    def _joined(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
        """Return the batches as one, or None if their dictionaries cannot be one."""
        try:
            joined = pa.concat_batches(batches, memory_pool=ARROW_POOL)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None  # too many values for the index type, say
        return joined if self._dictionary_bytes(joined) <= _MAX_DICTIONARY_BYTES else None

    def _select(
        self, batch: pa.RecordBatch, row_partitions: RowPartitions
    ) -> tuple[pa.RecordBatch, RowPartitions]:
        """Return the rows of `batch` that are wanted, and their partitions."""
        if self._frames.wanted is None:
            return batch, row_partitions
        kept = np.flatnonzero(self._frames.wanted[row_partitions])
        return batch.take(places(kept)), row_partitions[kept]

    def _append(self, row_partitions: RowPartitions, batch: pa.RecordBatch) -> None:
        count, batch_bytes = len(row_partitions), batch.nbytes
        self.buffered_bytes += batch_bytes + BATCH_ROW_OVERHEAD * count + _PIECE_OVERHEAD
        step = max(1, count * self._sort_buffer_bytes // max(1, batch_bytes))
        for first in range(0, count, step):
            part, few = batch.slice(first, step), row_partitions[first : first + step]
            part_bytes = len(few) * batch_bytes // count
            if self._sort_buffer_used + part_bytes > self._sort_buffer_bytes:
                self._sort()
            if part_bytes > self._sort_buffer_bytes // 2 and not self._dictionaries:
                # As good as a full sort buffer: sorted out of the caller's memory, and not
                # copied before. Rows with dictionaries would share the caller's.
                self._sort()
                self._sorted.append(_sorted(few, part))
                continue
            content = encode_batch(part, dictionaries=self._dictionaries)
            copy = decode_batch(content, self._sent, dictionaries=self._dictionaries)
            self._unsorted.append(copy)
            self._row_partitions.append(few)
            self._sort_buffer_used += content.size

    def _sort(self) -> None:
        unsorted, self._unsorted = self._unsorted, []
        row_partitions, self._row_partitions = self._row_partitions, []
        self._sort_buffer_used = 0
        if len(unsorted) > 1 and (joined := self._joined(unsorted)) is not None:
            unsorted, row_partitions = [joined], [np.concatenate(row_partitions)]
        self._sorted += map(_sorted, row_partitions, unsorted)

    def _pack_partition(
        self, partition: int, batch: pa.RecordBatch, row_bytes: float
    ) -> Iterator[PackedFrame]:
        """Make blocks of one partition's rows, of about `row_bytes` each."""
        rows = batch.num_rows
        content = None
        if rows == 1 or self._dictionaries or rows * row_bytes <= _SURE_TO_FIT_BYTES:
            content = memoryview(encode_batch(batch, dictionaries=self._dictionaries))
            length = len(content)
        else:
            length = pa.ipc.get_record_batch_size(batch)
        if length > MAX_CONTENT_BYTES and rows > 1:
            count = -(-rows // -(-length // _ARROW_TARGET_BYTES))
            for start in range(0, rows, count):
                yield from self._pack_partition(partition, batch.slice(start, count), row_bytes)
            return
        if content is None:
            content = memoryview(encode_batch(batch, dictionaries=False))
        if length > MAX_CONTENT_BYTES:
            yield from self._frames.add_long_row(partition, content)
            return
        yield from self._frames.add(partition, rows, content)

    def _dictionary_bytes(self, batch: pa.RecordBatch) -> int:
        """Return the length of the dictionaries that travel with every block of `batch`."""
        if not self._dictionaries:
            return 0
        none = to_transport(batch.slice(0, 0), self._sent)
        return int(encode_batch(none, dictionaries=True).size)


def _sorted(
    row_partitions: RowPartitions, batch: pa.RecordBatch
) -> tuple[RowPartitions, pa.RecordBatch]:
    order = np.argsort(row_partitions, kind="stable")
    return row_partitions.take(order), pc.take(
        batch, places(order), boundscheck=False, memory_pool=ARROW_POOL
    )
