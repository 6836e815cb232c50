"""`cosco-bench peers`: the same files, repartitioned by key, by cosco and by what others use.

Everyone runs the same job on the same Parquet files with as many threads, one after another:
the scan of the files alone, and the scan with a hash repartition, of whose partitions every
row and column is touched. All warm up with the whole job first, in processes that live on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cosco.errors import CoscoError
from cosco.local.workers import TaskPool
from cosco_bench.harness.capacity import check_room
from cosco_bench.harness.scratch import Scratch
from cosco_bench.peers.peer_cosco import run_cosco
from cosco_bench.peers.peer_files import ROW_BYTES, Tally, file_tasks, write_file
from cosco_bench.peers.peer_process import (
    ENVIRONMENTS,
    PROGRAMS,
    PeerMissing,
    PeerResult,
    find_peer,
    run_peer,
)

#: What our own side is called, by `replicas`.
COSCO: Final = {1: "cosco", 2: "cosco_replicas_2"}
#: Its workers end in between, and what they used is in nobody's account then.
_CPU_UNKNOWN: Final = frozenset({"ray"})
#: The files, and twice the rows for what a peer spills.
_DISK_FACTOR: Final = 3
#: The rows once more in pandas or Arrow, in more than one process.
_MEMORY_FACTOR: Final = 3
#: Interpreters, a JVM with its heap, pools.
_MEMORY_BYTES: Final = 3 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersSettings:
    """What to run. `environments`: the directory with one virtual environment per peer, None
    for that of make peers; `directory`: for all files, None for where temporary files go."""

    rows: int = 10_000_000
    files: int = 8
    partitions: int = 64
    threads: int = 2
    warm_ups: int = 1
    runs: int = 3
    replicas: tuple[int, ...] = (1, 2)
    peers: tuple[str, ...] = tuple(PROGRAMS)
    timeout_s: float = 900.0
    environments: str | None = None
    directory: str | None = None

    @property
    def steps(self) -> int:
        """Scans and shuffles of one side."""
        return 2 * (self.warm_ups + self.runs)

    def check_capacity(self) -> None:
        """Raise CapacityExceeded if it cannot fit this machine, with the figures."""
        size = self.rows * ROW_BYTES
        check_room(
            f"{self.rows:,} rows",
            memory=_MEMORY_FACTOR * size + _MEMORY_BYTES,
            disk=_DISK_FACTOR * size,
            directory=self.directory,
            less_memory="ask for fewer --rows",
            less_disk="ask for fewer --rows or give a --directory",
        )


@dataclass(slots=True)
class PeersResult:
    """What came of each side, by name: its result, or why there is none."""

    tally: Tally = field(default_factory=Tally)
    results: dict[str, PeerResult] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, result: PeerResult) -> None:
        """Take a result if its rows are those of the files."""
        if result.tally != asdict(self.tally):
            self.problems[name] = f"the files hold {self.tally}, it counted {result.tally}"
        elif name in _CPU_UNKNOWN:
            self.results[name] = replace(result, cpu_seconds=[], scan_cpu_seconds=[])
        else:
            self.results[name] = result

    def seconds(self) -> dict[str, float]:
        """Median seconds of the scan and repartition, by name."""
        return {name: statistics.median(r.seconds) for name, r in self.results.items()}

    def scan_seconds(self) -> dict[str, float]:
        """Median seconds of the scan alone, by name."""
        return {name: statistics.median(r.scan_seconds) for name, r in self.results.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """Median CPU seconds of the scan and repartition, of all processes, by name; those of
        a side whose processes cannot all be counted are left out."""
        return {
            name: statistics.median(r.cpu_seconds)
            for name, r in self.results.items()
            if r.cpu_seconds
        }

    def above_scan(self) -> dict[str, float]:
        """Median seconds less those of the scan, by name; not below 0."""
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
    """How many times as long as `ours` each peer took; none where it is not to be told."""
    if not seconds.get(ours):
        return {}
    return {
        name: took / seconds[ours] for name, took in seconds.items() if name not in COSCO.values()
    }


def run_peers(
    settings: PeersSettings,
    *,
    on_file: Callable[[int], None] = lambda _: None,
    on_step: Callable[[str, int], None] = lambda _name, _done: None,
) -> PeersResult:
    """Make the files and run every side; `on_step` is told 1 for each of `settings.steps`.

    A side that fails or is missing is in the result, with its reason, and the others go on.
    Raises CapacityExceeded before anything starts.
    """
    settings.check_capacity()
    result = PeersResult()
    with Scratch(settings.directory) as scratch:
        data = scratch.directory / "data"
        data.mkdir()
        tasks = file_tasks(data, settings.rows, settings.files)
        with TaskPool("file writer", settings.threads) as pool:
            for worker in pool.run(write_file, tasks, on_file):
                result.tally = result.tally.plus(worker.value)
        files = [path for path, _, _ in tasks]
        for name, run in _sides(settings, files, scratch, on_step):
            try:
                result.add(name, run())
            except PeerMissing as error:
                result.problems[name] = str(error)
                result.missing.append(name)
            except CoscoError as error:
                result.problems[name] = f"{type(error).__name__}: {error}"
    return result


def _sides(
    settings: PeersSettings,
    files: list[str],
    scratch: Scratch,
    on_step: Callable[[str, int], None],
) -> Iterator[tuple[str, Callable[[], PeerResult]]]:
    def ours(replicas: int) -> PeerResult:
        return run_cosco(
            files,
            partitions=settings.partitions,
            threads=settings.threads,
            replicas=replicas,
            warm_ups=settings.warm_ups,
            runs=settings.runs,
            directory=str(scratch.directory),
            on_done=partial(on_step, COSCO[replicas]),
        )

    def theirs(name: str) -> PeerResult:
        options = {
            "--partitions": settings.partitions,
            "--threads": settings.threads,
            "--warm-ups": settings.warm_ups,
            "--runs": settings.runs,
        }
        return run_peer(
            find_peer(name, Path(settings.environments or ENVIRONMENTS)),
            [*(str(part) for option in options.items() for part in option), *files],
            scratch,
            timeout_s=settings.timeout_s,
            on_done=partial(on_step, name),
        )

    for replicas in settings.replicas:
        yield COSCO[replicas], partial(ours, replicas)
    for name in settings.peers:
        yield name, partial(theirs, name)
