"""`cosco-bench latency`."""

from __future__ import annotations

from typing import Any

import click

from cosco_bench.cli.bench_options import (
    COUNT,
    ListType,
    daemons_option,
    directory_option,
    json_option,
    peers_options,
    replicas_list_option,
    require_bench_extra,
)

_MANY = click.IntRange(min=1, max=1_000_000)
_NAMES = ("ray", "dask", "spark")


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
@replicas_list_option(
    "measure with so many copies of a row in memory; peers are set beside the fewest"
)
@click.option(
    "--group",
    "groups",
    type=ListType(click.IntRange(1, 10_000)),
    default="",
    help="also run micro-batches in exchange groups of these sizes, 1,10,50,100 say",
)
@click.option(
    "--tasks",
    type=ListType(COUNT),
    default="4,16",
    show_default=True,
    help="mappers, and as many reducers, of a micro-batch",
)
@click.option(
    "--iterations",
    type=_MANY,
    default=100,
    show_default=True,
    help="micro-batches of each kind, or some more to fill whole groups",
)
@click.option(
    "--group-workers",
    type=COUNT,
    default=2,
    show_default=True,
    help="worker processes of micro-batches, and processors of each peer",
)
@peers_options(_NAMES, "run micro-batches on these, too; empty for none")
@directory_option
@json_option
def latency(
    json_path: str | None,
    groups: tuple[int, ...],
    tasks: tuple[int, ...],
    iterations: int,
    group_workers: int,
    peers: tuple[str, ...],
    timeout_s: float,
    environments: str | None,
    **options: Any,
) -> int:
    """One row from collect to a waiting reader, small exchanges from end to end, and
    micro-batches in exchange groups."""
    require_bench_extra()
    from cosco_bench.latency.latency import LatencySettings
    from cosco_bench.latency.latency_report import run
    from cosco_bench.micro.micro_batches import MicroSettings

    settings = LatencySettings(**options)
    micro = None
    if groups:
        micro = MicroSettings(
            groups=groups,
            tasks=tasks,
            iterations=iterations,
            warm_ups=settings.warm_ups,
            rounds=settings.rounds,
            workers=group_workers,
            daemons=settings.daemons,
            replicas=tuple(sorted(settings.replicas)),
            peers=peers,
            timeout_s=timeout_s,
            environments=environments,
            directory=settings.directory,
        )
    return run(settings, micro, json_path=json_path)
