"""What changes, as it changes: listeners of server-sent events, and who feeds them.

All listeners that see the same are told the same, which is looked up and encoded once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

from cosco.errors import CapacityExceeded
from cosco.metadata.http.recent_totals import RecentTotals
from cosco.metadata.state.cluster_view import ClusterFigures, DaemonSums
from cosco.metadata.state.daemons.figure_totals import TOTALS
from cosco.metadata.state.event_history import EventHistory, ToldEvent
from cosco.metadata.state.state import MetadataState
from cosco.protocol.records import DaemonState

#: Listeners at a time; those of one tenant, where admins, and all where nobody needs a token, are
#: one; and the places that tenants leave to admins.
MAX_LISTENERS: Final = 80
MAX_OF_ONE: Final = 48
FOR_ADMINS: Final = 16
#: Messages that wait for a listener; with more it is dropped.
MAX_WAITING: Final = 512
#: Events that somebody is told of who was away for a moment.
MAX_MISSED: Final = 256
#: How often it is looked what has changed.
CHANGES_S: Final = 1.0
#: Something is said at least this often, so that a connection that is gone is noticed.
QUIET_S: Final = 10.0
_NOTHING: Final = ": nothing new\n\n"
#: How the message of an object ends.
_END: Final = "}\n\n"


class Listener:
    """What waits to be sent to one client; `tenant`: whose it sees, None: everybody's."""

    def __init__(self, tenant: str | None) -> None:
        self.tenant = tenant
        self.is_over = False
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)

    def tell(self, message: str) -> None:
        """Add a message; a listener that takes none for too long is over."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """Have nothing told any more."""
        self.is_over = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait("")  # who waits goes on

    async def next(self) -> str:
        """Return what comes next, at the latest after QUIET_S; empty: it is over."""
        if self.is_over:
            return ""
        try:
            async with asyncio.timeout(QUIET_S):
                return await self._waiting.get()
        except TimeoutError:
            return _NOTHING


class LiveFeed:
    """Tells listeners of the cluster's figures, and of events."""

    def __init__(
        self,
        state: MetadataState,
        history: EventHistory,
        waiting_calls: Callable[[], int],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """waiting_calls: gives how many calls wait. clock_s: the Unix clock."""
        self._state = state
        self._history = history
        self._waiting_calls = waiting_calls
        self._clock_s = clock_s
        self._listeners: set[Listener] = set()
        #: By tenant, what its listeners were told last.
        self._told: dict[str | None, dict[str, Any]] = {}
        self._totals = RecentTotals(("at_s", *TOTALS))
        history.listeners.append(self.take)

    def figures(self, tenant: str | None, sums: DaemonSums | None = None) -> dict[str, Any]:
        """Return how much there is, by the names of `Figures`. sums: of daemons, as they are; None:
        they are added up."""
        return _named(self._state.view.figures(tenant, sums), self._waiting_calls())

    def listen(self, tenant: str | None, after: int | None = None) -> Listener:
        """Return a new listener, which is told how things are, and events from then on.

        after: the sequence of the last event that its client has; it is told of those that it has
        missed, too. Raises CapacityExceeded if there are too many.
        """
        there = len(self._listeners)
        of_one = sum(one.tenant == tenant for one in self._listeners)
        most = MAX_LISTENERS if tenant is None else MAX_LISTENERS - FOR_ADMINS
        if there >= most or of_one >= MAX_OF_ONE:
            raise CapacityExceeded(f"{there} listen already: close a page, or ask again later")
        listener = Listener(tenant)
        figures = self.figures(tenant)
        self._told.setdefault(tenant, figures)
        known = message("snapshot", {"figures": figures, "last_event": self._history.last})
        totals = self._totals.encoded()
        listener.tell(f'{known.removesuffix(_END)},"totals":{totals}{_END}')
        if after is not None:
            missed, _ = self._history.after(after, MAX_MISSED, tenant)
            for told in missed:
                listener.tell(_of_event(told))
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Tell a listener nothing any more."""
        self._listeners.discard(listener)
        if all(one.tenant != listener.tenant for one in self._listeners):
            self._told.pop(listener.tenant, None)

    def take(self, told: ToldEvent) -> None:
        """Tell an event to whoever may see it."""
        encoded = ""
        for listener in list(self._listeners):
            if told.is_shown_to(listener.tenant):
                encoded = encoded or _of_event(told)
                self._tell(listener, encoded)

    def look(self) -> None:
        """Tell what of the figures has changed since the last time."""
        if not self._told:
            return
        sums = self._state.view.daemon_sums()  # the same for all
        for tenant, before in list(self._told.items()):
            now = self.figures(tenant, sums)
            changed = {name: value for name, value in now.items() if before.get(name) != value}
            if not changed:
                continue
            self._told[tenant] = now
            encoded = message("figures", changed)
            for listener in [one for one in self._listeners if one.tenant == tenant]:
                self._tell(listener, encoded)

    def count(self) -> None:
        """Tell all what the daemons have done up to now, and keep it for those who come."""
        point = self._totals.add(self._clock_s(), self._state.view.totals())
        encoded = f"event: totals\ndata: {point}\n\n"
        for listener in list(self._listeners):
            self._tell(listener, encoded)

    async def run(self) -> None:
        """Look again and again, until this is cancelled."""
        while True:
            self.count()
            self.look()
            await asyncio.sleep(CHANGES_S)

    def stop(self) -> None:
        """End all listeners."""
        for listener in list(self._listeners):
            listener.end()

    def _tell(self, listener: Listener, encoded: str) -> None:
        listener.tell(encoded)
        if listener.is_over:
            self.leave(listener)


def message(kind: str, data: Any, sequence: int | None = None) -> str:
    """Return a server-sent event. JSON has no line breaks of its own, so it is one line."""
    place = "" if sequence is None else f"id: {sequence}\n"
    return f"event: {kind}\n{place}data: {json.dumps(data, separators=(',', ':'))}\n\n"


def shown_event(told: ToldEvent) -> dict[str, Any]:
    """Return an event by the names of `models.ToldEvent`."""
    fields = told.event.shown()
    name = fields.pop("event")
    # Numbers of 64 bits are texts, as everywhere.
    if "incarnation" in fields:
        fields["incarnation"] = str(fields["incarnation"])
    return {
        "sequence": told.sequence,
        "time_s": round(told.at_s, 3),
        "event": name,
        "severity": told.event.kind.severity.name.lower(),
        "fields": fields,
    }


def _of_event(told: ToldEvent) -> str:
    return message("event", shown_event(told), told.sequence)


def _named(figures: ClusterFigures, waiting_calls: int) -> dict[str, Any]:
    return {
        "exchanges_open": figures.open,
        "exchanges_closing": figures.closing,
        "groups": figures.groups,
        "applications": figures.applications,
        "daemons_serving": figures.daemons[DaemonState.SERVING],
        "daemons_draining": figures.daemons[DaemonState.DRAINING],
        "daemons_dead": figures.daemons[DaemonState.DEAD],
        "memory_bytes": figures.memory_bytes,
        "memory_free_bytes": figures.free_bytes,
        "waiting_calls": waiting_calls,
    }


def last_sequence(text: str | None) -> int | None:
    """Return the sequence in a header `Last-Event-ID`; None: there is none that may be one."""
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= 19
    return int(text) if is_number and text is not None else None
