"""Sorting of Arrow batches and writing of their messages by the native part.

Only for simple columns: see `cosco.client.content.arrow_message`. Its messages are those that Arrow
writes of the same rows in memory of their own. Where Arrow writes a part of a longer batch, it also
takes up to seven bytes of what lies behind its values; else the two are the same, byte for byte.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import pyarrow as pa

from cosco.client.content.arrow_message import (
    MessageLayout,
    column_buffers,
    column_kinds,
    message_layout,
    probe_batch,
)
from cosco.client.content.arrow_transport import Transport
from cosco.client.write.state.batch_arguments import BatchPartitions
from cosco.client.write.state.native_packing import MAX_SPARE_BYTES
from cosco.format.block import Buffer

#: The native sorter of the last packer that was closed, by the kinds of its columns: see
#: `native_packing`.
_spare: Final[dict[tuple[int, ...], Any]] = {}


class NativePart:
    """See `cosco.client.write.state.batch_sorting.BatchPart`."""

    def __init__(self, native: Any, pieces: tuple[int, int], first: int, num_rows: int) -> None:
        """Begin: rows `first` and so on of some pieces of what was drained."""
        self._native = native
        self._pieces = pieces
        self._first = first
        self.num_rows = num_rows

    def slice(self, first: int, count: int) -> NativePart:
        """See `BatchPart.slice`."""
        count = min(count, self.num_rows - first)
        return NativePart(self._native, self._pieces, self._first + first, count)

    def plain_bytes(self) -> int:
        """See `BatchPart.plain_bytes`."""
        found: int = self._native.plain_bytes(*self._pieces, self._first, self.num_rows)
        return found

    def encode(self) -> Buffer:
        """See `BatchPart.encode`."""
        content: bytes = self._native.encode(*self._pieces, self._first, self.num_rows)
        return content


class NativeBatches:
    """See `cosco.client.write.state.batch_sorting.Batches`."""

    def __init__(self, native: Any) -> None:
        """Begin. native: what a native sorter drained."""
        self.native: Final = native

    def partition(self) -> int | None:
        """See `Batches.partition`."""
        partition: int | None = self.native.partition()
        return partition

    def row_bytes(self) -> float:
        """See `Batches.row_bytes`."""
        found: float = self.native.row_bytes()
        return found

    def take(self) -> list[NativePart]:
        """See `Batches.take`."""
        first, pieces, rows = self.native.take()
        return [NativePart(self.native, (first, pieces), 0, rows)]

    def fill(self, blocks: Any, end_partition: int, room: int) -> tuple[bytes, int]:
        """Have a native writer make blocks of the rows."""
        found: tuple[bytes, int] = blocks.fill_columns(self.native, end_partition, room)
        return found


class NativeBatchSorter:
    """See `cosco.client.write.state.batch_sorting.BatchSorter`."""

    def __init__(
        self,
        native: Any,
        partitions: int,
        limit: int,
        kinds: tuple[int, ...],
        layout: MessageLayout,
    ) -> None:
        """Begin empty.

        native: the module; limit: about how many bytes of rows are added between two drains;
        kinds: of the columns; layout: of their messages.
        """
        self._kinds = kinds
        self._limit = limit
        try:
            self._sorter = _spare.pop(kinds)
            self._sorter.reset(partitions, limit)
        except KeyError:
            self._sorter = native.ColumnSorter(partitions, limit, kinds, tuple(layout))

    def append(self, row_partitions: BatchPartitions, batch: pa.RecordBatch) -> None:
        """See `BatchSorter.append`."""
        columns = column_buffers(batch, self._kinds)
        if isinstance(row_partitions, int):
            self._sorter.append_sorted(row_partitions, batch.num_rows, columns)
        else:
            self._sorter.append(row_partitions, row_partitions.itemsize, columns)

    def drain(self, sure_bytes: int, _encode: Any) -> NativeBatches:
        """See `BatchSorter.drain`."""
        return NativeBatches(self._sorter.drain(sure_bytes))

    def reuse(self, rows: NativeBatches) -> None:
        """See `BatchSorter.reuse`."""
        self._sorter.reuse(rows.native)

    def close(self) -> None:
        """See `BatchSorter.close`."""
        sorter, self._sorter = self._sorter, None
        if sorter is not None and self._limit <= MAX_SPARE_BYTES:
            _spare.clear()
            _spare[self._kinds] = sorter


def native_batch_sorter(
    native: Any, way: Transport, partitions: int, limit: int
) -> NativeBatchSorter | None:
    """Return a sorter of batches that travel in this way; None where it is not for them."""
    kinds = column_kinds(way.plain)
    if kinds is None or way.values or way.carries_schema:
        return None
    layout = _checked_layout(native, kinds)
    if layout is None:
        return None
    return NativeBatchSorter(native, partitions, limit, kinds, layout)


@lru_cache(maxsize=64)
def _checked_layout(native: Any, kinds: tuple[int, ...]) -> MessageLayout | None:
    """Return how messages are laid out, if the native part writes them as Arrow does."""
    layout, batch = message_layout(kinds), probe_batch(kinds)
    if layout is None:
        return None
    try:
        sorter = NativeBatchSorter(native, 1, 0, kinds, layout)
    except ValueError:  # it has no place for all figures
        return None
    sorter.append(0, batch)
    (part,) = sorter.drain(0, None).take()
    return layout if part.encode() == bytes(batch.serialize()) else None
