"""The blocks of one attempt, and what they add up to by partition; portable, in Python."""

from __future__ import annotations

from array import array
from typing import Any, Protocol

import numpy as np

from cosco.client.write.state.batch_sorting import SortedBatches
from cosco.client.write.state.sorting import SortedRows
from cosco.format.block import HEADER_BYTES, LENGTH_BYTES, Buffer, encode_block
from cosco.protocol.mark import Mark, encode_mark
from cosco.protocol.records import MASK64, AttemptSums, PartitionRange


class Blocks(Protocol):
    """What makes the blocks of an attempt."""

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
        """Make a block of the next rows of `partition`, with the arguments of `encode_block`.

        Returns: its parts.
        """

    def fill(self, rows: Any, end_partition: int, room: int) -> tuple[list[bytes], int]:
        """Make blocks of sorted rows: until they have `room` bytes or more, or the next rows are of
        `end_partition` or later, or may be too long for a block.

        rows: what a sorter of the same kind, native or portable, has drained.

        Returns: their parts, and how many blocks they are.
        """

    def mark(self, partition_range: PartitionRange) -> list[bytes]:
        """Make the mark of a range, of the blocks made so far.

        Returns: its parts.
        """

    def sums(self) -> AttemptSums:
        """Return what all blocks made so far add up to."""


class BlockWriter:
    """See `Blocks`."""

    def __init__(
        self, exchange: int, mapper: int, attempt: int, codec: int, partitions: int
    ) -> None:
        """Begin with row 0 of every partition."""
        self._exchange = exchange
        self._mapper = mapper
        self._attempt = attempt
        self._codec = codec
        # `array` reads and writes single items faster than numpy, and smaller than a list.
        zeros = bytes(8 * partitions)
        self._rows, self._row_bytes, self._stored_bytes, self._digests = (
            array("Q", zeros) for _ in range(4)
        )

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
        header, stored, digest = encode_block(
            exchange=self._exchange,
            partition=partition,
            mapper=self._mapper,
            attempt=self._attempt,
            first_row=self._rows[partition],
            rows=rows,
            content=content,
            codec=self._codec,
            lengths=lengths,
            fragment=fragment,
            last=last,
        )
        row_bytes = len(content) - (LENGTH_BYTES * rows if lengths else 0)
        self._rows[partition] += rows
        self._row_bytes[partition] += row_bytes
        self._stored_bytes[partition] += HEADER_BYTES + len(stored)
        self._digests[partition] = (self._digests[partition] + digest) & MASK64
        return [header, stored]

    def fill(
        self, rows: SortedRows | SortedBatches, end_partition: int, room: int
    ) -> tuple[list[bytes], int]:
        """See `Blocks.fill`."""
        return fill_by_block(self, rows, end_partition, room)

    def mark(self, partition_range: PartitionRange) -> list[bytes]:
        """See `Blocks.mark`."""
        first, end = partition_range.first, partition_range.first + partition_range.count
        sums = (of[first:end] for of in (self._rows, self._row_bytes, self._digests))
        mark = Mark(self._mapper, self._attempt, np.array(list(sums), np.uint64))
        return list(encode_mark(mark, self._exchange, partition_range))

    def sums(self) -> AttemptSums:
        """See `Blocks.sums`."""
        rows, row_bytes, stored, digests = (
            np.array(of, np.uint64)
            for of in (self._rows, self._row_bytes, self._stored_bytes, self._digests)
        )
        partitions = np.flatnonzero(stored)
        return AttemptSums(
            partitions.astype(np.uint32),
            rows[partitions],
            row_bytes[partitions],
            stored[partitions],
            digests[partitions],
        )


def fill_by_block(
    blocks: Blocks, rows: SortedRows | SortedBatches, end_partition: int, room: int
) -> tuple[list[bytes], int]:
    """Do what `Blocks.fill` does, for rows that were sorted in Python: one block after another."""
    parts: list[bytes] = []
    size = count = 0
    while size < room:
        partition = rows.partition()
        if partition is None or partition >= end_partition:
            break
        block = rows.next_block()
        if block is None:
            break
        added = blocks.add(partition, *block, lengths=rows.has_lengths)
        parts += added
        size += sum(map(len, added))
        count += 1
    return parts, count
