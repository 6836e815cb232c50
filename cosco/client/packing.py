"""Packing: rows → blocks, sorted by partition → frames of one partition range each.

A packer buffers rows until it has about `buffer_bytes` of them: the more rows of a partition
lie in the buffer, the longer its blocks, and all that comes after is paid by the block. It
holds its buffer, a sorted copy of at most as much, and one frame.

Frames are made lazily, by generators. A packer whose generator was dropped half-way has lost
the rows that were under way, so its attempt must be aborted; nothing else goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cosco.blocks import LENGTH_BYTES, MAX_CONTENT_BYTES
from cosco.client.arguments import (
    BATCH_ROW_OVERHEAD,
    BatchRows,
    Offsets,
    Partitions,
    RowRun,
    byte_view,
    offsets_of,
    partition_number,
)
from cosco.client.arrow import (
    check_schema,
    decode_batch,
    encode_batch,
    normalize_schema,
    to_transport,
    transport,
)
from cosco.client.framing import PackedFrame, Packer, PackerArguments
from cosco.client.pending import PendingRows
from cosco.client.rows import block_cuts
from cosco.errors import InvalidRow, SchemaMismatch

__all__ = ["ArrowPacker", "PackedFrame", "RowPacker"]

#: What each small batch takes besides its rows.
_PIECE_OVERHEAD: Final = 512
#: So much of a batch is put in order at a time: it stays in the cache until it is compressed.
_STRETCH_BYTES: Final = 1 << 20
#: A longer buffer is not kept for the next packer.
_MAX_SPARE_BYTES: Final = 32 << 20
#: Batches expected to be shorter are encoded without being measured before.
_SURE_TO_FIT_BYTES: Final = MAX_CONTENT_BYTES // 2
#: Dictionaries that cannot be cut to the values in use leave half of each block to the rows.
_MAX_DICTIONARY_BYTES: Final = MAX_CONTENT_BYTES // 2
#: What a batch that is too long for a block is cut to; rows differ in length.
_ARROW_TARGET_BYTES: Final = MAX_CONTENT_BYTES * 7 // 8


#: The buffer of the last packer that was closed, if it is free: to touch new memory for the
#: first time costs as much as packing the rows of a third of it.
_spare: list[npt.NDArray[np.uint8]] = []


class RowPacker(Packer[RowRun]):
    """Packs rows that are bytes."""

    def __init__(self, **arguments: Unpack[PackerArguments]) -> None:
        super().__init__(**arguments)
        #: Rows that were collected one by one and not settled yet.
        self.pending: Final = PendingRows(self._limit)
        # All others are copied to one array.
        self._data: npt.NDArray[np.uint8] | None = None
        self._used = 0
        self._lengths: list[npt.NDArray[np.integer[Any]]] = []
        self._numbers: list[Partitions] = []

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
        if rows:
            run = RowRun(offsets_of(rows), np.frombuffer(b"".join(rows), np.uint8))
            del rows  # they are in `run`
            kind = np.min_scalar_type(self._frames.partitions - 1)
            yield from self._take(partitions.astype(kind), run, run.row_bytes)

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

    def drain(self) -> Iterator[PackedFrame]:
        """Everything that was taken, in frames."""
        yield from self.settle()
        yield from super().drain()

    def close(self) -> None:
        """Leave the buffer to the next packer of this process; after the last `drain`."""
        data, self._data = self._data, None
        if data is not None and len(data) <= _MAX_SPARE_BYTES:
            _spare[:] = [data]

    def _pack_buffered(self) -> Iterator[PackedFrame]:
        numbers, self._numbers = self._numbers, []
        lengths, self._lengths = self._lengths, []
        data, self._data = self._data, None  # nobody writes to it while it is read
        used, self._used = self._used, 0
        self.buffered_bytes = 0
        if data is not None and numbers:
            offsets = np.zeros(sum(map(len, numbers)) + 1, np.int64)
            np.cumsum(np.concatenate(lengths), out=offsets[1:])
            yield from self._pack(np.concatenate(numbers), RowRun(offsets, data[:used]))
        if self._data is None:
            self._data = data

    def _append(self, numbers: Partitions, batch: RowRun) -> None:
        if self._data is None:
            self._data = _new_buffer(self._limit)
        end = self._used + batch.row_bytes
        self._data[self._used : end] = batch.data[batch.offsets[0] : batch.offsets[-1]]
        self._used = end
        self._lengths.append(np.diff(batch.offsets))
        self._numbers.append(numbers)
        self.buffered_bytes += batch.row_bytes + BATCH_ROW_OVERHEAD * len(numbers) + _PIECE_OVERHEAD

    def _pack(self, numbers: Partitions, batch: RowRun) -> Iterator[PackedFrame]:
        order = np.argsort(numbers, kind="stable")
        lengths = np.diff(batch.offsets)[order]
        table = lengths.astype("<u4").tobytes()
        ends = np.cumsum(lengths, dtype=np.int64)
        gather = _gatherer(batch, equal=bool(lengths.min() == lengths.max()))
        for stretch in _stretches(numbers[order], ends):
            rows = gather(order[stretch[0][1] : stretch[-1][2]])
            start = 0
            for partition, first, end, row_bytes in stretch:
                content = rows[start : start + row_bytes]
                start += row_bytes
                if end - first == 1 and row_bytes + LENGTH_BYTES > MAX_CONTENT_BYTES:
                    yield from self._frames.add_long_row(partition, content)
                    continue
                entries = table[LENGTH_BYTES * first : LENGTH_BYTES * end]
                frame = self._frames.add(
                    partition, end - first, b"".join((entries, content)), lengths=True
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
        self._batches: list[pa.RecordBatch] = []
        self._numbers: list[Partitions] = []

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
        batches, self._batches = self._batches, []
        numbers, self._numbers = self._numbers, []
        self.buffered_bytes = 0
        if len(batches) > 1 and (joined := self._joined(batches)) is not None:
            batches, numbers = [joined], [np.concatenate(numbers)]
            del joined
        while batches:
            yield from self._pack(numbers.pop(0), batches.pop(0))

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
            joined = pa.concat_batches(batches)
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
        return batch.take(_places(kept)), numbers[kept]

    def _append(self, numbers: Partitions, batch: pa.RecordBatch) -> None:
        content = encode_batch(batch, dictionaries=self._dictionaries)
        copy = decode_batch(content, self._sent, dictionaries=self._dictionaries)
        self._batches.append(copy)
        self._numbers.append(numbers)
        self.buffered_bytes += content.size + BATCH_ROW_OVERHEAD * len(numbers) + _PIECE_OVERHEAD

    def _pack(self, numbers: Partitions, batch: pa.RecordBatch) -> Iterator[PackedFrame]:
        order = np.argsort(numbers, kind="stable")
        row_bytes = batch.nbytes / len(numbers)
        batch = batch.take(_places(order))  # the unsorted one is not needed any more
        numbers = numbers[order]
        for first, end in pairwise(_partition_bounds(numbers)):
            rows = batch.slice(first, end - first)
            yield from self._pack_partition(int(numbers[first]), rows, row_bytes)

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


def _new_buffer(length: int) -> npt.NDArray[np.uint8]:
    try:
        spare = _spare.pop()
    except IndexError:
        return np.empty(length, np.uint8)
    return spare if len(spare) == length else np.empty(length, np.uint8)


def _partition_bounds(numbers: Partitions) -> list[int]:
    """Where each partition begins in sorted `numbers`, and their length."""
    changes: list[int] = (np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist()
    return [0, *changes, len(numbers)]


def _stretches(
    numbers: Partitions, ends: npt.NDArray[np.int64]
) -> Iterator[list[tuple[int, int, int, int]]]:
    """The blocks of sorted rows as (partition, first, end, row bytes), some at a time.

    ends: where each row ends in all rows' bytes.
    """
    content_ends = ends + np.arange(1, len(ends) + 1) * LENGTH_BYTES
    stretch: list[tuple[int, int, int, int]] = []
    stretch_bytes = position = 0
    for low, high in pairwise(_partition_bounds(numbers)):
        partition = int(numbers[low])
        for first, end in block_cuts(content_ends[low:high], position + LENGTH_BYTES * low):
            row_bytes = int(ends[low + end - 1]) - position
            position += row_bytes
            stretch.append((partition, low + first, low + end, row_bytes))
            stretch_bytes += row_bytes
            if stretch_bytes >= _STRETCH_BYTES:
                yield stretch
                stretch, stretch_bytes = [], 0
    if stretch:
        yield stretch


def _gatherer(batch: RowRun, *, equal: bool) -> Callable[[npt.NDArray[np.intp]], memoryview]:
    """A function that joins the bytes of some rows; `equal`: all rows are equally long."""
    offsets: Offsets = batch.offsets
    width = int(offsets[1]) - int(offsets[0])
    if equal and width:
        # numpy copies items of one size twice as fast as Arrow copies rows.
        items = batch.data[offsets[0] : offsets[-1]].view(f"V{width}")
        return lambda order: items.take(order).view(np.uint8).data
    kind = pa.binary() if offsets.dtype == np.int32 else pa.large_binary()
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(batch.data)]
    rows = pa.Array.from_buffers(kind, len(offsets) - 1, buffers)

    def take(order: npt.NDArray[np.intp]) -> memoryview:
        values = pc.take(rows, _places(order), boundscheck=False).buffers()[2]
        return memoryview(b"" if values is None else values)

    return take


def _places(order: npt.NDArray[np.intp]) -> Any:
    """`order` as an Arrow array.

    Not by `pa.array`: that imports pandas if it is there, which takes a second, and holds a
    lock meanwhile that a forked child, or a signal handler, would wait for in vain.
    """
    return pa.Array.from_buffers(pa.int64(), len(order), [None, pa.py_buffer(order)])
