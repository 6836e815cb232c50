"""`cosco-bench latency`: one row from `collect` to a waiting reader, and small exchanges.

The row: the writer is in this process, the reader in another that waits for the row's mapper
to commit. The clock (of the system, the same in both) runs from before `collect` until the
reader has the row in its hands, verified; both clients are open before.

The small exchange: created, written by mappers and read by reducers in processes that live
on, and closed. The clock runs over all of it.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.errors import DataCorrupted
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, TaskPool, Workers
from cosco.protocol.records import MASK64
from cosco_bench.harness.bench_rows import ROW_BYTES, key_sum, keys_of, make_batch, partition_keys
from cosco_bench.harness.capacity import PROCESS_BYTES, check_room
from cosco_bench.harness.quantiles import Quantiles, quantiles
from cosco_bench.harness.single_row import await_row, numbered_row

MEMORY: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySettings:
    """What to run; `rounds` rows and `exchanges` exchanges on the clock, for each number of
    `replicas`, after `warm_ups` of each. `rows`: of each mapper of a small exchange."""

    rounds: int = 300
    exchanges: int = 100
    warm_ups: int = 20
    mappers: int = 4
    partitions: int = 4
    rows: int = 1_000
    workers: int = 4
    daemons: int = 2
    replicas: tuple[int, ...] = (1, 2)
    directory: str | None = None

    @property
    def steps(self) -> int:
        """Rows and exchanges of a run for one number of replicas."""
        return self.rounds + self.exchanges + 2 * self.warm_ups

    def check_capacity(self) -> None:
        """Raise CapacityExceeded if it cannot fit this machine, with the figures."""
        size = self.mappers * self.rows * ROW_BYTES
        processes = self.daemons + self.workers + 2
        check_room(
            f"{self.mappers} mappers of {self.rows:,} rows",
            memory=self.daemons * MEMORY + processes * PROCESS_BYTES + 3 * size,
            # Exchanges are closed, and their files deleted soon after.
            disk=10 * size,
            directory=self.directory,
            less_memory="ask for fewer --rows, --workers or --daemons",
            less_disk="ask for fewer --rows or give a --directory",
        )


@dataclass(frozen=True, slots=True)
class ExchangeLatency:
    """Of small exchanges: in all, and of it each part."""

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


def run_latency(
    settings: LatencySettings, *, on_step: Callable[[int], None] = lambda _: None
) -> LatencyResult:
    """Run it all; `on_step` is told 1 for each of `settings.steps`, times the replicas.

    Raises CapacityExceeded before anything starts; DataCorrupted if a wrong row comes out.
    """
    settings.check_capacity()
    row: dict[int, Quantiles] = {}
    exchange: dict[int, ExchangeLatency] = {}
    with LocalCluster(
        settings.daemons, memory=str(MEMORY), directory=settings.directory
    ) as cluster:
        for replicas in settings.replicas:
            row[replicas] = _rows(settings, cluster.metadata, replicas, on_step)
        with TaskPool("worker", settings.workers) as pool:
            for replicas in settings.replicas:
                exchange[replicas] = _exchanges(settings, cluster.metadata, replicas, pool, on_step)
    return LatencyResult(row, exchange)


# --- one row ------------------------------------------------------------------------------


def await_rows(link: Link, metadata: str, shuffle_id: str, rounds: int) -> list[int]:
    """A reader of one row of each exchange; when it had them, on the monotonic clock in ns."""
    arrived = []
    for index in range(rounds):
        with CoscoReader(_name(shuffle_id, index), [0], 0, metadata=metadata) as reader:
            arrived.append(await_row(link, reader, index))
    return arrived


def _name(shuffle_id: str, index: int) -> str:
    return f"{shuffle_id}/{index}"


def _close_all(exchanges: Iterable[CoscoExchange]) -> None:
    for exchange in exchanges:
        exchange.close()


def _rows(
    settings: LatencySettings, metadata: str, replicas: int, on_step: Callable[[int], None]
) -> Quantiles:
    shuffle_id = f"latency-{uuid.uuid4()}"
    rounds = settings.warm_ups + settings.rounds
    began = []
    with ExitStack() as stack:

        def create(index: int) -> CoscoExchange:
            return CoscoExchange(_name(shuffle_id, index), 1, replicas=replicas, metadata=metadata)

        # The reader opens the next exchange as soon as it is done with this one.
        exchanges = deque([create(0)])
        stack.callback(_close_all, exchanges)
        readers = stack.enter_context(
            Workers("reader", await_rows, [(metadata, shuffle_id, rounds)])
        )
        for index in range(rounds):
            exchanges.append(create(index + 1))
            with CoscoWriter(_name(shuffle_id, index), 0, metadata=metadata) as writer:
                readers.wait_until_ready()
                if index:  # nobody needs the exchange of the last round any more
                    exchanges.popleft().close()
                readers.start()
                # A round trip: time for the reader's call to get there before the row does.
                exchanges[0].progress()
                began.append(time.monotonic_ns())
                writer.collect(0, numbered_row(index))
            on_step(1)
        (reader,) = readers.results()
    took = (np.array(reader.value) - np.array(began)) / 1e9
    return quantiles(took[settings.warm_ups :].tolist())


# --- small exchanges ----------------------------------------------------------------------


def write_some(
    _link: Link, metadata: str, shuffle_id: str, mapper: int, rows: int, partitions: int
) -> int:
    """A mapper of a small exchange; the sum of its keys."""
    keys, batch = make_batch(rows, np.random.default_rng(mapper))
    with CoscoWriter(shuffle_id, mapper, metadata=metadata) as writer:
        writer.collect_batch(partition_keys(keys, partitions), batch)
    return key_sum(keys)


def read_some(_link: Link, metadata: str, shuffle_id: str, mappers: int, partition: int) -> int:
    """A reducer of a small exchange; the sum of the keys it read."""
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
