"""The last events, for people who were not there when they were told."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cosco.protocol.events import Event, Severity

#: Events that are kept; the oldest goes.
MAX_KEPT: Final = 10_000
#: Those that are looked at for one answer: nobody else is answered meanwhile.
MAX_LOOKED_AT: Final = 2000


@dataclass(frozen=True, slots=True)
class ToldEvent:
    """An event, its place among all, and when it was told, in seconds of the Unix clock."""

    sequence: int
    at_s: float
    event: Event

    def is_shown_to(self, tenant: str | None) -> bool:
        """Whether somebody may see it: None sees all, a tenant what is its own or of no exchange,
        group or application."""
        event = self.event
        named = event.exchange, event.number, event.group, event.application
        return tenant in (None, event.tenant) or named == (None, None, None, None)


class EventHistory:
    """The last events, each with a sequence that is above all before it."""

    def __init__(self, first: int = 1, max_kept: int = MAX_KEPT) -> None:
        """first: the sequence of the first event. If the clock gives it, it is above those of
        before a restart, so that who has one goes on from there."""
        #: Each is given every event that is kept.
        self.listeners: list[Callable[[ToldEvent], None]] = []
        self._kept: deque[ToldEvent] = deque(maxlen=max_kept)
        self._next = first

    @property
    def last(self) -> int:
        """Return the sequence of the newest event, or what comes before the first one's."""
        return self._next - 1

    def add(self, event: Event, at_s: float) -> ToldEvent:
        """Keep an event that is told now."""
        told = ToldEvent(self._next, at_s, event)
        self._next += 1
        self._kept.append(told)
        for listener in self.listeners:
            listener(told)
        return told

    def after(
        self, sequence: int, limit: int, tenant: str | None, least: Severity = Severity.DEBUG
    ) -> tuple[list[ToldEvent], int]:
        """Return the oldest events after a sequence, at most `limit`, and the sequence of the last
        one that was looked at, which may be few: who asks goes on from there."""
        kept = self._kept
        at = bisect_right(kept, sequence, key=lambda told: told.sequence)
        found: list[ToldEvent] = []
        last = self.last
        for looked_at, told in enumerate(islice(kept, at, None)):
            if looked_at == MAX_LOOKED_AT:
                return found, last
            if _is_wanted(told, tenant, least):
                if len(found) == limit:
                    return found, found[-1].sequence
                found.append(told)
            last = told.sequence
        return found, self.last

    def newest(
        self, limit: int, tenant: str | None, least: Severity = Severity.DEBUG
    ) -> list[ToldEvent]:
        """Return the newest events, at most `limit`, the oldest of them first."""
        wanted: Iterator[ToldEvent] = (
            told for told in reversed(self._kept) if _is_wanted(told, tenant, least)
        )
        return list(islice(wanted, limit))[::-1]


def _is_wanted(told: ToldEvent, tenant: str | None, least: Severity) -> bool:
    return told.event.kind.severity >= least and told.is_shown_to(tenant)
