"""The reading side: a source of Daft with one task for each partition of an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pyarrow as pa
from daft import Schema
from daft.io.clustering import ClusteringKeys
from daft.io.pushdowns import Pushdowns
from daft.io.source import DataSource, DataSourceTask
from daft.recordbatch import RecordBatch
from pyroaring import BitMap

from cosco import CoscoReader, DataLost, ExchangeClosed, ExchangeHandle
from cosco.daft.private_parts_of_daft import rows_of


class Owner:
    """What an exchange is kept for: it is alive while a frame, or a task of its process, is."""


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """Rows that are in an exchange, and the mappers that count."""

    handle: ExchangeHandle
    mappers: BitMap
    keys: tuple[str, ...]
    schema: Schema
    owner: Owner | None = field(compare=False)  # None: it is in another process

    def __reduce__(self) -> tuple[Any, ...]:
        return WrittenRows, (self.handle, self.mappers, self.keys, self.schema, None)


class PartitionSource(DataSource):
    """The frame that a shuffle gives: every row with the same keys is in one of its tasks."""

    def __init__(self, written: WrittenRows) -> None:
        self._written = written

    @property
    def name(self) -> str:
        """Return what plans of Daft call it."""
        return "Cosco"

    @property
    def schema(self) -> Schema:
        """Return the schema of the frame that was written."""
        return self._written.schema

    def get_clustering_keys(self) -> ClusteringKeys:
        """Return what spares Daft another shuffle by the same keys."""
        return ClusteringKeys.hash(*self._written.keys)

    async def get_tasks(self, pushdowns: Pushdowns) -> AsyncIterator[DataSourceTask]:
        """Yield a task for each partition; Daft drops rows and columns that it does not want."""
        for partition in range(self._written.handle.partitions):
            yield PartitionTask(self._written, partition)


class PartitionTask(DataSourceTask):
    """Reads one partition. Daft may run it as often as it likes, at several places at once."""

    def __init__(self, written: WrittenRows, partition: int) -> None:
        self._written = written
        self._partition = partition

    @property
    def schema(self) -> Schema:
        """Return the schema of the frame that was written."""
        return self._written.schema

    async def read(self) -> AsyncIterator[RecordBatch]:
        """Yield the rows, in no order. They are verified when the last ones are given out.

        Raises: DataLost, where rows are gone, as Daft cannot run again what wrote them;
        ExchangeClosed, and others of `CoscoReader`.
        """
        # All tasks of a process share a loop of Daft's, which no call may hold up.
        self._written.schema.to_pyarrow_schema()  # from now on Arrow knows Daft's own types
        reader = await asyncio.to_thread(self._open)
        try:
            batches = reader.read_batches()
            while (batch := await asyncio.to_thread(_next, batches)) is not None:
                yield rows_of(batch)
        except (DataLost, ExchangeClosed) as error:
            _explain(error)
        finally:
            reader.close()

    def _open(self) -> CoscoReader:
        written = self._written
        return written.handle.reader(self._partition, written.mappers)


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next(batches, None)


def _explain(error: DataLost | ExchangeClosed) -> NoReturn:
    """Raise the error, with what to do about it in Daft."""
    what = (
        "Daft cannot run again what wrote these rows: call cosco.daft.repartition again, with"
        " replicas=2 if it was less"
        if isinstance(error, DataLost)
        else "it goes with the process that called cosco.daft.repartition, or with its frame"
    )
    raise type(error)(
        f"{error}; {what}",
        shuffle_id=error.shuffle_id,
        mappers=error.mappers,
        partition=error.partition,
        retriable=False,
    ) from error
