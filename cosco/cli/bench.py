"""`cosco-bench`."""

from __future__ import annotations

import click

from cosco.cli.bench_growth import growth
from cosco.cli.bench_io import io
from cosco.cli.bench_latency import latency
from cosco.cli.bench_options import COUNT, directory_option, json_option, require_bench_extra
from cosco.cli.bench_peers import peers
from cosco.cli.options import SIZE, format_size, run_command, version_option
from cosco.errors import InvalidArgument

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
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=1 << 20),
    default=64,
    show_default=True,
    help="partitions of the exchange",
)
@click.option("--daemons", type=COUNT, default=2, show_default=True, help="shuffle daemons")
@click.option("--readers", type=COUNT, default=2, show_default=True, help="reader processes")
@click.option(
    "--memory",
    type=SIZE,
    default=256 << 20,
    show_default="256MiB",
    help="page pool of each daemon",
)
@click.option(
    "--codec",
    type=click.Choice(["lz4", "none"]),
    default="lz4",
    show_default=True,
    help="how writers compress blocks",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="copies of a row in memory",
)
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
    help="rows each stage of the ledger is measured on; 0 leaves it out",
)
@directory_option
@json_option
def throughput(
    rows: int,
    mappers: int,
    partitions: int,
    daemons: int,
    readers: int,
    memory: int,
    codec: str,
    replicas: int,
    warm_up_rows: int,
    ledger_rows: int,
    directory: str | None,
    json_path: str | None,
) -> int:
    """Rows through a local cluster, end to end; with CPU seconds per stage."""
    if memory < 16 << 20:
        raise InvalidArgument(f"--memory is {format_size(memory)}, it must be at least 16MiB")
    require_bench_extra()
    from cosco.bench.report import run
    from cosco.bench.throughput import ThroughputSettings

    settings = ThroughputSettings(
        rows=rows,
        mappers=mappers,
        partitions=partitions,
        daemons=daemons,
        readers=readers,
        memory=memory,
        codec=codec,
        replicas=replicas,
        warm_up_rows=min(warm_up_rows, rows),
        directory=directory,
    )
    return run(settings, ledger_rows=ledger_rows, json_path=json_path)


command.add_command(growth)
command.add_command(io)
command.add_command(latency)
command.add_command(peers)


def main() -> None:
    """The console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
