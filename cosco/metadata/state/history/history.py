"""Exchanges that have ended, for a while: so that yesterday's slow job can be looked at.

An exchange of a group is not kept, as a group of micro-batches has one each few milliseconds.
Times are seconds of the Unix clock as it was when the service started, and true to half a second,
which is how often the state is told the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.finished_exchange import FinishedExchange

_TABLE = "history"


class HistoryBounds(NamedTuple):
    """How much is kept, and what time it is.

    unix_s: the second of the Unix clock as the state is made. keep_s, keep_max: for how long, and
    how many; 0 of either keeps none.
    """

    unix_s: float
    keep_s: float
    keep_max: int


NO_HISTORY: Final = HistoryBounds(0.0, 0.0, 0)


class History:
    """What is kept of ended exchanges, by number; of those, the ones that ended last."""

    def __init__(self, rows: Iterable[Row], changes: ChangeLog) -> None:
        """Go on with what the database has; `begin` says how much of it."""
        self._bounds = NO_HISTORY
        self._offset_s = 0.0
        #: The second of the Unix clock, as the state knows it.
        self.unix_s = 0.0
        self._changes = changes
        self._by_number: dict[int, FinishedExchange] = {}  # in the order in which they ended
        self._numbers: dict[str, int] = {}
        found = [one for number, text in rows if (one := self._read(number, text)) is not None]
        for finished in sorted(found, key=lambda one: (one.closed_s, one.number)):
            self._keep(finished)

    def _read(self, number: int, text: str) -> FinishedExchange | None:
        """Return what a row keeps; one that makes no sense goes, as nothing hangs on it."""
        try:
            return FinishedExchange.from_json(number, text)
        except (ValueError, TypeError):
            self._changes.delete(_TABLE, (number,))
            return None

    @property
    def keeps_some(self) -> bool:
        """Whether anything is kept."""
        return bool(self._bounds.keep_max and self._bounds.keep_s)

    def begin(self, bounds: HistoryBounds, now: float) -> None:
        """Keep within these bounds from now on."""
        self._bounds = bounds
        self._offset_s = bounds.unix_s - now
        self.tick(now)

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, finished: FinishedExchange) -> None:
        """Keep an exchange that has just ended."""
        if not self.keeps_some:
            return
        self._keep(finished)
        self._changes.put(_TABLE, (finished.number,), partial(_row, finished))
        while len(self._by_number) > self._bounds.keep_max:
            self._forget_oldest()

    def tick(self, now: float) -> None:
        """Take the time, and forget what has been kept for long enough."""
        self.unix_s = now + self._offset_s
        while self._by_number:
            oldest = next(iter(self._by_number.values()))
            keep_s = self._bounds.keep_s
            # One that ended far in the future, as the clock was wrong then, keeps no others.
            is_over = not keep_s or not -keep_s <= self.unix_s - oldest.closed_s < keep_s
            if not is_over and len(self._by_number) <= self._bounds.keep_max:
                break
            self._forget_oldest()

    def numbers(self) -> Iterator[int]:
        """Return the numbers of all that are kept."""
        return iter(self._by_number)

    def get(self, number: int) -> FinishedExchange:
        """Return what is kept of an exchange by its number; raises KeyError."""
        return self._by_number[number]

    def find_number(self, number: int) -> FinishedExchange | None:
        """Return what is kept of an exchange by its number."""
        return self._by_number.get(number)

    def find(self, shuffle_id: str) -> FinishedExchange | None:
        """Return what is kept of an exchange by its id."""
        number = self._numbers.get(shuffle_id)
        return None if number is None else self._by_number[number]

    def _keep(self, finished: FinishedExchange) -> None:
        self._by_number[finished.number] = finished
        self._numbers[finished.shuffle_id] = finished.number

    def _forget_oldest(self) -> None:
        number = next(iter(self._by_number))
        del self._numbers[self._by_number.pop(number).shuffle_id]
        self._changes.delete(_TABLE, (number,))


def _row(finished: FinishedExchange) -> Row:
    return (json.dumps(finished.to_json(), separators=(",", ":")),)
