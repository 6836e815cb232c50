"""`cosco-bench io` on the terminal, as JSON, and as a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from cosco_bench.harness.capacity import GB
from cosco_bench.harness.document import check_target, document, save
from cosco_bench.harness.progress import progress_bars
from cosco_bench.io.io_figures import PUBLISHED, ratios
from cosco_bench.io.io_run import CoscoRun, IoSettings, check_capacity, run_cosco
from cosco_bench.io.io_sort import run_sort
from cosco_bench.io.spindle import QUEUE_DEPTH, SPINDLE

_MIB: Final = 1 << 20


def run(settings: IoSettings, *, json_path: str | None, plot_path: str | None) -> int:
    """Run, print and save; 0 if every row came out once of each shuffle, else 1.

    Raises InvalidArgument or CapacityExceeded before anything starts.
    """
    check_capacity(settings)
    check_target("--json", json_path)
    check_target("--plot", plot_path)
    measured, problems = _measure(settings)
    console = Console()
    console.print(_sizes_table(measured))
    console.print(_ratios_table(measured))
    console.print(_memory_table(measured))
    for problem in problems:
        console.print(f"NOT VERIFIED: {problem}", highlight=False)
    save(json_path, measured)
    if plot_path is not None:
        from cosco_bench.io.io_plot import draw  # noqa: PLC0415 - matplotlib takes a second

        draw(measured, Path(plot_path))
    return 1 if problems else 0


def _measure(settings: IoSettings) -> tuple[dict[str, Any], list[str]]:
    runs: list[CoscoRun] = []
    problems = []
    with progress_bars() as bars:
        labels = ["sort shuffle", *(_level(memory) for memory in settings.memory_levels)]
        tasks = [
            [
                bars.add_task(f"{label} {phase}", total=settings.rows, start=False)
                for phase in ("write", "read")
            ]
            for label in labels
        ]

        def advance(label: int, phase: int, rows: int) -> None:
            bars.start_task(tasks[label][phase])
            bars.advance(tasks[label][phase], rows)

        sort, found = run_sort(
            settings, lambda rows: advance(0, 0, rows), lambda rows: advance(0, 1, rows)
        )
        problems += [f"sort shuffle: {problem}" for problem in found]
        for at, memory in enumerate(settings.memory_levels, start=1):
            done = run_cosco(
                settings,
                memory,
                lambda rows, at=at: advance(at, 0, rows),  # type: ignore[misc]
                lambda rows, at=at: advance(at, 1, rows),  # type: ignore[misc]
            )
            runs.append(done)
            problems += [f"{labels[at]}: {problem}" for problem in done.problems]
    return _described(settings, runs, sort.to_json(), problems), problems


def _described(
    settings: IoSettings, runs: list[CoscoRun], sort: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    levels = []
    for one in runs:
        cosco = one.io.to_json()
        levels.append(
            {
                "memory_bytes": one.memory,
                "buffers_bytes": one.buffers_bytes,
                "buffers_bytes_per_partition": one.buffers_bytes / settings.partitions,
                "peak_rss_bytes": one.peak_rss_bytes,
                "cosco": cosco,
                "ratios": ratios(cosco, sort),
            }
        )
    figures = {
        "verified": not problems,
        "segment_bytes": sort["bytes_stored"] / (settings.mappers * settings.partitions),
        "cosco": levels[0]["cosco"],
        "sort_shuffle": sort,
        "ratios": levels[0]["ratios"],
        "published": PUBLISHED,
        "memory_levels": levels,
        "model": {
            **asdict(SPINDLE),
            "coalescing": "queue: an IO that begins where one of the last "
            f"{QUEUE_DEPTH} IOs of its kind ended, in the same file, pays no positioning",
        },
    }
    return document("io", figures, {**asdict(settings), "sort_memory": settings.sort_bytes})


def _level(memory: int) -> str:
    return f"cosco, {memory / _MIB:.0f} MiB"


def _sizes_table(measured: dict[str, Any]) -> Table:
    settings = measured["settings"]
    table = Table(
        title=f"{settings['mappers']} mappers, {settings['partitions']} partitions, segments of "
        f"{measured['segment_bytes'] / 1024:.0f} KiB; {settings['daemons']} daemons of "
        f"{settings['memory'] / _MIB:.0f} MiB",
        title_justify="left",
    )
    for name in ("", "cosco", "sort shuffle"):
        table.add_column(name, justify="right" if name else "left")
    both = measured["cosco"], measured["sort_shuffle"]

    def add(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    for kind in ("writes", "reads"):
        add(kind, *(_ios(one[kind]) for one in both))
    for kind in ("writes", "reads"):
        add(f"spills, {kind}", *(_ios(one["spills"][kind]) for one in both))
    add("rows, compressed", *(f"{one['bytes_stored'] / GB:.3f} GB" for one in both))
    add("written ÷ compressed", *(f"{one['write_amplification']:.3f}" for one in both))
    add("written ÷ raw", *(f"{one['write_amplification_raw']:.3f}" for one in both))
    for part in ("reads", "writes", "spills", "total"):
        add(
            f"modelled service time, {part}",
            *(f"{one['service_time_s'][part]:.1f} s" for one in both),
        )
    return table


def _ios(figures: dict[str, Any]) -> str:
    if not figures["count"]:
        return "none"
    mean = figures["mean_bytes"]
    size = f"{mean / _MIB:.2f} MiB" if mean >= _MIB else f"{mean / 1024:.0f} KiB"
    return f"{figures['count']:,} of {size}"


def _ratios_table(measured: dict[str, Any]) -> Table:
    table = Table(title="times better than the sort shuffle", title_justify="left")
    for name in ("", "here", "published"):
        table.add_column(name, justify="right" if name else "left")
    found, published = measured["ratios"], measured["published"]
    io_size = f"{published['mean_io_bytes']['ratio']:.1f} (200 KiB → 2.5 MiB)"
    rows = [
        ("mean write", "mean_write_bytes", io_size),
        ("mean read", "mean_read_bytes", io_size),
        ("write amplification", "write_amplification", "2.5 (3 → 1.2)"),
        ("service time", "service_time", f"{published['service_time']['ratio']:.1f}"),
        ("… if every IO moves the arm", "service_time_without_coalescing", ""),
    ]
    for name, key, shown in rows:
        table.add_row(name, f"{found[key]:.1f}", shown)
    return table


def _memory_table(measured: dict[str, Any]) -> Table:
    table = Table(
        title="what the buffers buy, in MiB: memory of a daemon, of all buffers, a partition's "
        "share of them, largest daemon; mean write and read; modelled service time",
        title_justify="left",
    )
    headings = (
        "memory", "buffers", "each", "RSS", "write", "read", "amplif.", "time", "better",
    )  # fmt: skip
    for name in headings:
        table.add_column(name, justify="right")
    for level in measured["memory_levels"]:
        cosco = level["cosco"]
        table.add_row(
            f"{level['memory_bytes'] / _MIB:.0f}",
            f"{level['buffers_bytes'] / _MIB:.0f}",
            f"{level['buffers_bytes_per_partition'] / _MIB:.1f}",
            f"{level['peak_rss_bytes'] / _MIB:.0f}",
            f"{cosco['writes']['mean_bytes'] / _MIB:.2f}",
            f"{cosco['reads']['mean_bytes'] / _MIB:.2f}",
            f"{cosco['write_amplification']:.3f}",
            f"{cosco['service_time_s']['total']:.1f} s",
            f"{level['ratios']['service_time']:.2f}",
        )
    return table
