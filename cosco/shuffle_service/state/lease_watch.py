"""What a daemon knows of its own lease: pure, told of answers and of time.

The metadata service counts the lease from when it hears of the daemon, this from when the daemon
began to ask, which is earlier. So a lease that holds here holds there: nobody is sent to a daemon
that is replaced already.
"""

from __future__ import annotations

from collections.abc import Callable

from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import DaemonOrders


class LeaseWatch:
    """The lease of a daemon, and who is told when it is in doubt. Times are of one clock."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        """`tell` has operators told of an event."""
        self._tell = tell
        self._cluster: str | None = None  # once registered
        self._ends_at = 0.0
        self._answered_at = 0.0
        self._away = False
        self._lost = False

    def answered(self, orders: DaemonOrders, now: float, asked_at: float) -> None:
        """Note an answer of the metadata service to a registration, or a heartbeat, that was sent
        at `asked_at`."""
        if self._cluster is None or self._lost:
            kind, seconds = EventKind.REGISTERED, None
        else:
            kind, seconds = EventKind.METADATA_BACK, round(now - self._answered_at, 1)
        if self._cluster is None or self._away or self._lost:
            self._tell(Event(kind=kind, cluster=orders.cluster_id, seconds=seconds))
        self._cluster, self._ends_at = orders.cluster_id, asked_at + orders.lease_s
        self._answered_at = now
        self._away = self._lost = False

    def unanswered(self, reason: str, now: float) -> None:
        """Note that a heartbeat was not answered, and why."""
        if not self._away:
            self._away = True
            self._tell(Event(kind=EventKind.METADATA_AWAY, reason=reason))
        if now >= self._ends_at:
            self.lost("no answer", reason, now - self._answered_at)

    def lost(self, cause: str, reason: str | None = None, seconds: float | None = None) -> None:
        """Note that the lease has ended: by the service's word, or for all that is known."""
        if not self._lost:
            self._lost = True
            seconds = None if seconds is None else round(seconds, 1)
            event = Event(kind=EventKind.LEASE_LOST, cause=cause, reason=reason, seconds=seconds)
            self._tell(event)

    def doubts(self, now: float) -> list[str]:
        """Return why the daemon may be taken for dead."""
        if self._cluster is None:
            return ["the daemon is not registered yet"]
        silent_s = now - self._answered_at
        if self._lost or now >= self._ends_at:
            return [f"the lease has ended: no word of the metadata service for {silent_s:.1f} s"]
        return []
