"""`cosco-bench daemon`."""

from __future__ import annotations

from typing import Any

import click

from cosco_bench.cli.bench_options import (
    COUNT,
    ListType,
    codec_option,
    directory_option,
    json_option,
    memory_option,
    require_bench_extra,
)


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=10_000_000,
    show_default=True,
    help="rows of 100 bytes of each exchange",
)
@click.option(
    "--partitions",
    type=ListType(click.IntRange(min=1, max=1 << 20)),
    default="64,1000",
    show_default=True,
    help="of exchanges, one after another",
)
@click.option("--mappers", type=COUNT, default=2, show_default=True, help="streams at a time")
@memory_option("page pool of the daemon")
@codec_option("how blocks are compressed, before the clock starts")
@click.option("--runs", type=COUNT, default=3, show_default=True, help="of each; medians")
@directory_option
@json_option
def daemon(json_path: str | None, **options: Any) -> int:
    """What a GB costs one daemon, with frames that were packed beforehand."""
    require_bench_extra()
    from cosco_bench.daemon.daemon_report import run
    from cosco_bench.daemon.daemon_run import DaemonBenchSettings

    return run(DaemonBenchSettings(**options), json_path=json_path)
