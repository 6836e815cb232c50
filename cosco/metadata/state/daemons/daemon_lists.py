"""Daemons as lists of them show them: some at a time, in one order or another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import nlargest, nsmallest
from typing import Final, NamedTuple

from cosco.metadata.state.daemons.daemon_table import Daemon, status_of
from cosco.protocol.daemon_figures import SAMPLES, DaemonFigures
from cosco.protocol.records import DaemonState, DaemonStatus

#: By what daemons can be listed, the largest first: a figure that they tell, or these.
USED: Final = "memory_used_bytes"
ASSIGNMENTS: Final = "assignments"
ORDERS: Final = (USED, ASSIGNMENTS, *SAMPLES)
_NO_FIGURES: Final = DaemonFigures()


class Wanted(NamedTuple):
    """Which daemons a list has: of some states, with addresses that begin with `prefix`."""

    states: Collection[DaemonState] = tuple(DaemonState)
    prefix: str = ""

    def has(self, daemon: Daemon) -> bool:
        return daemon.state in self.states and daemon.ref.address.startswith(self.prefix)


def by_incarnation(
    daemons: Iterable[Daemon], wanted: Wanted, after: int, limit: int
) -> list[DaemonStatus]:
    """Return those above the incarnation `after`, at most `limit`."""
    known = (d for d in daemons if d.ref.incarnation > after and wanted.has(d))
    return _shown(nsmallest(limit, known, key=lambda d: d.ref.incarnation))


def largest_first(
    daemons: Iterable[Daemon], wanted: Wanted, order: str, skip: int, limit: int
) -> list[DaemonStatus]:
    """Return those that have most of what `order` of ORDERS names, without the first `skip`."""
    value = _value_of(order)
    known = (d for d in daemons if wanted.has(d))
    found = nlargest(skip + limit, known, key=lambda d: (value(d), -d.ref.incarnation))
    return _shown(found[skip:])


def _value_of(order: str) -> Callable[[Daemon], float]:
    if order == USED:
        return lambda daemon: daemon.memory_bytes - daemon.free_bytes if daemon.live else 0
    if order == ASSIGNMENTS:
        return lambda daemon: daemon.assignments
    return lambda daemon: getattr(daemon.figures or _NO_FIGURES, order)


def _shown(daemons: Iterable[Daemon]) -> list[DaemonStatus]:
    return [status_of(daemon, with_figures=True) for daemon in daemons]
