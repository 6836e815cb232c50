"""Rows of bytes as those of an Arrow exchange: a column for each mapper, in which its rows lie.

The other columns of a mapper's batches are all missing, and have no type. So every mapper gives its
own column the type it gets, and needs the others' to be left alone.
"""

from __future__ import annotations

import pyarrow as pa

from cosco import CoscoWriter

#: Rows of a batch: each is a call.
_BATCH_ROWS = 16


class Columns:
    """Has a writer collect the rows of one mapper of an exchange that has `mappers`."""

    def __init__(self, writer: CoscoWriter, mapper: int, mappers: int) -> None:
        self._writer = writer
        self._mapper = mapper
        self._mappers = mappers
        self._partitions: list[int] = []
        self._rows: list[bytes] = []

    def collect(self, partition: int, row: bytes) -> None:
        """As a writer's, some rows at once."""
        self._partitions.append(partition)
        self._rows.append(row)
        if len(self._rows) == _BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Have the writer collect what is left."""
        partitions, self._partitions = self._partitions, []
        rows, self._rows = self._rows, []
        missing = pa.nulls(len(rows))
        columns = [missing] * self._mappers
        columns[self._mapper] = pa.array(rows, pa.binary())
        names = [f"of {mapper}" for mapper in range(self._mappers)]
        if rows:
            self._writer.collect_batch(partitions, pa.RecordBatch.from_arrays(columns, names))


def rows_of(read: pa.RecordBatch | pa.Table) -> list[bytes]:
    """The rows that lie in the columns of what was read."""
    found: list[bytes] = []
    for column in read.columns:
        found += (row for row in column.to_pylist() if row is not None)
    return found
