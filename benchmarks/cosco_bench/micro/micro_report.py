"""`cosco-bench latency --group` on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cosco_bench.harness.progress import progress_bars
from cosco_bench.micro.micro_batches import MicroResult, MicroSettings, run_micro


def run_groups(settings: MicroSettings) -> tuple[dict[str, Any], bool]:
    """Run and print; the figures, and whether every peer that is there has some."""
    with progress_bars() as bars:
        ours = bars.add_task("micro-batches", total=settings.steps)
        peers = bars.add_task("peers", total=len(settings.peers) * len(settings.tasks))
        result = run_micro(
            settings,
            on_step=lambda done: bars.advance(ours, done),
            on_peer=lambda: bars.advance(peers, 1),
        )
    console = Console()
    console.print(_rows(result))
    for tasks in settings.tasks:
        console.print(_shape(tasks, result))
    for name, problem in result.problems.items():
        console.print(f"{name}: {problem}", highlight=False, soft_wrap=True)
    figures = {**result.to_json(), "group_settings": asdict(settings)}
    return figures, set(result.problems) == set(result.missing)


def _rows(result: MicroResult) -> Table:
    table = Table(title="milliseconds", title_justify="left")
    for heading in ("", "p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right" if heading else "left")
    for replicas, found in result.copies.items():
        row = found.row
        table.add_row(
            f"push to readable, replicas={replicas}",
            *(f"{figure:.2f}" for figure in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)),
        )
    return table


def _shape(tasks: int, result: MicroResult) -> Table:
    table = Table(title=f"{tasks} × {tasks} tasks, milliseconds an iteration", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("p50", "p95", "mean", "coordination", "tasks", "÷ cosco"):
        table.add_column(heading, justify="right")
    for replicas, ours in result.copies.items():
        for size, found in ours.groups[tasks].items():
            figures = (
                found.p50_ms, found.p95_ms, found.mean_ms, found.coordination_ms, found.task_ms,
            )  # fmt: skip
            name = f"replicas={replicas}, groups of {size}"
            table.add_row(name, *(f"{figure:.2f}" for figure in figures), "")
        table.add_section()
    for name, times in result.speedup(tasks).items():
        took = result.peers[tasks][name].took
        empty = ("", "", "")
        table.add_row(name, f"{took.p50_ms:.2f}", f"{took.p95_ms:.2f}", *empty, f"{times:.2f}x")
    return table
