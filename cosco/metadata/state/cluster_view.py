"""What people are shown of the cluster beside its exchanges: lists by pages, and figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest
from typing import NamedTuple

from pyroaring import BitMap

from cosco.metadata.state.applications.application_table import Applications
from cosco.metadata.state.daemons.daemon_lists import Wanted, by_incarnation, largest_first
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.closing import ClosingTable
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.groups.group_table import Groups
from cosco.metadata.state.records.changes import ChangeLog
from cosco.protocol.records import U64, Assignment, DaemonState, DaemonStatus, PartitionRange


class DaemonSums(NamedTuple):
    """How many daemons there are of each state, and their memory as `ClusterFigures` has it."""

    states: dict[DaemonState, int]
    memory_bytes: int
    free_bytes: int


class ClusterFigures(NamedTuple):
    """How much there is. memory_bytes, free_bytes: for rows, of the daemons that live."""

    open: int
    closing: int
    groups: int
    applications: int
    daemons: dict[DaemonState, int]
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One open group. exchanges: how many it has had; open: those that are open still."""

    group_id: str
    tenant: str
    exchanges: int
    open: int
    partitions: int
    replicas: int
    mappers: int
    lease_s: float
    heard_s: float
    lease_left_s: float


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One open application. exchanges: how many of its own are open."""

    application_id: str
    number: int
    tenant: str
    exchanges: int
    lease_s: float
    heard_s: float
    lease_left_s: float


class RangePlace(NamedTuple):
    """Where a partition range is: its last epoch. `build`: its present one, which has no epoch yet
    if it is not that of `last`."""

    partition_range: PartitionRange
    last: Assignment
    build: int


class ClusterView:
    """Reads what the rest of the state keeps, and changes nothing.

    What is shown to a `tenant` is its own; None: everybody's.
    """

    def __init__(
        self,
        directory: Directory,
        closing: ClosingTable,
        members: Members,
        groups: Groups,
        applications: Applications,
        changes: ChangeLog,
    ) -> None:
        """changes: what is told there of exchanges is told with their tenants."""
        changes.tenant_of = self.tenant_of
        self._directory = directory
        self._closing = closing
        self._members = members
        self._groups = groups
        self._applications = applications

    def daemon_sums(self) -> DaemonSums:
        """Return how much there is of daemons, which is the same for all tenants."""
        states = self._members.count_by_state()
        memory_bytes, free_bytes = self._members.known.memory()
        return DaemonSums({state: states[state] for state in DaemonState}, memory_bytes, free_bytes)

    def figures(self, tenant: str | None, sums: DaemonSums | None = None) -> ClusterFigures:
        """Return how much there is. sums: what `daemon_sums` has just given, where this is asked
        for several tenants; None: it is asked."""
        states, memory_bytes, free_bytes = sums or self.daemon_sums()
        everybody = tenant is None
        return ClusterFigures(
            open=self._open(tenant),
            closing=len(self._closing) if everybody else 0,
            groups=_count((g.tenant for g in self._groups.open.values()), tenant),
            applications=_count((a.tenant for a in self._applications.open.values()), tenant),
            daemons=states,
            memory_bytes=memory_bytes,
            free_bytes=free_bytes,
        )

    def _open(self, tenant: str | None) -> int:
        if tenant is None:
            return len(self._directory.open)
        return self._directory.count_of(tenant)

    def totals(self) -> list[float]:
        """Return the figures of all daemons together by `figure_totals.TOTALS`."""
        return self._members.known.totals()

    def daemons(self, wanted: Wanted, after: int, limit: int) -> list[DaemonStatus]:
        """Return daemons by incarnation, those above `after`."""
        return by_incarnation(self._members.known.everyone(), wanted, after, limit)

    def largest_daemons(
        self, wanted: Wanted, order: str, skip: int, limit: int
    ) -> list[DaemonStatus]:
        """Return the daemons that have most of what `order` of ORDERS names, after the first
        `skip`."""
        return largest_first(self._members.known.everyone(), wanted, order, skip, limit)

    def has_daemon(self, address: str) -> bool:
        """Whether a live daemon has an address."""
        return self._members.known.has(address)

    def tenant_of(self, number: int) -> str:
        """Return whose an exchange is; empty: nobody's, or nobody knows any more."""
        exchange = self._directory.open.get(number)
        if exchange is not None:
            return exchange.tenant
        kept = self._members.history.find_number(number)
        return "" if kept is None else kept.tenant

    def groups(self, after: str, limit: int, tenant: str | None, now: float) -> list[GroupStatus]:
        """Return groups by id, those after `after`."""
        wanted = (
            group_id
            for group_id, group in self._groups.open.items()
            if group_id > after and tenant in (None, group.tenant)
        )
        found = []
        for group_id in nsmallest(limit, wanted):
            group, age = self._groups.open[group_id], self._groups.lease_age(group_id, now)
            found.append(
                GroupStatus(
                    group_id=group_id,
                    tenant=group.tenant,
                    exchanges=group.exchanges,
                    open=len(group.open),
                    partitions=group.spec.partitions,
                    replicas=group.spec.replicas,
                    mappers=group.mappers,
                    lease_s=group.spec.lease_s,
                    heard_s=age.heard_s,
                    lease_left_s=age.left_s,
                )
            )
        return found

    def applications(
        self, after: int, limit: int, tenant: str | None, now: float
    ) -> list[ApplicationStatus]:
        """Return applications by number, those above `after`."""
        known = self._applications.open
        wanted = (
            number
            for number, one in known.items()
            if number > after and tenant in (None, one.tenant)
        )
        found = []
        for number in nsmallest(limit, wanted):
            one, age = known[number], self._applications.age(number, now)
            found.append(
                ApplicationStatus(
                    application_id=one.id,
                    number=number,
                    tenant=one.tenant,
                    exchanges=len(one.exchanges),
                    lease_s=one.lease_s,
                    heard_s=age.heard_s,
                    lease_left_s=age.left_s,
                )
            )
        return found

    def places(self, number: int, after: int, limit: int) -> list[RangePlace]:
        """Return where ranges of an open exchange are, those after index `after`; -1: from the
        first on. Raises ExchangeNotFound or ExchangeClosed."""
        exchange = self._directory.get(number)
        ranges = exchange.ranges[after + 1 : after + 1 + limit]
        return [RangePlace(r, exchange.current(r.index), exchange.build(r.index)) for r in ranges]

    def number_of(self, shuffle_id: str, *, used: bool) -> int:
        """Return the number of an open exchange; raises ExchangeNotFound or ExchangeClosed."""
        return self._directory.of(shuffle_id, used=used).number

    def partitions(self, shuffle_id: str) -> int:
        """Return how many partitions an open exchange has; 0: none that is open has this id."""
        exchange = self._directory.opened(shuffle_id)
        return 0 if exchange is None else exchange.spec.partitions

    def committed(self, number: int) -> BitMap:
        """Return the mappers of an open exchange that have committed, only to be read; raises
        ExchangeNotFound or ExchangeClosed."""
        return self._directory.get(number).attempts.committed_mappers

    def sizes(self, number: int) -> tuple[U64, U64]:
        """Return committed rows and their bytes before compression, by partition, only to be read;
        raises ExchangeNotFound or ExchangeClosed."""
        rows, raw_bytes, _, _ = self._directory.get(number).builds.sums
        return rows, raw_bytes


def _count(tenants: Iterable[str], tenant: str | None) -> int:
    return sum(tenant in (None, one) for one in tenants)
