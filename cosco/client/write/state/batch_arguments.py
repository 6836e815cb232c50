"""The arguments of `collect` and `collect_batch`, checked and brought to plain buffers.

Nothing is copied here that need not be: the callers copy what they keep.
"""

from __future__ import annotations

import operator
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.errors import InvalidArgument, InvalidRow, PartitionOutOfRange, SchemaMismatch

#: What a row of a batch takes beside its bytes: length, partition, and places while sorting.
BATCH_ROW_OVERHEAD: Final = 32

#: How many rows of a sequence are looked at together, to bound what is kept of them.
_ROWS_AT_A_TIME: Final = 1 << 16

RowPartitions = npt.NDArray[np.unsignedinteger[Any]]
Offsets = npt.NDArray[np.int32] | npt.NDArray[np.int64]


class RowRun(NamedTuple):
    """Rows one after another: row i is data[offsets[i]:offsets[i + 1]], of uint8."""

    offsets: Offsets
    data: npt.NDArray[np.uint8]

    @property
    def row_bytes(self) -> int:
        return int(self.offsets[-1]) - int(self.offsets[0])


def checked_partition(partition: object, partitions: int) -> int:
    """Return a valid partition as an int.

    Raises: InvalidRow, PartitionOutOfRange.
    """
    try:
        if isinstance(partition, bool):
            raise TypeError
        checked = operator.index(partition)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidRow(f"a partition is an integer, not {type(partition).__name__}") from None
    if not 0 <= checked < partitions:
        raise _out_of_range(checked, partitions)
    return checked


def partition_array(values: Any, *, rows: int, partitions: int) -> RowPartitions:
    """Return a batch's row partitions, copied to the narrowest type that holds `partitions`.

    Raises: InvalidRow for what is no one-dimensional array or sequence of integers,
    InvalidArgument unless it has `rows` of them, PartitionOutOfRange.
    """
    array = _integers(values)
    if len(array) != rows:
        raise InvalidArgument(f"{len(array)} partitions for {rows} rows: give one for each")
    if rows and (int(array.min()) < 0 or int(array.max()) >= partitions):
        wrong = int(array[(array < 0) | (array >= partitions)][0])
        raise _out_of_range(wrong, partitions)
    # A stable sort of 8 or 16 bits is a radix sort.
    return array.astype(np.min_scalar_type(partitions - 1))


def byte_view(row: object) -> bytes | memoryview:
    """Return the bytes of a bytes-like row, without a copy where they are contiguous.

    Raises: InvalidRow.
    """
    if isinstance(row, bytes):
        return row
    try:
        view = memoryview(row)  # type: ignore[arg-type]
    except TypeError:
        view = None
    if view is None or view.ndim == 0:
        raise InvalidRow(f"a row is bytes-like, not {type(row).__name__}")
    if view.nbytes == 0:
        return b""
    return view.cast("B") if view.c_contiguous else view.tobytes()


class BatchRows:
    """The rows of a `collect_batch` on a bytes exchange: Arrow binary or bytes-likes."""

    def __init__(self, rows: Any) -> None:
        """Check all of `rows`.

        Raises: InvalidRow (SchemaMismatch for Arrow tables).
        """
        self._arrays: list[Any] = []
        self._sequence: Sequence[Any] = ()
        if isinstance(rows, pa.ChunkedArray):
            self._arrays = rows.chunks
        elif isinstance(rows, pa.Array):
            self._arrays = [rows]
        elif isinstance(rows, pa.RecordBatch | pa.Table):
            raise SchemaMismatch(
                "it takes rows as bytes, not Arrow batches: give an array of binary"
            )
        elif isinstance(rows, np.ndarray) and rows.dtype == object and rows.ndim == 1:
            self._sequence = rows.tolist()
        elif isinstance(rows, Sequence) and not isinstance(rows, str | bytes | bytearray):
            self._sequence = rows
        else:
            raise InvalidRow(
                f"rows are an Arrow array of binary or a sequence of bytes, not "
                f"{type(rows).__name__}"
            )
        for array in self._arrays:
            self._check_array(array)
        if set(map(type, self._sequence)) - {bytes}:
            for row in self._sequence:
                byte_view(row)

    def __len__(self) -> int:
        return sum(map(len, self._arrays)) + len(self._sequence)

    def select(self, keep: npt.NDArray[np.bool_]) -> None:
        """Drop the rows where `keep` is false."""
        done = 0
        for index, array in enumerate(self._arrays):
            first, done = done, done + len(array)
            is_view = pa.types.is_binary_view(array.type)  # which Arrow does not filter
            rows = array.cast(pa.large_binary()) if is_view else array
            self._arrays[index] = rows.filter(pa.array(keep[first:done]))
        if len(self._sequence):
            self._sequence = list(compress(self._sequence, keep.tolist()))

    def runs(self, room: Callable[[], int]) -> Iterator[RowRun]:
        """Yield the rows in runs of at most `room()` bytes, overhead counted, or of one row.

        Runs of Arrow arrays lie in the caller's memory.
        """
        for array in self._arrays:
            for run in _array_runs(array):
                for first, end in cuts(run.offsets, room):
                    yield RowRun(run.offsets[first : end + 1], run.data)
        for start in range(0, len(self._sequence), _ROWS_AT_A_TIME):
            views = [
                row if type(row) is bytes else byte_view(row)
                for row in self._sequence[start : start + _ROWS_AT_A_TIME]
            ]
            offsets = offsets_of(views)
            for first, end in cuts(offsets, room):
                data = np.frombuffer(b"".join(views[first:end]), np.uint8)
                yield RowRun(offsets[first : end + 1] - offsets[first], data)

    def _check_array(self, array: Any) -> None:
        kind = array.type
        if not (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
            or pa.types.is_binary_view(kind)
        ):
            raise InvalidRow(f"rows are an Arrow array of binary, not {kind}: cast it")
        if array.null_count:
            raise InvalidRow(f"{array.null_count} rows are null")


