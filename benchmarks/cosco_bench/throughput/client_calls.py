"""What the public calls cost the thread that makes them: rows and bytes per CPU second.

Against a real cluster, so that streams, windows and acknowledgements are paid for; on the
clock of the calling thread (`time.thread_time`), so that what daemons and gRPC's threads do
beside it, and whatever else runs on the machine, is not counted.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.errors import DataCorrupted
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, Workers
from cosco_bench.harness.bench_rows import make_batches, partition_keys
from cosco_bench.harness.capacity import GB, ROW_BYTES
from cosco_bench.settings import ThroughputSettings

#: The first round warms up and does not count.
ROUNDS: Final = 6
#: Partitions as long as those of a large exchange: opening a reader is no part of its pace.
_READ_PARTITIONS: Final = 4
#: The same rows are collected over and over. Mappers hand over rows that they have just made,
#: which are in the cache; these are far enough apart not to be compressed to one.
_ROWS_AT_HAND: Final = 8192


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Per CPU second of the calling thread, medians of all rounds but the first."""

    collect_rows_per_s: float
    collect_batch_gb_per_s: float
    reader_rows_per_s: float
    read_batches_gb_per_s: float


def measure_calls(settings: ThroughputSettings, on_round: Callable[[int], None]) -> CallFigures:
    """Measure in a process of its own, with a cluster of its own; tell `on_round` each round.

    Raises DataCorrupted if not as many rows are read as were written.
    """
    with LocalCluster(2, directory=settings.directory) as cluster:
        task = cluster.metadata, settings.ledger_rows, settings.partitions, settings.codec
        with Workers("caller", run_calls, [task]) as workers:
            figures: CallFigures = workers.results(on_round)[0].value
    return figures


def run_calls(link: Link, metadata: str, rows: int, partitions: int, codec: str) -> CallFigures:
    """Make the calls, round after round: what the process of its own does."""
    caller = _Caller(metadata, rows, partitions, codec)
    seconds = []
    for _ in range(ROUNDS):
        seconds.append(caller.run_round())
        link.progress(1)
    collecting, batching, by_row, by_batch = (
        statistics.median(column) for column in zip(*seconds[1:], strict=True)
    )
    gb = rows * ROW_BYTES / GB
    return CallFigures(rows / collecting, gb / batching, rows / by_row, gb / by_batch)


class _Caller:
    """Rows at hand, and the calls that are made with them; each gives its CPU seconds."""

    def __init__(self, metadata: str, rows: int, partitions: int, codec: str) -> None:
        self._metadata = metadata
        self._rows = rows
        self._partitions = partitions
        self._codec = codec
        batches = make_batches(rows, seed=0)
        self._at_hand: list[bytes] = batches[0][1][:_ROWS_AT_HAND].to_pylist()
        keys = np.concatenate([keys for keys, _ in batches])
        self._places: list[int] = partition_keys(keys, partitions).tolist()
        self._few, self._many = (
            [(partition_keys(keys, count), batch) for keys, batch in batches]
            for count in (_READ_PARTITIONS, partitions)
        )

    def run_round(self) -> tuple[float, float, float, float]:
        """Return what each of the four calls cost for all rows."""
        with self._exchange(self._partitions) as made:
            collecting = self._write(made, self._collect)
        with self._exchange(self._partitions) as made:
            batching = self._write(made, lambda writer: _collect_batches(writer, self._many))
        with self._exchange(_READ_PARTITIONS) as made:
            self._write(made, lambda writer: _collect_batches(writer, self._few))
            by_row = self._read(made, lambda reader: sum(1 for _ in reader))
            by_batch = self._read(made, lambda reader: sum(map(len, reader.read_batches())))
        return collecting, batching, by_row, by_batch

    def _exchange(self, partitions: int) -> CoscoExchange:
        return CoscoExchange(
            f"calls-{uuid.uuid4()}",
            partitions,
            metadata=self._metadata,
            codec=self._codec,
            replicas=1,
        )

    def _collect(self, writer: CoscoWriter) -> None:
        call, at_hand, several = writer.collect, self._at_hand, len(self._at_hand)
        for first in range(0, self._rows, several):
            for partition, row in zip(self._places[first : first + several], at_hand, strict=False):
                call(partition, row)

    def _write(self, exchange: CoscoExchange, write: Callable[[CoscoWriter], None]) -> float:
        writer = CoscoWriter(exchange.shuffle_id, 0, metadata=self._metadata)
        before = time.thread_time()
        write(writer)
        writer.close()
        return time.thread_time() - before

    def _read(self, exchange: CoscoExchange, count: Callable[[CoscoReader], int]) -> float:
        found, cpu_s = 0, 0.0
        for partition in range(_READ_PARTITIONS):
            with CoscoReader(
                exchange.shuffle_id, [0], partition, metadata=self._metadata
            ) as reader:
                before = time.thread_time()
                found += count(reader)
                cpu_s += time.thread_time() - before
        if found != self._rows:
            raise DataCorrupted(f"{found} rows were read of {self._rows} that were written")
        return cpu_s


def _collect_batches(writer: CoscoWriter, batches: list[Any]) -> None:
    for row_partitions, batch in batches:
        writer.collect_batch(row_partitions, batch)
