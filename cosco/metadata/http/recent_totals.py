"""The last minutes of what all daemons do together, so that whoever opens a page sees charts."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Final

#: Points that are kept, of which one is added a second.
MAX_POINTS: Final = 300


class RecentTotals:
    """Keeps the last points, encoded once for all who are told of them."""

    def __init__(self, names: Sequence[str], max_points: int = MAX_POINTS) -> None:
        """names: of the values of a point, which has its time before them."""
        self._names = names
        self._points: deque[str] = deque(maxlen=max_points)

    def add(self, at_s: float, values: Sequence[float]) -> str:
        """Keep a point of this moment of the Unix clock, and return it as JSON."""
        shown = [round(at_s, 3), *(round(value, 3) for value in values)]
        point = json.dumps(shown, separators=(",", ":"))
        self._points.append(point)
        return point

    def encoded(self) -> str:
        """Return all of them as JSON: `names`, and `points`, the oldest first."""
        return f'{{"names":{json.dumps(self._names)},"points":[{",".join(self._points)}]}}'
