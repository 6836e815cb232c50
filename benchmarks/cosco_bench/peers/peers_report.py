"""`cosco-bench peers` on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.progress import TaskID
from rich.table import Table

from cosco_bench.harness.capacity import GB
from cosco_bench.harness.document import check_target, document, save
from cosco_bench.harness.progress import progress_bars
from cosco_bench.peers.peer_files import ROW_BYTES
from cosco_bench.peers.peers import COSCO, PeersResult, PeersSettings, run_peers, speedup


def run(settings: PeersSettings, *, json_path: str | None) -> int:
    """Run, print and save; 1 if a side that is there failed or counted other rows, else 0."""
    settings.check_capacity()
    check_target("--json", json_path)
    console = Console()
    with progress_bars() as bars:
        files = bars.add_task("files", total=settings.files)
        sides: dict[str, TaskID] = {
            name: bars.add_task(name, total=settings.steps)
            for name in (*(COSCO[replicas] for replicas in settings.replicas), *settings.peers)
        }
        result = run_peers(
            settings,
            on_file=lambda done: bars.advance(files, done),
            on_step=lambda name, done: bars.advance(sides[name], done),
        )
    console.print(_seconds(settings, result))
    if any(speedup(result.seconds(), name) for name in COSCO.values()):
        console.print(_speedups(result))
    for name, problem in result.problems.items():
        console.print(f"{name}: {problem}", highlight=False, soft_wrap=True)
    save(json_path, document("peers", result.to_json(), asdict(settings)))
    failed = [name for name in result.problems if name not in result.missing]
    return 1 if failed else 0


def _seconds(settings: PeersSettings, result: PeersResult) -> Table:
    gb = settings.rows * ROW_BYTES / GB
    table = Table(
        title=f"{gb:.3g} GB in {settings.files} Parquet files to {settings.partitions} "
        f"partitions, {settings.threads} threads; medians of {settings.runs}",
        title_justify="left",
    )
    table.add_column("")
    for heading in ("seconds", "scan", "above scan", "GB/s", "CPU s"):
        table.add_column(heading, justify="right")
    scan, above, cpu = result.scan_seconds(), result.above_scan(), result.cpu_seconds()
    for name, took in result.seconds().items():
        table.add_row(
            name,
            *(f"{seconds:.2f}" for seconds in (took, scan[name], above[name])),
            f"{gb / took:.3f}",
            f"{cpu[name]:.2f}" if name in cpu else "?",
        )
    return table


def _speedups(result: PeersResult) -> Table:
    table = Table(title="so many times as fast as a peer is", title_justify="left")
    table.add_column("")
    columns: list[dict[str, float]] = []
    for name in (name for name in COSCO.values() if name in result.results):
        for what, seconds in (("", result.seconds()), (", above scan", result.above_scan())):
            table.add_column(name + what, justify="right")
            columns.append(speedup(seconds, name))
    for name in result.results:
        if name not in COSCO.values():
            table.add_row(name, *(f"{c[name]:.2f}x" if name in c else "" for c in columns))
    return table
