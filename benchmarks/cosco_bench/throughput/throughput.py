"""`cosco-bench throughput`: rows through a local cluster, end to end, as fast as they go.

Rows are made before the clock starts, and every process is warmed up with a small exchange
of its own: services and workers live long, and the first touch of memory is no part of what
a shuffle costs. The clock runs from the moment all mappers are let go until the last reducer
has read, checked and added up its last row.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from rich.table import Table

from cosco import CoscoExchange, CoscoReader, CoscoWriter, ExchangeProgress
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, WorkerResult, Workers, peak_rss_bytes
from cosco.observe import IoFigures, fetch_status, io_figures
from cosco_bench.harness.bench_report import MIB, Bars, Report, table
from cosco_bench.harness.bench_rows import (
    RowTally,
    key_sum,
    keys_of,
    make_batches,
    mismatches,
    partition_keys,
    tally_of,
)
from cosco_bench.harness.capacity import BUFFER_BYTES, GB, ROW_BYTES, even_parts
from cosco_bench.harness.flow import reduce_rows
from cosco_bench.harness.measuring import CpuClock
from cosco_bench.harness.tls_here import cluster_options
from cosco_bench.settings import ThroughputSettings
from cosco_bench.throughput.client_calls import ROUNDS, CallFigures, measure_calls
from cosco_bench.throughput.ledger import STAGES, Stage, run_ledger


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
    daemon_read_cpu_s_per_gb: float
    peak_rss_bytes: Roles
    rows: int
    bytes_raw: int
    bytes_stored: int
    io: IoFigures
    verified: bool
    problems: list[str] = field(default_factory=list)


def write_rows(
    link: Link,
    metadata: str,
    shuffle_id: str,
    mapper: int,
    rows: int,
    warm_up_rows: int,
    partitions: int,
) -> tuple[float, RowTally]:
    """Make rows, warm up, wait for the start, push the rows and commit: a mapper.

    Returns: the seconds that making rows took, and what was written.
    """
    before = time.perf_counter()
    batches = make_batches(rows, seed=mapper)
    make_rows_s = time.perf_counter() - before
    tally = sum((tally_of(keys) for keys, _ in batches), RowTally())
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
    """Warm up, wait for the start, read partitions, count rows and add up keys: a reducer."""
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


@dataclass(frozen=True, slots=True)
class _Timed:
    """What the processes of a run did, and when."""

    written: list[WorkerResult]
    read: list[WorkerResult]
    write_s: float
    seconds: float
    daemon_cpu_s: float
    daemon_read_cpu_s: float  # of it while rows were read
    io_before: IoFigures


def run_throughput(
    settings: ThroughputSettings,
    on_written: Callable[[int], None],
    on_read: Callable[[int], None],
    *,
    tls: bool = False,
) -> ThroughputResult:
    """Run the workload once, with processes and files that are gone when it returns or raises.

    tls: with TLS everywhere, whatever the settings say.
    """
    shuffle_id = f"bench-{uuid.uuid4()}"
    with ExitStack() as stack:
        options = stack.enter_context(cluster_options(settings.directory, tls=tls))
        cluster = stack.enter_context(
            LocalCluster(
                settings.daemons,
                memory=str(settings.memory),
                directory=settings.directory,
                store=settings.store or None,
                **options,
            )
        )
        warm_up, exchange = (
            stack.enter_context(
                CoscoExchange(
                    name,
                    settings.partitions,
                    replicas=settings.replicas,
                    codec=settings.codec,
                    direct_reads=settings.direct_reads,
                    metadata=cluster.metadata,
                )
            )
            for name in (_warm_up_id(shuffle_id), shuffle_id)
        )
        done = _run_workers(settings, cluster, warm_up, shuffle_id, on_written, on_read)
        progress = exchange.progress()
        io = io_figures(fetch_status(cluster.metadata).daemons).since(done.io_before)
        daemon_peak = max(peak_rss_bytes(daemon.pid) for daemon in cluster.daemons)
    return _result(settings, done, progress, io, daemon_peak)


def _result(
    settings: ThroughputSettings,
    done: _Timed,
    progress: ExchangeProgress,
    io: IoFigures,
    daemon_peak: int,
) -> ThroughputResult:
    """Add up what the processes of a run did."""
    sent = sum((worker.value[1] for worker in done.written), RowTally())
    received = sum((worker.value for worker in done.read), RowTally())
    gb = settings.rows * ROW_BYTES / GB
    problems = mismatches(settings.rows, sent, received, progress.rows)
    return ThroughputResult(
        gb_per_s=gb / done.seconds,
        seconds=done.seconds,
        write_s=done.write_s,
        read_s=done.seconds - done.write_s,
        make_rows_s=sum(worker.value[0] for worker in done.written),
        cpu_s_per_gb=Roles(
            sum(worker.cpu_s for worker in done.written) / gb,
            done.daemon_cpu_s / gb,
            sum(worker.cpu_s for worker in done.read) / gb,
        ),
        daemon_read_cpu_s_per_gb=done.daemon_read_cpu_s / gb,
        peak_rss_bytes=Roles(
            max(worker.peak_rss_bytes for worker in done.written),
            daemon_peak,
            max(worker.peak_rss_bytes for worker in done.read),
        ),
        rows=progress.rows,
        bytes_raw=progress.bytes_raw,
        bytes_stored=progress.bytes_stored,
        io=io,
        verified=not problems,
        problems=problems,
    )


def _run_workers(
    settings: ThroughputSettings,
    cluster: LocalCluster,
    warm_up: CoscoExchange,
    shuffle_id: str,
    on_written: Callable[[int], None],
    on_read: Callable[[int], None],
) -> _Timed:
    """Warm all processes up, then let the mappers go, and after them the reducers."""
    place = cluster.metadata, shuffle_id
    warm_up_rows = min(settings.warm_up_rows, settings.rows) // settings.mappers
    writer_tasks = [
        (*place, mapper, len(share), warm_up_rows, settings.partitions)
        for mapper, share in enumerate(even_parts(settings.rows, settings.mappers))
    ]
    reader_tasks = [
        (*place, settings.mappers, range(reader, settings.partitions, settings.readers))
        for reader in range(settings.readers)
    ]
    daemons = CpuClock(cluster, daemons_only=True)
    with (
        Workers("writer", write_rows, writer_tasks) as writers,
        Workers("reader", read_rows, reader_tasks) as readers,
    ):
        writers.wait_until_ready()
        readers.wait_until_ready()
        warm_up.close()
        io_before = io_figures(fetch_status(cluster.metadata).daemons)
        cpu_s, started = daemons.seconds(), time.perf_counter()
        writers.start()
        written = writers.results(on_written)
        write_s, written_cpu_s = time.perf_counter() - started, daemons.seconds()
        readers.start()
        read = readers.results(on_read)
        seconds, read_cpu_s = time.perf_counter() - started, daemons.seconds()
        return _Timed(
            written,
            read,
            write_s,
            seconds,
            read_cpu_s - cpu_s,
            read_cpu_s - written_cpu_s,
            io_before,
        )


# --- the report ---------------------------------------------------------------------------


def measure(settings: ThroughputSettings, bars: Bars) -> Report:
    """Run it all: end to end, then calls and stages alone."""
    result = run_throughput(
        settings, bars.counter("write", settings.rows), bars.counter("read", settings.rows)
    )
    tables = [_figures(settings, result)]
    with_tls: ThroughputResult | None = None
    if settings.tls:
        with_tls = run_throughput(
            settings,
            bars.counter("write with TLS", settings.rows),
            bars.counter("read with TLS", settings.rows),
            tls=True,
        )
        tables.append(_beside(result, with_tls))
    calls: CallFigures | None = None
    stages: list[Stage] = []
    if settings.ledger_rows:
        calls = measure_calls(settings, bars.counter("calls", ROUNDS))
        stages = _measure_stages(settings, bars.counter("ledger", len(STAGES)))
        tables += [_calls(calls), _ledger(stages)]
    figures = {
        **asdict(result),
        "with_tls": None if with_tls is None else asdict(with_tls),
        "calls": None if calls is None else asdict(calls),
        "ledger": [asdict(stage) for stage in stages],
    }
    runs = [result, *([with_tls] if with_tls is not None else [])]
    problems = [f"NOT VERIFIED: {problem}" for run in runs for problem in run.problems]
    return Report(figures, tables, problems, failed=not all(run.verified for run in runs))


def _measure_stages(settings: ThroughputSettings, on_stage: Callable[[int], None]) -> list[Stage]:
    """Make the ledger, in a process of its own, so that nothing else is on its clock."""
    with tempfile.TemporaryDirectory(prefix="cosco-ledger-", dir=settings.directory) as directory:
        task = (settings.ledger_rows, settings.partitions, settings.codec, directory)
        with Workers("ledger", run_ledger, [task]) as workers:
            stages: list[Stage] = workers.results(on_stage)[0].value
    return stages


def _roles(what: str, figures: Roles, unit: float, form: str) -> list[tuple[str, str]]:
    return [
        (f"{what}, {role}", f"{value / unit:{form}}") for role, value in asdict(figures).items()
    ]


def _figures(settings: ThroughputSettings, result: ThroughputResult) -> Table:
    io = result.io
    made = table(
        f"{settings.mappers} writers, {settings.daemons} daemons, "
        f"{settings.partitions} partitions, {settings.readers} readers"
    )
    rows = [
        ("rows, bytes", f"{result.rows:,}, {result.bytes_raw / GB:.3f} GB"),
        ("end to end", f"{result.gb_per_s:.3f} GB/s in {result.seconds:.2f} s"),
        ("of it writing, reading", f"{result.write_s:.2f} s, {result.read_s:.2f} s"),
        *_roles("CPU s per GB", result.cpu_s_per_gb, 1, ".2f"),
        ("CPU s per GB, daemons while rows are read", f"{result.daemon_read_cpu_s_per_gb:.2f}"),
        *_roles("peak MiB of a process", result.peak_rss_bytes, MIB, ",.0f"),
        ("blocks, compressed", f"{result.bytes_stored / GB:.3f} GB"),
        ("store writes", f"{io.writes:,} of {io.mean_write_bytes / MIB:.2f} MiB on average"),
        ("store reads", f"{io.reads:,} of {io.mean_read_bytes / MIB:.2f} MiB on average"),
        ("making rows, before the clock starts", f"{result.make_rows_s:.2f} s"),
        ("rows and key sums match", "yes" if result.verified else "NO"),
    ]
    for row in rows:
        made.add_row(*row)
    return made


def _beside(plain: ThroughputResult, with_tls: ThroughputResult) -> Table:
    made = table("what TLS costs", "", "plain", "with TLS")
    made.add_row("end to end, GB/s", f"{plain.gb_per_s:.3f}", f"{with_tls.gb_per_s:.3f}")
    encrypted = asdict(with_tls.cpu_s_per_gb)
    for role, cpu_s in asdict(plain.cpu_s_per_gb).items():
        made.add_row(f"CPU s per GB, {role}", f"{cpu_s:.2f}", f"{encrypted[role]:.2f}")
    return made


def _calls(figures: CallFigures) -> Table:
    made = table("calls: rows of 100 bytes per CPU second of the thread that calls")
    for call, value, unit in (
        ("collect, row by row", figures.collect_rows_per_s / 1e6, "M rows/s"),
        ("collect_batch", figures.collect_batch_gb_per_s, "GB/s"),
        ("reader, row by row", figures.reader_rows_per_s / 1e6, "M rows/s"),
        ("read_batches", figures.read_batches_gb_per_s, "GB/s"),
    ):
        made.add_row(call, f"{value:.2f} {unit}")
    return made


def _ledger(stages: list[Stage]) -> Table:
    made = table(
        "ledger: CPU s per GB of rows, by stage; each alone, in one process", "stage", "CPU s/GB"
    )
    made.add_column("how it was measured")
    for stage in stages:
        made.add_row(stage.name, f"{stage.cpu_s_per_gb:.3f}", stage.how)
    return made
