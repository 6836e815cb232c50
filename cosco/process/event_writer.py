"""From the list of events to the log, and to whoever else is to have them.

At most LINES_AT_ONCE events of a kind are told one after another, and LINES_PER_S of them in the
long run; how many were not is told once a second. Whoever counts events is given all of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cosco.process.log_output import event_extra
from cosco.protocol.events import Event, EventKind, EventLog, left_out

LINES_AT_ONCE: Final = 100
LINES_PER_S: Final = 20.0
_TELL_LEFT_OUT_S: Final = 1.0

Listener = Callable[[Event], object]


@dataclass(slots=True)
class _Permit:
    """How many lines of a kind may be written now, as of `at`; and what was not, since when."""

    lines: float
    at: float
    left_out: int = 0
    since: float = 0.0


class RateLimit:
    """Which events are told one by one, and how many were not."""

    def __init__(self) -> None:
        self._kinds: dict[EventKind, _Permit] = {}

    @property
    def has_left_out(self) -> bool:
        """Whether events were counted that `pop_left_out` has to tell."""
        return any(one.left_out for one in self._kinds.values())

    def admits(self, event: Event, now: float) -> bool:
        """Whether an event is to be told; if not it is counted."""
        kind = self._kinds.setdefault(event.kind, _Permit(LINES_AT_ONCE, now))
        kind.lines = min(LINES_AT_ONCE, kind.lines + (now - kind.at) * LINES_PER_S)
        kind.at = now
        if kind.lines < 1 or kind.left_out:  # in turn: what comes later is told of later
            kind.since = kind.since if kind.left_out else now
            kind.left_out += event.times
            return False
        kind.lines -= 1
        return True

    def pop_left_out(self, now: float) -> list[Event]:
        """Return what tells of the events that were only counted, once a second of each kind."""
        found = []
        for kind, one in self._kinds.items():
            if one.left_out and now - one.since >= _TELL_LEFT_OUT_S:
                found.append(left_out(kind, one.left_out))
                one.left_out = 0
        return found


class EventWriter:
    """Tells the events of `events` once `durable` has returned, in their order.

    listeners: each is given every event, also those that are not logged.
    """

    def __init__(
        self,
        events: EventLog,
        logger: logging.Logger,
        durable: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.listeners: list[Listener] = []
        self._events = events
        self._logger = logger
        self._durable = durable
        self._limit = RateLimit()
        self._taken: list[Event] = []  # and not told yet
        self._some = asyncio.Event()
        events.on_add = self._some.set
        if events:
            self._some.set()

    async def run(self) -> None:
        """Tell events until cancelled."""
        while True:
            # In time to tell of what was only counted.
            wait_s = _TELL_LEFT_OUT_S if self._limit.has_left_out else None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._some.wait(), wait_s)
            self._some.clear()
            self._taken += self._events.pop_all()
            if self._durable is not None:  # all that the events follow from was changed by now
                await self._durable()
            self._write_taken()
            for event in self._limit.pop_left_out(time.monotonic()):
                self._log(event)

    def flush(self) -> None:
        """Tell what waits, at the very end: whoever calls this knows that all is durable."""
        self._taken += self._events.pop_all()
        self._write_taken()
        for event in self._limit.pop_left_out(math.inf):
            self._log(event)

    def tell(self, event: Event) -> None:
        """Tell an event that nothing has to become durable for, at once."""
        self._write([event])

    def _write_taken(self) -> None:
        events, self._taken = self._taken, []
        self._write(events)

    def _write(self, events: list[Event]) -> None:
        for event in events:
            for listener in self.listeners:
                listener(event)
            if not self._logger.isEnabledFor(event.kind.severity):
                continue
            if self._limit.admits(event, time.monotonic()):
                self._log(event)

    def _log(self, event: Event) -> None:
        fields = event.shown()
        self._logger.log(event.kind.severity, "%s", fields["event"], extra=event_extra(fields))
