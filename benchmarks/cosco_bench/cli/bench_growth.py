"""`cosco-bench growth`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.options import SIZE
from cosco.errors import InvalidArgument
from cosco_bench.cli.bench_options import (
    COUNT,
    ListType,
    daemons_option,
    directory_option,
    json_option,
    memory_option,
    plot_option,
    replicas_option,
    require_bench_extra,
)

_PARTITIONS = click.IntRange(min=1, max=1 << 20)
_MAPPERS = click.IntRange(min=1, max=1_000_000)


@click.command()
@click.option(
    "--sizes",
    type=ListType(SIZE),
    default="1GB,4GB,16GB",
    show_default=True,
    help="of exchanges, in bytes of rows; empty for none",
)
@click.option(
    "--partitions",
    type=ListType(_PARTITIONS),
    default="16,256,4096",
    show_default=True,
    help="of exchanges; empty for none",
)
@click.option(
    "--mappers",
    type=ListType(_MAPPERS),
    default="8,128,1024",
    show_default=True,
    help="of exchanges, which share the workers; empty for none",
)
@click.option("--base-size", type=SIZE, default="1GB", show_default=True, help="where others grow")
@click.option(
    "--base-partitions", type=_PARTITIONS, default=64, show_default=True, help="where others grow"
)
@click.option(
    "--base-mappers", type=_MAPPERS, default=8, show_default=True, help="where others grow"
)
@click.option("--runs", type=COUNT, default=3, show_default=True, help="of each; medians")
@click.option("--workers", type=COUNT, default=2, show_default=True, help="worker processes")
@daemons_option(least=2)
@memory_option()
@replicas_option()
@click.option(
    "--scale-mappers",
    type=click.IntRange(0, 10_000_000),
    default=100_000,
    show_default=True,
    help="on the metadata service alone; 0 leaves it out",
)
@click.option(
    "--scale-partitions",
    type=_PARTITIONS,
    default=10_000,
    show_default=True,
    help="on the metadata service alone",
)
@click.option(
    "--scale-daemons",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="on the metadata service alone",
)
@directory_option
@json_option
@plot_option("also draw the curves to this file, SVG or PNG by its ending")
def growth(
    json_path: str | None,
    plot_path: str | None,
    scale_mappers: int,
    scale_partitions: int,
    scale_daemons: int,
    **options: Any,
) -> int:
    """Time per GB of larger exchanges, and of more partitions and mappers; the state of them."""
    if min((*options["sizes"], options["base_size"])) < 100:
        raise InvalidArgument("--sizes and --base-size are bytes of rows of 100 bytes each")
    require_bench_extra()
    from cosco_bench.growth.growth import GrowthSettings
    from cosco_bench.growth.growth_report import run
    from cosco_bench.growth.metadata_scale import ScaleSettings

    scale = ScaleSettings(
        mappers=scale_mappers,
        partitions=scale_partitions,
        daemons=scale_daemons,
        directory=options["directory"],
    )
    return run(
        GrowthSettings(**options),
        scale if scale_mappers else None,
        json_path=json_path,
        plot_path=plot_path,
    )
