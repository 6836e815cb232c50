"""The metadata service's metrics, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cosco.metadata.service.limits.tenant_calls import TENANT_CALLS
from cosco.metadata.service.polls import Waiter
from cosco.metadata.state.daemons.daemon_table import DAEMONS
from cosco.metadata.state.state import StateCounts
from cosco.metadata.state.waiting_calls import WAITING_BYTES, WAITING_CALLS, Waiting
from cosco.metadata.store.database import Measures
from cosco.process.native_grpc.server import CALLS, PEER_BOUNDS
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import DaemonState

#: Who holds a lease that has run out, by what is told of it.
_HOLDERS: Final = {
    EventKind.DAEMON_DIED: "daemon",
    EventKind.EXCHANGE_CLOSED: "exchange",
    EventKind.GROUP_CLOSED: "group",
    EventKind.APPLICATION_CLOSED: "application",
}
_SECONDS: Final = [0.0005 * 2**n for n in range(16)]  # 0.5 ms … 16 s


class MetadataMetrics:
    """Counters of one metadata service in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cosco_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cosco_{name}", text, labels, registry=self.registry)

        self.exchanges = gauge("exchanges", "Exchanges, open or closing", "state")
        self.groups = gauge("groups", "Open groups of exchanges")
        self.applications = gauge("applications", "Open applications")
        self.daemons = gauge("daemons", "Daemons that live, or that open exchanges name", "state")
        self.commits = counter("commits", "Commits, by whether the attempt counts", "won")
        self.losses = counter("losses", "Losses of rows of partition ranges", "cause")
        self.rebuilds = counter("rebuilds", "Losses whose mappers have all committed again")
        self.ranges_moved = counter("ranges_moved", "Partition ranges that began another epoch")
        self.leases_expired = counter("leases_expired", "Leases that ran out", "holder")
        self.events = counter("events", "Events, as the log has them", "event")
        self.journal_write_seconds = Histogram(
            "cosco_journal_write_seconds",
            "Times of transactions of the database",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.journal_rows = counter("journal_rows", "Rows written to the database")
        self.journal_failures = counter("journal_failures", "Transactions that failed")
        self.journal_waiting_rows = gauge(
            "journal_waiting_rows", "Rows that wait for the next transaction"
        )
        self.waiting_calls = gauge("waiting_calls", "Long polls under way")
        self.waiting_bytes = gauge("waiting_bytes", "What long polls under way hold in memory")
        self.refused = counter(
            "refused", "Calls and connections refused or ended, by the bound", "bound"
        )
        for bound in (WAITING_CALLS, WAITING_BYTES, CALLS, DAEMONS, TENANT_CALLS, *PEER_BOUNDS):
            self.refused.labels(bound)
        for cause in ("gone", "missing"):
            self.losses.labels(cause)
        for holder in _HOLDERS.values():
            self.leases_expired.labels(holder)

    def committed(self) -> dict[bool, Callable[[], object]]:
        """Return what counts a commit, by whether the attempt counts."""
        return {won: self.commits.labels(str(won).lower()).inc for won in (True, False)}

    def database_measures(self) -> Measures:
        """Return what takes the figures of transactions."""
        failures = self.journal_failures.inc
        return Measures(self.journal_write_seconds.observe, self.journal_rows.inc, failures)

    def count_refused(self, bound: str) -> None:
        """Count a call that was refused for a bound."""
        self.refused.labels(bound).inc()

    def count_event(self, event: Event) -> None:
        """Count an event, and what follows from it."""
        kind = event.kind
        self.events.labels(kind.label).inc(event.times)
        if kind is EventKind.ROWS_LOST:
            self.losses.labels(event.cause).inc(event.count)
        elif kind is EventKind.REBUILT:
            self.rebuilds.inc(event.count)
        elif kind is EventKind.RANGES_MOVED:
            self.ranges_moved.inc(event.count)
        if event.cause == "lease" and kind in _HOLDERS:
            self.leases_expired.labels(_HOLDERS[kind]).inc(event.times)

    def observe(self, counts: StateCounts, waiting: Waiting[Waiter]) -> None:
        """Take how much there is now."""
        self.exchanges.labels("open").set(counts.open)
        self.exchanges.labels("closing").set(counts.closing)
        self.groups.set(counts.groups)
        self.applications.set(counts.applications)
        for state in DaemonState:
            self.daemons.labels(state.name.lower()).set(counts.daemons[state])
        self.journal_waiting_rows.set(counts.waiting_rows)
        self.waiting_calls.set(len(waiting))
        self.waiting_bytes.set(waiting.held_bytes)
        for bound, times in waiting.refused.items():
            self.refused.labels(bound).inc(times)
        waiting.refused.clear()
