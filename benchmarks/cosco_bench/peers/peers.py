"""`cosco-bench peers`: the same files, repartitioned by key, by cosco and by what others use.

Everyone runs the same job on the same Parquet files with as many threads, one after another:
the scan of the files alone, and the scan with a hash repartition, of whose partitions every
row and column is touched. All warm up with the whole job first, in processes that live on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from rich.table import Table

from cosco.errors import CoscoError
from cosco.local.workers import TaskPool
from cosco_bench.harness.bench_report import Bars, Report, table
from cosco_bench.harness.bench_rows import RowTally
from cosco_bench.harness.capacity import GB, ROW_BYTES
from cosco_bench.peers.peer_cosco import run_cosco
from cosco_bench.peers.peer_files import file_tasks, write_file
from cosco_bench.peers.peer_process import PeerMissing, PeerResult, find_peer, run_peer
from cosco_bench.peers.scratch import Scratch
from cosco_bench.settings import PEERS, PeersSettings

#: What our own side is called, by `replicas`.
COSCO: Final = {1: "cosco", 2: "cosco_replicas_2"}
#: Its workers end in between, and what they used is in nobody's account then.
_CPU_UNKNOWN: Final = frozenset({"ray", "ray_disk", "ray_cosco"})


@dataclass(slots=True)
class PeersResult:
    """What came of each side, by name: its result, or why there is none."""

    tally: RowTally = field(default_factory=RowTally)
    results: dict[str, PeerResult] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, result: PeerResult) -> None:
        """Add a result if its rows are those of the files."""
        if result.tally != asdict(self.tally):
            self.problems[name] = f"the files hold {self.tally}, it counted {result.tally}"
        elif name in _CPU_UNKNOWN:
            self.results[name] = replace(result, cpu_seconds=[], scan_cpu_seconds=[])
        else:
            self.results[name] = result

    def seconds(self) -> dict[str, float]:
        """Return median seconds of the scan and repartition, by name."""
        return self._medians(lambda result: result.seconds)

    def scan_seconds(self) -> dict[str, float]:
        """Return median seconds of the scan alone, by name."""
        return self._medians(lambda result: result.scan_seconds)

    def cpu_seconds(self) -> dict[str, float]:
        """Return median CPU seconds of the scan and repartition, of all processes, by name.

        Those of a side whose processes cannot all be counted are left out.
        """
        return self._medians(lambda result: result.cpu_seconds)

    def cpu_above_scan(self) -> dict[str, float]:
        """Return median CPU seconds less those of the scan, by name; not below 0."""
        scan = self._medians(lambda result: result.scan_cpu_seconds)
        return {
            name: max(0.0, spent - scan[name])
            for name, spent in self.cpu_seconds().items()
            if name in scan
        }

    def beside_engine(self) -> dict[str, dict[str, float]]:
        """Return what each engine with Cosco takes of what it takes alone, by name.

        Time and processor time, each with the scan and above it, where both are known.
        """
        figures = {
            "seconds": self.seconds(),
            "above_scan_seconds": self.above_scan(),
            "cpu_seconds": self.cpu_seconds(),
            "cpu_above_scan_seconds": self.cpu_above_scan(),
        }
        return {
            name: {
                what: found[name] / found[program.beside]
                for what, found in figures.items()
                if name in found and found.get(program.beside)
            }
            for name, program in PEERS.items()
            if name in self.results and program.beside in self.results
        }

    def _medians(self, runs_of: Callable[[PeerResult], list[float]]) -> dict[str, float]:
        runs = {name: runs_of(result) for name, result in self.results.items()}
        return {name: statistics.median(figures) for name, figures in runs.items() if figures}

    def above_scan(self) -> dict[str, float]:
        """Return median seconds less those of the scan, by name; not below 0."""
        scan = self.scan_seconds()
        return {name: max(0.0, took - scan[name]) for name, took in self.seconds().items()}

    @property
    def verified(self) -> bool:
        """Whether cosco has a result, and nobody who is there failed."""
        return not self.problems and any(name in self.results for name in COSCO.values())

    def to_json(self) -> dict[str, Any]:
        seconds, above = self.seconds(), self.above_scan()
        figures: dict[str, Any] = {
            "seconds": seconds,
            "scan_seconds": self.scan_seconds(),
            "above_scan_seconds": above,
            "cpu_seconds": self.cpu_seconds(),
            "cpu_above_scan_seconds": self.cpu_above_scan(),
            "beside_engine": self.beside_engine(),
        }
        for replicas, name in COSCO.items():
            suffix = "" if replicas == 1 else f"_replicas_{replicas}"
            figures[f"speedup{suffix}"] = speedup(seconds, name)
            figures[f"speedup_above_scan{suffix}"] = speedup(above, name)
        return {
            **figures,
            "rows": asdict(self.tally),
            "sides": {name: asdict(result) for name, result in self.results.items()},
            "problems": self.problems,
            "missing": self.missing,
            "verified": self.verified,
        }


def speedup(seconds: dict[str, float], ours: str) -> dict[str, float]:
    """Return how many times as long as `ours` each peer took, where that can be told."""
    if not seconds.get(ours):
        return {}
    return {
        name: took / seconds[ours] for name, took in seconds.items() if name not in COSCO.values()
    }


def measure(settings: PeersSettings, bars: Bars) -> Report:
    """Make the files and run every side, which is told 1 for each of `settings.steps`.

    A side that fails or is missing is in the report, with its reason, and the others go on.
    The report has failed if a side that is there did, or counted other rows.
    """
    on_file = bars.counter("files", settings.files)
    sides: dict[str, Callable[..., PeerResult]] = {
        COSCO[replicas]: partial(run_cosco, replicas=replicas) for replicas in settings.replicas
    }
    sides |= {name: partial(_run_peer, name=name) for name in settings.peers}
    on_step = {name: bars.counter(name, settings.steps) for name in sides}
    result = PeersResult()
    with Scratch(settings.directory) as scratch:
        data = scratch.directory / "data"
        data.mkdir()
        tasks = file_tasks(data, settings.rows, settings.files)
        with TaskPool("file writer", settings.threads) as pool:
            written = pool.run(write_file, tasks, on_file)
        result.tally = sum((worker.value for worker in written), RowTally())
        files = [path for path, _, _ in tasks]
        for name, run in sides.items():
            try:
                result.add(name, run(settings, files, scratch, on_step[name]))
            except PeerMissing as error:
                result.problems[name] = str(error)
                result.missing.append(name)
            except CoscoError as error:
                result.problems[name] = f"{type(error).__name__}: {error}"
    tables = [_seconds_table(settings, result)]
    if any(speedup(result.seconds(), name) for name in COSCO.values()):
        tables.append(_speedups_table(result))
    if result.beside_engine():
        tables.append(_engines_table(result))
    return Report(
        result.to_json(),
        tables,
        [f"{name}: {problem}" for name, problem in result.problems.items()],
        failed=bool(result.problems.keys() - set(result.missing)),
    )


def _run_peer(
    settings: PeersSettings,
    files: list[str],
    scratch: Scratch,
    on_done: Callable[[int], None],
    *,
    name: str,
) -> PeerResult:
    options = {
        "--partitions": settings.partitions,
        "--threads": settings.threads,
        "--warm-ups": settings.warm_ups,
        "--runs": settings.runs,
    }
    program = PEERS[name]
    if program.replicas:
        options["--replicas"] = program.replicas
    command = find_peer(program, settings.environments)
    return run_peer(command, options, files, scratch, settings.timeout_s, on_done)


def _seconds_table(settings: PeersSettings, result: PeersResult) -> Table:
    gb = settings.rows * ROW_BYTES / GB
    made = table(
        f"{gb:.3g} GB in {settings.files} Parquet files to {settings.partitions} "
        f"partitions, {settings.threads} threads; medians of {settings.runs}",
        *("", "seconds", "scan", "above scan", "GB/s", "CPU s", "above scan"),
    )
    scan, above, cpu = result.scan_seconds(), result.above_scan(), result.cpu_seconds()
    cpu_above = result.cpu_above_scan()
    for name, took in result.seconds().items():
        made.add_row(
            name,
            *(f"{seconds:.2f}" for seconds in (took, scan[name], above[name])),
            f"{gb / took:.3f}",
            *(f"{spent[name]:.2f}" if name in spent else "?" for spent in (cpu, cpu_above)),
        )
    return made


def _engines_table(result: PeersResult) -> Table:
    made = table("an engine with cosco ÷ the engine alone", "", "beside")
    for what in ("seconds", "above scan", "CPU s", "CPU s above scan"):
        made.add_column(what, justify="right")
    for name, ratios in result.beside_engine().items():
        shown = [
            f"{ratios[what]:.2f}" if what in ratios else "?"
            for what in ("seconds", "above_scan_seconds", "cpu_seconds", "cpu_above_scan_seconds")
        ]
        made.add_row(name, PEERS[name].beside, *shown)
    return made


def _speedups_table(result: PeersResult) -> Table:
    made = table("how many times as fast as each peer", "")
    columns: list[dict[str, float]] = []
    for name in (name for name in COSCO.values() if name in result.results):
        for what, seconds in (("", result.seconds()), (", above scan", result.above_scan())):
            made.add_column(name + what, justify="right")
            columns.append(speedup(seconds, name))
    for name in result.results:
        if name not in COSCO.values():
            made.add_row(name, *(f"{c[name]:.2f}x" if name in c else "" for c in columns))
    return made
