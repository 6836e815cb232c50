"""Rows of Arrow batches, sorted by partition as they come; portable, in Python."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cosco.client.content.arrow import ARROW_POOL, decode_plain, encode_plain, join_plain
from cosco.client.content.row_costs import batch_bytes
from cosco.client.write.state.batch_arguments import BatchPartitions, RowPartitions
from cosco.client.write.state.sorting import partition_bounds, places
from cosco.format.block import MAX_CONTENT_BYTES, Buffer

#: Makes the content of a block of a plain batch.
Encode = Callable[[pa.RecordBatch], Buffer]


class BatchPart(Protocol):
    """Rows of one partition."""

    @property
    def num_rows(self) -> int: ...

    def slice(self, first: int, count: int) -> BatchPart:
        """Return some of the rows; `count` may reach beyond the last one."""

    def plain_bytes(self) -> int:
        """Return about how many bytes they take."""

    def encode(self) -> Buffer:
        """Return the content of a block with all of them."""


class Batches(Protocol):
    """Rows of batches that are sorted by partition, of which blocks are made."""

    def partition(self) -> int | None:
        """Return the partition of the next rows; None if there are no more."""

    def row_bytes(self) -> float:
        """Return about how many bytes a row takes, of all that were sorted."""

    def take(self) -> list[BatchPart]:
        """Take all that is left of the next partition, in order.

        Parts are to be used before more is taken.
        """


class BatchSorter(Protocol):
    """What rows of plain batches of one schema are sorted by."""

    def append(self, row_partitions: BatchPartitions, batch: pa.RecordBatch) -> None:
        """Copy the rows of a batch behind those of their partitions."""

    def drain(self, sure_bytes: int, encode: Encode) -> Any:
        """Remove all rows.

        sure_bytes: a partition whose rows are expected to have more is not made a block of, but is
        to be taken and cut. encode: what makes the contents of blocks, where it matters.

        Returns: them, as `Batches` by ascending partition.
        """

    def reuse(self, rows: Any) -> None:
        """Take back the memory of what was drained, when it is not needed any more."""

    def close(self) -> None:
        """Leave the memory to the next packer of this process, after the last `drain`."""


class PortablePart:
    """See `BatchPart`."""

    def __init__(self, batch: pa.RecordBatch, encode: Encode) -> None:
        """Begin. batch: the rows."""
        self._batch = batch
        self._encode = encode
        self._content: Buffer | None = None

    @property
    def num_rows(self) -> int:
        rows: int = self._batch.num_rows
        return rows

    def slice(self, first: int, count: int) -> PortablePart:
        """See `BatchPart.slice`."""
        return PortablePart(self._batch.slice(first, count), self._encode)

    def plain_bytes(self) -> int:
        """See `BatchPart.plain_bytes`."""
        return batch_bytes(self._batch)

    def encode(self) -> Buffer:
        """See `BatchPart.encode`."""
        if self._content is None:  # it is asked for again if it is too long
            self._content = self._encode(self._batch)
        return self._content


class SortedBatches:
    """See `Batches`."""

    has_lengths: Final = False

    def __init__(
        self, runs: list[tuple[BatchPartitions, pa.RecordBatch]], sure_bytes: int, encode: Encode
    ) -> None:
        """Begin. runs: batches, each sorted by its partitions; others: see `BatchSorter.drain`."""
        self._sure_bytes = sure_bytes
        self._encode = encode
        rows = sum(batch.num_rows for _, batch in runs)
        self._row_bytes: float = sum(batch_bytes(batch) for _, batch in runs) / max(1, rows)
        self._pieces: defaultdict[int, list[tuple[pa.RecordBatch, int, int]]] = defaultdict(list)
        for row_partitions, batch in runs:
            if isinstance(row_partitions, int):
                self._pieces[row_partitions].append((batch, 0, batch.num_rows))
                continue
            for first, end in pairwise(partition_bounds(row_partitions)):
                self._pieces[int(row_partitions[first])].append((batch, first, end))
        self._order = deque(sorted(self._pieces))
        #: The rows of the first one in that order, once they were asked for.
        self._parts: deque[PortablePart] = deque()

    def partition(self) -> int | None:
        """See `Batches.partition`."""
        return self._order[0] if self._order else None

    def row_bytes(self) -> float:
        """See `Batches.row_bytes`."""
        return self._row_bytes

    def take(self) -> list[PortablePart]:
        """See `Batches.take`."""
        parts = list(self._next_parts())
        self._parts.clear()
        self._order.popleft()
        return parts

    def next_block(self) -> tuple[int, Buffer] | None:
        """Take the rows of the next block.

        Returns: their number and the content; None if they may be too many for one.
        """
        parts = self._next_parts()
        part = parts[0]
        rows = part.num_rows
        if rows > 1 and rows * self._row_bytes > self._sure_bytes:
            return None
        content = part.encode()
        if len(content) > MAX_CONTENT_BYTES:
            return None
        parts.popleft()
        if not parts:
            self._order.popleft()
        return rows, content

    def _next_parts(self) -> deque[PortablePart]:
        if not self._parts:
            pieces = self._pieces.pop(self._order[0])
            batches = [batch.slice(first, end - first) for batch, first, end in pieces]
            if len(batches) > 1 and (joined := joined_or_none(batches)) is not None:
                batches = [joined]
            self._parts.extend(PortablePart(batch, self._encode) for batch in batches)
        return self._parts


class PortableBatchSorter:
    """See `BatchSorter`."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begin empty. schema: of the plain batches."""
        self._schema = schema
        self._runs: list[tuple[BatchPartitions, pa.RecordBatch]] = []

    def append(self, row_partitions: BatchPartitions, batch: pa.RecordBatch) -> None:
        """See `BatchSorter.append`."""
        if isinstance(row_partitions, int):
            copied = decode_plain(encode_plain(batch), self._schema)
            self._runs.append((row_partitions, copied))
        else:
            self._runs.append(_sorted(row_partitions, batch))

    def drain(self, sure_bytes: int, encode: Encode) -> SortedBatches:
        """See `BatchSorter.drain`."""
        runs, self._runs = self._runs, []
        return SortedBatches(runs, sure_bytes, encode)

    def reuse(self, rows: SortedBatches) -> None:
        """See `BatchSorter.reuse`: there is nothing to take."""

    def close(self) -> None:
        """See `BatchSorter.close`: there is nothing to leave."""


def joined_or_none(batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
    """Return the batches as one, or None if they have too many values for their offsets."""
    try:
        return join_plain(batches)
    except pa.ArrowInvalid:
        return None


def _sorted(
    row_partitions: RowPartitions, batch: pa.RecordBatch
) -> tuple[RowPartitions, pa.RecordBatch]:
    order = np.argsort(row_partitions, kind="stable")
    return row_partitions.take(order), pc.take(
        batch, places(order), boundscheck=False, memory_pool=ARROW_POOL
    )
