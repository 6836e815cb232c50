"""The metadata service with as many mappers, partitions and daemons as a warehouse has.

The real service, over gRPC, as writers and readers use it; only the daemons are made up: they
register and send heartbeats, and no rows go there. Every mapper opens an attempt, then every
attempt commits sums of every partition, then readers ask for partitions with all mappers
named. In the end the service is stopped and started again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import psutil
from rich.table import Table

from cosco import CoscoExchange
from cosco.errors import DataCorrupted
from cosco.local.cluster import LocalCluster
from cosco.local.workers import TaskPool, Workers, peak_rss_bytes
from cosco.observe import describe_exchange
from cosco_bench.growth.metadata_calls import (
    ROWS,
    await_all,
    be_daemons,
    commit_attempts,
    common_part,
    open_attempts,
)
from cosco_bench.harness.bench_report import MIB, table
from cosco_bench.harness.measuring import Quantiles, quantiles
from cosco_bench.settings import ScaleSettings

#: Page pool of the one daemon that is real, as a cluster has one; it is given no ranges.
_DAEMON_MEMORY: Final = 16 << 20
_CLIENTS: Final = 2
#: Mappers that a client process takes at a time.
_TASK_MAPPERS: Final = 1_000
TARGET_BYTES: Final = 2 << 30
TARGET_COMMITS_PER_S: Final = 1_000.0


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """What the service did.

    *_rss_bytes: its highest resident memory so far, before the exchange was created, with all
    attempts open, with all committed, and after all; that of the process that was started again.
    service_cores: what it used of the processors while attempts were committed.
    """

    opens_per_s: float
    commits_per_s: float
    commit_bytes: int
    service_cores: float
    base_rss_bytes: int
    opened_rss_bytes: int
    committed_rss_bytes: int
    peak_rss_bytes: int
    await_commits: Quantiles
    database_bytes: int
    restart_s: float
    restarted_rss_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "target": {"peak_rss_bytes": TARGET_BYTES, "commits_per_s": TARGET_COMMITS_PER_S},
        }


def run_scale(settings: ScaleSettings, on_step: Callable[[int], None]) -> ScaleResult:
    """Run it once; `on_step` is told attempts opened and attempts committed.

    Raises DataCorrupted if the service counts wrong.
    """
    with (
        LocalCluster(1, memory=str(_DAEMON_MEMORY), directory=settings.directory) as cluster,
        Workers("daemons", be_daemons, [(cluster.metadata, settings.daemons)]) as daemons,
        TaskPool("client", _CLIENTS) as pool,
    ):
        daemons.wait_until_ready()
        daemons.start()
        return _Scale(settings, cluster, pool).run(on_step)


class _Scale:
    """One run; the service's processor time and memory are looked up from outside."""

    def __init__(self, settings: ScaleSettings, cluster: LocalCluster, pool: TaskPool) -> None:
        self._settings = settings
        self._cluster = cluster
        self._pool = pool

    def run(self, on_step: Callable[[int], None]) -> ScaleResult:
        settings, metadata = self._settings, self._cluster.metadata
        shuffle_id = f"scale-{uuid.uuid4()}"
        parts = [
            range(first, min(first + _TASK_MAPPERS, settings.mappers))
            for first in range(0, settings.mappers, _TASK_MAPPERS)
        ]
        base = self._peak()
        with CoscoExchange(
            shuffle_id,
            settings.partitions,
            replicas=min(2, settings.daemons),
            metadata=metadata,
        ) as exchange:
            info = describe_exchange(metadata, shuffle_id)
            began = time.perf_counter()
            opened = self._pool.run(
                open_attempts, [(metadata, shuffle_id, part) for part in parts], on_step
            )
            open_s = time.perf_counter() - began
            opened_peak = self._peak()
            cpu_s, began = self._cpu_s(), time.perf_counter()
            self._pool.run(commit_attempts, [(metadata, info, w.value) for w in opened], on_step)
            commit_s = time.perf_counter() - began
            cpu_s = self._cpu_s() - cpu_s
            committed_peak = self._peak()
            self._check(exchange)
            (asked,) = self._pool.run(
                await_all, [(metadata, info, settings.mappers, settings.reads)]
            )
            peak = self._peak()
            files = self._cluster.directory.glob("metadata.db*")
            database_bytes = sum(file.stat().st_size for file in files)
            began = time.perf_counter()
            self._cluster.metadata_service.restart()
            return ScaleResult(
                opens_per_s=settings.mappers / open_s,
                commits_per_s=settings.mappers / commit_s,
                commit_bytes=len(common_part(info)),
                service_cores=cpu_s / commit_s,
                base_rss_bytes=base,
                opened_rss_bytes=opened_peak,
                committed_rss_bytes=committed_peak,
                peak_rss_bytes=peak,
                await_commits=quantiles(asked.value),
                database_bytes=database_bytes,
                restart_s=time.perf_counter() - began,
                restarted_rss_bytes=self._peak(),
            )

    def _check(self, exchange: CoscoExchange) -> None:
        progress = exchange.progress()
        mappers = self._settings.mappers
        rows = mappers * self._settings.partitions * ROWS
        if (progress.mappers_committed, progress.rows) != (mappers, rows):
            raise DataCorrupted(
                f"{mappers} mappers committed {rows} rows; the service counts "
                f"{progress.mappers_committed} and {progress.rows}"
            )

    def _peak(self) -> int:
        return peak_rss_bytes(self._cluster.metadata_service.pid)

    def _cpu_s(self) -> float:
        times = psutil.Process(self._cluster.metadata_service.pid).cpu_times()
        return float(times.user + times.system)


def scale_table(settings: ScaleSettings, result: ScaleResult) -> Table:
    """Return the figures beside what we set ourselves."""
    made = table(
        f"metadata service: {settings.mappers:,} mappers × {settings.partitions:,} "
        f"partitions × {settings.daemons:,} daemons"
    )
    made.add_column("")
    rows = [
        ("peak memory", f"{result.peak_rss_bytes / MIB:,.0f} MiB",
         f"target below {TARGET_BYTES / MIB:,.0f} MiB"),
        ("  before the exchange", f"{result.base_rss_bytes / MIB:,.0f} MiB", ""),
        ("  with all attempts open", f"{result.opened_rss_bytes / MIB:,.0f} MiB", ""),
        ("  with all committed", f"{result.committed_rss_bytes / MIB:,.0f} MiB", ""),
        ("commits", f"{result.commits_per_s:,.0f}/s", f"target {TARGET_COMMITS_PER_S:,.0f}/s"),
        ("  bytes of each", f"{result.commit_bytes:,}", ""),
        ("  processors the service used", f"{result.service_cores:.2f}", ""),
        ("attempts opened", f"{result.opens_per_s:,.0f}/s", ""),
        ("a reader's question", f"{result.await_commits.p50_ms:.1f} ms", "p50"),
        ("", f"{result.await_commits.p99_ms:.1f} ms", "p99"),
        ("database", f"{result.database_bytes / MIB:,.1f} MiB", ""),
        ("stopped and started again", f"{result.restart_s:.2f} s",
         f"then {result.restarted_rss_bytes / MIB:,.0f} MiB"),
    ]  # fmt: skip
    for row in rows:
        made.add_row(*row)
    return made
