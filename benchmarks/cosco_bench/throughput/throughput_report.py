"""`cosco-bench throughput` on the terminal and as JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cosco.local.workers import Workers
from cosco_bench.harness.capacity import GB
from cosco_bench.harness.document import check_target, document, save
from cosco_bench.throughput.client_calls import ROUNDS, CallFigures, measure_calls
from cosco_bench.throughput.ledger import STAGES, Stage, run_ledger
from cosco_bench.throughput.throughput import (
    Roles,
    ThroughputResult,
    ThroughputSettings,
    check_capacity,
    run_throughput,
)

_MIB = 1 << 20


def run(settings: ThroughputSettings, *, ledger_rows: int, json_path: str | None) -> int:
    """Run, print and save; 0 if every row came out once, else 1."""
    check_capacity(settings)
    check_target("--json", json_path)
    bars_console, console = Console(stderr=True), Console()
    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=bars_console) as bars:
        write = bars.add_task("write", total=settings.rows)
        read = bars.add_task("read", total=settings.rows)
        result = run_throughput(
            settings,
            on_written=lambda rows: bars.advance(write, rows),
            on_read=lambda rows: bars.advance(read, rows),
        )
        stages: list[Stage] = []
        calls: CallFigures | None = None
        if ledger_rows:
            rounds = bars.add_task("calls", total=ROUNDS)
            calls = measure_calls(
                ledger_rows,
                settings.partitions,
                settings.codec,
                settings.directory,
                lambda done: bars.advance(rounds, done),
            )
            ledger = bars.add_task("ledger", total=len(STAGES))
            stages = _measure_stages(settings, ledger_rows, lambda done: bars.advance(ledger, done))
    console.print(_figures(settings, result))
    if calls is not None:
        console.print(_calls(calls))
    if stages:
        console.print(_ledger(stages))
    for problem in result.problems:
        console.print(f"NOT VERIFIED: {problem}", highlight=False)
    figures = {
        **result.to_json(),
        "calls": None if calls is None else asdict(calls),
        "ledger": [asdict(stage) for stage in stages],
    }
    save(json_path, document("throughput", figures, asdict(settings)))
    return 0 if result.verified else 1


def _measure_stages(
    settings: ThroughputSettings, rows: int, on_stage: Callable[[int], None]
) -> list[Stage]:
    """The ledger, in a process of its own, so that nothing else is on its clock."""
    with tempfile.TemporaryDirectory(prefix="cosco-ledger-", dir=settings.directory) as directory:
        task = (rows, settings.partitions, settings.codec, directory)
        with Workers("ledger", run_ledger, [task]) as workers:
            stages: list[Stage] = workers.results(on_stage)[0].value
    return stages


def _roles(what: str, figures: Roles, unit: float, form: str) -> list[tuple[str, str]]:
    return [
        (f"{what}, {role}", f"{value / unit:{form}}") for role, value in asdict(figures).items()
    ]


def _figures(settings: ThroughputSettings, result: ThroughputResult) -> Table:
    io = result.io
    table = Table(
        title=f"{settings.mappers} writers, {settings.daemons} daemons, "
        f"{settings.partitions} partitions, {settings.readers} readers",
        title_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    rows = [
        ("rows, bytes", f"{result.rows:,}, {result.bytes_raw / GB:.3f} GB"),
        ("end to end", f"{result.gb_per_s:.3f} GB/s in {result.seconds:.2f} s"),
        ("of it writing, reading", f"{result.write_s:.2f} s, {result.read_s:.2f} s"),
        *_roles("CPU s per GB", result.cpu_s_per_gb, 1, ".2f"),
        *_roles("peak MiB of a process", result.peak_rss_bytes, _MIB, ",.0f"),
        ("blocks, compressed", f"{result.bytes_stored / GB:.3f} GB"),
        ("store writes", f"{io.writes:,} of {io.mean_write_bytes / _MIB:.2f} MiB on average"),
        ("store reads", f"{io.reads:,} of {io.mean_read_bytes / _MIB:.2f} MiB on average"),
        ("making rows, before the clock starts", f"{result.make_rows_s:.2f} s"),
        ("rows and key sums match", "yes" if result.verified else "NO"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _calls(figures: CallFigures) -> Table:
    table = Table(
        title="calls: rows of 100 bytes per CPU second of the thread that calls",
        title_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    for call, value, unit in (
        ("collect, row by row", figures.collect_rows_per_s / 1e6, "M rows/s"),
        ("collect_batch", figures.collect_batch_gb_per_s, "GB/s"),
        ("reader, row by row", figures.reader_rows_per_s / 1e6, "M rows/s"),
        ("read_batches", figures.read_batches_gb_per_s, "GB/s"),
    ):
        table.add_row(call, f"{value:.2f} {unit}")
    return table


def _ledger(stages: list[Stage]) -> Table:
    table = Table(
        title="ledger: CPU s per GB of rows, by stage; each alone, in one process",
        title_justify="left",
    )
    table.add_column("stage")
    table.add_column("CPU s/GB", justify="right")
    table.add_column("how it was measured")
    for stage in stages:
        table.add_row(stage.name, f"{stage.cpu_s_per_gb:.3f}", stage.how)
    return table
