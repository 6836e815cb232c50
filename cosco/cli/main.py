"""`cosco`: the demo, what a cluster is doing, and taking daemons out of it."""

from __future__ import annotations

import click

from cosco.cli.options import SizeType, metadata_option, run_command, version_option
from cosco.errors import InvalidArgument

NAME = "cosco"
_COUNT = click.IntRange(min=1, max=64)


@click.group(no_args_is_help=False, context_settings={"auto_envvar_prefix": "COSCO"})
@version_option
def command() -> None:
    """Cosco, a disaggregated shuffle service."""


@command.command()
@click.option("--daemons", type=_COUNT, default=2, show_default=True, help="shuffle daemons")
@click.option("--mappers", type=_COUNT, default=4, show_default=True, help="mapper processes")
@click.option("--reducers", type=_COUNT, default=2, show_default=True, help="reducer processes")
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=10_000),
    default=4,
    show_default=True,
    help="partitions of the exchange; the more, the less of the data fills a chunk",
)
@click.option(
    "--memory",
    type=SizeType(least=16 << 20),
    default=16 << 20,
    show_default="16MiB",
    help="page pool of each daemon; the default is small, so that the store is really used",
)
def demo(daemons: int, mappers: int, reducers: int, partitions: int, memory: int) -> int:
    """Shuffle 336,776 real flights through a local cluster and check the result."""
    try:
        import rich  # noqa: F401
    except ImportError:
        raise InvalidArgument("the demo needs rich: run pip install 'cosco[demo]'") from None
    from cosco.demo.report import run_demo

    return run_demo(
        daemons=daemons,
        mappers=mappers,
        reducers=reducers,
        partitions=partitions,
        memory=memory,
    )


_timeout_option = click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="seconds to wait for the metadata service",
)


@command.command()
@metadata_option
@_timeout_option
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
def status(metadata: str, timeout_s: float, as_json: bool) -> None:
    """Show the daemons and exchanges of a cluster."""
    from cosco.cli.status import to_json, to_text
    from cosco.observe import fetch_status

    cluster = fetch_status(metadata, timeout_s)
    click.echo(to_json(cluster) if as_json else to_text(cluster))


@command.command()
@click.argument("daemon")
@metadata_option
@_timeout_option
def drain(daemon: str, metadata: str, timeout_s: float) -> None:
    """Take DAEMON (host:port) out of the cluster: its partitions move elsewhere, it stores
    what it has, and ends once nobody needs it."""
    from cosco.observe import drain_daemon

    drain_daemon(metadata, daemon, timeout_s)
    click.echo(f"{daemon} drains: cosco status shows it until it has ended")


def main() -> None:
    """Run the console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
