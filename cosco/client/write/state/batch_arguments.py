"""The arguments of `collect` and `collect_batch`, checked and brought to plain buffers.

Nothing is copied here that need not be: the callers copy what they keep.
"""

from __future__ import annotations

import array as array_module
import operator
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content.frames import as_array
from cosco.errors import InvalidArgument, InvalidRow, PartitionOutOfRange, SchemaMismatch
from cosco.protocol.api_limits import shown_value

#: What a row of a batch takes beside its bytes: length, partition, and places while sorting.
BATCH_ROW_OVERHEAD: Final = 32

#: How many rows of a sequence are looked at together, to bound what is kept of them.
_ROWS_AT_A_TIME: Final = 1 << 16

#: Sequences of integers that are one row.
_ONE_ROW: Final = (str, bytes, bytearray, memoryview, array_module.array)
#: In the format of a buffer.
_FIELD_NAME: Final = re.compile(":[^:]*:")

RowPartitions = npt.NDArray[np.unsignedinteger[Any]]
#: Where the rows of a batch go: each to its own partition, or all to one.
BatchPartitions = RowPartitions | int
Offsets = npt.NDArray[np.int32] | npt.NDArray[np.int64]


class RowRun(NamedTuple):
    """Rows one after another: row i is data[offsets[i]:offsets[i + 1]], of uint8."""

    offsets: Offsets
    data: npt.NDArray[np.uint8]

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def row_bytes(self) -> int:
        return int(self.offsets[-1]) - int(self.offsets[0])


def checked_partition(partition: object, partitions: int) -> int:
    """Return a valid partition as an int.

    Raises: InvalidRow, PartitionOutOfRange.
    """
    try:
        if isinstance(partition, bool | np.bool_):
            raise TypeError
        checked = operator.index(partition)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidRow(f"a partition is an integer, not {type(partition).__name__}") from None
    if not 0 <= checked < partitions:
        raise _out_of_range(checked, partitions)
    return checked


def check_row(partition: object, row: object, *, partitions: int) -> None:
    """Check the arguments of a `collect`.

    Raises: InvalidRow, PartitionOutOfRange.
    """
    checked_partition(partition, partitions)
    byte_view(row)


def check_batch(row_partitions: Any, rows: Any, *, partitions: int) -> None:
    """Check all arguments of a `collect_batch` on a bytes exchange.

    Raises: InvalidRow, InvalidArgument, PartitionOutOfRange.
    """
    batch_partitions(row_partitions, rows=len(BatchRows(rows)), partitions=partitions)


def batch_partitions(values: Any, *, rows: int, partitions: int) -> BatchPartitions:
    """Return where the rows of a batch go: one integer, or an array with one for each row.

    An array is copied to the narrowest type that holds `partitions`.

    values: one integer, or a one-dimensional array, column or sequence of them.

    Raises: InvalidRow for anything else, InvalidArgument unless it has one or `rows` of them,
    PartitionOutOfRange.
    """
    kind = type(values)
    # Arrays have an `__index__` as well, whatever their shape.
    if hasattr(kind, "__index__") and not hasattr(kind, "__len__"):
        return checked_partition(values, partitions)
    array = _integers(values, rows)
    if rows and (int(array.min()) < 0 or int(array.max()) >= partitions):
        wrong = int(array[(array < 0) | (array >= partitions)][0])
        raise _out_of_range(wrong, partitions)
    # A stable sort of 8 or 16 bits is a radix sort.
    return array.astype(np.min_scalar_type(partitions - 1))


def slice_partitions(row_partitions: BatchPartitions, first: int, end: int) -> BatchPartitions:
    """Return where rows `first` to `end` of a batch go."""
    return row_partitions if isinstance(row_partitions, int) else row_partitions[first:end]


def byte_view(row: object) -> bytes | memoryview:
    """Return the bytes of a bytes-like row, without a copy where they are contiguous.

    Raises: InvalidRow.
    """
    if isinstance(row, bytes):
        return row
    try:
        view = memoryview(_buffer(row))
    except (TypeError, ValueError, BufferError):  # what has no buffer, or does not give it out
        view = None
    if view is None or view.ndim == 0:
        kind = f" of {row.dtype}" if isinstance(row, np.ndarray) else ""  # others are rows
        raise InvalidRow(f"a row is bytes-like, not {type(row).__name__}{kind}")
    if "O" in _FIELD_NAME.sub("", view.format):
        raise InvalidRow("a row is bytes-like, not an array of objects")
    if view.nbytes == 0:
        return b""
    return view.cast("B") if view.c_contiguous else view.tobytes()


def _buffer(row: Any) -> Any:
    """Return what has the bytes of a row: versions of Arrow differ in what its scalars tell."""
    if isinstance(row, pa.Scalar):
        return row.as_buffer() if _is_binary(row.type) else None
    return row


