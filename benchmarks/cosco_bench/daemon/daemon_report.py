"""`cosco-bench daemon` on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from cosco_bench.daemon.daemon_run import DaemonBenchResult, DaemonBenchSettings, run_daemon
from cosco_bench.harness.document import check_target, document, save
from cosco_bench.harness.progress import progress_bars

_KIB = 1 << 10
_MIB = 1 << 20


def run(settings: DaemonBenchSettings, *, json_path: str | None) -> int:
    """Run, print and save; 0."""
    settings.check_capacity()
    check_target("--json", json_path)
    with progress_bars() as bars:
        exchanges = bars.add_task("exchanges", total=settings.steps)
        result = run_daemon(settings, on_step=lambda done: bars.advance(exchanges, done))
    Console().print(_table(settings, result))
    save(json_path, document("daemon", result.to_json(), asdict(settings)))
    return 0


def _table(settings: DaemonBenchSettings, result: DaemonBenchResult) -> Table:
    table = Table(
        title=f"one daemon, {settings.mappers} streams, {settings.rows:,} rows",
        title_justify="left",
    )
    table.add_column("")
    found = result.medians()
    for partitions in found:
        table.add_column(f"{partitions:,} partitions", justify="right")
    for name, field, unit, form in (
        ("taken in and acknowledged, GB/s", "gb_per_s", 1, ".2f"),
        ("taken in and stored, CPU s per GB", "cpu_s_per_gb", 1, ".3f"),
        ("the same per GB of blocks", "cpu_s_per_stored_gb", 1, ".3f"),
        ("read, GB/s", "read_gb_per_s", 1, ".2f"),
        ("read, CPU s per GB", "read_cpu_s_per_gb", 1, ".3f"),
        ("blocks, MiB", "stored_bytes", _MIB, ",.0f"),
        ("mean frame, KiB", "mean_frame_bytes", _KIB, ",.0f"),
        ("mean block, KiB", "mean_block_bytes", _KIB, ",.1f"),
        ("mean write, MiB", "mean_write_bytes", _MIB, ",.2f"),
    ):
        figures = (f"{getattr(one, field) / unit:{form}}" for one in found.values())
        table.add_row(name, *figures)
    return table
