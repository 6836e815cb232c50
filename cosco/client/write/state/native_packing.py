"""Packing by the native part: what `block_writer` and `sorting` do in Python, with the same bytes.

It works on memory of ours without the interpreter's lock; what it must not do is decided here and
by the callers, as ever.
"""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import suppress
from typing import Any, Final

import numpy as np

from cosco.client.write.state.batch_arguments import RowPartitions, RowRun
from cosco.client.write.state.batch_sorting import SortedBatches
from cosco.client.write.state.block_writer import fill_by_block
from cosco.format.block import FLAG_FRAGMENT, FLAG_LAST, FLAG_LENGTHS, Buffer
from cosco.protocol.records import AttemptSums, PartitionRange

#: Memory of closed sorters that is kept for the next packers.
MAX_SPARE_BYTES: Final = 32 << 20

#: Native sorters of packers that were closed, with their limits, the last one last: to touch new
#: memory for the first time costs as much as packing the rows of a third of it.
_spare: list[tuple[int, Any]] = []


class NativeBlockWriter:
    """See `cosco.client.write.state.block_writer.Blocks`."""

    def __init__(
        self, native: Any, exchange: int, mapper: int, attempt: int, codec: int, partitions: int
    ) -> None:
        """Begin with row 0 of every partition. native: the module."""
        self._blocks = native.BlockWriter(exchange, mapper, attempt, codec, partitions)

    def add(
        self,
        partition: int,
        rows: int,
        content: Buffer,
        *,
        lengths: bool = False,
        fragment: int | None = None,
        last: bool = False,
    ) -> list[bytes]:
        """See `Blocks.add`."""
        flags = FLAG_LENGTHS if lengths else 0
        if fragment is not None:
            flags = FLAG_FRAGMENT | (FLAG_LAST if last else 0)
        return [self._blocks.add(partition, rows, content, flags, fragment or 0)]

    def fill(self, rows: Any, end_partition: int, room: int) -> tuple[list[bytes], int]:
        """See `Blocks.fill`."""
        if isinstance(rows, SortedBatches):  # of columns that are not for the native part
            return fill_by_block(self, rows, end_partition, room)
        blocks, count = rows.fill(self._blocks, end_partition, room)
        return ([blocks] if count else []), count

    def mark(self, partition_range: PartitionRange) -> list[bytes]:
        """See `Blocks.mark`."""
        first = partition_range.first
        return [self._blocks.mark(first, first + partition_range.count)]

    def sums(self) -> AttemptSums:
        """See `Blocks.sums`."""
        partitions, *sums = self._blocks.totals()
        return AttemptSums(
            np.frombuffer(partitions, np.uint32), *(np.frombuffer(of, np.uint64) for of in sums)
        )


class NativeRows:
    """See `cosco.client.write.state.sorting.Rows`."""

    def __init__(self, native: Any, long_rows: dict[int, deque[memoryview]]) -> None:
        """Begin. native: what a native sorter drained; long_rows: by partition, in order."""
        self.native: Final = native
        self._long_rows = long_rows

    def fill(self, blocks: Any, end_partition: int, room: int) -> tuple[bytes, int]:
        """Have a native writer make blocks of the rows."""
        found: tuple[bytes, int] = blocks.fill(self.native, end_partition, room)
        return found

    def partition(self) -> int | None:
        """See `Rows.partition`."""
        partition: int | None = self.native.partition()
        return partition

    def take_long_row(self) -> memoryview | None:
        """See `Rows.take_long_row`."""
        if not self._long_rows:
            return None
        partition = self.native.partition()
        return self._long_rows[partition].popleft() if self.native.skip_long_row() else None


class NativeRowSorter:
    """See `cosco.client.write.state.sorting.Sorter`."""

    def __init__(self, native: Any, partitions: int, limit: int) -> None:
        """Begin empty. native: the module; others: as for `RowSorter`."""
        self._limit = limit
        try:
            _, self._sorter = _spare.pop()
            self._sorter.reset(partitions, limit)
        except IndexError:  # other packers have them
            self._sorter = native.RowSorter(partitions, limit)
        #: Rows that are too long for a block.
        self._long_rows: defaultdict[int, deque[memoryview]] = defaultdict(deque)

    def append(self, row_partitions: RowPartitions, run: RowRun) -> None:
        """See `Sorter.append`."""
        long_rows = self._sorter.append(
            row_partitions, row_partitions.itemsize, run.offsets, run.offsets.itemsize, run.data
        )
        for index in long_rows:
            self._keep(int(row_partitions[index]), run, index)

    def append_rows(self, row_partitions: list[int], rows: list[bytes]) -> bool:
        """See `Sorter.append_rows`."""
        is_added: bool = self._sorter.append_rows(row_partitions, rows)
        return is_added

    def append_sorted(self, partition: int, run: RowRun) -> None:
        """See `Sorter.append_sorted`."""
        offsets = run.offsets
        for index in self._sorter.append_sorted(partition, offsets, offsets.itemsize, run.data):
            self._keep(partition, run, index)

    def drain(self) -> NativeRows:
        """See `Sorter.drain`."""
        long_rows, self._long_rows = self._long_rows, defaultdict(deque)
        return NativeRows(self._sorter.drain(), long_rows)

    def reuse(self, rows: NativeRows) -> None:
        """See `Sorter.reuse`."""
        self._sorter.reuse(rows.native)

    def close(self) -> None:
        """See `Sorter.close`."""
        sorter, self._sorter = self._sorter, None
        if sorter is not None:
            # Operations that the interpreter makes whole: other threads take and leave, too.
            _spare.append((self._limit, sorter))
            while sum(limit for limit, _ in _spare.copy()) > MAX_SPARE_BYTES:
                with suppress(IndexError):
                    _spare.pop(0)

    def _keep(self, partition: int, run: RowRun, index: int) -> None:
        row = run.data[int(run.offsets[index]) : int(run.offsets[index + 1])]
        copied = row.copy() if len(row) <= self._limit else row
        self._long_rows[partition].append(copied.data)
