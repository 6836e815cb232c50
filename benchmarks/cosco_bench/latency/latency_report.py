"""`cosco-bench latency` on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict, fields

from rich.console import Console
from rich.table import Table

from cosco_bench.harness.document import check_target, document, save
from cosco_bench.harness.progress import progress_bars
from cosco_bench.harness.quantiles import Quantiles
from cosco_bench.latency.latency import ExchangeLatency, LatencyResult, LatencySettings, run_latency
from cosco_bench.micro.micro_batches import MicroSettings
from cosco_bench.micro.micro_report import run_groups


def run(
    settings: LatencySettings, groups: MicroSettings | None = None, *, json_path: str | None
) -> int:
    """Run, print and save, with micro-batches if there are any; 1 if a peer that is there
    failed or had other sums, else 0."""
    settings.check_capacity()
    if groups is not None:
        groups.check_capacity()
    check_target("--json", json_path)
    with progress_bars() as bars:
        rounds = bars.add_task("rows and exchanges", total=settings.steps * len(settings.replicas))
        result = run_latency(settings, on_step=lambda done: bars.advance(rounds, done))
    Console().print(_table(settings, result))
    figures, is_complete = result.to_json(), True
    if groups is not None:
        of_groups, is_complete = run_groups(groups)
        figures.update(of_groups)
    save(json_path, document("latency", figures, asdict(settings)))
    return 0 if is_complete else 1


def _table(settings: LatencySettings, result: LatencyResult) -> Table:
    table = Table(title="milliseconds", title_justify="left")
    table.add_column("")
    for heading in ("p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")

    def add(what: str, found: Quantiles) -> None:
        figures = (found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms)
        table.add_row(what, *(f"{figure:.2f}" for figure in figures))

    for replicas in settings.replicas:
        add(f"one row, replicas={replicas}", result.row[replicas])
    for replicas in settings.replicas:
        shape = f"{settings.mappers} × {settings.partitions}"
        exchange = result.exchange[replicas]
        add(f"small exchange {shape}, replicas={replicas}", exchange.total)
        for part in fields(ExchangeLatency)[1:]:
            add(f"  {part.name}", getattr(exchange, part.name))
    return table
