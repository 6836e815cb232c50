"""The main job: group a table by keys and aggregate it, by a shuffle between processes.

table ─▶ mappers: hash_partitions, collect_batch ─▶ daemons ─▶ reducers: read_table,
aggregate ─▶ one table, equal to the aggregate of the whole table computed directly
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.local.workers import Link, Workers
from cosco.observe import IoFigures, fetch_status, io_figures
from cosco.partitioning import hash_partitions
from cosco.protocol.records import ExchangeProgress

_BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupJob:
    """What to compute, and over how many processes.

    keys: columns of integers or text. sums, means: columns of exact numbers (integers or
    decimals), so that the result does not depend on the order of rows.
    """

    keys: tuple[str, ...]
    sums: tuple[str, ...]
    means: tuple[str, ...] = ()
    mappers: int = 4
    reducers: int = 2
    partitions: int = 4

    @property
    def columns(self) -> list[str]:
        """The columns the job needs, each once."""
        return list(dict.fromkeys((*self.keys, *self.sums, *self.means)))

    def aggregate(self, table: pa.Table) -> pa.Table:
        """Return for each key the count of rows, sums and means; sorted by the keys."""
        grouped = table.group_by(list(self.keys), use_threads=False).aggregate(
            [
                ([], "count_all"),
                *((column, "sum") for column in self.sums),
                *((column, "mean") for column in self.means),
            ]
        )
        return grouped.sort_by([(key, "ascending") for key in self.keys])


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The shuffled result, the direct one, and what moving the rows took."""

    result: pa.Table
    expected: pa.Table
    progress: ExchangeProgress
    io: IoFigures
    rows_read: int
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether the shuffle changed nothing: same groups, same figures, bit for bit."""
        return bool(self.result.equals(self.expected))


def map_rows(
    link: Link, metadata: str, shuffle_id: str, mapper: int, job: GroupJob, data: bytes
) -> int:
    """Push the rows in `data`, an Arrow IPC stream, and return their count: a map task."""
    rows = 0
    with CoscoWriter(shuffle_id, mapper, metadata=metadata) as writer:
        for batch in pa.ipc.open_stream(data):
            writer.collect_batch(hash_partitions(batch, job.keys, job.partitions), batch)
            rows += batch.num_rows
            link.progress(batch.num_rows)
    return rows


def reduce_partitions(
    link: Link, metadata: str, shuffle_id: str, job: GroupJob, partitions: range
) -> tuple[int, list[pa.Table]]:
    """Return the rows read, and the aggregate of each partition: a reduce task."""
    rows = 0
    tables = []
    for partition in partitions:
        with CoscoReader(shuffle_id, range(job.mappers), partition, metadata=metadata) as reader:
            table = reader.read_table()
        tables.append(job.aggregate(table))
        rows += table.num_rows
        link.progress(table.num_rows)
    return rows, tables


def _ipc_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=_BATCH_ROWS)
    return bytes(sink.getvalue())


def _split(rows: int, parts: int) -> list[tuple[int, int]]:
    """Return (offset, length) of `parts` nearly equal pieces of `rows`."""
    bounds = [rows * i // parts for i in range(parts + 1)]
    return [(low, high - low) for low, high in pairwise(bounds)]


def run_job(
    metadata: str,
    table: pa.Table,
    job: GroupJob,
    *,
    on_mapped: Callable[[int], None] = lambda _: None,
    on_reduced: Callable[[int], None] = lambda _: None,
) -> JobOutcome:
    """Run `job` on `table` through the cluster at `metadata` and beside it directly.

    `on_mapped` and `on_reduced` are told rows as they are pushed and read. Raises CoscoError.
    """
    shuffle_id = f"group-{uuid.uuid4()}"
    pieces = [_ipc_stream(table.slice(*piece)) for piece in _split(table.num_rows, job.mappers)]
    before = time.monotonic()
    # One copy: what the job shows is IO, and replication has its own figures.
    with CoscoExchange(
        shuffle_id, job.partitions, schema=table.schema, replicas=1, metadata=metadata
    ) as exchange:
        tasks = [(metadata, shuffle_id, mapper, job, piece) for mapper, piece in enumerate(pieces)]
        with Workers("mapper", map_rows, tasks) as mappers:
            mappers.results(on_mapped)
        readers = [
            (metadata, shuffle_id, job, range(r, job.partitions, job.reducers))
            for r in range(job.reducers)
        ]
        with Workers("reducer", reduce_partitions, readers) as reducers:
            reduced = [worker.value for worker in reducers.results(on_reduced)]
        seconds = time.monotonic() - before
        progress = exchange.progress()
        io = io_figures(fetch_status(metadata).daemons)
    merged = pa.concat_tables([part for _, parts in reduced for part in parts])
    return JobOutcome(
        result=merged.sort_by([(key, "ascending") for key in job.keys]).combine_chunks(),
        expected=job.aggregate(table).combine_chunks(),
        progress=progress,
        io=io,
        rows_read=sum(rows for rows, _ in reduced),
        seconds=seconds,
    )
