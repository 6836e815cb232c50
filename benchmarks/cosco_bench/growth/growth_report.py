"""`cosco-bench growth` on the terminal, as JSON and as a plot."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cosco_bench.growth.growth import Growing, GrowthResult, GrowthSettings, run_growth
from cosco_bench.growth.growth_plot import plot_growth, require_matplotlib
from cosco_bench.growth.metadata_scale import (
    TARGET_BYTES,
    TARGET_COMMITS_PER_S,
    ScaleResult,
    ScaleSettings,
    run_scale,
)
from cosco_bench.harness.capacity import GB
from cosco_bench.harness.document import check_target, document, save
from cosco_bench.harness.progress import progress_bars

_MIB = 1 << 20


def run(
    settings: GrowthSettings,
    scale: ScaleSettings | None,
    *,
    json_path: str | None,
    plot_path: str | None,
) -> int:
    """Run, print and save; 0. Raises before the start what would be raised after it.

    scale: of the metadata service alone; None leaves it out.
    """
    settings.check_capacity()
    if scale is not None:
        scale.check_capacity()
    check_target("--json", json_path)
    check_target("--plot", plot_path)
    if plot_path is not None:
        require_matplotlib()
    scaled: ScaleResult | None = None
    with progress_bars() as bars:
        rows = bars.add_task("rows", total=settings.rows)
        attempts = bars.add_task("attempts", total=scale.steps, visible=True) if scale else None
        result = run_growth(settings, on_rows=lambda done: bars.advance(rows, done))
        if scale is not None and attempts is not None:
            scaled = run_scale(scale, on_step=lambda done: bars.advance(attempts, done))
    console = Console()
    if result.figures:
        console.print(_curves(result))
    figures: dict[str, Any] = result.to_json()
    described: dict[str, Any] = asdict(settings)
    if scale is not None and scaled is not None:
        console.print(_scale(scale, scaled))
        figures["metadata"] = scaled.to_json()
        described["metadata"] = asdict(scale)
    if plot_path is not None:
        plot_growth(result, plot_path)
    save(json_path, document("growth", figures, described))
    return 0


def _curves(result: GrowthResult) -> Table:
    table = Table(title=f"medians of {result.settings.runs} runs", title_justify="left")
    for heading in ("GB", "partitions", "mappers"):
        table.add_column(heading, justify="right")
    for heading in ("s/GB", "writing", "CPU s/GB", "spread", "target"):
        table.add_column(heading, justify="right")
    for growing in Growing:
        curve, spread = result.curve(growing), result.spread(growing)
        for point in curve:
            is_last = point is curve[-1]
            table.add_row(
                f"{point['size'] / GB:g}",
                f"{point['partitions']:,}",
                f"{point['mappers']:,}",
                *(f"{point[key]:.2f}" for key in ("s_per_gb", "write_s_per_gb", "cpu_s_per_gb")),
                f"{spread:.2f}" if is_last else "",
                f"{growing.value:.2f}" if is_last else "",
                end_section=is_last,
            )
    return table


def _scale(settings: ScaleSettings, result: ScaleResult) -> Table:
    table = Table(
        title=f"metadata service: {settings.mappers:,} mappers × {settings.partitions:,} "
        f"partitions × {settings.daemons:,} daemons",
        title_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    rows = [
        ("peak memory", f"{result.peak_rss_bytes / _MIB:,.0f} MiB",
         f"target below {TARGET_BYTES / _MIB:,.0f} MiB"),
        ("  before the exchange", f"{result.base_rss_bytes / _MIB:,.0f} MiB", ""),
        ("  with all attempts open", f"{result.opened_rss_bytes / _MIB:,.0f} MiB", ""),
        ("  with all committed", f"{result.committed_rss_bytes / _MIB:,.0f} MiB", ""),
        ("commits", f"{result.commits_per_s:,.0f}/s", f"target {TARGET_COMMITS_PER_S:,.0f}/s"),
        ("  bytes of each", f"{result.commit_bytes:,}", ""),
        ("  processors the service used", f"{result.service_cores:.2f}", ""),
        ("attempts opened", f"{result.opens_per_s:,.0f}/s", ""),
        ("a reader's question", f"{result.await_commits.p50_ms:.1f} ms", "p50"),
        ("", f"{result.await_commits.p99_ms:.1f} ms", "p99"),
        ("database", f"{result.database_bytes / _MIB:,.1f} MiB", ""),
        ("stopped and started again", f"{result.restart_s:.2f} s",
         f"then {result.restarted_rss_bytes / _MIB:,.0f} MiB"),
    ]  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table
