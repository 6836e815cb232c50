"""`cosco demo` on the terminal: a progress bar while it runs, then a table."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cosco.demo.flights import load_flights
from cosco.demo.job import GroupJob, JobOutcome, run_job
from cosco.local.cluster import LocalCluster

_KIB, _MIB = 1 << 10, 1 << 20


def format_bytes(size: float) -> str:
    """Return a size as people read it: `1.5 MiB`, `200.0 KiB`, `12 B`."""
    if size >= _MIB:
        return f"{size / _MIB:,.1f} MiB"
    return f"{size / _KIB:,.1f} KiB" if size >= _KIB else f"{size:,.0f} B"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}x" if whole else "nothing stored"


def report_rows(outcome: JobOutcome) -> list[tuple[str, str]]:
    """Return the lines of the report: (what, figure)."""
    progress, io = outcome.progress, outcome.io
    return [
        ("rows written by mappers", f"{progress.rows:,}"),
        ("rows read by reducers", f"{outcome.rows_read:,}"),
        ("groups", f"{outcome.result.num_rows:,}"),
        ("bytes in (rows before compression)", format_bytes(progress.bytes_raw)),
        ("bytes of blocks (compressed)", format_bytes(progress.bytes_stored)),
        ("bytes stored (the rest was served from memory)", format_bytes(io.bytes_stored)),
        ("store writes, mean size", f"{io.writes:,} × {format_bytes(io.mean_write_bytes)}"),
        ("store reads, mean size", f"{io.reads:,} × {format_bytes(io.mean_read_bytes)}"),
        ("write amplification: written ÷ blocks stored", _ratio(io.write_bytes, io.bytes_stored)),
        ("written ÷ bytes in", _ratio(io.write_bytes, progress.bytes_raw)),
        ("seconds", f"{outcome.seconds:.2f}"),
        ("result equal to the direct aggregate", "yes" if outcome.equal else "NO"),
    ]


def run_demo(*, daemons: int, mappers: int, reducers: int, partitions: int, memory: int) -> int:
    """Run the demo and print its report.

    Returns: the exit code, 0 if the shuffled result is the direct one, else 1.
    """
    console = Console()
    flights = load_flights()
    job = GroupJob(
        keys=("tailnum", "dest"),
        sums=("distance", "air_time"),
        means=("arr_delay",),
        mappers=mappers,
        reducers=reducers,
        partitions=partitions,
    )
    console.print(
        f"{flights.num_rows:,} flights by {' and '.join(job.keys)}: {mappers} mappers, "
        f"{partitions} partitions, {daemons} daemons, {reducers} reducers",
        highlight=False,
    )
    columns = (
        TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with (
        LocalCluster(daemons, memory=str(memory)) as cluster,
        Progress(*columns, console=console) as bars,
    ):
        mapped = bars.add_task("map", total=flights.num_rows)
        reduced = bars.add_task("reduce", total=flights.num_rows)
        outcome = run_job(
            cluster.metadata,
            flights,
            job,
            on_mapped=lambda rows: bars.advance(mapped, rows),
            on_reduced=lambda rows: bars.advance(reduced, rows),
        )
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in report_rows(outcome):
        table.add_row(*row)
    console.print(table)
    return 0 if outcome.equal else 1
