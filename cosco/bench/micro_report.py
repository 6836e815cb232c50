"""`cosco-bench latency --group` on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cosco.bench.micro_batches import MicroResult, MicroSettings, run_micro
from cosco.bench.progress import progress_bars


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
    console.print(_row(settings, result))
    for tasks in result.shapes:
        console.print(_shape(tasks, settings, result))
    for name, problem in result.problems.items():
        console.print(f"{name}: {problem}", highlight=False, soft_wrap=True)
    figures = {**result.to_json(), "group_settings": asdict(settings)}
    return figures, set(result.problems) == set(result.missing)


def _row(settings: MicroSettings, result: MicroResult) -> Table:
    table = Table(title="milliseconds", title_justify="left")
    for heading in ("", "p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right" if heading else "left")
    row = result.row
    table.add_row(
        f"push to readable, replicas={settings.replicas}",
        *(f"{figure:.2f}" for figure in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)),
    )
    return table


def _shape(tasks: int, settings: MicroSettings, result: MicroResult) -> Table:
    shape = result.shapes[tasks]
    table = Table(
        title=f"{tasks} × {tasks} tasks, milliseconds an iteration; replicas={settings.replicas}",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    for heading in ("p50", "p95", "mean", "coordination", "tasks", "÷ cosco"):
        table.add_column(heading, justify="right")
    for size, found in shape.groups.items():
        figures = (
            found.p50_ms, found.p95_ms, found.mean_ms, found.coordination_ms, found.task_ms,
        )  # fmt: skip
        table.add_row(f"cosco, groups of {size}", *(f"{figure:.2f}" for figure in figures), "")
    for name, times in shape.speedup.items():
        took = shape.peers[name].took
        empty = ("", "", "")
        table.add_row(name, f"{took.p50_ms:.2f}", f"{took.p95_ms:.2f}", *empty, f"{times:.2f}x")
    return table
