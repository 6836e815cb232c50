"""`cosco-bench latency`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.bench_options import (
    COUNT,
    daemons_option,
    directory_option,
    json_option,
    replicas_list_option,
    require_bench_extra,
)

_MANY = click.IntRange(min=1, max=1_000_000)


@click.command()
@click.option("--rounds", type=_MANY, default=300, show_default=True, help="single rows")
@click.option("--exchanges", type=_MANY, default=100, show_default=True, help="small exchanges")
@click.option(
    "--warm-ups",
    type=click.IntRange(0, 1_000_000),
    default=20,
    show_default=True,
    help="of each, before those that count",
)
@click.option("--mappers", type=COUNT, default=4, show_default=True, help="of a small exchange")
@click.option("--partitions", type=COUNT, default=4, show_default=True, help="of a small exchange")
@click.option(
    "--rows", type=_MANY, default=1_000, show_default=True, help="of 100 bytes, of each mapper"
)
@click.option("--workers", type=COUNT, default=4, show_default=True, help="worker processes")
@daemons_option(least=2)
@replicas_list_option("measure with so many copies of a row in memory")
@directory_option
@json_option
def latency(json_path: str | None, **options: Any) -> int:
    """One row from collect to a waiting reader, and small exchanges from end to end."""
    require_bench_extra()
    from cosco.bench.latency import LatencySettings
    from cosco.bench.latency_report import run

    return run(LatencySettings(**options), json_path=json_path)
