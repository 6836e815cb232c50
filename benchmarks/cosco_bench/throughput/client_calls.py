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
from cosco_bench.harness.bench_rows import ROW_BYTES, make_batches, partition_keys
from cosco_bench.harness.capacity import GB

#: The first round warms up and does not count.
ROUNDS: Final = 6
#: Partitions as long as those of a large exchange: opening a reader is no part of its pace.
_READ_PARTITIONS: Final = 4
#: So many rows are collected over and over. Mappers hand over rows that they have just made,
#: which are in the cache; they are far enough apart not to be compressed to one.
_ROWS_AT_HAND: Final = 8192


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Per CPU second of the calling thread, medians of all rounds but the first."""

    collect_rows_per_s: float
    collect_batch_gb_per_s: float
    reader_rows_per_s: float
    read_batches_gb_per_s: float


def measure_calls(
    rows: int,
    partitions: int,
    codec: str,
    directory: str | None,
    on_round: Callable[[int], None] = lambda _: None,
) -> CallFigures:
    """Run it in a process of its own, with a cluster of its own; tells `on_round` each round.

    Raises DataCorrupted if not as many rows are read as were written.
    """
    with (
        LocalCluster(2, directory=directory) as cluster,
        Workers("caller", run_calls, [(cluster.metadata, rows, partitions, codec)]) as workers,
    ):
        figures: CallFigures = workers.results(on_round)[0].value
    return figures


def run_calls(link: Link, metadata: str, rows: int, partitions: int, codec: str) -> CallFigures:
    """The process that calls."""
    batches = make_batches(rows, seed=0)
    at_hand: list[bytes] = batches[0][1][:_ROWS_AT_HAND].to_pylist()
    keys = np.concatenate([keys for keys, _ in batches])
    places: list[int] = partition_keys(keys, partitions).tolist()
    few, many = (
        [(partition_keys(keys, count), batch) for keys, batch in batches]
        for count in (_READ_PARTITIONS, partitions)
    )

    def exchange(partitions: int) -> CoscoExchange:
        return CoscoExchange(
            f"calls-{uuid.uuid4()}", partitions, metadata=metadata, codec=codec, replicas=1
        )

    def collect(writer: CoscoWriter) -> None:
        call, several = writer.collect, len(at_hand)
        for first in range(0, rows, several):
            for partition, row in zip(places[first : first + several], at_hand, strict=False):
                call(partition, row)

    def collect_batches(writer: CoscoWriter, batches: list[Any]) -> None:
        for numbers, batch in batches:
            writer.collect_batch(numbers, batch)

    def written(shuffle_id: str, write: Callable[[CoscoWriter], None]) -> float:
        writer = CoscoWriter(shuffle_id, 0, metadata=metadata)
        before = time.thread_time()
        write(writer)
        writer.close()
        return time.thread_time() - before

    def read(shuffle_id: str, count: Callable[[CoscoReader], int]) -> float:
        found, cpu_s = 0, 0.0
        for partition in range(_READ_PARTITIONS):
            with CoscoReader(shuffle_id, [0], partition, metadata=metadata) as reader:
                before = time.thread_time()
                found += count(reader)
                cpu_s += time.thread_time() - before
        if found != rows:
            raise DataCorrupted(f"{found} rows were read of {rows} that were written")
        return cpu_s

    seconds: list[tuple[float, float, float, float]] = []
    for _ in range(ROUNDS):
        with exchange(partitions) as made:
            collecting = written(made.shuffle_id, collect)
        with exchange(partitions) as made:
            batching = written(made.shuffle_id, lambda writer: collect_batches(writer, many))
        with exchange(_READ_PARTITIONS) as made:
            written(made.shuffle_id, lambda writer: collect_batches(writer, few))
            by_row = read(made.shuffle_id, lambda reader: sum(1 for _ in reader))
            by_batch = read(made.shuffle_id, lambda reader: sum(map(len, reader.read_batches())))
        seconds.append((collecting, batching, by_row, by_batch))
        link.progress(1)
    collecting, batching, by_row, by_batch = (
        statistics.median(column) for column in zip(*seconds[1:], strict=True)
    )
    gb = rows * ROW_BYTES / GB
    return CallFigures(rows / collecting, gb / batching, rows / by_row, gb / by_batch)
