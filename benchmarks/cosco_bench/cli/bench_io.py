"""`cosco-bench io`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.options import SIZE
from cosco.errors import InvalidArgument
from cosco_bench.cli.bench_options import (
    COUNT,
    MIN_MEMORY,
    codec_option,
    daemons_option,
    directory_option,
    json_option,
    memory_option,
    partitions_option,
    plot_option,
    replicas_option,
    require_bench_extra,
)


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
@partitions_option("partitions, each with a reducer", most=1 << 16)
@daemons_option()
@memory_option(
    "page pool of each daemon; then half of it, then a quarter",
    least=4 * MIN_MEMORY,
    why=", as a quarter of it is measured as well",
)
@codec_option("how both shuffles compress")
@replicas_option("copies of a row in memory; one is stored")
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
@plot_option("also draw IO sizes, and service time against memory, as this SVG file")
def io(
    bytes_: int,
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
        import cosco_bench.io.sort_shuffle  # noqa: F401
    except ImportError:
        raise InvalidArgument(
            "the sort shuffle to compare with is in the source tree only: "
            "run cosco-bench io from a checkout"
        ) from None
    from cosco_bench.io.io_report import run
    from cosco_bench.io.io_run import IoSettings

    settings = IoSettings(bytes=bytes_, merge_factor=merge_factor, **options)
    return run(settings, json_path=json_path, plot_path=plot_path)
