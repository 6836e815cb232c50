"""`cosco`: the demo, and the commands that look after a cluster."""

from __future__ import annotations

import click

from cosco.cli.cluster_commands import COMMANDS
from cosco.cli.options import SizeType, run_command, version_option
from cosco.cli.tls_commands import tls
from cosco.cli.token_commands import token
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


for _one in COMMANDS:
    command.add_command(_one)
command.add_command(tls)
command.add_command(token)


def main() -> None:
    """Run the console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
