"""What `cosco top` makes of two looks at a cluster."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from cosco.cli.top_rates import Rates, lines
from cosco.cli.top_screen import run
from cosco.observe import ClusterStatus
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.records import DaemonRef, DaemonState, DaemonStatus, ExchangeStatus

EVIL = "a\x1b[2J[red]"


def daemon(
    incarnation: int,
    figures: DaemonFigures | None,
    state: DaemonState = DaemonState.SERVING,
    address: str = "",
) -> DaemonStatus:
    ref = DaemonRef(incarnation, address or f"host:{incarnation}")
    return DaemonStatus(ref, "h", "s", state, 1 << 20, 1 << 19, "", 1, figures=figures)


def cluster(*daemons: DaemonStatus) -> ClusterStatus:
    return ClusterStatus("c", daemons, (ExchangeStatus(EVIL, 1, 4, 2, 3, False),), 1, 0)


def test_rates_are_what_was_added_by_those_that_are_there_still() -> None:
    before = cluster(
        daemon(1, DaemonFigures(bytes_received=100, writes=5, write_bytes=50, waited_s=1.0)),
        daemon(2, DaemonFigures(bytes_received=7000, bytes_fetched=10)),
        daemon(3, DaemonFigures(bytes_received=9)),
    )
    now = cluster(
        daemon(1, DaemonFigures(300, rows_received=8, writes=9, write_bytes=250, waited_s=4.0)),
        daemon(2, DaemonFigures(6000, bytes_fetched=30, rows_fetched=6, bytes_referenced=4)),
        daemon(4, DaemonFigures(bytes_received=1000, reads=2, read_bytes=20)),  # has just started
        daemon(5, None),
    )
    total, found = lines(before, now, 2.0)
    rates = {line.daemon.ref.incarnation: line.rates for line in found}
    assert list(rates) == [4, 1, 2, 5]
    assert rates[1] == Rates(
        in_bytes=100.0, in_rows=4.0, writes=2.0, write_bytes=100.0, waited_s=1.5
    )
    # What it told of what came in was overtaken.
    assert rates[2] == Rates(out_bytes=12.0, out_rows=3.0)
    assert rates[4] == Rates(in_bytes=500.0, reads=1.0, read_bytes=10.0)
    assert rates[5] == Rates()
    assert total == Rates(600.0, 4.0, 12.0, 3.0, 2.0, 100.0, 1.0, 10.0, 1.5)
    assert (rates[1].mean_write_bytes, rates[1].mean_read_bytes) == (50.0, 0.0)


def test_nobody_knows_what_was_done_before_the_first_look() -> None:
    total, [line] = lines(None, cluster(daemon(1, DaemonFigures(bytes_received=100))), 0.0)
    assert total == line.rates == Rates()


def test_what_one_disk_would_have_needed() -> None:
    large = Rates(writes=10, write_bytes=10 * (4 << 20))
    small = Rates(reads=640, read_bytes=10 * (4 << 20))
    assert large.spindle_s == pytest.approx(10 * 0.0082 + 40 / 180)
    assert small.spindle_s == pytest.approx(640 * 0.0082 + 40 / 180)


def test_the_dead_come_last() -> None:
    found = lines(None, cluster(daemon(1, None, DaemonState.DEAD), daemon(2, None)), 0.0)[1]
    assert [line.daemon.ref.incarnation for line in found] == [2, 1]


def test_a_picture_has_all_and_nothing_that_steers_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=160, height=30)
    figures = DaemonFigures(bytes_received=5 << 20, copies_bytes=1 << 20)
    later = replace(figures, rows_fetched=10**12)
    looks = iter([cluster(daemon(1, figures, address=EVIL)), cluster(daemon(1, later))])
    run(lambda: next(looks), console, 0.0, 2)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert text.count("a\\x1b[2J[red]") == 3  # once as a daemon, twice as an exchange
    assert text.count("1 daemons, 1 exchanges open") == 2
    assert "1.00 MiB" in text
    assert "50%" in text
    assert text.count("in 0 B/s, 0 rows/s   out 0 B/s, 0 rows/s") == 1
    assert re.search(r"in 0 B/s, 0 rows/s   out 0 B/s, [1-9][\d,]* rows/s", text)
