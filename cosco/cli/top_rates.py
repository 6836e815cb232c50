"""What daemons did between two looks at a cluster, for each second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cosco.observe import ClusterStatus
from cosco.protocol.daemon_figures import COUNTERS, DaemonFigures
from cosco.protocol.records import DaemonState, DaemonStatus

#: One disk with an arm, 7,200 turns a minute: seconds to get to any other place, and bytes a second
#: from there on. benchmarks/cosco_bench/io/spindle.py has the source; here each IO pays.
_POSITIONING_S: Final = 0.0082
_TRANSFER_BYTES_S: Final = 180 * (1 << 20)


@dataclass(frozen=True, slots=True)
class Rates:
    """What was done a second; means are 0 where nothing was done.

    spindle_s: what one disk would have needed for it. waited_s: seconds that writers waited, which
    may be many in each second, as they wait at the same time.
    """

    in_bytes: float = 0.0
    in_rows: float = 0.0
    out_bytes: float = 0.0
    out_rows: float = 0.0
    writes: float = 0.0
    write_bytes: float = 0.0
    reads: float = 0.0
    read_bytes: float = 0.0
    waited_s: float = 0.0

    @property
    def mean_write_bytes(self) -> float:
        return self.write_bytes / self.writes if self.writes else 0.0

    @property
    def mean_read_bytes(self) -> float:
        return self.read_bytes / self.reads if self.reads else 0.0

    @property
    def spindle_s(self) -> float:
        transferred = self.write_bytes + self.read_bytes
        return (self.writes + self.reads) * _POSITIONING_S + transferred / _TRANSFER_BYTES_S


@dataclass(frozen=True, slots=True)
class DaemonLine:
    """A daemon and what it did; `figures` is None while it has told none."""

    daemon: DaemonStatus
    figures: DaemonFigures | None
    rates: Rates


def lines(
    before: ClusterStatus | None, now: ClusterStatus, seconds: float
) -> tuple[Rates, list[DaemonLine]]:
    """Return what all daemons did together, and each: those that live first, the busiest first.

    before: the same cluster, `seconds` ago; None: nobody has looked before. A daemon that has
    started since counts from its start.
    """
    earlier = {d.ref.incarnation: d.figures for d in before.daemons} if before else {}
    found = []
    for daemon in now.daemons:
        rates = Rates()
        if before is not None and daemon.figures is not None and seconds > 0:
            rates = _rates(earlier.get(daemon.ref.incarnation), daemon.figures, seconds)
        found.append(DaemonLine(daemon, daemon.figures, rates))
    found.sort(key=_order)
    return _sum(line.rates for line in found), found


def _rates(before: DaemonFigures | None, now: DaemonFigures, seconds: float) -> Rates:
    since = before or DaemonFigures()
    # A heartbeat that was overtaken may tell less than the one before.
    done = {name: max(0, getattr(now, name) - getattr(since, name)) / seconds for name in COUNTERS}
    return Rates(
        in_bytes=done["bytes_received"],
        in_rows=done["rows_received"],
        out_bytes=done["bytes_fetched"] + done["bytes_referenced"],
        out_rows=done["rows_fetched"],
        writes=done["writes"],
        write_bytes=done["write_bytes"],
        reads=done["reads"],
        read_bytes=done["read_bytes"],
        waited_s=done["waited_s"],
    )


def _sum(rates: Iterable[Rates]) -> Rates:
    names = Rates.__dataclass_fields__
    there = list(rates)
    return Rates(**{name: sum(getattr(one, name) for one in there) for name in names})


def _order(line: DaemonLine) -> tuple[bool, float, str]:
    is_dead = line.daemon.state is DaemonState.DEAD
    return is_dead, -(line.rates.in_bytes + line.rates.out_bytes), line.daemon.ref.address
