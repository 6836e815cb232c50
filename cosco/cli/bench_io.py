"""`cosco-bench io`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.bench_options import COUNT, directory_option, json_option, require_bench_extra
from cosco.cli.options import SIZE, format_size
from cosco.errors import InvalidArgument


@click.command()
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
@click.option("--daemons", type=COUNT, default=2, show_default=True, help="shuffle daemons")
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
    type=COUNT,
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
@directory_option
@json_option
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
    json_path: str | None,
    plot_path: str | None,
    **options: Any,
) -> int:
    """The disk report: sizes, amplification and modelled time of IO, and a sort shuffle's."""
    if merge_factor == 1:
        raise InvalidArgument("--merge-factor is 1: a merge joins at least 2 spills")
    require_bench_extra(*(["matplotlib"] if plot_path else []))
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
        **options,
    )
    return run(settings, json_path=json_path, plot_path=plot_path)
