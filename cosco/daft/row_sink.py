"""The writing side: a sink of Daft, which sends rows to the partitions of an exchange."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from daft import Schema
from daft.io import DataSink
from daft.io.sink import WriteResult
from daft.recordbatch import MicroPartition

from cosco import ExchangeHandle
from cosco.daft.private_parts_of_daft import table_of, with_partitions

#: What the sink gives back, as a frame.
_RESULT = pa.schema({"mapper": pa.int64(), "rows": pa.int64()})


class RowSink(DataSink):
    """Writes a frame to an exchange; each call of `write` is a mapper of its own.

    Daft says nothing of tasks here, so the service gives each call an id, which is its result once
    its rows are committed. Only mappers whose results reach `finalize` are read: not those of a
    call that failed, or whose result Daft has not got and that it made again.
    """

    def __init__(self, handle: ExchangeHandle, keys: tuple[str, ...], schema: pa.Schema) -> None:
        self._handle = handle
        self._keys = keys
        self._schema = schema

    def name(self) -> str:
        """Return what plans and messages of Daft call it."""
        return "Cosco"

    def schema(self) -> Schema:
        """Return the schema of what `finalize` gives."""
        return Schema.from_pyarrow_schema(_RESULT)

    def write(self, micropartitions: Iterator[MicroPartition]) -> Iterator[WriteResult[int]]:
        """Write rows, and yield one result: once they are committed."""
        with self._handle.writer(None) as writer:
            for rows in micropartitions:
                for partitions, batch in with_partitions(rows, self._keys, self._handle.partitions):
                    writer.collect_batch(partitions, self._as_asked(batch))
        commit = writer.close()
        yield WriteResult(
            result=commit.mapper, bytes_written=commit.bytes, rows_written=commit.rows
        )

    def finalize(self, write_results: list[WriteResult[int]]) -> MicroPartition:
        """Return the mappers to read."""
        mappers = [found.result for found in write_results]
        rows = [found.rows_written for found in write_results]
        return table_of(
            {"mapper": pa.array(mappers, pa.int64()), "rows": pa.array(rows, pa.int64())}
        )

    def _as_asked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch in the exchange's schema: fields within columns may differ by name."""
        return batch if batch.schema.equals(self._schema) else batch.cast(self._schema)
