"""What the metadata service knows and decides: one class, free of IO and of clocks.

Times (`now`) are seconds of one monotonic clock. Deadlines are kept in memory only. What
must survive a restart is named in a `ChangeLog`; an answer may leave once `drain_changes` of
everything before it is in the database. The same holds for what `drain_fences` gives.

An exchange is open, then closing, then only a used id. Ids that are neither open nor closing
are not in memory: before a call that names such an id (`knows` says so) the caller asks the
database whether it was ever used and passes that as `used`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pyroaring import BitMap

from cosco.errors import ExchangeExists
from cosco.metadata.state.daemons.errands import Fence, ProbeOutcome
from cosco.metadata.state.daemons.lifecycle import Lifecycle
from cosco.metadata.state.daemons.members import Members
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_checks import check_generation
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.groups.group_table import Groups
from cosco.metadata.state.records.changes import Change, ChangeLog, Stored
from cosco.metadata.state.restore import restore_exchanges
from cosco.protocol.api_limits import check_owner, check_spec, shown
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.keys import AssignmentKey, RangeKey
from cosco.protocol.records import (
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonStatus,
    DriverOrders,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeSpec,
    ExchangeStatus,
    LossReport,
    OpenedAttempt,
    RenewedAssignments,
    RowKind,
)

#: Ticks come so often; one that comes STALL_S later than that tells of a stall.
TICK_S = 0.5
STALL_S = 1.0
#: `status` lists so many exchanges, the newest.
MAX_STATUS_EXCHANGES = 1000


class MetadataState:
    """The state of one cluster. Any method may raise InvalidArgument for its arguments."""

    def __init__(
        self,
        stored: Stored,
        *,
        daemon_lease_s: float,
        ranges_per_daemon: int,
        adoption_grace_s: float = 10.0,
        now: float,
    ) -> None:
        """Go on with what is `stored`; every lease, and every grace, begins in full now."""
        self.cluster_id = stored.cluster_id
        self._changes = ChangeLog()
        exchanges = restore_exchanges(stored.tables, self._changes)
        self._members = Members(
            stored,
            exchanges,
            self._changes,
            lease_s=daemon_lease_s,
            adoption_grace_s=adoption_grace_s,
            ranges_per_daemon=ranges_per_daemon,
            now=now,
        )
        self._failover = self._members.failover
        self._exchanges = Directory(exchanges, stored.next_number, self._members.closing)
        self._lifecycle = Lifecycle(self._exchanges, self._members, self._changes)
        #: For whoever calls the state to call as well.
        self.groups = Groups(
            stored.tables, self._exchanges, self._members, self._lifecycle, self._changes, now
        )
        for exchange in exchanges.values():
            if self.groups.id_of(exchange.number) is None:
                self._exchanges.renew(exchange, now)
            self._failover.opened(exchange)
        self._failover.resume()
        self._last_tick = now

    # --- the database ----------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether something is not taken yet."""
        return bool(self._changes)

    def drain_changes(self) -> list[Change]:
        """What changed since the last call, to be written in one transaction, in order."""
        return self._changes.drain()

    def knows(self, shuffle_id: str) -> bool:
        """Whether an exchange of this id is open or closing."""
        return self._exchanges.knows(shuffle_id)

    # --- time ------------------------------------------------------------------------------

    def tick(self, now: float) -> list[int]:
        """Let leases run out; returns the numbers of the exchanges that this closed.

        To be called every TICK_S. After a stall everyone gets a full period first.
        """
        if self._has_stalled(now):
            return []
        self._last_tick = now
        self._members.tick(now)
        closed = self._exchanges.expire(now)
        for number in closed:
            self._close(self._exchanges.get(number))
        return closed + self.groups.expire(now)

    # --- daemons ---------------------------------------------------------------------------

    def register(self, registration: DaemonRegistration, now: float) -> DaemonOrders:
        """Take a daemon in. It is told to drop every closed exchange it lists."""
        return self._members.register(
            registration, self._exchanges.over(registration.exchanges), now
        )

    def heartbeat(self, heartbeat: DaemonHeartbeat, now: float) -> DaemonOrders:
        """Renew a daemon's lease and take what it says, if it is known."""
        over = self._exchanges.over(heartbeat.exchanges)
        return self._members.heartbeat(heartbeat, over, now)

    def drain(self, address: str) -> None:
        """Move everything away from the daemon at an address, and never give it anything.

        Raises InvalidArgument when no live daemon is there.
        """
        self._members.drain(address)

    def report_daemon(
        self,
        suspect: DaemonRef,
        reporter: int,
        insist: bool,
        now: float,
        keys: Iterable[AssignmentKey] = (),
    ) -> bool:
        """Somebody cannot reach a daemon: it is asked, unless it is known to be dead (False).

        reporter: incarnation of the daemon that reports, 0 for a client.
        insist: it was reported and said to be alive; if it answers again, assignments move
            away from it: those that `reporter` replicates to it, for a client those of `keys`.
        The report is to be answered with `is_live` when `is_probed` is not true any more.
        """
        return self._members.report(suspect, reporter, insist, keys)

    def is_probed(self, incarnation: int) -> bool:
        """Whether a daemon is being asked who is there, or will be."""
        return self._members.is_probed(incarnation)

    def is_live(self, incarnation: int) -> bool:
        """Whether a daemon is believed to live."""
        return self._members.is_live(incarnation)

    def probed(self, incarnation: int, outcome: ProbeOutcome, now: float) -> None:
        """How a daemon answered that `drain_probes` gave."""
        self._has_stalled(now)
        self._members.probed(incarnation, outcome, now)

    def fenced(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        """A daemon takes nothing more for these assignments."""
        self._failover.fenced(incarnation, keys)

    def fence_failed(self, incarnation: int) -> None:
        """A fence did not reach its daemon; it will be taken again."""
        self._members.fence_failed(incarnation)

    # --- what is to be done for the state --------------------------------------------------

    @property
    def has_errands(self) -> bool:
        """Whether there are probes or fences to take."""
        return self._members.has_probes or self._failover.has_fences

    def drain_probes(self) -> list[DaemonRef]:
        """The daemons to ask now who is there; for each, `probed` must follow."""
        return self._members.drain_probes()

    def drain_fences(self) -> list[Fence]:
        """What to tell daemons to seal, once everything changed until now is durable; for
        each, `fenced` or `fence_failed` must follow."""
        return self._failover.drain_fences()

    def drain_begun(self) -> list[RangeKey]:
        """The (number, range index) that were given another epoch since the last call."""
        return self._failover.drain_begun()

    def lookup_assignment(
        self, number: int, range_index: int, epoch: int, incarnation: int
    ) -> FoundAssignment | None:
        """The assignment, if it is in force and this daemon's.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        exchange = self._exchanges.get(number)
        assignment = exchange.assignment(range_index, epoch)
        if assignment is None or not assignment.names(incarnation):
            return None
        return self.groups.found(exchange, assignment)

    def renew_assignments(
        self, number: int, generation: int, stale: Collection[tuple[int, int]]
    ) -> RenewedAssignments:
        """What has followed the (range, epoch) pairs `stale`.

        `alive` if one of them is still in force, so that it should be tried again;
        `waiting_for` if one of them has ended and has no successor yet. Raises
        ExchangeNotFound, ExchangeClosed, GenerationChanged or InvalidArgument.
        """
        exchange = self._exchanges.get(number)
        check_generation(exchange.spec, generation, exchange.generation)
        return self._failover.renewed(exchange, stale)

    # --- drivers ---------------------------------------------------------------------------

    def create_exchange(
        self, spec: ExchangeSpec, owner: bytes, now: float, *, used: bool, callback: bool = False
    ) -> ExchangeInfo:
        """Create an exchange, or answer the repeated call that created it.

        callback: its driver can have mappers run again.
        Raises ExchangeExists when the id was ever used, CapacityExceeded without daemons.
        """
        check_spec(spec)
        check_owner(owner)
        exchange = self._exchanges.opened(spec.shuffle_id)
        if exchange is None or exchange.mappers or (exchange.spec, exchange.owner) != (spec, owner):
            if used or self.knows(spec.shuffle_id) or self.groups.reserves(spec.shuffle_id):
                raise ExchangeExists(
                    f"exchange {shown(spec.shuffle_id)} exists or existed, or is for a group to "
                    "make; ids are used once: take another, or attach to it",
                    shuffle_id=spec.shuffle_id,
                )
            turn = self._exchanges.next_number - 1
            ranges, placed = self._members.first_epochs(spec, turn)
            exchange = self._lifecycle.open(spec, owner, ranges, placed, callback=callback)
        self._exchanges.renew(exchange, now)
        return exchange.info()

    def describe_exchange(
        self, shuffle_id: str, owner: bytes, now: float, *, used: bool, callback: bool = False
    ) -> ExchangeInfo:
        """An open exchange; a non-empty `owner` becomes its driver, with or without a callback.

        Raises ExchangeNotFound, ExchangeClosed, or InvalidArgument where it has none of its own.
        """
        exchange = self._exchanges.of(shuffle_id, used=used)
        if owner:
            check_owner(owner)
            self.groups.check_single(exchange)
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
        exchange.check_driver(owner)
        self._exchanges.renew(exchange, now)
        exchange.answer_calls(arranged, failed)
        return DriverOrders(exchange.calls())

    def news(self, number: int) -> int:
        """Changes with what readers and the driver are told, other than of commits."""
        return self._exchanges.get(number).news

    def lease_s(self, number: int) -> float:
        """The lease of an open exchange; raises ExchangeNotFound or ExchangeClosed."""
        return self._exchanges.get(number).spec.lease_s

    def close_exchange(self, shuffle_id: str, *, used: bool) -> int | None:
        """Close an exchange; returns its number, None if it was closed already.

        Raises ExchangeNotFound.
        """
        exchange = self._exchanges.find(shuffle_id, used=used)
        if exchange is None:
            return None
        self._close(exchange)
        return exchange.number

    def progress(self, number: int) -> ExchangeProgress:
        """Raises ExchangeNotFound or ExchangeClosed."""
        exchange = self._exchanges.get(number)
        return exchange.progress(self._failover.replicas(exchange))

    # --- writers and readers ---------------------------------------------------------------

    def fencing(self, shuffle_id: str) -> tuple[int, list[int]]:
        """The number of an exchange, and those of its ranges that are about to begin another
        epoch: a new writer had better wait for it. None of one that is not open."""
        exchange = self._exchanges.opened(shuffle_id)
        if exchange is None:
            return 0, []
        return exchange.number, self._failover.fencing(exchange.number)

    def open_attempt(self, shuffle_id: str, mapper: int | None, *, used: bool) -> OpenedAttempt:
        """A new attempt of `mapper`; None: of the lowest mapper that was never opened.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        return self._exchanges.of(shuffle_id, used=used).open_attempt(mapper)

    def fix_row_kind(self, number: int, kind: RowKind, schema: bytes) -> ExchangeInfo:
        """Decide what the exchange's rows are, if it is open still.

        Raises SchemaMismatch when it was decided otherwise, ExchangeNotFound or
        ExchangeClosed.
        """
        exchange = self._exchanges.get(number)
        exchange.fix_row_kind(kind, schema)
        return exchange.info()

    def commit(self, request: CommitRequest) -> bool:
        """Whether this attempt is the one of its mapper that counts.

        Raises ExchangeNotFound, ExchangeClosed, GenerationChanged or PartitionOutOfRange.
        """
        won = (exchange := self._exchanges.get(request.number)).commit(request)
        self.groups.told(exchange)
        return won

    def await_commits(
        self, number: int, mappers: BitMap, partition: int, generation: int, now: float
    ) -> CommitWait:
        """A snapshot of `partition` if all `mappers` have committed, else those missing.

        Raises ExchangeNotFound, ExchangeClosed, GenerationChanged, PartitionOutOfRange,
        DataLost, DataCorrupted or RecomputeMismatch.
        """
        self._has_stalled(now)
        return self._exchanges.get(number).await_commits(
            mappers, partition, generation, lambda placed: self._members.sources(placed, now)
        )

    def report_loss(self, report: LossReport) -> None:
        """A reader has asked everybody and misses rows; stale reports change nothing.

        Raises ExchangeNotFound, ExchangeClosed or PartitionOutOfRange.
        """
        exchange = self._exchanges.get(report.number)
        for index in exchange.report_loss(report):
            self._failover.seal(exchange, index)
        self.groups.told(exchange)

    # --- people ----------------------------------------------------------------------------

    def status(self) -> tuple[tuple[DaemonStatus, ...], tuple[ExchangeStatus, ...]]:
        """All daemons, and the newest exchanges by number."""
        opened = self._exchanges.open
        closing = {status.number: status for status in self._members.closing.status()}
        newest = sorted((*opened, *closing))[-MAX_STATUS_EXCHANGES:]
        exchanges = tuple(opened[n].status() if n in opened else closing[n] for n in newest)
        return self._members.status(), exchanges

    # --- inside ----------------------------------------------------------------------------

    def _has_stalled(self, now: float) -> bool:
        """Whether ticks failed to come: then every period begins anew, before one can end."""
        stalled = now - self._last_tick > TICK_S + STALL_S
        if stalled:
            self._last_tick = now
            self._exchanges.restart_leases(now)
            self.groups.restart_leases(now)
            self._members.stalled(now)
        return stalled

    def _close(self, exchange: ExchangeState) -> None:
        self._lifecycle.close(exchange)
        self.groups.closed(exchange.number)
