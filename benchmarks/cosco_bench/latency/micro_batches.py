"""`cosco-bench latency --group`: micro-batches of two stages, in groups of several sizes.

Drizzle's micro-benchmark (Venkataraman et al., SOSP 2017, section 5): each mapper sums 10,000
numbers by key, each reducer adds the mappers' sums of its keys up. See `micro_work` for the
tasks, `micro_cosco` for what is on the clock, and `single_row` for a single row. The peers do the
same in programs and environments of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from cosco.errors import CoscoError
from cosco.local.cluster import LocalCluster
from cosco.local.workers import TaskPool
from cosco_bench.harness.bench_report import Bars, Report, table
from cosco_bench.harness.measuring import Quantiles, quantiles
from cosco_bench.latency.micro_cosco import MicroFigures, run_cosco
from cosco_bench.latency.micro_work import exact_sums
from cosco_bench.latency.single_row import group_rows
from cosco_bench.peers.peer_process import PeerMissing, find_peer, run_peer
from cosco_bench.peers.scratch import Scratch
from cosco_bench.settings import LATENCY_MEMORY, MICRO_PEERS, MicroSettings


@dataclass(frozen=True, slots=True)
class PeerFigures:
    """A peer's iterations, from the first task handed in to the last sum at its driver."""

    took: Quantiles
    versions: dict[str, str]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.took), "versions": self.versions, "settings": self.settings}


@dataclass(frozen=True, slots=True)
class CopiesResult:
    """Ours with one number of copies: single rows, and by tasks and by size of the group."""

    row: Quantiles
    groups: dict[int, dict[int, MicroFigures]] = field(default_factory=dict)

    def groups_json(self, tasks: int) -> dict[str, Any]:
        return {str(size): asdict(found) for size, found in self.groups[tasks].items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "push_to_readable": asdict(self.row),
            "shapes": {shape_name(n): {"groups": self.groups_json(n)} for n in self.groups},
        }


