"""The picture of `cosco top`: what a cluster does now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cosco.cli.text_table import printable
from cosco.cli.top_rates import DaemonLine, Rates, lines
from cosco.observe import ClusterStatus
from cosco.protocol.html_view import size
from cosco.protocol.records import DaemonState, ExchangeStatus

#: Rows beside those of daemons: the head, the heads of tables, the lines between them.
_OTHER_ROWS: Final = 12
_EXCHANGES: Final = 8


def run(look: Callable[[], ClusterStatus], console: Console, interval_s: float, count: int) -> None:
    """Show a cluster every `interval_s` seconds, `count` times; 0: until it is interrupted.

    Raises: what `look` does.
    """
    frames = _frames(look, interval_s, count)
    if not console.is_terminal:
        for frame in frames:
            console.print(_picture(console, *frame))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for frame in frames:
            live.update(_picture(console, *frame), refresh=True)


def _frames(
    look: Callable[[], ClusterStatus], interval_s: float, count: int
) -> Iterator[tuple[ClusterStatus | None, ClusterStatus, float]]:
    before: ClusterStatus | None = None
    looked_at = 0.0
    shown = 0
    while True:
        began = time.monotonic()
        now = look()
        yield before, now, began - looked_at
        before, looked_at, shown = now, began, shown + 1
        if shown == count:
            return
        time.sleep(max(0.0, began + interval_s - time.monotonic()))


def _picture(
    console: Console, before: ClusterStatus | None, now: ClusterStatus, seconds: float
) -> Group:
    total, daemons = lines(before, now, seconds)
    room = max(3, console.height - _OTHER_ROWS - min(_EXCHANGES, len(now.exchanges)))
    shown = daemons[:room] if console.is_terminal else daemons
    parts: list[RenderableType] = [_head(now, total), Text(), _daemon_table(shown)]
    if len(shown) < len(daemons):
        parts.append(Text(f"and {len(daemons) - len(shown)} more", style="dim"))
    if now.exchanges:
        parts += [Text(), _exchange_table(now.exchanges[-_EXCHANGES:][::-1])]
    return Group(*parts)


def _head(now: ClusterStatus, total: Rates) -> Group:
    alive = [d for d in now.daemons if d.state is not DaemonState.DEAD]
    memory = sum(d.memory_bytes for d in alive)
    used = memory - sum(d.free_bytes for d in alive)
    figures = (
        ("in", f"{size(total.in_bytes)}/s, {total.in_rows:,.0f} rows/s"),
        ("out", f"{size(total.out_bytes)}/s, {total.out_rows:,.0f} rows/s"),
        ("writes", f"{total.writes:.1f}/s of {size(total.mean_write_bytes)}"),
        ("reads", f"{total.reads:.1f}/s of {size(total.mean_read_bytes)}"),
        ("one disk would need", f"{total.spindle_s:.2f} s each second"),
        ("writers waited", f"{total.waited_s:.2f} s each second"),
        ("memory", f"{size(used)} of {size(memory)}"),
    )
    title = Text.assemble(
        ("Cosco ", "bold"),
        (printable(now.cluster_id), "dim"),
        f"  {len(alive)} daemons, {now.open} exchanges open, {now.closing} closing  ",
        (time.strftime("%H:%M:%S"), "dim"),
    )
    parts = [part for name, value in figures for part in ((f"{name} ", "dim"), f"{value}   ")]
    return Group(title, Text.assemble(*parts))


def _daemon_table(daemons: list[DaemonLine]) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("daemon", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("state")
    for name in ("in/s", "out/s", "memory", "copies", "waiting", "writes/s", "reads/s", "waited"):
        table.add_column(name, justify="right")
    for line in daemons:
        table.add_row(*_daemon_cells(line), style="" if line.daemon.state.name != "DEAD" else "dim")
    return table


def _daemon_cells(line: DaemonLine) -> list[str]:
    daemon, figures, rates = line.daemon, line.figures, line.rates
    store = " store hangs" if daemon.store_hangs else " store fails" if daemon.store_failing else ""
    used = daemon.memory_bytes - daemon.free_bytes
    share = f"{used / daemon.memory_bytes:.0%}" if daemon.memory_bytes else "-"
    state = daemon.state.name.lower() + (f"[red]{store}[/red]" if store else "")
    cells = [escape(printable(daemon.ref.address)), state]
    if figures is None:
        return [*cells, "-", "-", share, *["-"] * 5]
    return [
        *cells,
        size(rates.in_bytes),
        size(rates.out_bytes),
        share,
        size(figures.copies_bytes),
        size(figures.waiting_bytes),
        f"{rates.writes:.1f} × {size(rates.mean_write_bytes)}",
        f"{rates.reads:.1f} × {size(rates.mean_read_bytes)}",
        f"{rates.waited_s:.2f} s/s",
    ]


def _exchange_table(exchanges: tuple[ExchangeStatus, ...]) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("newest exchanges", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("state")
    for name in ("partitions", "mappers committed", "rows"):
        table.add_column(name, justify="right")
    for one in exchanges:
        table.add_row(
            escape(printable(one.shuffle_id)),
            "closing" if one.closing else "open",
            f"{one.partitions:,}",
            f"{one.mappers_committed:,}",
            f"{one.rows:,}",
        )
    return table
