"""What the metadata service knows and decides: one class, free of IO and of clocks.

Times (`now`) are seconds of one monotonic clock. Deadlines are kept in memory only. What
must survive a restart is named in a `ChangeLog`; an answer may leave once `take_changes` of
everything before it is in the database.

An exchange is open, then closing, then only a used id. Ids that are neither open nor closing
are not in memory: before a call that names such an id (`knows` says so) the caller asks the
database whether it was ever used and passes that as `used`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyroaring import BitMap

from cosco.errors import (
    CapacityExceeded,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
)
from cosco.metadata.changes import Change, ChangeLog, Stored
from cosco.metadata.closing import Closing, ClosingTable, Party
from cosco.metadata.daemons import DaemonTable
from cosco.metadata.exchanges import ExchangeState
from cosco.metadata.leases import Leases
from cosco.metadata.placement import Candidate, cut_ranges, place, range_count
from cosco.metadata.restore import restore_exchanges
from cosco.metadata.rows import Placed
from cosco.metadata.validate import check_owner, check_spec, shown
from cosco.records import (
    VOLATILE_STORE,
    Assignment,
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
    OpenedAttempt,
    PartitionRange,
    RowKind,
)

#: Ticks come so often; one that comes STALL_S later than that tells of a stall.
TICK_S = 0.5
STALL_S = 1.0
#: `status` lists so many exchanges, the newest.
MAX_STATUS_EXCHANGES = 1000

_OPEN_TABLES = ("exchanges", "counters", "ranges", "assignments", "sums", "mappers")


class MetadataState:
    """The state of one cluster. Any method may raise InvalidArgument for its arguments."""

    def __init__(
        self, stored: Stored, *, daemon_lease_s: float, ranges_per_daemon: int, now: float
    ) -> None:
        """Go on with what is `stored`; every lease begins a full period now."""
        self.cluster_id = stored.cluster_id
        self._daemon_lease_s = daemon_lease_s
        self._ranges_per_daemon = ranges_per_daemon
        self._next_number = stored.next_number
        self._changes = ChangeLog()
        self._daemons = DaemonTable(
            stored.tables.get("daemons", ()), self._changes, lease_s=daemon_lease_s, now=now
        )
        self._closing = ClosingTable(stored.tables.get("closing", ()), self._changes)
        self._open = restore_exchanges(stored.tables, self._changes)
        self._numbers = {e.spec.shuffle_id: number for number, e in self._open.items()}
        self._leases: Leases[int] = Leases()
        for exchange in self._open.values():
            self._renew(exchange, now)
            for ref in _members(exchange):
                self._daemons.assign(ref.incarnation)
        self._last_tick = now

    # --- the database ----------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether something is not taken yet."""
        return bool(self._changes)

    def take_changes(self) -> list[Change]:
        """What changed since the last call, to be written in one transaction, in order."""
        return self._changes.take()

    def knows(self, shuffle_id: str) -> bool:
        """Whether an exchange of this id is open or closing."""
        return shuffle_id in self._numbers or shuffle_id in self._closing

    # --- time ------------------------------------------------------------------------------

    def tick(self, now: float) -> list[int]:
        """Let leases run out; returns the numbers of the exchanges that this closed.

        To be called every TICK_S. After a stall everyone gets a full period first.
        """
        stalled = now - self._last_tick > TICK_S + STALL_S
        self._last_tick = now
        if stalled:
            self._leases.restart(now)
            self._daemons.restart_leases(now)
            return []
        for incarnation in self._daemons.expire(now):
            self._closing.died(incarnation)
        closed = self._leases.expire(now)
        for number in closed:
            self._close(self._open[number])
        return closed

    # --- daemons ---------------------------------------------------------------------------

    def register(self, registration: DaemonRegistration, now: float) -> DaemonOrders:
        """Take a daemon in. It is told to drop every closed exchange it lists."""
        came, superseded = self._daemons.register(registration, now)
        for incarnation in superseded:
            self._closing.died(incarnation)
        if came:
            self._closing.returned(registration.incarnation)
        drop = self._closing.orders(registration.incarnation, registration.store_id)
        drop.update(
            number
            for number in registration.exchanges
            if 0 < number < self._next_number and number not in self._open
        )
        return self._orders(drop)

    def heartbeat(self, heartbeat: DaemonHeartbeat, now: float) -> DaemonOrders:
        """Renew a daemon's lease and take its confirmations, if it is known."""
        daemon = self._daemons.heartbeat(heartbeat, now)
        if daemon is None:
            return self._orders((), known=False)
        self._closing.confirm(heartbeat.dropped, heartbeat.incarnation, daemon.store_id)
        return self._orders(self._closing.orders(heartbeat.incarnation, daemon.store_id))

    def lookup_assignment(
        self, number: int, range_index: int, epoch: int, incarnation: int
    ) -> tuple[Assignment, PartitionRange] | None:
        """The assignment, unless it is not this daemon's.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        exchange = self._exchange(number)
        assignment = exchange.assignment(range_index, epoch)
        if assignment is None or incarnation not in {
            ref.incarnation for ref in (assignment.primary, *assignment.replicas)
        }:
            return None
        return assignment, exchange.ranges[range_index]

    # --- drivers ---------------------------------------------------------------------------

    def create_exchange(
        self, spec: ExchangeSpec, owner: bytes, now: float, *, used: bool
    ) -> ExchangeInfo:
        """Create an exchange, or answer the repeated call that created it.

        Raises ExchangeExists when the id was ever used, CapacityExceeded without daemons.
        """
        check_spec(spec)
        check_owner(owner)
        number = self._numbers.get(spec.shuffle_id)
        if number is not None and (self._open[number].spec, self._open[number].owner) == (
            spec,
            owner,
        ):
            exchange = self._open[number]
        elif used or self.knows(spec.shuffle_id):
            raise ExchangeExists(
                f"exchange {shown(spec.shuffle_id)} exists or existed; ids are used once: "
                "take another, or attach to it",
                shuffle_id=spec.shuffle_id,
            )
        else:
            exchange = self._create(spec, owner)
        self._renew(exchange, now)
        return exchange.info()

    def describe_exchange(
        self, shuffle_id: str, owner: bytes, now: float, *, used: bool
    ) -> ExchangeInfo:
        """An open exchange; a non-empty `owner` becomes its driver.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        exchange = self._exchange_of(shuffle_id, used=used)
        if owner:
            check_owner(owner)
            exchange.take_over(owner)
            self._renew(exchange, now)
        return exchange.info()

    def poll_driver(self, number: int, owner: bytes, now: float) -> DriverOrders:
        """Renew the lease of an exchange for its current driver.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        exchange = self._exchange(number)
        exchange.check_driver(owner)
        self._renew(exchange, now)
        return DriverOrders()

    def lease_s(self, number: int) -> float:
        """The lease of an open exchange; raises ExchangeNotFound or ExchangeClosed."""
        return self._exchange(number).spec.lease_s

    def close_exchange(self, shuffle_id: str, *, used: bool) -> int | None:
        """Close an exchange; returns its number, None if it was closed already.

        Raises ExchangeNotFound.
        """
        number = self._numbers.get(shuffle_id)
        if number is None:
            if used or self.knows(shuffle_id):
                return None
            raise _not_found(shuffle_id)
        self._close(self._open[number])
        return number

    def progress(self, number: int) -> ExchangeProgress:
        """Raises ExchangeNotFound or ExchangeClosed."""
        return self._exchange(number).progress()

    # --- writers and readers ---------------------------------------------------------------

    def open_attempt(self, shuffle_id: str, mapper: int | None, *, used: bool) -> OpenedAttempt:
        """A new attempt of `mapper`; None: of the lowest mapper that was never opened.

        Raises ExchangeNotFound or ExchangeClosed.
        """
        return self._exchange_of(shuffle_id, used=used).open_attempt(mapper)

    def fix_row_kind(self, number: int, kind: RowKind, schema: bytes) -> ExchangeInfo:
        """Decide what the exchange's rows are, if it is open still.

        Raises SchemaMismatch when it was decided otherwise, ExchangeNotFound or
        ExchangeClosed.
        """
        exchange = self._exchange(number)
        exchange.fix_row_kind(kind, schema)
        return exchange.info()

    def commit(self, request: CommitRequest) -> bool:
        """Whether this attempt is the one of its mapper that counts.

        Raises ExchangeNotFound, ExchangeClosed, GenerationChanged or PartitionOutOfRange.
        """
        return self._exchange(request.number).commit(request)

    def await_commits(
        self, number: int, mappers: BitMap, partition: int, generation: int
    ) -> CommitWait:
        """A snapshot of `partition` if all `mappers` have committed, else those missing.

        Raises ExchangeNotFound, ExchangeClosed, GenerationChanged or PartitionOutOfRange.
        """
        return self._exchange(number).await_commits(
            mappers, partition, generation, self._daemons_of
        )

    # --- people ----------------------------------------------------------------------------

    def status(self) -> tuple[tuple[DaemonStatus, ...], tuple[ExchangeStatus, ...]]:
        """All daemons, and the newest exchanges by number."""
        exchanges = [e.status() for e in self._open.values()] + self._closing.status()
        exchanges.sort(key=lambda status: status.number)
        return self._daemons.status(), tuple(exchanges[-MAX_STATUS_EXCHANGES:])

    # --- inside ----------------------------------------------------------------------------

    def _orders(self, drop: Iterable[int], *, known: bool = True) -> DaemonOrders:
        return DaemonOrders(known, self.cluster_id, self._daemon_lease_s, tuple(sorted(drop)))

    def _exchange(self, number: int) -> ExchangeState:
        exchange = self._open.get(number)
        if exchange is not None:
            return exchange
        if 0 < number < self._next_number:
            raise ExchangeClosed(
                f"exchange number {number} was closed, or its driver's lease ran out"
            )
        raise ExchangeNotFound(f"there is no exchange number {number}; create it first")

    def _exchange_of(self, shuffle_id: str, *, used: bool) -> ExchangeState:
        number = self._numbers.get(shuffle_id)
        if number is not None:
            return self._open[number]
        if used or self.knows(shuffle_id):
            raise ExchangeClosed(
                f"exchange {shown(shuffle_id)} was closed, or its driver's lease ran out",
                shuffle_id=shuffle_id,
            )
        raise _not_found(shuffle_id)

    def _renew(self, exchange: ExchangeState, now: float) -> None:
        self._leases.renew(exchange.number, exchange.spec.lease_s, now)

    def _create(self, spec: ExchangeSpec, owner: bytes) -> ExchangeState:
        candidates = self._daemons.candidates()
        ranges = cut_ranges(
            spec.partitions,
            range_count(spec.partitions, len(candidates), self._ranges_per_daemon),
        )
        try:
            placement = place(len(ranges), candidates, spec.replicas, self._next_number - 1)
        except CapacityExceeded as error:
            error.shuffle_id = spec.shuffle_id
            raise
        placed = [
            [self._place_first(part, primary, replicas)]
            for part, (primary, replicas) in zip(ranges, placement, strict=True)
        ]
        exchange = ExchangeState(self._next_number, spec, owner, ranges, placed, self._changes)
        self._next_number += 1
        self._open[exchange.number] = exchange
        self._numbers[spec.shuffle_id] = exchange.number
        for ref in _members(exchange):
            self._daemons.assign(ref.incarnation)
        exchange.put_all()
        return exchange

    def _place_first(
        self, part: PartitionRange, primary: Candidate, replicas: tuple[Candidate, ...]
    ) -> Placed:
        first, *others = (self._daemons.get(c.incarnation) for c in (primary, *replicas))
        return Placed(
            Assignment(part.index, 1, 1, first.ref, tuple(other.ref for other in others)),
            first.store_id,
        )

    def _close(self, exchange: ExchangeState) -> None:
        holders: dict[int, str] = {}
        for epochs in exchange.placed:
            for placed in epochs:
                holders[placed.assignment.primary.incarnation] = placed.store_id
                for ref in placed.assignment.replicas:
                    holders[ref.incarnation] = self._daemons.get(ref.incarnation).store_id
        pending: set[Party] = {s for s in holders.values() if not s.startswith(VOLATILE_STORE)}
        pending.update(i for i in holders if self._daemons.live(i) is not None)

        del self._open[exchange.number]
        del self._numbers[exchange.spec.shuffle_id]
        self._leases.forget(exchange.number)
        for table in _OPEN_TABLES:
            self._changes.delete(table, (exchange.number,))
        self._closing.begin(Closing(exchange.status(closing=True), holders, pending))
        for ref in _members(exchange):
            self._daemons.release(ref.incarnation)

    def _daemons_of(self, placed: Placed) -> tuple[DaemonRef, ...]:
        """Who serves what an assignment took: its primary while it lives, then its store's
        others; without any the primary all the same, as it may come back."""
        primary = placed.assignment.primary
        of_store = self._daemons.of_store(placed.store_id)
        if self._daemons.live(primary.incarnation) is not None:
            return primary, *(ref for ref in of_store if ref != primary)
        return tuple(of_store) or (primary,)


def _members(exchange: ExchangeState) -> Iterable[DaemonRef]:
    """Every daemon of every assignment, as often as it has one."""
    for epochs in exchange.placed:
        for placed in epochs:
            yield placed.assignment.primary
            yield from placed.assignment.replicas


def _not_found(shuffle_id: str) -> ExchangeNotFound:
    return ExchangeNotFound(
        f"there is no exchange {shown(shuffle_id)}; create it first, or correct the id",
        shuffle_id=shuffle_id,
    )