@dataclass(slots=True)
class MicroResult:
    """By copies of a row, fewest first, and of peers by number of tasks. problems: why a peer has
    no figures, by its name and number of tasks; `missing`, those that are not installed."""

    copies: dict[int, CopiesResult] = field(default_factory=dict)
    peers: dict[int, dict[str, PeerFigures]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def fewest(self) -> CopiesResult:
        """Ours with the fewest copies: peers keep one."""
        return next(iter(self.copies.values()))

    def speedup(self, tasks: int) -> dict[str, float]:
        """Return how many times as long as ours each peer takes: medians.

        Ours are those in the largest groups and with the fewest copies.
        """
        groups = self.fewest.groups[tasks]
        ours = groups[max(groups)].p50_ms
        return {name: found.took.p50_ms / ours for name, found in self.peers[tasks].items()}

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the first shape with the fewest copies, and those of all."""
        shapes = {shape_name(tasks): self._shape_json(tasks) for tasks in self.peers}
        return {
            "push_to_readable": asdict(self.fewest.row),
            **next(iter(shapes.values())),
            "shapes": shapes,
            "replicas": {str(number): found.to_json() for number, found in self.copies.items()},
            "problems": self.problems,
            "missing": self.missing,
        }

    def _shape_json(self, tasks: int) -> dict[str, Any]:
        return {
            "groups": self.fewest.groups_json(tasks),
            "peers": {name: found.to_json() for name, found in self.peers[tasks].items()},
            "speedup": self.speedup(tasks),
        }


def shape_name(tasks: int) -> str:
    """Return mappers × reducers, as results call it."""
    return f"{tasks}x{tasks}"


def measure_groups(settings: MicroSettings, bars: Bars) -> Report:
    """Run ours, then every peer; one that fails or is missing is in the report with its reason.

    Raises DataCorrupted if a sum of ours is not the exact one.
    """
    on_step = bars.counter("micro-batches", settings.steps)
    on_peer = bars.counter("peers", len(settings.peers) * len(settings.tasks))
    result = MicroResult(peers={tasks: {} for tasks in settings.tasks})
    with (
        LocalCluster(
            settings.daemons, memory=str(LATENCY_MEMORY), directory=settings.directory
        ) as cluster,
        TaskPool("worker", settings.workers) as pool,
    ):
        for replicas in settings.replicas:
            result.copies[replicas] = _run_ours(settings, replicas, cluster.metadata, pool, on_step)
    for name in settings.peers:
        for tasks in settings.tasks:
            try:
                result.peers[tasks][name] = _run_peer(name, tasks, settings)
                on_peer(1)
            except PeerMissing as error:
                result.problems[name] = str(error)
                result.missing.append(name)
                break
            except CoscoError as error:
                reason = f"{type(error).__name__}: {error}"
                result.problems[f"{name} {shape_name(tasks)}"] = reason
    return Report(
        {**result.to_json(), "group_settings": asdict(settings)},
        [_rows_table(result), *(_shape_table(tasks, result) for tasks in settings.tasks)],
        [f"{name}: {problem}" for name, problem in result.problems.items()],
        failed=set(result.problems) != set(result.missing),
    )


def _run_peer(name: str, tasks: int, settings: MicroSettings) -> PeerFigures:
    """Run a peer's program for one shape; it compares all its sums with the exact ones.

    It warms up with as many iterations as count, or with `warm_ups` if that is more: a JVM is
    not at its best before. Raises PeerMissing, PeerFailed.
    """
    command = find_peer(MICRO_PEERS[name], settings.environments)
    warm_ups = max(settings.warm_ups, settings.iterations)
    with Scratch(settings.directory) as scratch:
        exact = scratch.directory / "exact.json"
        iterations = range(warm_ups + settings.iterations)
        exact.write_text(json.dumps([exact_sums(i, tasks).tolist() for i in iterations]))
        options = {"--tasks": tasks, "--threads": settings.workers, "--warm-ups": warm_ups}
        result = run_peer(
            command, options, [str(exact)], scratch, settings.timeout_s, lambda _: None
        )
    return PeerFigures(quantiles(result.seconds), result.versions, result.settings)


def _run_ours(
    settings: MicroSettings,
    replicas: int,
    metadata: str,
    pool: TaskPool,
    on_step: Callable[[int], None],
) -> CopiesResult:
    row = group_rows(
        metadata,
        rounds=settings.rounds,
        warm_ups=settings.warm_ups,
        replicas=replicas,
        on_step=on_step,
    )
    found = CopiesResult(row)
    for tasks in settings.tasks:
        found.groups[tasks] = {
            size: run_cosco(
                metadata,
                pool,
                size=size,
                tasks=tasks,
                workers=settings.workers,
                iterations=settings.iterations,
                warm_ups=settings.warm_ups,
                replicas=replicas,
                on_step=on_step,
            )
            for size in settings.groups
        }
    return found


def _rows_table(result: MicroResult) -> Table:
    made = table("milliseconds", "", "p50", "p95", "p99", "max")
    for replicas, found in result.copies.items():
        made.add_row(f"push to readable, replicas={replicas}", *found.row.cells())
    return made


def _shape_table(tasks: int, result: MicroResult) -> Table:
    headings = ("", "p50", "p95", "mean", "coordination", "tasks", "÷ cosco")
    made = table(f"{tasks} × {tasks} tasks, milliseconds an iteration", *headings)
    made.columns[0].no_wrap = True
    for replicas, ours in result.copies.items():
        for size, found in ours.groups[tasks].items():
            figures = (
                found.p50_ms, found.p95_ms, found.mean_ms, found.coordination_ms, found.task_ms,
            )  # fmt: skip
            name = f"replicas={replicas}, groups of {size}"
            made.add_row(name, *(f"{figure:.2f}" for figure in figures), "")
        made.add_section()
    for name, times in result.speedup(tasks).items():
        took = result.peers[tasks][name].took
        empty = ("", "", "")
        made.add_row(name, f"{took.p50_ms:.2f}", f"{took.p95_ms:.2f}", *empty, f"{times:.2f}x")
    return made
