"""What all daemons together have done since the service knows them: sums that never fall."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from cosco.protocol.daemon_figures import COUNTERS, SAMPLES, DaemonFigures

#: The figures that a point has, in this order; those of COUNTERS only grow.
TOTALS: Final = tuple(SAMPLES)
_COUNTERS: Final = tuple(name for name in TOTALS if name in COUNTERS)
_GAUGES: Final = tuple(name for name in TOTALS if name not in COUNTERS)
_counters_of: Final = attrgetter(*_COUNTERS)
_gauges_of: Final = attrgetter(*_GAUGES)


class FigureTotals:
    """Adds up by how much the counters of daemons have grown.

    A daemon that is gone keeps what it has added, and its next start begins at 0, so a total never
    falls while this service runs.
    """

    def __init__(self) -> None:
        self._sums: list[float] = [0] * len(_COUNTERS)

    def add(self, before: DaemonFigures | None, now: DaemonFigures) -> None:
        """Add what a daemon has done since it told `before`; None: it has told nothing yet, and
        began at 0. A counter that has fallen, as none should, adds nothing."""
        old = _counters_of(before or _NOTHING)
        for place, (then, value) in enumerate(zip(old, _counters_of(now), strict=True)):
            if value > then:
                self._sums[place] += value - then

    def point(self, living: Iterable[DaemonFigures]) -> list[float]:
        """Return the totals by TOTALS: of counters what was added, of what is there now the sums
        over the daemons that live."""
        gauges = [0] * len(_GAUGES)
        for figures in living:
            for place, value in enumerate(_gauges_of(figures)):
                gauges[place] += value
        found = dict(zip(_COUNTERS, self._sums, strict=True))
        found.update(zip(_GAUGES, gauges, strict=True))
        return [found[name] for name in TOTALS]


_NOTHING: Final = DaemonFigures()
