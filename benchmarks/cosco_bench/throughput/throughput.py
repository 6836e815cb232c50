"""`cosco-bench throughput`: rows through a local cluster, end to end, as fast as they go.

Rows are made before the clock starts, and every process is warmed up with a small exchange
of its own: services and workers live long, and the first touch of memory is no part of what
a shuffle costs. The clock runs from the moment all mappers are let go until the last reducer
has read, checked and added up its last row.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, Workers, peak_rss_bytes
from cosco.observe import IoFigures, fetch_status, io_figures
from cosco_bench.harness.bench_rows import (
    ROW_BYTES,
    key_sum,
    keys_of,
    make_batches,
    partition_keys,
)
from cosco_bench.harness.capacity import BUFFER_BYTES, GB, PROCESS_BYTES, STORE_OVERHEAD, check_room
from cosco_bench.harness.flow import reduce_rows
from cosco_bench.harness.tally import RowTally, total


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputSettings:
    """What to run; sizes in bytes. `directory`: where the store goes, None for the default."""

    rows: int = 10_000_000
    mappers: int = 2
    partitions: int = 64
    daemons: int = 2
    readers: int = 2
    memory: int = 256 << 20
    codec: str = "lz4"
    replicas: int = 1
    warm_up_rows: int = 1_000_000
    directory: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * ROW_BYTES

    @property
    def memory_needed(self) -> int:
        """Bytes of memory the run may take: rows, buffers, pools and processes."""
        writers = self.row_bytes + self.mappers * (2 * BUFFER_BYTES + PROCESS_BYTES)
        daemons = self.daemons * (self.memory + PROCESS_BYTES)
        return writers + daemons + self.readers * 2 * PROCESS_BYTES

    @property
    def disk_needed(self) -> int:
        """Bytes of disk the run may take, if nothing compresses."""
        return int((self.rows + self.warm_up_rows) * ROW_BYTES * STORE_OVERHEAD)


@dataclass(frozen=True, slots=True)
class Roles:
    """One figure for each kind of process."""

    writers: float
    daemons: float
    readers: float


@dataclass(frozen=True, slots=True)
class ThroughputResult:
    """Figures of one run. CPU seconds per GB (10^9 bytes) of rows; peak memory is that of
    the largest process of a kind, for writers with the rows they hold."""

    gb_per_s: float
    seconds: float
    write_s: float
    read_s: float
    make_rows_s: float
    cpu_s_per_gb: Roles
    peak_rss_bytes: Roles
    rows: int
    bytes_raw: int
    bytes_stored: int
    io: IoFigures
    verified: bool
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_capacity(settings: ThroughputSettings) -> None:
    """Raise CapacityExceeded if the workload does not fit this machine, with the figures."""
    check_room(
        f"{settings.rows:,} rows",
        memory=settings.memory_needed,
        disk=settings.disk_needed,
        directory=settings.directory,
        less_memory="ask for fewer --rows or less --memory",
        less_disk="ask for fewer --rows or give a --directory",
    )


def write_rows(
    link: Link,
    metadata: str,
    shuffle_id: str,
    mapper: int,
    rows: int,
    warm_up_rows: int,
    partitions: int,
) -> tuple[float, RowTally]:
    """A mapper: makes its rows, warms up, waits for the start, pushes them and commits.

    Returns the seconds that making rows took, and what it wrote.
    """
    before = time.perf_counter()
    batches = make_batches(rows, seed=mapper)
    make_rows_s = time.perf_counter() - before
    tally = RowTally()
    for keys, _ in batches:
        tally = tally.plus(RowTally(len(keys), key_sum(keys)))
    warm_up = CoscoWriter(_warm_up_id(shuffle_id), mapper, metadata=metadata)
    with warm_up:
        for keys, batch in batches:
            few = slice(0, min(warm_up_rows, len(batch)))
            warm_up.collect_batch(partition_keys(keys[few], partitions), batch[few])
            warm_up_rows -= few.stop
    writer = CoscoWriter(shuffle_id, mapper, buffer_bytes=BUFFER_BYTES, metadata=metadata)
    with writer:
        link.wait_for_start()
        for keys, batch in batches:
            writer.collect_batch(partition_keys(keys, partitions), batch)
            link.progress(len(batch))
    return make_rows_s, tally


def read_rows(
    link: Link, metadata: str, shuffle_id: str, mappers: int, partitions: range
) -> RowTally:
    """A reducer: warms up, waits for the start, reads its partitions, counts rows and adds
    up keys."""
    for partition in partitions:
        with CoscoReader(
            _warm_up_id(shuffle_id), range(mappers), partition, metadata=metadata
        ) as reader:
            for batch in reader.read_batches():
                key_sum(keys_of(batch.column(0)))
    link.wait_for_start()
    return reduce_rows(link, metadata, shuffle_id, mappers, partitions)


def _warm_up_id(shuffle_id: str) -> str:
    return f"{shuffle_id}/warm-up"


def run_throughput(
    settings: ThroughputSettings,
    *,
    on_written: Callable[[int], None] = lambda _: None,
    on_read: Callable[[int], None] = lambda _: None,
) -> ThroughputResult:
    """Run the workload once; raises CapacityExceeded before anything starts if it cannot fit.

    The processes and files of the run are gone when it returns or raises.
    """
    check_capacity(settings)
    shuffle_id = f"bench-{uuid.uuid4()}"
    share = [settings.rows * i // settings.mappers for i in range(settings.mappers + 1)]
    warm_up_share = settings.warm_up_rows // settings.mappers
    shape: dict[str, Any] = {"replicas": settings.replicas, "codec": settings.codec}
    with (
        LocalCluster(
            settings.daemons, memory=str(settings.memory), directory=settings.directory
        ) as cluster,
        CoscoExchange(
            _warm_up_id(shuffle_id), settings.partitions, metadata=cluster.metadata, **shape
        ) as warm_up,
        CoscoExchange(
            shuffle_id, settings.partitions, metadata=cluster.metadata, **shape
        ) as exchange,
    ):
        writer_tasks = [
            (
                cluster.metadata,
                shuffle_id,
                m,
                share[m + 1] - share[m],
                warm_up_share,
                settings.partitions,
            )
            for m in range(settings.mappers)
        ]
        reader_tasks = [
            (
                cluster.metadata,
                shuffle_id,
                settings.mappers,
                range(r, settings.partitions, settings.readers),
            )
            for r in range(settings.readers)
        ]
        daemons = [psutil.Process(daemon.pid) for daemon in cluster.daemons]
        with (
            Workers("writer", write_rows, writer_tasks) as writers,
            Workers("reader", read_rows, reader_tasks) as readers,
        ):
            writers.wait_until_ready()
            readers.wait_until_ready()
            warm_up.close()
            io_before = io_figures(fetch_status(cluster.metadata).daemons)
            daemon_cpu_s = -_cpu_s(daemons)
            started = time.perf_counter()
            writers.start()
            written = writers.results(on_written)
            write_s = time.perf_counter() - started
            readers.start()
            read = readers.results(on_read)
            seconds = time.perf_counter() - started
            daemon_cpu_s += _cpu_s(daemons)
        progress = exchange.progress()
        io = io_figures(fetch_status(cluster.metadata).daemons).since(io_before)
        daemon_peak = max(peak_rss_bytes(daemon.pid) for daemon in daemons)
    sent = total(worker.value[1] for worker in written)
    received = total(worker.value for worker in read)
    gb = settings.row_bytes / GB
    problems = _problems(settings, sent, received, progress.rows)
    return ThroughputResult(
        gb_per_s=gb / seconds,
        seconds=seconds,
        write_s=write_s,
        read_s=seconds - write_s,
        make_rows_s=sum(worker.value[0] for worker in written),
        cpu_s_per_gb=Roles(
            sum(w.cpu_s for w in written) / gb, daemon_cpu_s / gb, sum(r.cpu_s for r in read) / gb
        ),
        peak_rss_bytes=Roles(
            max(w.peak_rss_bytes for w in written),
            daemon_peak,
            max(r.peak_rss_bytes for r in read),
        ),
        rows=progress.rows,
        bytes_raw=progress.bytes_raw,
        bytes_stored=progress.bytes_stored,
        io=io,
        verified=not problems,
        problems=problems,
    )


def _problems(
    settings: ThroughputSettings, sent: RowTally, received: RowTally, committed_rows: int
) -> list[str]:
    problems = []
    if sent.rows != settings.rows or committed_rows != settings.rows:
        problems.append(f"{settings.rows} rows asked for, {committed_rows} committed")
    if received.rows != sent.rows:
        problems.append(f"{sent.rows} rows written, {received.rows} read")
    if received.keys != sent.keys:
        problems.append(f"sum of keys written {sent.keys:#x}, read {received.keys:#x}")
    return problems


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))
