"""`cosco-bench io`: what both shuffles did to the disk, as tables, as JSON, and as a picture."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from cosco_bench.harness.bench_report import MIB, Bars, Report, table
from cosco_bench.harness.capacity import GB
from cosco_bench.io.io_figures import PUBLISHED, ratios
from cosco_bench.io.io_run import CoscoRun, run_cosco, run_sort
from cosco_bench.io.spindle import QUEUE_DEPTH, SPINDLE
from cosco_bench.settings import IoSettings

_PARTS = ("reads", "writes", "spills")


def measure(settings: IoSettings, bars: Bars) -> Report:
    """Run the sort shuffle, then daemons with less and less memory.

    The report has failed unless every row came out once of each.
    """
    labels = ["sort shuffle", *(f"cosco, {size / MIB:.0f} MiB" for size in settings.memory_levels)]
    counters = [
        [bars.counter(f"{label} {phase}", settings.rows) for phase in ("write", "read")]
        for label in labels
    ]
    sort, found = run_sort(settings, *counters[0])
    problems = [f"{labels[0]}: {problem}" for problem in found]
    runs: list[CoscoRun] = []
    for label, counts, memory in zip(labels[1:], counters[1:], settings.memory_levels, strict=True):
        runs.append(run_cosco(settings, memory, *counts))
        problems += [f"{label}: {problem}" for problem in runs[-1].problems]
    figures = _figures(settings, runs, sort.to_json(), problems)
    return Report(
        figures,
        [
            _sizes_table(settings, figures),
            _ratios_table(figures),
            _memory_table(figures),
            *([_tiers_table(figures)] if settings.tier_options else []),
        ],
        [f"NOT VERIFIED: {problem}" for problem in problems],
        failed=bool(problems),
        draw=partial(draw, figures),
    )


def _figures(
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
        if one.tiers is not None:
            levels[-1]["tiers"] = one.tiers.to_json()
    return {
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


def _sizes_table(settings: IoSettings, measured: dict[str, Any]) -> Table:
    made = table(
        f"{settings.mappers} mappers, {settings.partitions} partitions, segments of "
        f"{measured['segment_bytes'] / 1024:.0f} KiB; {settings.daemons} daemons of "
        f"{settings.memory / MIB:.0f} MiB",
        *("", "cosco", "sort shuffle"),
    )
    add = made.add_row
    both = measured["cosco"], measured["sort_shuffle"]
    for kind in ("writes", "reads"):
        add(kind, *(_ios(one[kind]) for one in both))
    for kind in ("writes", "reads"):
        add(f"spills, {kind}", *(_ios(one["spills"][kind]) for one in both))
    add("rows, compressed", *(f"{one['bytes_stored'] / GB:.3f} GB" for one in both))
    add("written ÷ compressed", *(f"{one['write_amplification']:.3f}" for one in both))
    add("written ÷ raw", *(f"{one['write_amplification_raw']:.3f}" for one in both))
    if settings.store:
        for kind, count in measured["cosco"]["requests_per_stored_gb"].items():
            add(f"requests of the store per GB, {kind}", f"{count:,.0f}", "")
    for part in ("reads", "writes", "spills", "total"):
        add(
            f"modelled service time, {part}",
            *(f"{one['service_time_s'][part]:.1f} s" for one in both),
        )
    return made


def _ios(figures: dict[str, Any]) -> str:
    if not figures["count"]:
        return "none"
    mean = figures["mean_bytes"]
    size = f"{mean / MIB:.2f} MiB" if mean >= MIB else f"{mean / 1024:.0f} KiB"
    return f"{figures['count']:,} of {size}"


def _ratios_table(measured: dict[str, Any]) -> Table:
    made = table("times better than the sort shuffle", "", "here", "published")
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
        made.add_row(name, f"{found[key]:.1f}", shown)
    return made


def _memory_table(measured: dict[str, Any]) -> Table:
    headings = (
        "memory", "buffers", "each", "RSS", "write", "read", "amplif.", "time", "better",
    )  # fmt: skip
    made = table(
        "what the buffers buy, in MiB: memory of a daemon, of all buffers, a partition's "
        "share of them, largest daemon; mean write and read; modelled service time",
        *headings,
    )
    for level in measured["memory_levels"]:
        cosco = level["cosco"]
        made.add_row(
            f"{level['memory_bytes'] / MIB:.0f}",
            f"{level['buffers_bytes'] / MIB:.0f}",
            f"{level['buffers_bytes_per_partition'] / MIB:.1f}",
            f"{level['peak_rss_bytes'] / MIB:.0f}",
            f"{cosco['writes']['mean_bytes'] / MIB:.2f}",
            f"{cosco['reads']['mean_bytes'] / MIB:.2f}",
            f"{cosco['write_amplification']:.3f}",
            f"{cosco['service_time_s']['total']:.1f} s",
            f"{level['ratios']['service_time']:.2f}",
        )
    return made


def _tiers_table(measured: dict[str, Any]) -> Table:
    levels = measured["memory_levels"]
    made = table(
        "what each tier was asked for; seconds are those of one spindle below the slow tier",
        "",
        *(f"{level['memory_bytes'] / MIB:.0f} MiB" for level in levels),
    )
    tiers = [level["tiers"] for level in levels]
    rows = [
        ("flash, writes", [one["flash"]["writes"] for one in tiers]),
        ("flash, reads", [one["flash"]["reads"] for one in tiers]),
        ("moved", [one["moved"] for one in tiers]),
        ("slow tier, writes", [one["slow"]["write"] for one in tiers]),
        ("slow tier, reads", [one["slow"]["read"] for one in tiers]),
    ]
    for name, figures in rows:
        made.add_row(name, *(f"{one['count']:,}: {one['bytes'] / GB:.2f} GB" for one in figures))
    for name, key in (("modelled", "slow"), ("modelled, without flash", "without_flash")):
        made.add_row(name, *(f"{one['service_time_s'][key]:.1f} s" for one in tiers))
    saved = [one["saved"] for one in tiers]
    made.add_row("saved", *(f"{one['bytes'] / GB:.2f} GB" for one in saved))
    for kind in sorted({kind for one in saved for kind in one["requests"]}):
        counts = (one["requests"].get(kind, 0) for one in saved)
        made.add_row(f"saved, requests: {kind}", *(f"{count:,}" for count in counts))
    return made


# --- the picture --------------------------------------------------------------------------


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw sizes of IOs, and service time against memory; the ending tells the kind of file."""
    # Here and not above: only who plots waits for its import.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    sizes, times = figure.subplots(1, 2)
    _draw_sizes(sizes, measured)
    _draw_times(times, measured)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_sizes(axes: Any, measured: dict[str, Any]) -> None:
    """Draw the share of the bytes that moved in IOs of each size."""
    series = [
        (f"{label}, {kind}", measured[name][kind])
        for name, label in (("sort_shuffle", "sort shuffle"), ("cosco", "cosco"))
        for kind in ("writes", "reads")
    ]
    buckets = sorted({b["up_to_bytes"] for _, one in series for b in one["histogram"]})
    width = 0.8 / len(series)
    for index, (label, one) in enumerate(series):
        shares = {b["up_to_bytes"]: 100 * b["bytes"] / one["bytes"] for b in one["histogram"]}
        axes.bar(
            [at + (index - 1.5) * width for at in range(len(buckets))],
            [shares.get(bucket, 0) for bucket in buckets],
            width,
            label=label,
        )
    axes.set_xticks(range(len(buckets)), [_size(bucket) for bucket in buckets], rotation=45)
    axes.set_xlabel("size of an IO, up to")
    axes.set_ylabel("% of the bytes")
    axes.set_title("sizes of IOs")
    axes.legend()


def _draw_times(axes: Any, measured: dict[str, Any]) -> None:
    """Draw modelled seconds at each memory, and the sort shuffle's."""
    levels = list(reversed(measured["memory_levels"]))
    names = [f"cosco\n{_size(level['buffers_bytes'])}" for level in levels] + ["sort\nshuffle"]
    results = [level["cosco"] for level in levels] + [measured["sort_shuffle"]]
    bottom = [0.0] * len(results)
    for part in _PARTS:
        heights = [result["service_time_s"][part] for result in results]
        axes.bar(names, heights, bottom=bottom, label=part)
        bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
    axes.set_ylabel("modelled service time of one spindle, s")
    axes.set_xlabel("memory of all buffers")
    axes.set_title("service time against memory")
    axes.legend()


def _size(length: int) -> str:
    return f"{length / MIB:g} MiB" if length >= MIB else f"{length / 1024:g} KiB"