class BatchRows:
    """The rows of a `collect_batch` on a bytes exchange: Arrow binary or bytes-likes."""

    def __init__(self, rows: Any) -> None:
        """Check all of `rows`.

        Raises: InvalidRow (SchemaMismatch for Arrow tables).
        """
        self._arrays: list[Any] = []
        self._sequence: Sequence[Any] = ()
        self._is_of_bytes = False  # and of nothing else that holds bytes
        if isinstance(rows, list | tuple):
            self._sequence = rows
            self._check_sequence()
            return
        if isinstance(rows, pa.RecordBatch | pa.Table):
            raise SchemaMismatch(
                "it takes rows as bytes, not Arrow batches: give an array of binary"
            )
        rows = as_array(rows)
        if isinstance(rows, pa.Array | pa.ChunkedArray):
            self._arrays = list(rows.chunks) if isinstance(rows, pa.ChunkedArray) else [rows]
            self._check_arrays()
        elif isinstance(rows, np.ndarray):
            self._sequence = _array_rows(rows)
            self._check_sequence()
        elif isinstance(rows, Sequence) and not isinstance(rows, (*_ONE_ROW, range)):
            self._sequence = list(rows)  # others cannot be sliced
            self._check_sequence()
        else:
            raise InvalidRow(
                f"rows are an Arrow array of binary or a sequence of bytes, not "
                f"{type(rows).__name__}"
            )

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
            views = self._sequence[start : start + _ROWS_AT_A_TIME]
            if not self._is_of_bytes:
                views = [byte_view(row) for row in views]
            offsets = offsets_of(views)
            for first, end in cuts(offsets, room):
                data = np.frombuffer(b"".join(views[first:end]), np.uint8)
                if len(data) != offsets[end] - offsets[first]:
                    raise InvalidRow("the sequence of rows was changed while they were taken")
                yield RowRun(offsets[first : end + 1] - offsets[first], data)

    def _check_sequence(self) -> None:
        self._is_of_bytes = not set(map(type, self._sequence)) - {bytes}
        if self._is_of_bytes:
            return
        for index, row in enumerate(self._sequence):
            try:
                byte_view(row)
            except InvalidRow as error:
                raise InvalidRow(f"row {index} of the batch: {error}") from None

    def _check_arrays(self) -> None:
        self._arrays = [
            array
            for array in self._arrays
            if len(array) or not pa.types.is_null(array.type)  # no rows have any type
        ]
        for array in self._arrays:
            if not _is_binary(array.type):
                raise InvalidRow(f"rows are an Arrow array of binary, not {array.type}: cast it")
        if nulls := sum(array.null_count for array in self._arrays):
            raise InvalidRow(f"{nulls} rows are null")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _masked(array: npt.NDArray[Any]) -> int:
    """Return how many values of a numpy array are masked."""
    return int(np.ma.getmaskarray(array).sum()) if isinstance(array, np.ma.MaskedArray) else 0


def _array_rows(array: npt.NDArray[Any]) -> list[Any]:
    """Return the rows in an array of bytes objects.

    Raises: InvalidRow for other arrays.
    """
    if array.ndim == 1 and (array.dtype == object or not len(array)):
        if masked := _masked(array):
            raise InvalidRow(f"{masked} rows are masked")
        rows: list[Any] = np.asarray(array).tolist()
        return rows
    hint = ", which drops zero bytes at their ends: give a list" if array.dtype.kind == "S" else ""
    raise InvalidRow(
        f"rows are an Arrow array of binary or a sequence of bytes, not a numpy array of "
        f"{array.ndim} dimensions of {array.dtype}{hint}"
    )


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


def _integers(values: Any, count: int) -> npt.NDArray[Any]:
    """Return `count` integers, of numpy's type if they fit one, else as objects."""
    values = as_array(values)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if values.null_count:
            raise InvalidRow(f"{values.null_count} partitions are null")
        if len(values) and not pa.types.is_integer(values.type):
            raise InvalidRow(f"partitions are integers, not {values.type}: cast them")
        # A chunked array of no chunks has no buffers.
        array = values.to_numpy() if isinstance(values, pa.ChunkedArray) else np.asarray(values)
    elif isinstance(values, np.ndarray):
        if masked := _masked(values):
            raise InvalidRow(f"{masked} partitions are masked")
        array = np.asarray(values)
    elif isinstance(values, memoryview | array_module.array):
        array = _of_buffer(values)
    elif isinstance(values, Sequence) and not isinstance(values, _ONE_ROW):
        _check_count(values, count)
        array = _of_sequence(values)
    else:
        raise InvalidRow(
            "partitions are one integer, or an array or a sequence of integers, not "
            f"{type(values).__name__}"
        )
    if array.ndim == 1 and not len(array):  # no partitions have any type
        array = np.zeros(0, np.uint8)
    if array.ndim != 1:
        raise InvalidRow(
            f"partitions are a one-dimensional array of integers, not {array.ndim} dimensions of "
            f"{array.dtype}"
        )
    if array.dtype.kind not in "iuO":
        raise InvalidRow(f"partitions are integers, not {array.dtype}: cast them")
    _check_count(array, count)
    if array.dtype.kind == "O" and not isinstance(values, Sequence):
        return _of_sequence(array.tolist())
    return array


def _check_count(values: Sequence[Any] | npt.NDArray[Any], count: int) -> None:
    try:
        found = f"{(length := len(values))} partitions"
    except OverflowError:  # of a range
        found, length = "more partitions than memory has bytes", -1
    if length != count:
        raise InvalidArgument(f"{found} for {count} rows: give one for each")


def _of_buffer(values: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidRow(f"partitions are integers, not a buffer: {error}") from error


def _of_sequence(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Return the integers as an array.

    Raises: InvalidRow for what is no integer.
    """
    if not isinstance(values, range):
        for kind in set(map(type, values)):
            if not issubclass(kind, int | np.integer) or kind is bool:
                row = next(row for row, one in enumerate(values) if type(one) is kind)
                raise InvalidRow(
                    f"row {row} of the batch: a partition is an integer, not {kind.__name__}"
                )
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


def _out_of_range(partition: int, partitions: int) -> PartitionOutOfRange:
    return PartitionOutOfRange(
        f"there is no partition {shown_value(partition)}, it has partitions 0 to {partitions - 1}",
        partition=partition,
    )
