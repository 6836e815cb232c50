"""`cosco-bench latency`: one row to a waiting reader, small exchanges, and micro-batches.

The row: see `single_row`. The small exchange: created, written by mappers and read by reducers
in processes that live on, and closed; the clock runs over all of it. Micro-batches in exchange
groups, beside the same on other systems: see `micro_batches`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from rich.table import Table

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.errors import DataCorrupted
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, TaskPool
from cosco.protocol.records import MASK64
from cosco_bench.harness.bench_report import Bars, Report, table
from cosco_bench.harness.bench_rows import key_sum, keys_of, make_batch, partition_keys
from cosco_bench.harness.measuring import Quantiles, quantiles
from cosco_bench.latency.micro_batches import measure_groups
from cosco_bench.latency.single_row import exchange_rows
from cosco_bench.settings import LATENCY_MEMORY, LatencySettings


@dataclass(frozen=True, slots=True)
class ExchangeLatency:
    """Small exchanges: in all, and of it each part."""

    total: Quantiles
    create: Quantiles
    write: Quantiles
    read: Quantiles
    close: Quantiles


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """By the number of replicas: one row pushed to readable, and small exchanges."""

    row: dict[int, Quantiles]
    exchange: dict[int, ExchangeLatency]

    def to_json(self) -> dict[str, Any]:
        return {
            part: {f"replicas_{replicas}": asdict(found) for replicas, found in figures.items()}
            for part, figures in (("row", self.row), ("exchange", self.exchange))
        }


def measure(settings: LatencySettings, bars: Bars) -> Report:
    """Run it all. The report has failed if a peer that is there did, or had other sums.

    Raises DataCorrupted if a wrong row comes out.
    """
    on_step = bars.counter("rows and exchanges", settings.steps)
    result = LatencyResult({}, {})
    with LocalCluster(
        settings.daemons, memory=str(LATENCY_MEMORY), directory=settings.directory
    ) as cluster:
        for replicas in settings.replicas:
            result.row[replicas] = exchange_rows(
                cluster.metadata,
                rounds=settings.rounds,
                warm_ups=settings.warm_ups,
                replicas=replicas,
                on_step=on_step,
            )
        with TaskPool("worker", settings.workers) as pool:
            for replicas in settings.replicas:
                result.exchange[replicas] = _exchanges(
                    settings, cluster.metadata, replicas, pool, on_step
                )
    figures, tables = result.to_json(), [_table(settings, result)]
    if settings.micro is None:
        return Report(figures, tables)
    groups = measure_groups(settings.micro, bars)
    return Report(
        {**figures, **groups.figures}, [*tables, *groups.tables], groups.problems, groups.failed
    )


def write_some(
    _link: Link, metadata: str, shuffle_id: str, mapper: int, rows: int, partitions: int
) -> int:
    """Write as a mapper of a small exchange, and return the sum of its keys."""
    keys, batch = make_batch(rows, np.random.default_rng(mapper))
    with CoscoWriter(shuffle_id, mapper, metadata=metadata) as writer:
        writer.collect_batch(partition_keys(keys, partitions), batch)
    return key_sum(keys)


def read_some(_link: Link, metadata: str, shuffle_id: str, mappers: int, partition: int) -> int:
    """Read as a reducer of a small exchange, and return the sum of the keys that it read."""
    total = 0
    with CoscoReader(shuffle_id, range(mappers), partition, metadata=metadata) as reader:
        for batch in reader.read_batches():
            total += key_sum(keys_of(batch.column(0)))
    return total


def _exchanges(
    settings: LatencySettings,
    metadata: str,
    replicas: int,
    pool: TaskPool,
    on_step: Callable[[int], None],
) -> ExchangeLatency:
    samples = []
    for _ in range(settings.warm_ups + settings.exchanges):
        shuffle_id = f"latency-{uuid.uuid4()}"
        writing = [
            (metadata, shuffle_id, mapper, settings.rows, settings.partitions)
            for mapper in range(settings.mappers)
        ]
        reading = [
            (metadata, shuffle_id, settings.mappers, partition)
            for partition in range(settings.partitions)
        ]
        times = [time.perf_counter()]
        with CoscoExchange(shuffle_id, settings.partitions, replicas=replicas, metadata=metadata):
            times.append(time.perf_counter())
            written = pool.run(write_some, writing)
            times.append(time.perf_counter())
            read = pool.run(read_some, reading)
            times.append(time.perf_counter())
        times.append(time.perf_counter())
        if sum(w.value for w in written) & MASK64 != sum(r.value for r in read) & MASK64:
            raise DataCorrupted("a small exchange gave other rows than were written")
        samples.append([times[-1] - times[0], *np.diff(times)])
        on_step(1)
    parts = np.array(samples[settings.warm_ups :]).T
    return ExchangeLatency(*(quantiles(part.tolist()) for part in parts))


def _table(settings: LatencySettings, result: LatencyResult) -> Table:
    made = table("milliseconds", "", "p50", "p95", "p99", "max")
    for replicas in settings.replicas:
        made.add_row(f"one row, replicas={replicas}", *result.row[replicas].cells())
    for replicas in settings.replicas:
        shape = f"{settings.mappers} × {settings.partitions}"
        exchange = result.exchange[replicas]
        made.add_row(f"small exchange {shape}, replicas={replicas}", *exchange.total.cells())
        for part in fields(ExchangeLatency)[1:]:
            made.add_row(f"  {part.name}", *getattr(exchange, part.name).cells())
    return made
