"""What a message with a batch of simple columns is made of, for who writes messages without Arrow.

A column is simple if its values are bits, or of one number of bytes, or bytes between offsets. The
metadata of a message does not tell types, but how many columns and buffers there are, and the
figures of each: so that of one message, with other figures, is that of any other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

#: What stands for a column of bits, and for bytes between offsets of 32 and of 64 bits; a column
#: of values of one number of bytes has that number.
BITS: Final = 0
SHORT_OFFSETS: Final = -4
LONG_OFFSETS: Final = -8

_VARIABLE: Final = {
    SHORT_OFFSETS: (pa.binary(), pa.string()),
    LONG_OFFSETS: (pa.large_binary(), pa.large_string()),
}
_MAX_WIDTH: Final = 1 << 16
_PREFIX_BYTES: Final = 8
_PROBE_ROWS: Final = 3


class MessageLayout(NamedTuple):
    """What comes before the body of a message, and where in it are the number of rows, the length
    of the body, the rows and nulls of the columns, and the places and lengths of the buffers."""

    head: bytes
    rows_at: int
    body_at: int
    nodes_at: int
    buffers_at: int


#: Where a column lies: its bitmap if it has nulls, its first item, its offsets, and its values.
ColumnBuffers = tuple[Any, int, Any, Any]


def column_kinds(schema: pa.Schema) -> tuple[int, ...] | None:
    """Return what the columns of a schema are; None if there are none, or one is not simple."""
    kinds = tuple(kind for one in schema if (kind := _kind(one.type)) is not None)
    return kinds if len(kinds) == len(schema) > 0 else None


def column_buffers(batch: pa.RecordBatch, kinds: Sequence[int]) -> list[ColumnBuffers]:
    """Return where the columns of a batch lie, which are of these kinds."""
    found: list[ColumnBuffers] = []
    for kind, column in zip(kinds, batch.columns, strict=True):
        valid, *buffers = column.buffers()
        valid = valid if column.null_count else None
        offsets, values = buffers if kind < 0 else (None, *buffers)
        found.append((valid, column.offset, offsets, values))
    return found


def probe_batch(kinds: Sequence[int]) -> pa.RecordBatch:
    """Return a small batch of columns of these kinds, a value of each being null."""
    columns = [_probe_column(kind) for kind in kinds]
    return pa.RecordBatch.from_arrays(columns, [str(index) for index in range(len(columns))])


def message_layout(kinds: Sequence[int]) -> MessageLayout | None:
    """Return what messages with such columns are like; None if this version of Arrow writes them
    in a way that is not known here."""
    message = bytes(probe_batch(kinds).serialize())
    try:
        return _layout(message, len(kinds))
    except (struct.error, ValueError):
        return None


def _layout(message: bytes, columns: int) -> MessageLayout:
    """Find the figures in a message of `probe_batch`.

    Raises: ValueError, struct.error where something else is found than should be.
    """
    mark, length = struct.unpack_from("<Ii", message)
    head = message[: _PREFIX_BYTES + length]
    root = _pointed(head, _PREFIX_BYTES)
    batch = _pointed(head, _field(head, root, 2))
    nodes, buffers = (_pointed(head, _field(head, batch, index)) for index in (1, 2))
    found = MessageLayout(
        head,
        rows_at=_field(head, batch, 0),
        body_at=_field(head, root, 3),
        nodes_at=nodes + 4,  # behind the length of the vector
        buffers_at=buffers + 4,
    )
    figures = (
        mark,
        *struct.unpack_from("<q", head, found.rows_at),
        *struct.unpack_from("<q", head, found.body_at),
        *struct.unpack_from("<I", head, nodes),
        *struct.unpack_from("<qq", head, found.nodes_at),
    )
    body = len(message) - len(head)
    if figures != (0xFFFFFFFF, _PROBE_ROWS, body, columns, _PROBE_ROWS, 1):
        raise ValueError(f"a message with the figures {figures}")
    return found


def _field(data: bytes, table: int, index: int) -> int:
    """Return where a table of a flatbuffer has a field.

    Raises: ValueError if it does not have it.
    """
    (to_fields,) = struct.unpack_from("<i", data, table)
    (length,) = struct.unpack_from("<H", data, table - to_fields)
    at = 4 + 2 * index
    (place,) = struct.unpack_from("<H", data, table - to_fields + at) if at < length else (0,)
    if not place:
        raise ValueError(f"a table without its field {index}")
    return table + int(place)


def _pointed(data: bytes, at: int) -> int:
    """Return where what a flatbuffer names at `at` is."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _kind(kind: pa.DataType) -> int | None:
    for number, kinds in _VARIABLE.items():
        if kind in kinds:
            return number
    if pa.types.is_boolean(kind):
        return BITS
    is_fixed = (
        pa.types.is_primitive(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
    if isinstance(kind, pa.BaseExtensionType) or not is_fixed:
        return None
    width = int(kind.bit_width) // 8
    return width if 0 < width <= _MAX_WIDTH else None


def _probe_column(kind: int) -> Any:
    valid = pa.py_buffer(b"\5")
    if kind == BITS:
        return pa.Array.from_buffers(pa.bool_(), _PROBE_ROWS, [valid, pa.py_buffer(b"\4")])
    if kind > 0:
        values = pa.py_buffer(b"a" * kind + bytes(kind) + b"c" * kind)
        return pa.Array.from_buffers(pa.binary(kind), _PROBE_ROWS, [valid, values])
    offsets = struct.pack("<4i" if kind == SHORT_OFFSETS else "<4q", 0, 1, 1, 4)
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"abcd")]
    return pa.Array.from_buffers(_VARIABLE[kind][0], _PROBE_ROWS, buffers)
