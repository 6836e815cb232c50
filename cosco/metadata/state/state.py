"""What the metadata service knows and decides, free of IO and of clocks.

What daemons alone, moves of ranges alone, groups alone or applications alone decide is asked of
`members`, `failover`, `groups` and `applications` of the state; the rest of the state itself.

Times (`now`) are seconds of one monotonic clock. Deadlines are kept in memory only. What
must survive a restart is named in a `ChangeLog`; an answer may leave once `pop_changes` of
everything before it is in the database. The same holds for fences.

An exchange is open, then closing, then only a used id. Ids that are neither open nor closing
are not in memory: before a call that names such an id (`knows` says so) the caller asks the
database whether it was ever used and passes that as `used`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from pyroaring import BitMap

from cosco.errors import ExchangeExists
from cosco.metadata.state.access.exchange_access import ExchangeAccess
from cosco.metadata.state.applications.application_table import Applications
from cosco.metadata.state.cluster_view import ClusterView
from cosco.metadata.state.daemons.errands import ProbeOutcome
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.closing import ClosingTable
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_checks import check_generation
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.named_stores import ranges_with_stores, with_stores
from cosco.metadata.state.groups.group_table import Groups
from cosco.metadata.state.history.history import NO_HISTORY, HistoryBounds
from cosco.metadata.state.lost_stores import LostStores
from cosco.metadata.state.old_builds import OldBuilds
from cosco.metadata.state.overview import Overview
from cosco.metadata.state.records.capability_keys import CapabilityKeys
from cosco.metadata.state.records.changes import Change, ChangeLog, Stored
from cosco.metadata.state.restore import restore_exchanges
from cosco.protocol.api_limits import check_owner, check_spec, shown
from cosco.protocol.events import Event, EventKind, EventLog
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import (
    U32,
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRegistration,
    DaemonState,
    DriverOrders,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    LossReport,
    OpenedAttempt,
    RangesWait,
    RenewedAssignments,
    RowKind,
)

#: Time between ticks; one that comes STALL_S later than that tells of a stall.
TICK_S = 0.5
STALL_S = 1.0
#: A lease is renewed three times in its period, so one of at least this many stalls survives one.
STALLS_PER_LEASE = 4


class StateCounts(NamedTuple):
    """How much there is. waiting_rows: changed, and in no transaction yet."""

    open: int
    closing: int
    groups: int
    applications: int
    daemons: Counter[DaemonState]
    waiting_rows: int


class MetadataState:
    """The state of one cluster. Any method may raise InvalidArgument for its arguments."""

    def __init__(
        self,
        stored: Stored,
        *,
        daemon_lease_s: float,
        ranges_per_daemon: int,
        adoption_grace_s: float = 10.0,
        old_build_grace_s: float = 900.0,
        now: float,
        history: HistoryBounds = NO_HISTORY,
    ) -> None:
        """Go on with what is `stored`; every lease, and every grace, begins in full now."""
        self.cluster_id = stored.cluster_id
        self._changes = ChangeLog()
        exchanges = restore_exchanges(stored.tables, self._changes, stored.attempt_secret)
        keys = CapabilityKeys(stored.tables.get("capability_keys", ()), self._changes)
        self._closing = ClosingTable(stored.tables.get("closing", ()), self._changes)
        self._exchanges = Directory(exchanges, stored.next_number, self._closing)
        #: Called by whoever calls the state, like `failover`, `groups` and `applications`.
        self.members = Members(
            stored,
            keys,
            self._exchanges,
            self._closing,
            self._changes,
            lease_s=daemon_lease_s,
            adoption_grace_s=adoption_grace_s,
            ranges_per_daemon=ranges_per_daemon,
            now=now,
        )
        self.failover = self.members.failover
        self.groups = Groups(stored.tables, self._exchanges, self.members, keys, self._changes, now)
        self._old_builds = old_builds = OldBuilds(self._exchanges.open, old_build_grace_s)
        #: Called by whoever calls the state, as well.
        self.lost_stores = LostStores(self._exchanges, self.members, old_builds, self.groups.told)
        self.applications = Applications(
            stored.tables, self._exchanges, self.members, self._changes, now
        )
        parts = self.members, self.groups, self.applications
        self.access = ExchangeAccess(keys, self._exchanges, *parts)
        self.overview = Overview(self._exchanges, self._closing, *parts)
        self.view = ClusterView(self._exchanges, self._closing, *parts, self._changes)
        for exchange in exchanges.values():
            number = exchange.number
            if self.groups.id_of(number) is None and self.applications.id_of(number) is None:
                self._exchanges.renew(exchange, now)
            self.failover.opened(exchange)
            self._old_builds.lost(exchange)
        self.failover.resume()
        self._last_tick = now
        self.members.history.begin(history, now)

    # --- the database ----------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether something is not taken yet."""
        return bool(self._changes)

    def pop_changes(self) -> list[Change]:
        """Return what changed since the last call, to be written in one transaction, in order."""
        return self._changes.pop_all()

    def knows(self, shuffle_id: str) -> bool:
        """Whether an exchange of this id is open or closing."""
        return self._exchanges.knows(shuffle_id)

    def is_open(self, number: int) -> bool:
        """Whether an exchange is open."""
        return number in self._exchanges.open

    @property
    def events(self) -> EventLog:
        """What operators are told, once what changed until it was taken is durable."""
        return self._changes.events

    # --- time ------------------------------------------------------------------------------

    def tick(self, now: float) -> list[int]:
        """Let leases run out.

        Returns: the numbers of the exchanges that this closed.

        To be called every TICK_S. After a stall everyone gets a full period first.
        """
        if self._has_stalled(now):
            return []
        self._last_tick = now
        self.members.tick(now)
        self._old_builds.tick(now)
        closed = self._exchanges.expire(now)
        for number in closed:
            self._close(self._exchanges.get(number), "lease")
        return closed + self.groups.expire(now) + self.applications.expire(now)

    def restart_periods(self, now: float, stall_s: float = math.inf) -> None:
        """Begin leases and graces in full, as nobody was answered for `stall_s`.

        Not those of which that is a small part: whoever lives has renewed them all the same, and on
        a database that is always slow nobody would ever be found dead.
        """
        longest_s = STALLS_PER_LEASE * stall_s
        self._exchanges.restart_leases(now, longest_s)
        self.groups.restart_leases(now, longest_s)
        self.applications.restart_leases(now, longest_s)
        self.members.stalled(now, longest_s)
        self._old_builds.restart_graces(now, longest_s)

    # --- daemons ---------------------------------------------------------------------------

    def register(self, registration: DaemonRegistration, now: float) -> DaemonOrders:
        """Take a daemon in. It is told to drop every closed exchange it lists."""
        return self.members.register(
            registration, self._exchanges.over(registration.exchanges), now
        )

    def heartbeat(self, heartbeat: DaemonHeartbeat, now: float) -> DaemonOrders:
        """Renew a daemon's lease and take what it says, if it is known."""
        over = self._exchanges.over(heartbeat.exchanges)
        orders = self.members.heartbeat(heartbeat, over, now)
        return self._old_builds.answer(orders, heartbeat)

    def probed(self, incarnation: int, outcome: ProbeOutcome, now: float) -> None:
        """Take how a daemon answered that `members.pop_probes` gave."""
        self._has_stalled(now)
        self.members.probed(incarnation, outcome, now)

    @property
    def has_errands(self) -> bool:
        """Whether `members` has probes or claims to drain, or `failover` fences."""
        members = self.members
        return members.has_probes or members.has_claims or self.failover.has_fences

    def lookup_assignment(
        self, number: int, range_index: int, epoch: int, incarnation: int
    ) -> FoundAssignment | None:
        """Return the assignment, if it is in force and this daemon's.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        exchange = self._exchanges.get(number)
        assignment = exchange.assignment(range_index, epoch)
        if assignment is None or not assignment.names(incarnation):
            return None
        return self.groups.found(exchange, assignment)

    def renew_assignments(
        self, number: int, generation: int, stale: Collection[RangeEpoch]
    ) -> RenewedAssignments:
        """Return what has followed the epochs `stale` of ranges.

        `alive` if one of them is still in force, so that it should be tried again;
        `waiting_for` if one of them has ended and has no successor yet. Raises
        ExchangeNotFound, ExchangeClosed, GenerationChanged or InvalidArgument.
        """
        exchange = self._exchanges.get(number)
        check_generation(exchange.spec, generation, exchange.generation)
        return self.failover.renewed(exchange, stale)

    # --- drivers ---------------------------------------------------------------------------

    def create_exchange(
        self,
        spec: ExchangeSpec,
        owner: bytes,
        now: float,
        *,
        used: bool,
        callback: bool = False,
        application_id: str = "",
        tenant: str = "",
    ) -> ExchangeInfo:
        """Create an exchange, or answer the repeated call that created it.

        callback: its driver can have mappers run again. application_id: of which it is, if any.
        Raises ExchangeExists when the id was ever used, CapacityExceeded without daemons, and what
        its application is refused with.
        """
        check_spec(spec)
        check_owner(owner)
        if application_id:
            self.applications.check_spec(application_id, owner, spec)
        exchange = self._exchanges.opened(spec.shuffle_id)
        tenant = self.applications.tenant_of(application_id) or tenant  # an admin may make it
        made = spec, owner, application_id, tenant
        if exchange is None or not self._is_repeated(exchange, made):
            if used or self.knows(spec.shuffle_id) or self.groups.reserves(spec.shuffle_id):
                raise ExchangeExists(
                    f"exchange {shown(spec.shuffle_id)} exists or existed, or is for a group to "
                    "make; ids are used once: take another, or attach to it",
                    shuffle_id=spec.shuffle_id,
                )
            turn = self._exchanges.next_number - 1
            ranges, placed = self.members.first_epochs(spec, turn)
            exchange = self.members.open_exchange(
                spec, owner, ranges, placed, callback=callback, tenant=tenant
            )
            self._changes.tell(exchange.event(EventKind.EXCHANGE_CREATED))
        if application_id:
            self.applications.add(application_id, owner, exchange, now)
        else:
            self._exchanges.renew(exchange, now)
        return exchange.info()

    def describe_exchange(
        self, shuffle_id: str, owner: bytes, now: float, *, used: bool, callback: bool = False
    ) -> ExchangeInfo:
        """Return an open exchange; an `owner` that is not empty becomes its driver.

        Raises ExchangeNotFound, ExchangeClosed, or InvalidArgument where it has none of its own.
        """
        exchange = self._exchanges.of(shuffle_id, used=used)
        if owner:
            check_owner(owner)
            self.groups.check_single(exchange)
            self.applications.remove(exchange.number)
            exchange.take_over(owner, callback)
            self._exchanges.renew(exchange, now)
        return exchange.info()

    def poll_driver(
        self,
        number: int,
        owner: bytes,
        now: float,
        arranged: Iterable[int] = (),
        failed: Iterable[tuple[int, str]] = (),
    ) -> DriverOrders:
        """Renew the lease of an exchange for its current driver, who has answered losses.

        Raises ExchangeNotFound, ExchangeClosed or InvalidArgument.
        """
        exchange = self._exchanges.get(number)
        self.groups.check_single(exchange)
        self.applications.check_single(exchange)
        exchange.check_driver(owner)
        self._exchanges.renew(exchange, now)
        exchange.losses.answer(arranged, failed)
        return DriverOrders(exchange.losses.calls())

    def news(self, number: int) -> int:
        """Return what changes with what readers and the driver are told, other than of commits."""
        return self._exchanges.get(number).losses.news

    def lease_s(self, number: int) -> float:
        """Return the lease of an open exchange; raises ExchangeNotFound or ExchangeClosed."""
        return self._exchanges.get(number).spec.lease_s

    def close_exchange(self, shuffle_id: str, *, used: bool, owner: bytes = b"") -> int | None:
        """Close an exchange.

        owner: if not empty, it must own the exchange.

        Returns: its number, None if it was closed already.

        Raises ExchangeNotFound, or InvalidArgument if another driver has it.
        """
        exchange = self._exchanges.find(shuffle_id, used=used)
        if exchange is None:
            return None
        if owner:
            exchange.check_driver(owner)
        self._close(exchange, "asked")
        return exchange.number

    def progress(self, number: int) -> ExchangeProgress:
        """Return how far an exchange is; raises ExchangeNotFound or ExchangeClosed."""
        exchange = self._exchanges.get(number)
        return exchange.progress(self.failover.replicas(exchange))

    # --- writers and readers ---------------------------------------------------------------

    def fencing(self, shuffle_id: str) -> tuple[int, list[int]]:
        """Return the number of an exchange, and its ranges that are about to begin another epoch.

        A new writer had better wait for them. There are none where the exchange is not open.
        """
        exchange = self._exchanges.opened(shuffle_id)
        if exchange is None:
            return 0, []
        return exchange.number, self.failover.fencing(exchange.number)

    def open_attempt(self, shuffle_id: str, mapper: int | None, *, used: bool) -> OpenedAttempt:
        """Begin an attempt of `mapper`; None: of the lowest mapper that was never opened.

        Raises ExchangeNotFound, ExchangeClosed or CapacityExceeded.
        """
        return self._exchanges.to_write(shuffle_id, used=used).open_attempt(mapper)

    def fix_row_kind(
        self, number: int, kind: RowKind, schema: bytes, seen: bytes | None = None
    ) -> ExchangeInfo:
        """Decide what the exchange's rows are, if it is open still.

        Returns: the exchange with what was decided, which with `seen` may be something else.

        Raises SchemaMismatch when it was decided otherwise, ExchangeNotFound or
        ExchangeClosed.
        """
        exchange = self._exchanges.get(number)
        exchange.fix_row_kind(kind, schema, seen)
        return exchange.info()

    def commit(self, request: CommitRequest) -> bool:
        """Take a commit.

        Returns: whether this attempt is the one of its mapper that counts.

        Raises ExchangeNotFound, ExchangeClosed, GenerationChanged or PartitionOutOfRange.
        """
        won = (exchange := self._exchanges.get(request.number)).commit(request)
        self.groups.told(exchange)
        return won

    def await_commits(
        self, number: int, mappers: BitMap, partition: int, generation: int, now: float
    ) -> CommitWait:
        """Return a snapshot of `partition` if all `mappers` have committed, else those missing.

        Raises ExchangeNotFound, ExchangeClosed, GenerationChanged, PartitionOutOfRange,
        DataLost, DataCorrupted or RecomputeMismatch.
        """
        self._has_stalled(now)
        exchange = self._exchanges.get(number)
        wait = exchange.await_commits(
            mappers, partition, generation, lambda placed: self.members.sources(placed, now)
        )
        return with_stores(wait, exchange.spec, self.members.store_of)

    def await_ranges(
        self, number: int, mappers: BitMap, partitions: U32, generation: int, now: float
    ) -> RangesWait:
        """Return snapshots of those of `partitions`, which ascend, whose mappers have committed.

        Raises what `await_commits` does; see `ExchangeState.await_ranges`.
        """
        self._has_stalled(now)
        exchange = self._exchanges.get(number)
        wait = exchange.await_ranges(
            mappers, partitions, generation, lambda placed: self.members.sources(placed, now)
        )
        return ranges_with_stores(wait, exchange.spec, self.members.store_of)

    def report_loss(self, report: LossReport, now: float) -> None:
        """Take that a reader has asked everybody and misses rows; stale reports change nothing.

        Raises ExchangeNotFound, ExchangeClosed or PartitionOutOfRange.
        """
        self._has_stalled(now)
        self.lost_stores.reported(report, now)

    # --- people ----------------------------------------------------------------------------

    def forget_store(self, store_id: str) -> tuple[int, list[int]]:
        """Wait no more for a store that is gone for good; repeatable.

        Returns: how many closing exchanges waited for nothing else, and the open exchanges, for
        each of which `lost_stores.lose_with` must follow.
        Raises InvalidArgument for a store that a live daemon serves, or nobody has heard of.
        """
        done = self.members.forgotten.add(store_id)
        self._exchanges.forget_stored(self.members.known.starts_on(store_id))
        return done, list(self._exchanges.open)

    def counts(self) -> StateCounts:
        """Return how much there is."""
        return StateCounts(
            open=len(self._exchanges.open),
            closing=len(self._closing),
            groups=len(self.groups),
            applications=len(self.applications),
            daemons=self.members.count_by_state(),
            waiting_rows=len(self._changes),
        )

    # --- inside ----------------------------------------------------------------------------

    def _has_stalled(self, now: float) -> bool:
        """Whether ticks failed to come: then every period begins anew, before one can end."""
        stalled = now - self._last_tick > TICK_S + STALL_S
        if stalled:
            seconds = round(now - self._last_tick, 1)
            self._changes.tell(Event(kind=EventKind.LEASES_RESTARTED, seconds=seconds))
            self._last_tick = now
            self.restart_periods(now)
        return stalled

    def _is_repeated(self, exchange: ExchangeState, made: tuple[Any, ...]) -> bool:
        """Whether a call that would make an exchange is the one that has made it."""
        belongs_to = self.applications.id_of(exchange.number) or ""
        was_made = exchange.spec, exchange.owner, belongs_to, exchange.tenant
        return not exchange.mappers and _are_same(made, was_made)

    def _close(self, exchange: ExchangeState, cause: str) -> None:
        self.members.close_exchange(exchange, cause)
        self.groups.closed(exchange.number)
        self.applications.remove(exchange.number)


def _are_same(made: tuple[Any, ...], was_made: tuple[Any, ...]) -> bool:
    """Whether two calls ask for the same exchange. The trace is no option: a service of the build
    before may not have kept it."""
    (spec, *rest), (kept, *others) = made, was_made
    return replace(spec, trace=kept.trace) == kept and rest == others
