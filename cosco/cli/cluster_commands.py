"""The commands that look after a cluster; `cosco` has them all. docs/operating.md tells of them.

What a service answers ends a command with 1 where it is not what was asked for; a bad option, or
a service that does not answer, with 2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import click

from cosco.cli.options import Refused, metadata_option
from cosco.cli.text_table import printable
from cosco.config import parse_address
from cosco.errors import CoscoError, InvalidArgument, ServiceUnavailable

_Function = TypeVar("_Function", bound=Callable[..., Any])

timeout_option = click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="seconds to wait for the metadata service",
)
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")


def asking(function: _Function) -> _Function:
    """Add what every command has that asks the metadata service."""
    return metadata_option(timeout_option(json_option(function)))


@contextmanager
def answers(metadata: str) -> Iterator[None]:
    """Have what the service refuses end the command with 1."""
    parse_address(metadata)
    try:
        yield
    except ServiceUnavailable:
        raise
    except CoscoError as error:
        raise Refused(str(error)) from None


def say(as_json: bool, text: str, **fields: Any) -> None:
    """Print what was done: a line for people, or one object for programs."""
    click.echo(json.dumps(fields, indent=2) if as_json else text)


@click.command()
@asking
def status(metadata: str, timeout_s: float, as_json: bool) -> None:
    """Show the daemons, how many exchanges there are, and the newest of them."""
    from cosco.cli.status import to_json, to_text
    from cosco.observe import fetch_status

    cluster = fetch_status(metadata, timeout_s)
    click.echo(to_json(cluster) if as_json else to_text(cluster))


@click.command()
@metadata_option
@timeout_option
@click.option(
    "--interval-s",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    help="seconds from one look to the next",
)
@click.option(
    "--count",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="how often to look; 0: until it is interrupted",
)
def top(metadata: str, timeout_s: float, interval_s: float, count: int) -> None:
    """Show what the daemons do, live: bytes in and out, memory, IOs and their sizes."""
    try:
        from rich.console import Console
    except ImportError:
        raise InvalidArgument("cosco top needs rich: run pip install 'cosco[top]'") from None
    from cosco.cli.top_screen import run
    from cosco.observe import fetch_status

    parse_address(metadata)
    run(lambda: fetch_status(metadata, timeout_s, figures=True), Console(), interval_s, count)


@click.command()
@asking
@click.option(
    "--state",
    type=click.Choice(["open", "closing", "finished", "any"]),
    default="any",
    show_default=True,
    help="only exchanges that are open, or closed and not yet gone from everywhere, or that have "
    "ended and are kept for a while; any: open or closing",
)
@click.option("--prefix", default="", help="only exchanges whose id begins so")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="exchanges to show at most; 0: all",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    help="begin after the exchange with this number: the `next` of a limited list",
)
def exchanges(
    metadata: str,
    timeout_s: float,
    as_json: bool,
    state: str,
    prefix: str,
    limit: int,
    after: int,
) -> None:
    """List the exchanges, by their numbers."""
    from cosco.admin import all_exchanges
    from cosco.cli.exchange_view import list_to_json, list_to_text
    from cosco.protocol.admin_records import ExchangePhase

    phase = None if state == "any" else ExchangePhase[state.upper()]
    with answers(metadata):
        found = all_exchanges(
            metadata, phase=phase, prefix=prefix, after=after, timeout_s=timeout_s
        )
        listed = list(islice(found, limit + 1 if limit else None))
    following = 0
    if limit and len(listed) > limit:
        listed = listed[:limit]
        following = listed[-1].number
    if as_json:
        click.echo(list_to_json(listed, following))
        return
    click.echo("\n".join([f"{len(listed)} exchanges", *list_to_text(listed)]))
    if following:
        click.echo(f"\nthere are others: --after {following} shows the next ones")


@click.command()
@click.argument("exchange_id", metavar="ID")
@asking
def exchange(exchange_id: str, metadata: str, timeout_s: float, as_json: bool) -> None:
    """Show what there is to know of the exchange ID: progress, largest partitions, daemons,
    losses, its driver, or whom its end waits for."""
    from cosco.admin import show_exchange
    from cosco.cli.exchange_view import detail_to_json, detail_to_text

    with answers(metadata):
        detail = show_exchange(metadata, exchange_id, timeout_s)
    click.echo(detail_to_json(detail) if as_json else detail_to_text(detail))


@click.command()
@asking
@click.option("--follow", is_flag=True, help="go on, and print what is told from now on")
@click.option(
    "--severity",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="only what is at least as severe",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="how many of the newest to begin with",
)
def events(
    metadata: str, timeout_s: float, as_json: bool, follow: bool, severity: str, limit: int
) -> None:
    """Show what the metadata service has told lately: daemons that died, ranges that moved, rows
    that were lost and written again, and why."""
    from cosco.cli.event_lines import event_line, run_events
    from cosco.protocol.events import Severity

    with answers(metadata):
        for event in run_events(metadata, Severity[severity.upper()], limit, timeout_s, follow):
            click.echo(event_line(event, as_json=as_json))


@click.command()
@click.argument("exchange_id", metavar="ID")
@asking
def close(exchange_id: str, metadata: str, timeout_s: float, as_json: bool) -> None:
    """Close the exchange ID, or the group ID with all its exchanges: whoever writes or reads it
    fails with ExchangeClosed, and its rows go."""
    from cosco.admin import close_exchange

    with answers(metadata):
        was_open = close_exchange(metadata, exchange_id, timeout_s)
    text = "is closed" if was_open else "was closed before"
    say(as_json, f"{printable(exchange_id)} {text}", shuffle_id=exchange_id, was_open=was_open)


@click.command()
@click.argument("daemon")
@asking
def drain(daemon: str, metadata: str, timeout_s: float, as_json: bool) -> None:
    """Take DAEMON (host:port) out of the cluster: its partitions move elsewhere, it stores
    what it has, and ends once nobody needs it."""
    from cosco.observe import drain_daemon

    drain_daemon(metadata, daemon, timeout_s)  # no such daemon: 2, as it has always been
    text = f"{printable(daemon)} drains: cosco status shows it until it has ended"
    say(as_json, text, daemon=daemon, draining=True)


@click.command()
@click.argument("daemon")
@asking
def undrain(daemon: str, metadata: str, timeout_s: float, as_json: bool) -> None:
    """Take back the drain of DAEMON (host:port), if it has not ended: it is given work again."""
    from cosco.admin import undrain_daemon

    with answers(metadata):
        was_draining = undrain_daemon(metadata, daemon, timeout_s)
    text = f"{printable(daemon)} {'is given work again' if was_draining else 'did not drain'}"
    say(as_json, text, daemon=daemon, draining=False, was_draining=was_draining)


@click.command()
@click.argument("store")
@asking
def forget(store: str, metadata: str, timeout_s: float, as_json: bool) -> None:
    """Say that STORE, an id that cosco status shows, is gone for good with its host: what waits
    for it goes on, and rows that only it had are computed again at once. Refused while a live
    daemon serves it."""
    from cosco.admin import forget_store

    with answers(metadata):
        done = forget_store(metadata, store, timeout_s)
    text = (
        f"{printable(store)} is forgotten: {done.closed} closing exchanges are gone; {done.ranges} "
        f"partition ranges of {done.exchanges} open exchanges are computed again, and of "
        f"{done.doubtful} others readers find out whether they are lost"
    )
    say(
        as_json,
        text,
        store_id=store,
        closed=done.closed,
        ranges_lost=done.ranges,
        ranges_doubtful=done.doubtful,
        exchanges_with_losses=done.exchanges,
    )


COMMANDS = (status, top, exchanges, exchange, events, close, drain, undrain, forget)
