"""`cosco-bench`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from cosco.cli.options import SIZE, format_size, run_command, version_option
from cosco.errors import InvalidArgument

NAME = "cosco-bench"
_COUNT = click.IntRange(min=1, max=256)

_directory_option = click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True),
    help="where the store goes; a temporary directory without it",
)
_json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, writable=True),
    help="also write the figures to this file",
)


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
@click.option("--mappers", type=_COUNT, default=2, show_default=True, help="writer processes")
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=1 << 20),
    default=64,
    show_default=True,
    help="partitions of the exchange",
)
@click.option("--daemons", type=_COUNT, default=2, show_default=True, help="shuffle daemons")
@click.option("--readers", type=_COUNT, default=2, show_default=True, help="reader processes")
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
@_directory_option
@_json_option
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
    _need("psutil", "rich")
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
        directory=str(Path(directory).resolve()) if directory else None,
    )
    return run(settings, ledger_rows=ledger_rows, json_path=json_path)


@command.command()
@click.option(
    "--bytes",
    "bytes_",
    type=SIZE,
    default=2_800_000_000,
    show_default="2.8GB",
    help="rows of 100 bytes: an int64 key and a payload that half compresses",
)
@click.option(
    "--mappers",
    type=click.IntRange(min=1, max=1 << 16),
    default=128,
    show_default=True,
    help="map tasks; with the default bytes and partitions their segments are 200 KiB",
)
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=1 << 16),
    default=64,
    show_default=True,
    help="partitions, each with a reducer",
)
@click.option("--daemons", type=_COUNT, default=2, show_default=True, help="shuffle daemons")
@click.option(
    "--memory",
    type=SIZE,
    default=256 << 20,
    show_default="256MiB",
    help="page pool of each daemon; then half of it, then a quarter",
)
@click.option(
    "--codec",
    type=click.Choice(["lz4", "none"]),
    default="lz4",
    show_default=True,
    help="how both shuffles compress",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="copies of a row in memory; one is stored",
)
@click.option(
    "--processes",
    type=_COUNT,
    default=2,
    show_default=True,
    help="tasks at a time, of mappers as of reducers",
)
@click.option(
    "--sort-memory",
    type=SIZE,
    default=0,
    help="memory of a mapper's sort; a quarter of its rows without it",
)
@click.option(
    "--merge-factor",
    type=click.IntRange(min=0),
    default=0,
    show_default="all, as Spark",
    help="spills the sort shuffle joins at a time; each further pass writes rows once more",
)
@_directory_option
@_json_option
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(dir_okay=False, writable=True),
    help="also draw IO sizes, and service time against memory, as this SVG file",
)
def io(
    bytes_: int,
    memory: int,
    merge_factor: int,
    directory: str | None,
    json_path: str | None,
    plot_path: str | None,
    **options: Any,
) -> int:
    """The disk report: sizes, amplification and modelled time of IO, and a sort shuffle's."""
    if merge_factor == 1:
        raise InvalidArgument("--merge-factor is 1: a merge joins at least 2 spills")
    _need("psutil", "rich", *(["matplotlib"] if plot_path else []))
    try:
        import benchmarks.sort_shuffle  # noqa: F401
    except ImportError:
        raise InvalidArgument(
            "the sort shuffle to compare with is in the source tree only: "
            "run cosco-bench io from a checkout"
        ) from None
    from cosco.bench.io_report import run
    from cosco.bench.io_run import MIN_MEMORY, IoSettings

    if memory < MIN_MEMORY:
        raise InvalidArgument(
            f"--memory is {format_size(memory)}, it must be at least {format_size(MIN_MEMORY)}, "
            "as a quarter of it is measured as well"
        )
    settings = IoSettings(
        bytes=bytes_,
        memory=memory,
        merge_factor=merge_factor,
        directory=str(Path(directory).resolve()) if directory else None,
        **options,
    )
    return run(settings, json_path=json_path, plot_path=plot_path)


def _need(*modules: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InvalidArgument(
                f"{error.name} is not installed: run pip install 'cosco[bench]'"
            ) from None


def main() -> None:
    """The console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
