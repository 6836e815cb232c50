"""Rows of bytes, sorted by partition as they come.

Rows gather in a sort buffer that is short enough to stay in the cache; a full one is sorted by
partition to the end of one large array. At last the pieces of each partition, one of every
sorting, only have to be joined. Sorting all rows in one go fetches every row out of memory by
itself, and takes several times as long.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cosco.client.content.byte_rows import block_cuts
from cosco.client.write.state.batch_arguments import Offsets, RowPartitions, RowRun
from cosco.errors import CoscoError
from cosco.format.block import LENGTH_BYTES, MAX_CONTENT_BYTES, Buffer

#: A sort buffer of this length stays in a cache.
_MIN_SORT_BUFFER_BYTES: Final = 4 << 20
#: With many partitions it is longer, by this for each: every piece costs some Python.
_PIECE_BYTES: Final = 32 << 10
#: What a table of lengths can say of a row.
_MAX_LENGTH: Final = (1 << 8 * LENGTH_BYTES) - 1
#: Rows of a longer one leave the cache before they are sorted: to copy them there is in vain.
_MAX_CACHED_BYTES: Final = 8 << 20
#: A longer array is not kept for the next packer.
_MAX_SPARE_BYTES: Final = 32 << 20

_Bytes = npt.NDArray[np.uint8]
_NO_BYTES: Final[_Bytes] = np.empty(0, np.uint8)

#: The array and the sort buffer of the last packer that was closed, if they are free: to touch new
#: memory for the first time costs as much as packing the rows of a third of it.
_spare: list[_Bytes] = []
_spare_sort_buffer: list[_Bytes] = []


class Rows(Protocol):
    """Rows that are sorted by partition, of which blocks are made."""

    def partition(self) -> int | None:
        """Return the partition of the next row; None if there are no more."""

    def take_long_row(self) -> memoryview | None:
        """Take the next row, if it is known by now to be too long for a block."""


class Sorter(Protocol):
    """What rows of bytes are sorted by."""

    def append(self, row_partitions: RowPartitions, run: RowRun) -> None:
        """Copy rows behind those of their partitions.

        A row that is longer than the whole buffer is not copied: it must be drained before
        its memory is changed.
        """

    def append_rows(self, row_partitions: list[int], rows: list[bytes]) -> bool:
        """Copy a few rows that lie apart behind those of their partitions, if that is worth it.

        Returns: whether they were added. Otherwise they must be joined first.
        """

    def append_sorted(self, partition: int, run: RowRun) -> None:
        """Copy rows behind those of their one partition, past the sort buffer.

        A row that is longer than the whole buffer is not copied: see `append`.
        """

    def drain(self) -> Any:
        """Remove all rows.

        Returns: them, as `Rows` by ascending partition.
        """

    def reuse(self, rows: Any) -> None:
        """Take back the memory of what was drained, when it is not needed any more."""

    def close(self) -> None:
        """Leave the memory to the next packer of this process, after the last `drain`."""


class PartitionRows:
    """Rows of one partition: the tables of their lengths (see `cosco.client.content.byte_rows`),
    and their bytes, piece by piece, both in order."""

    __slots__ = ("pieces", "tables")

    def __init__(self) -> None:
        self.tables: list[bytes | memoryview] = []
        self.pieces: list[bytes | memoryview] = []

    def contents(self) -> Iterator[tuple[int, Buffer]]:
        """Yield the content of each block with its number of rows; 0: a row too long for one."""
        tables, pieces = self.tables, self.pieces
        table_bytes = sum(map(len, tables))
        if table_bytes + sum(map(len, pieces)) <= MAX_CONTENT_BYTES:
            yield table_bytes // LENGTH_BYTES, b"".join((*tables, *pieces))
            return
        table = memoryview(b"".join(tables))
        joined = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        ends = np.cumsum(np.frombuffer(table, "<u4"), dtype=np.int64)
        start = 0
        for first, last in block_cuts(ends + np.arange(1, len(ends) + 1) * LENGTH_BYTES, 0):
            end = int(ends[last - 1])
            part, start = joined[start:end], end
            if last - first == 1 and len(part) + LENGTH_BYTES > MAX_CONTENT_BYTES:
                yield 0, part
                continue
            lengths = table[LENGTH_BYTES * first : LENGTH_BYTES * last]
            yield last - first, b"".join((lengths, part))


class _Next(NamedTuple):
    partition: int | None
    rows: int
    content: Buffer


class SortedRows:
    """See `Rows`. `memory` is where they lie."""

    has_lengths: Final = True

    def __init__(self, rows: dict[int, PartitionRows], memory: _Bytes | None) -> None:
        """Begin. rows: by partition."""
        self.memory: Final = memory
        self._all = self._contents(rows)
        self._next: _Next | None = None

    def partition(self) -> int | None:
        """See `Rows.partition`."""
        return self._peek().partition

    def take_long_row(self) -> memoryview | None:
        """See `Rows.take_long_row`."""
        partition, rows, content = self._peek()
        if rows or partition is None:
            return None
        self._next = None
        return memoryview(content)

    def next_block(self) -> tuple[int, Buffer] | None:
        """Take the rows of the next block.

        Returns: their number and the content; None if the next row is too long for a block.
        """
        _, rows, content = self._peek()
        if not rows:
            return None
        self._next = None
        return rows, content

    def _peek(self) -> _Next:
        if self._next is None:
            self._next = next(self._all, _Next(None, 0, b""))
        return self._next

    @staticmethod
    def _contents(rows: dict[int, PartitionRows]) -> Iterator[_Next]:
        for partition in sorted(rows):
            for count, content in rows.pop(partition).contents():
                yield _Next(partition, count, content)


class RowSorter:
    """See `Sorter`: a buffer for `limit` bytes of rows; a single longer row passes as well."""

    def __init__(self, partitions: int, limit: int) -> None:
        """Begin empty. `limit`: the most bytes of rows that are added between two drains."""
        self._limit = limit
        self._sort_buffer = _new_array(sort_buffer_bytes(partitions, limit), _spare_sort_buffer)
        self._unsorted_bytes = 0
        self._lengths: list[npt.NDArray[np.integer[Any]]] = []
        self._row_partitions: list[RowPartitions] = []
        self._sorted: _Bytes | None = None
        self._sorted_used = 0
        self._rows: defaultdict[int, PartitionRows] = defaultdict(PartitionRows)

    def append(self, row_partitions: RowPartitions, run: RowRun) -> None:
        """See `Sorter.append`."""
        first, count = 0, len(row_partitions)
        while first < count:
            start = int(run.offsets[first])
            room = len(self._sort_buffer) - self._unsorted_bytes
            # numpy's search would turn all offsets to another type before.
            end = bisect_right(run.offsets, start + room, first) - 1
            if end <= first and self._row_partitions:  # some may be of no bytes
                self._sort_gathered()
                continue
            if end <= first:  # longer than a sort buffer
                self._append_row(int(row_partitions[first]), run, first)
                first += 1
                continue
            end = min(end, count)
            row_bytes = int(run.offsets[end]) - start
            if (
                not self._row_partitions
                and row_bytes > len(self._sort_buffer) // 2
                and len(self._sort_buffer) > _MAX_CACHED_BYTES
            ):
                lengths = np.diff(run.offsets[first : end + 1])
                self._sort(row_partitions[first:end], lengths, run.data[start : start + row_bytes])
                first = end
                continue
            used = self._unsorted_bytes
            self._sort_buffer[used : used + row_bytes] = run.data[start : start + row_bytes]
            self._unsorted_bytes = used + row_bytes
            self._lengths.append(np.diff(run.offsets[first : end + 1]))
            self._row_partitions.append(row_partitions[first:end])
            first = end

    def append_rows(self, row_partitions: list[int], rows: list[bytes]) -> bool:
        """See `Sorter.append_rows`: numpy has them joined."""
        return False

    def append_sorted(self, partition: int, run: RowRun) -> None:
        """See `Sorter.append_sorted`."""
        self._sort_gathered()  # some of it may be for this partition, and come before
        lengths = np.diff(run.offsets)
        _check_length(int(lengths.max(initial=0)))
        table = lengths.astype("<u4").view(np.uint8).data
        self._append_piece(partition, table, run, 0, len(lengths))

    def drain(self) -> SortedRows:
        """See `Sorter.drain`."""
        self._sort_gathered()
        rows, self._rows = self._rows, defaultdict(PartitionRows)
        data, self._sorted = self._sorted, None  # nobody writes to it while it is read
        self._sorted_used = 0
        return SortedRows(rows, data)

    def reuse(self, rows: SortedRows) -> None:
        """See `Sorter.reuse`."""
        if self._sorted is None:
            self._sorted = rows.memory

    def close(self) -> None:
        """See `Sorter.close`."""
        data, self._sorted = self._sorted, None
        if data is not None and len(data) <= _MAX_SPARE_BYTES:
            _spare[:] = [data]
        sort_buffer, self._sort_buffer = self._sort_buffer, _NO_BYTES
        if len(sort_buffer) <= _MAX_CACHED_BYTES:
            _spare_sort_buffer[:] = [sort_buffer]

    def _sort_gathered(self) -> None:
        if not self._row_partitions:
            return
        row_partitions, self._row_partitions = np.concatenate(self._row_partitions), []
        lengths, self._lengths = np.concatenate(self._lengths), []
        used, self._unsorted_bytes = self._unsorted_bytes, 0
        self._sort(row_partitions, lengths, self._sort_buffer[:used])

    def _sort(
        self, row_partitions: RowPartitions, lengths: npt.NDArray[np.integer[Any]], data: _Bytes
    ) -> None:
        """Append the rows that lie in `data`, one after another, to their partitions."""
        order = np.argsort(row_partitions, kind="stable")
        out = self._room(len(data))
        width = int(lengths[0])
        if width and bool((lengths == width).all()):
            # numpy copies items of one size twice as fast as Arrow copies rows. Not with
            # "raise", for which it would copy once more.
            items = data.view(f"V{width}")
            items.take(order, out=out.view(items.dtype), mode="clip")
        else:
            _take_rows(data, lengths, order, out)
            lengths = lengths.take(order)
        row_partitions = row_partitions.take(order)
        bounds = partition_bounds(row_partitions)
        ends = np.cumsum(lengths, dtype=np.int64)
        table = lengths.astype("<u4").view(np.uint8).data
        rows = out.data
        start = 0
        for (low, high), end in zip(
            pairwise(bounds), ends[np.array(bounds[1:]) - 1].tolist(), strict=True
        ):
            one = self._rows[int(row_partitions[low])]
            one.tables.append(table[LENGTH_BYTES * low : LENGTH_BYTES * high])
            one.pieces.append(rows[start:end])
            start = end

    def _append_row(self, partition: int, run: RowRun, index: int) -> None:
        length = int(run.offsets[index + 1]) - int(run.offsets[index])
        _check_length(length)
        table = length.to_bytes(LENGTH_BYTES, "little")
        self._append_piece(partition, table, run, index, index + 1)

    def _append_piece(
        self, partition: int, table: bytes | memoryview, run: RowRun, first: int, end: int
    ) -> None:
        """Append rows `first` to `end` of a run, all of one partition."""
        rows: _Bytes = run.data[int(run.offsets[first]) : int(run.offsets[end])]
        if len(rows) <= self._limit:
            copy = self._room(len(rows))
            copy[:] = rows
            rows = copy
        one = self._rows[partition]
        one.tables.append(table)
        one.pieces.append(rows.data)

    def _room(self, length: int) -> _Bytes:
        """Return the next part of the array of sorted rows."""
        if self._sorted is None:
            self._sorted = _new_array(self._limit, _spare)
        start = self._sorted_used
        if start + length > self._limit:  # numpy would cut the slice short
            raise ValueError(f"{start + length} bytes of rows in a buffer of {self._limit}")
        self._sorted_used = start + length
        return self._sorted[start : start + length]


def _check_length(longest: int) -> None:
    """Raise CoscoError for a row whose length does not fit into a table of lengths."""
    if longest > _MAX_LENGTH:
        raise CoscoError(
            f"a row of {longest} bytes, and without the native part the limit is {_MAX_LENGTH}: "
            "cut it in two"
        )


def sort_buffer_bytes(partitions: int, limit: int) -> int:
    """Return how many bytes of rows to sort at a time, of `limit` in all."""
    return min(limit, max(_MIN_SORT_BUFFER_BYTES, partitions * _PIECE_BYTES))


def partition_bounds(row_partitions: RowPartitions) -> list[int]:
    """Return where each partition begins in sorted `row_partitions`, and their length."""
    changes: list[int] = (np.flatnonzero(row_partitions[1:] != row_partitions[:-1]) + 1).tolist()
    return [0, *changes, len(row_partitions)]


def places(order: npt.NDArray[np.intp]) -> Any:
    """Return `order` as an Arrow array.

    Not by `pa.array`: that imports pandas if it is there, which takes a second, and holds a
    lock meanwhile that a forked child, or a signal handler, would wait for in vain.
    """
    return pa.Array.from_buffers(pa.int64(), len(order), [None, pa.py_buffer(order)])


def _take_rows(
    data: _Bytes, lengths: npt.NDArray[Any], order: npt.NDArray[np.intp], out: _Bytes
) -> None:
    """Copy rows that lie one after another in `data` to `out` in another order."""
    offsets: Offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    rows = pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)
    values = pc.take(rows, places(order), boundscheck=False).buffers()[2]
    if values is not None:
        out[:] = np.frombuffer(values, np.uint8)[: len(out)]


def _new_array(length: int, spares: list[_Bytes]) -> _Bytes:
    try:
        spare = spares.pop()
    except IndexError:  # another packer has it
        return np.empty(length, np.uint8)
    return spare if len(spare) == length else np.empty(length, np.uint8)