def offsets_of(rows: Sequence[bytes | memoryview]) -> npt.NDArray[np.int64]:
    """Return where each row would begin if they were joined, and where the last one ends."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    # A third faster than numpy's own way.
    lengths = np.frombuffer(struct.pack(f"={len(rows)}Q", *map(len, rows)), np.uint64)
    np.cumsum(lengths, out=offsets[1:], dtype=np.int64)
    return offsets


def cuts(offsets: Offsets, room: Callable[[], int]) -> Iterator[tuple[int, int]]:
    """Cut rows into runs (first, end) of one row, or of at most `room()` bytes with overhead."""
    first, count = 0, len(offsets) - 1
    while first < count:
        base = int(offsets[first]) + BATCH_ROW_OVERHEAD * first
        # The search looks at a few offsets only, where summing would touch all of them.
        end = bisect_right(
            range(count + 1),
            base + room(),
            lo=first + 1,
            key=lambda i: int(offsets[i]) + BATCH_ROW_OVERHEAD * i,
        )
        end = max(first + 1, end - 1)
        yield first, end
        first = end


def _array_runs(array: Any) -> Iterator[RowRun]:
    """Yield an Arrow array's rows as they lie in its buffers."""
    kind = array.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield _binary_run(array)
        return
    for start in range(0, len(array), _ROWS_AT_A_TIME):
        part = array.slice(start, _ROWS_AT_A_TIME)
        if pa.types.is_binary_view(kind):
            yield _binary_run(part.cast(pa.large_binary()))
        else:
            width = kind.byte_width
            first = part.offset
            offsets = np.arange(first, first + len(part) + 1, dtype=np.int64) * width
            yield RowRun(offsets, _bytes_of(part.buffers()[1]))


def _binary_run(array: Any) -> RowRun:
    _, offsets, data = array.buffers()
    if not len(array):
        return RowRun(np.zeros(1, np.int64), _bytes_of(None))
    wide = pa.types.is_large_binary(array.type)
    every: Offsets = np.frombuffer(offsets, np.int64) if wide else np.frombuffer(offsets, np.int32)
    return RowRun(every[array.offset : array.offset + len(array) + 1], _bytes_of(data))


def _bytes_of(buffer: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"" if buffer is None else buffer, np.uint8)


def _integers(values: Any) -> npt.NDArray[np.integer[Any]]:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if values.null_count:
            raise InvalidRow(f"{values.null_count} partitions are null")
        if not pa.types.is_integer(values.type):
            raise InvalidRow(f"partitions are integers, not {values.type}")
        array = values.to_numpy() if isinstance(values, pa.ChunkedArray) else np.asarray(values)
    elif isinstance(values, np.ndarray):
        array = values
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray):
        for kind in set(map(type, values)):
            if not issubclass(kind, int | np.integer) or kind is bool:
                raise InvalidRow(f"a partition is an integer, not {kind.__name__}")
        try:
            array = np.array(values, np.int64)
        except OverflowError:
            array = np.array(values, object)
    else:
        raise InvalidRow(
            f"partitions are an array or a sequence of integers, not {type(values).__name__}"
        )
    if array.ndim != 1 or array.dtype.kind not in "iuO":
        raise InvalidRow(
            f"partitions are a one-dimensional array of integers, not {array.ndim} dimensions of "
            f"{array.dtype}"
        )
    if array.dtype.kind == "O" and not isinstance(values, Sequence):
        return _integers(array.tolist())
    return array


def _out_of_range(partition: int, partitions: int) -> PartitionOutOfRange:
    return PartitionOutOfRange(
        f"there is no partition {partition}, it has partitions 0 to {partitions - 1}",
        partition=partition,
    )
