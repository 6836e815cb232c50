"""What Cosco uses of Daft beyond its documented interface, in the versions that it supports.

Rows go to partitions as Daft's own shuffle sends them: a frame that was shuffled through Cosco is
joined with one that Daft shuffles, partition by partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from daft import col
from daft.expressions import ExpressionsProjection
from daft.recordbatch import MicroPartition, RecordBatch

#: Parts of fewer rows are joined again: a call for each costs more than sorting them once more.
_MIN_ROWS: Final = 512


def with_partitions(
    rows: MicroPartition, keys: Sequence[str], partitions: int
) -> Iterator[tuple[int | np.ndarray, pa.RecordBatch]]:
    """Yield the rows as batches of Arrow, each with its partition or with those of its rows."""
    parts = rows.partition_by_hash(ExpressionsProjection([col(key) for key in keys]), partitions)
    if len(rows) >= _MIN_ROWS * partitions:
        for partition, part in enumerate(parts):
            for batch in part.to_arrow().to_batches():
                yield partition, batch
    elif len(rows):
        row_partitions = np.repeat(np.arange(partitions), [len(part) for part in parts])
        table = MicroPartition.concat(parts).to_arrow(concat_record_batches=True)
        [batch] = table.combine_chunks().to_batches()
        yield row_partitions, batch


def rows_of(batch: pa.RecordBatch) -> RecordBatch:
    """Return a batch of Arrow as rows of Daft."""
    return RecordBatch.from_arrow_record_batches([batch], batch.schema)


def table_of(columns: dict[str, pa.Array]) -> MicroPartition:
    """Return columns of Arrow as what a sink of Daft gives back."""
    return MicroPartition.from_pydict(columns)
