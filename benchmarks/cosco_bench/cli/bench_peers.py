"""`cosco-bench peers`."""

from __future__ import annotations

from typing import Any

import click

from cosco_bench.cli.bench_options import (
    COUNT,
    directory_option,
    json_option,
    partitions_option,
    peers_options,
    replicas_list_option,
    require_bench_extra,
)

_NAMES = ("spark", "dask", "ray", "arrow")


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(min=1, max=1 << 27),
    default=10_000_000,
    show_default=True,
    help="rows of 100 bytes: an int64 key and a text that half compresses",
)
@click.option("--files", type=COUNT, default=8, show_default=True, help="Parquet files")
@partitions_option("partitions to repartition to")
@click.option("--threads", type=COUNT, default=2, show_default=True, help="of every side")
@click.option(
    "--warm-ups", type=click.IntRange(0, 100), default=1, show_default=True, help="whole jobs first"
)
@click.option("--runs", type=COUNT, default=3, show_default=True, help="on the clock; medians")
@replicas_list_option("run cosco with so many copies of a row in memory")
@peers_options(_NAMES, "run these; empty for none")
@directory_option
@json_option
def peers(json_path: str | None, **options: Any) -> int:
    """The same files repartitioned by cosco, Spark, Dask and Ray Data."""
    require_bench_extra()
    from cosco_bench.peers.peers import PeersSettings
    from cosco_bench.peers.peers_report import run

    return run(PeersSettings(**options), json_path=json_path)
