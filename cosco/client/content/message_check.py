"""Arrow messages of blocks, read without trust in who made them.

Arrow checks that a message's metadata is well formed, that buffers lie in its body, and (when it
validates in full) that offsets, unions and counts of nulls hold what they name. It would also
decompress bodies, which take as much memory as their maker claims, so compressed ones are refused
before: Cosco makes none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from cosco.errors import DataCorrupted

# Fields of the tables of Arrow's format/Message.fbs.
_MESSAGE_HEADER: Final = 2
_BATCH_COMPRESSION: Final = 3


def read_messages(content: Any) -> Iterator[Any]:
    """Yield the messages that make up `content`, where they lie.

    Raises: DataCorrupted for one that is compressed, ArrowInvalid, EOFError or OSError for what is
    no message.
    """
    source = pa.BufferReader(pa.py_buffer(content))
    size = source.size()
    while source.tell() < size:
        message = pa.ipc.read_message(source)
        if message.type == "record batch" and _is_compressed(message.metadata):
            raise DataCorrupted("its body is compressed")
        yield message


def _is_compressed(metadata: Any) -> bool:
    """Whether the metadata of a record batch, which is well formed, names a compression."""
    data = memoryview(metadata)
    (root,) = struct.unpack_from("<I", data, 0)
    header = _field(data, root, _MESSAGE_HEADER)
    if not header:
        return False
    (offset,) = struct.unpack_from("<I", data, header)
    return _field(data, header + offset, _BATCH_COMPRESSION) != 0


def _field(data: memoryview, table: int, index: int) -> int:
    """Return where a field of a FlatBuffers table lies; 0 if the table does not have it."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    place = 4 + 2 * index
    if place + 2 > vtable_bytes:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + place)
    return table + offset if offset else 0
