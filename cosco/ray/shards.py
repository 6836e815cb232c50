"""Shards: what a map task made for one partition, as rows of bytes.

Blocks of one dataset may differ in their schemas, and a reduce task that merges sorted shards needs
them whole, so a shard is one row: an Arrow IPC stream, or what is no Arrow table pickled. Cosco
compresses rows, so the stream is not compressed.

A row begins with a header: the mapper, which piece of its shard this is, and how the shard is
encoded. A shard that is longer than `PIECE_BYTES` comes in pieces, one behind the other. All parts
of a row are padded to 64 bytes, so that a reduce task can use columns where they lie in what it has
read.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from cosco import CoscoWriter, DataCorrupted

#: A longer shard is cut: a row must be shorter than 256 MiB, and is held whole on its way.
PIECE_BYTES: Final = 64 << 20
#: Shards are given to the writer when together they are as long.
_GATHERED_BYTES: Final = 8 << 20
#: Mapper, piece, encoding; the rest is zero.
_HEADER: Final = struct.Struct("<IIB")
_UNIT_BYTES: Final = 64
_ARROW: Final = 1
_PICKLED: Final = 2
#: Arrow reads columns that begin at a multiple of this.
_ALIGNED_BYTES: Final = 8


class ShardWriter:
    """Writes the shards of a map task, one for each partition at most."""

    def __init__(self, writer: CoscoWriter, mapper: int) -> None:
        """Begin with none."""
        self._writer = writer
        self._mapper = mapper
        self._begin()

    def add(self, partition: int, block: Any) -> None:
        """Add the shard of a partition."""
        is_arrow = isinstance(block, pa.Table)
        self._begin_row(partition, 0, _ARROW if is_arrow else _PICKLED)
        if is_arrow:
            _write_table(self._sink, block)
        else:
            pickle.dump(block, self._sink, protocol=pickle.HIGHEST_PROTOCOL)
        if self._sink.tell() - self._starts[-1] > PIECE_BYTES:
            self._cut_last()
        elif self._sink.tell() >= _GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Give the writer what was added."""
        if self._starts:
            self._pad()
            offsets = np.array([*self._starts, self._sink.tell()], np.int64)
            buffers = [None, pa.py_buffer(offsets), self._sink.getvalue()]
            rows = pa.Array.from_buffers(pa.large_binary(), len(self._starts), buffers)
            self._writer.collect_batch(np.array(self._partitions, np.uint32), rows)
        self._begin()

    def _begin(self) -> None:
        self._sink = pa.BufferOutputStream()
        self._starts: list[int] = []
        self._partitions: list[int] = []

    def _begin_row(self, partition: int, piece: int, encoding: int) -> None:
        self._pad()
        self._starts.append(self._sink.tell())
        self._partitions.append(partition)
        self._sink.write(_HEADER.pack(self._mapper, piece, encoding).ljust(_UNIT_BYTES, b"\0"))

    def _pad(self) -> None:
        self._sink.write(bytes(-self._sink.tell() % _UNIT_BYTES))

    def _cut_last(self) -> None:
        """Give the writer what was added, of which the last shard is too long for a row."""
        start, partition = self._starts.pop(), self._partitions.pop()
        whole = self._sink.getvalue()
        self._sink = pa.BufferOutputStream()
        if self._starts:
            self._sink.write(whole.slice(0, start))
            self.flush()
        self._begin()
        shard = whole.slice(start + _UNIT_BYTES)
        _, _, encoding = _HEADER.unpack_from(whole, start)
        for piece, first in enumerate(range(0, len(shard), PIECE_BYTES)):
            self._begin_row(partition, piece, encoding)
            self._sink.write(shard.slice(first, min(PIECE_BYTES, len(shard) - first)))
            self.flush()


class _Piece(NamedTuple):
    mapper: int
    piece: int
    encoding: int
    content: pa.Buffer


def read_shards(batches: Iterable[pa.RecordBatch]) -> list[tuple[int, Any]]:
    """Return the shards of a partition with their mappers, by mapper, from all its rows.

    The memory of `batches` is that of the shards.

    Raises: DataCorrupted for rows that no ShardWriter wrote.
    """
    rows = (piece for batch in batches for piece in _pieces(batch))
    pieces = sorted(rows, key=attrgetter("mapper", "piece"))
    return [
        (mapper, _decoded(list(group))) for mapper, group in groupby(pieces, attrgetter("mapper"))
    ]


def _write_table(sink: Any, table: pa.Table) -> None:
    if table.num_columns:  # else its rows would be lost
        table = table.combine_chunks()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.to_batches():
            stream.write_batch(batch)


def _pieces(batch: pa.RecordBatch) -> Iterator[_Piece]:
    [column] = batch.columns
    _, offsets, values = column.buffers()
    if not len(column):
        return
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if end - start < _UNIT_BYTES:
            raise DataCorrupted(f"a row of {end - start} bytes is no shard of a block of Ray's")
        content = values.slice(start + _UNIT_BYTES, end - start - _UNIT_BYTES)
        mapper, piece, encoding = _HEADER.unpack_from(values, start)
        yield _Piece(mapper, piece, encoding, content)


def _decoded(pieces: list[_Piece]) -> Any:
    content = pieces[0].content
    if len(pieces) > 1:
        # All but the last piece are PIECE_BYTES long, without padding.
        content = pa.py_buffer(b"".join(piece.content for piece in pieces))
    if pieces[0].encoding == _PICKLED:
        return pickle.loads(content)  # noqa: S301  Ray's own blocks travel like this
    if content.address % _ALIGNED_BYTES:
        content = pa.py_buffer(bytearray(content))
    with pa.ipc.open_stream(content) as stream:
        return pa.Table.from_batches(
            [batch for batch in stream if batch.num_rows], schema=stream.schema
        )
