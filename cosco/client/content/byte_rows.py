"""The content of a bytes exchange's block, and how a reader takes it apart.

A block of n rows begins with a table of n lengths, unsigned 32 bits each, little-endian
(the header's flag FLAG_LENGTHS says so), and then the rows' bytes lie one after another. A
row that is too long for a block is cut into fragments of its raw bytes, without a table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content import Decoded
from cosco.errors import DataCorrupted
from cosco.format.block import LENGTH_BYTES, MAX_CONTENT_BYTES, MAX_FRAGMENTS
from cosco.mechanics import NATIVE

#: A longer row has more fragments than a block header can number.
MAX_ROW_BYTES: Final = MAX_FRAGMENTS * MAX_CONTENT_BYTES
#: The schema of the batches that a bytes exchange's reader returns.
BYTES_SCHEMA: Final[pa.Schema] = pa.schema([pa.field("row", pa.binary())])

_MAX_OFFSET: Final = 2**31 - 1
_OFFSET_BYTES: Final = 4
#: Up to here slicing rows is faster than having Arrow make them.
_FEW_ROWS: Final = 100


def block_cuts(ends: npt.NDArray[np.int64], base: int) -> Iterator[tuple[int, int]]:
    """Cut one partition's rows into blocks of at most MAX_CONTENT_BYTES, about equally long.

    ends: where each row ends in one long content, its entry in the length table counted;
    base: where the first one begins. Yields (first, end) indices into `ends`. A row that is
    too long for any block comes alone.
    """
    first, count = 0, len(ends)
    while first < count:
        rest = int(ends[-1]) - base
        end = count
        if rest > MAX_CONTENT_BYTES:
            blocks = -(-rest // MAX_CONTENT_BYTES)
            end = int(np.searchsorted(ends, base + -(-rest // blocks))) + 1
            if end - first > 1 and int(ends[end - 1]) - base > MAX_CONTENT_BYTES:
                end -= 1
        yield first, end
        base = int(ends[end - 1])
        first = end


def iter_rows(decoded: Decoded) -> Iterator[bytes]:
    """Return the rows, in order.

    Raises: DataCorrupted when the table does not fit the content.
    """
    return iter(SPLIT_ROWS(decoded))


def split_rows(decoded: Decoded) -> list[bytes]:
    """Return the rows of one block, in order, as `iter_rows` does."""
    if decoded.rows == 1:  # as in micro-batches: not worth an array
        return [_only_row(decoded)]
    if decoded.rows <= _FEW_ROWS and decoded.lengths:  # nor is this
        return _few_rows(decoded)
    offsets = _offsets((decoded,))
    values = pa.py_buffer(decoded.content)[_table_bytes(decoded) :]
    array = pa.Array.from_buffers(
        pa.large_binary(), decoded.rows, [None, pa.py_buffer(offsets), values]
    )
    # Arrow makes the bytes objects several times faster than slicing does.
    rows: list[bytes] = array.to_numpy(zero_copy_only=False).tolist()
    return rows


def _few_rows(decoded: Decoded) -> list[bytes]:
    content, values = decoded.content, _table_bytes(decoded)
    if values > len(content):
        raise _misfit(decoded)
    lengths = struct.unpack_from(f"<{decoded.rows}I", content)
    ends = list(accumulate(lengths, initial=values))
    if ends[-1] != len(content):
        raise _misfit(decoded)
    return [bytes(content[start:end]) for start, end in pairwise(ends)]


def _only_row(decoded: Decoded) -> bytes:
    content = decoded.content
    if not decoded.lengths:
        return bytes(content)
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    if len(content) != LENGTH_BYTES + length:
        raise _misfit(decoded)
    return bytes(content[LENGTH_BYTES:])


def rows_to_batch(decoded: Sequence[Decoded]) -> pa.RecordBatch:
    """Return all rows as one batch of BYTES_SCHEMA that owns its memory.

    Raises: DataCorrupted as `iter_rows` does, and ValueError for 2 GiB of rows or more, which
    one array of `binary` cannot hold.
    """
    offsets, values = JOIN_ROWS(decoded)
    count = len(offsets) // _OFFSET_BYTES - 1
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values)]
    column = pa.Array.from_buffers(pa.binary(), count, buffers)
    return pa.RecordBatch.from_arrays([column], schema=BYTES_SCHEMA)


def join_rows(decoded: Sequence[Decoded]) -> tuple[bytes, bytes]:
    """Return the offsets of an array of `binary` that has all rows, and its values.

    Raises: as `rows_to_batch` does.
    """
    offsets = _offsets(decoded)
    if int(offsets[-1]) > _MAX_OFFSET or len(offsets) - 1 > _MAX_OFFSET:
        raise ValueError(f"{offsets[-1]} bytes of rows, one batch holds at most {_MAX_OFFSET}")
    values = b"".join(memoryview(item.content)[_table_bytes(item) :] for item in decoded)
    return offsets.astype(np.int32).tobytes(), values


#: The native part has both as well.
JOIN_ROWS: Final[Callable[[Sequence[Decoded]], tuple[bytes, bytes]]] = (
    join_rows if NATIVE is None else NATIVE.join_rows
)
SPLIT_ROWS: Final[Callable[[Decoded], list[bytes]]] = (
    split_rows if NATIVE is None else NATIVE.split_rows
)


def _offsets(decoded: Sequence[Decoded]) -> npt.NDArray[np.int64]:
    """Return where each row begins in the joined values, and where the last one ends.

    Raises: DataCorrupted if the length table of a content does not fit the rest of it.
    """
    tables = [_table(item) for item in decoded]
    ends = np.cumsum([0, *map(len, tables)])
    offsets = np.zeros(int(ends[-1]) + 1, np.int64)
    if tables:
        np.cumsum(np.concatenate(tables), out=offsets[1:], dtype=np.int64)
    for item, values_bytes in zip(decoded, np.diff(offsets[ends]).tolist(), strict=True):
        if _table_bytes(item) + values_bytes != len(item.content):
            raise _misfit(item)
    return offsets


def _table(decoded: Decoded) -> npt.NDArray[Any]:
    """Return the lengths of the rows."""
    if decoded.lengths:
        if _table_bytes(decoded) > len(decoded.content):
            raise _misfit(decoded)
        return np.frombuffer(decoded.content, "<u4", decoded.rows)
    if decoded.rows != 1:
        raise DataCorrupted(
            f"{decoded.rows} rows of mapper {decoded.mapper} come without a length table"
        )
    return np.array([len(decoded.content)], np.int64)


def _table_bytes(decoded: Decoded) -> int:
    return LENGTH_BYTES * decoded.rows if decoded.lengths else 0


def _misfit(decoded: Decoded) -> DataCorrupted:
    return DataCorrupted(
        f"the length table of {decoded.rows} rows of mapper {decoded.mapper} does not fit its "
        f"content of {len(decoded.content)} bytes"
    )
