"""Packing: rows → blocks, sorted by partition → frames of one partition range each.

A packer buffers rows until it has about `buffer_bytes` of them: the more rows of a partition
lie in the buffer, the longer its blocks, and all that comes after is paid by the block. It
holds its buffer, a window of at most as much that is not sorted yet, and one frame.

Frames are made lazily, by generators. A packer whose generator was dropped half-way has lost
the rows that were under way, so its attempt must be aborted; nothing else goes wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, Unpack

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
    Partitions,
    RowRun,
    byte_view,
    cuts,
    offsets_of,
    partition_number,
)
from cosco.client.write.state.framing import PackedFrame, Packer, PackerArguments
from cosco.client.write.state.pending_rows import PendingRows
from cosco.client.write.state.sorting import (
    PartitionRows,
    RowSorter,
    partition_bounds,
    places,
    window_bytes,
)
from cosco.errors import InvalidRow, SchemaMismatch
from cosco.format.block import LENGTH_BYTES, MAX_CONTENT_BYTES

__all__ = ["ArrowPacker", "PackedFrame", "RowPacker"]

#: What each small batch takes besides its rows.
_PIECE_OVERHEAD: Final = 512
#: Batches expected to be shorter are encoded without being measured before.
_SURE_TO_FIT_BYTES: Final = MAX_CONTENT_BYTES // 2
#: Dictionaries that cannot be cut to the values in use leave half of each block to the rows.
_MAX_DICTIONARY_BYTES: Final = MAX_CONTENT_BYTES // 2
#: What a batch that is too long for a block is cut to; rows differ in length.
_ARROW_TARGET_BYTES: Final = MAX_CONTENT_BYTES * 7 // 8


class RowPacker(Packer[RowRun]):
    """Packs rows that are bytes."""

    def __init__(self, **arguments: Unpack[PackerArguments]) -> None:
        super().__init__(**arguments)
        #: Rows that were collected one by one and not settled yet.
        self.pending: Final = PendingRows(self._limit)
        self._sorter = RowSorter(self._frames.partitions, self._limit)

    def collect(self, partition: int, row: bytes) -> bool:
        """Take one row, or check and drop it if it is not wanted; True when `settle` is due.

        Raises PartitionOutOfRange, InvalidRow.
        """
        number = partition_number(partition, self._frames.partitions, self._shuffle_id)
        view = byte_view(row, self._shuffle_id)
        if self._frames.wanted is not None and not self._frames.wanted[number]:
            return False
        return self.pending.add(number, bytes(view))

    def settle(self) -> Iterator[PackedFrame]:
        """Buffer the rows that were collected; yields frames whenever the buffer is full."""
        partitions, rows = self.pending.take()
        if not rows:  # another thread was faster, say
            return
        numbers = partitions.astype(np.min_scalar_type(self._frames.partitions - 1))
        offsets, data = offsets_of(rows), np.frombuffer(b"".join(rows), np.uint8)
        del rows  # they are in `data`
        for first, end in cuts(offsets, self._room):
            run = RowRun(offsets[first : end + 1], data)
            yield from self._take(numbers[first:end], run, run.row_bytes)

    def collect_batch(self, partitions: Any, rows: Any) -> Iterator[PackedFrame]:
        """Buffer many rows; yields frames whenever the buffer is full.

        partitions: a one-dimensional array or sequence of integers; rows: an Arrow array of
        binary or a sequence of bytes-likes, as long. All are checked before any is taken;
        raises InvalidRow, InvalidArgument, PartitionOutOfRange.
        """
        batch = BatchRows(rows, self._shuffle_id)
        numbers = self._partitions(partitions, len(batch))
        if self._frames.wanted is not None:
            keep = self._frames.wanted[numbers]
            numbers = numbers[keep]
            batch.select(keep)
        yield from self.settle()
        done = 0
        for run in batch.runs(self._room):
            first, done = done, done + len(run.offsets) - 1
            yield from self._take(numbers[first:done], run, run.row_bytes)

    def drain(self, *, marks: bool = False) -> Iterator[PackedFrame]:
        """See `Packer.drain`."""
        yield from self.settle()
        yield from super().drain(marks=marks)

    def close(self) -> None:
        """Leave the buffer to the next packer of this process; after the last `drain`."""
        self._sorter.close()

    def _append(self, numbers: Partitions, batch: RowRun) -> None:
        self._sorter.append(numbers, batch)
        self.buffered_bytes += batch.row_bytes + BATCH_ROW_OVERHEAD * len(numbers) + _PIECE_OVERHEAD

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
            frame = self._frames.add(partition, count, content, lengths=True)
            if frame is not None:
                yield frame
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
            frame = self._frames.add(
                partition, last - first, b"".join((lengths, part)), lengths=True
            )
            if frame is not None:
                yield frame


class ArrowPacker(Packer[pa.RecordBatch]):
    """Packs rows of Arrow batches of one schema."""

    def __init__(self, *, schema: pa.Schema, **arguments: Unpack[PackerArguments]) -> None:
        """Raises SchemaMismatch for a schema with types that cannot be sorted."""
        super().__init__(**arguments)
        self._schema = normalize_schema(schema)
        self._sent, self._dictionaries = transport(self._schema)
        # A window of rows as they came, and windows that were sorted: see
        # cosco.client.write.state.sorting.
        self._window: list[pa.RecordBatch] = []
        self._numbers: list[Partitions] = []
        self._window_used = 0
        self._window_bytes = window_bytes(self._frames.partitions, self._limit)
        self._sorted: list[tuple[Partitions, pa.RecordBatch]] = []

    def collect_batch(self, partitions: Any, batch: Any) -> Iterator[PackedFrame]:
        """Buffer the rows of a RecordBatch or Table; yields frames whenever the buffer is full.

        `partitions` are as for `RowPacker.collect_batch`. All is checked before any is taken;
        raises SchemaMismatch, InvalidRow, InvalidArgument, PartitionOutOfRange.
        """
        if not isinstance(batch, pa.RecordBatch | pa.Table):
            raise SchemaMismatch(
                f"exchange {self._shuffle_id!r} takes Arrow batches, not {type(batch).__name__}: "
                "give a RecordBatch or a Table of its schema",
                shuffle_id=self._shuffle_id,
            )
        check_schema(batch.schema, self._schema, self._shuffle_id)
        numbers = self._partitions(partitions, batch.num_rows)
        batches = batch.to_batches() if isinstance(batch, pa.Table) else [batch]
        for one in batches:
            length = self._dictionary_bytes(one)
            if length > _MAX_DICTIONARY_BYTES:
                raise InvalidRow(
                    f"ordered or nested dictionaries of {length} bytes would travel with every "
                    f"block, the limit is {_MAX_DICTIONARY_BYTES}: cast them to their values",
                    shuffle_id=self._shuffle_id,
                )
        if self._frames.wanted is not None and not self._frames.wanted[numbers].any():
            return
        done = 0
        for part in self._parts(batches):
            first, done = done, done + part.num_rows
            kept, places = self._select(part, numbers[first:done])
            if len(places):
                yield from self._take(places, kept, kept.nbytes)

    def _pack_buffered(self) -> Iterator[PackedFrame]:
        self._sort_window()
        windows, self._sorted = self._sorted, []
        self.buffered_bytes = 0
        if self._dictionaries and len(windows) > 1:
            batches = [batch for _, batch in windows]
            if (joined := self._joined(batches)) is not None:
                windows = [_sorted(np.concatenate([numbers for numbers, _ in windows]), joined)]
        pieces: defaultdict[int, list[tuple[pa.RecordBatch, int, int]]] = defaultdict(list)
        row_bytes = sum(batch.nbytes for _, batch in windows) / max(
            1, sum(len(numbers) for numbers, _ in windows)
        )
        for numbers, batch in windows:
            for first, end in pairwise(partition_bounds(numbers)):
                pieces[int(numbers[first])].append((batch, first, end))
        for partition in sorted(pieces):
            parts = [batch.slice(first, end - first) for batch, first, end in pieces.pop(partition)]
            if len(parts) > 1 and not self._dictionaries:
                joined = self._joined(parts)
                parts = parts if joined is None else [joined]
            for part in parts:
                yield from self._pack_partition(partition, part, row_bytes)

    def _parts(self, batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of `batches`, each cut to what there is room for."""
        for whole in batches:
            start = 0
            while start < whole.num_rows:
                row_bytes = whole.nbytes / whole.num_rows + BATCH_ROW_OVERHEAD
                count = max(1, int(self._room() / row_bytes))
                yield from self._halves(to_transport(whole.slice(start, count), self._sent))
                start += count

    def _halves(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """`batch`, cut in halves until each is short: rows may differ much in length."""
        count = batch.num_rows
        if count == 1 or self._dictionaries or batch.nbytes <= 2 * self._limit:
            yield batch
            return
        yield from self._halves(batch.slice(0, count // 2))
        yield from self._halves(batch.slice(count // 2))

    def _joined(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
        """The batches as one, unless their dictionaries cannot be one."""
        try:
            joined = pa.concat_batches(batches, memory_pool=ARROW_POOL)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None  # too many values for the index type, say
        return joined if self._dictionary_bytes(joined) <= _MAX_DICTIONARY_BYTES else None

    def _select(
        self, batch: pa.RecordBatch, numbers: Partitions
    ) -> tuple[pa.RecordBatch, Partitions]:
        """The rows of `batch` that are wanted, and their partitions."""
        if self._frames.wanted is None:
            return batch, numbers
        kept = np.flatnonzero(self._frames.wanted[numbers])
        return batch.take(places(kept)), numbers[kept]

    def _append(self, numbers: Partitions, batch: pa.RecordBatch) -> None:
        count, batch_bytes = len(numbers), batch.nbytes
        self.buffered_bytes += batch_bytes + BATCH_ROW_OVERHEAD * count + _PIECE_OVERHEAD
        step = max(1, count * self._window_bytes // max(1, batch_bytes))
        for first in range(0, count, step):
            part, few = batch.slice(first, step), numbers[first : first + step]
            part_bytes = len(few) * batch_bytes // count
            if self._window_used + part_bytes > self._window_bytes:
                self._sort_window()
            if part_bytes > self._window_bytes // 2 and not self._dictionaries:
                # As good as a window: sorted out of the caller's memory, not copied before.
                # Rows with dictionaries would share the caller's.
                self._sort_window()
                self._sorted.append(_sorted(few, part))
                continue
            content = encode_batch(part, dictionaries=self._dictionaries)
            copy = decode_batch(content, self._sent, dictionaries=self._dictionaries)
            self._window.append(copy)
            self._numbers.append(few)
            self._window_used += content.size

    def _sort_window(self) -> None:
        window, self._window = self._window, []
        numbers, self._numbers = self._numbers, []
        self._window_used = 0
        if len(window) > 1 and (joined := self._joined(window)) is not None:
            window, numbers = [joined], [np.concatenate(numbers)]
        self._sorted += map(_sorted, numbers, window)

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
        frame = self._frames.add(partition, rows, content)
        if frame is not None:
            yield frame

    def _dictionary_bytes(self, batch: pa.RecordBatch) -> int:
        """What the dictionaries that travel with every block of `batch` take in it."""
        if not self._dictionaries:
            return 0
        none = to_transport(batch.slice(0, 0), self._sent)
        return int(encode_batch(none, dictionaries=True).size)


def _sorted(numbers: Partitions, batch: pa.RecordBatch) -> tuple[Partitions, pa.RecordBatch]:
    order = np.argsort(numbers, kind="stable")
    return numbers.take(order), pc.take(
        batch, places(order), boundscheck=False, memory_pool=ARROW_POOL
    )
