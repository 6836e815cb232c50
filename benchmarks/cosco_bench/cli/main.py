"""`cosco-bench`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.options import run_command, version_option
from cosco_bench.cli.bench_daemon import daemon
from cosco_bench.cli.bench_growth import growth
from cosco_bench.cli.bench_io import io
from cosco_bench.cli.bench_latency import latency
from cosco_bench.cli.bench_options import (
    COUNT,
    codec_option,
    daemons_option,
    directory_option,
    json_option,
    memory_option,
    partitions_option,
    replicas_option,
    require_bench_extra,
)
from cosco_bench.cli.bench_peers import peers

NAME = "cosco-bench"


@click.group(no_args_is_help=False, context_settings={"auto_envvar_prefix": "COSCO_BENCH"})
@version_option
def command() -> None:
    """Measure cosco on this machine."""


@command.command()
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=10_000_000,
    show_default=True,
    help="rows of 100 bytes: an int64 key and a payload that half compresses",
)
@click.option("--mappers", type=COUNT, default=2, show_default=True, help="writer processes")
@partitions_option()
@daemons_option()
@click.option("--readers", type=COUNT, default=2, show_default=True, help="reader processes")
@memory_option()
@codec_option()
@replicas_option()
@click.option(
    "--warm-up-rows",
    type=click.IntRange(min=0),
    default=1_000_000,
    show_default=True,
    help="rows through an exchange of their own before the clock starts",
)
@click.option(
    "--ledger-rows",
    type=click.IntRange(min=0),
    default=1_000_000,
    show_default=True,
    help="rows each stage of the ledger, and each call, is measured on; 0 leaves both out",
)
@directory_option
@json_option
def throughput(
    rows: int, warm_up_rows: int, ledger_rows: int, json_path: str | None, **options: Any
) -> int:
    """Rows through a local cluster, end to end; with the CPU that calls and stages take."""
    require_bench_extra()
    from cosco_bench.throughput.throughput import ThroughputSettings
    from cosco_bench.throughput.throughput_report import run

    settings = ThroughputSettings(rows=rows, warm_up_rows=min(warm_up_rows, rows), **options)
    return run(settings, ledger_rows=ledger_rows, json_path=json_path)


command.add_command(daemon)
command.add_command(growth)
command.add_command(io)
command.add_command(latency)
command.add_command(peers)


def main() -> None:
    """The console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
