"""The daemons' part of the state: who lives, what they are told, what follows when they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from cosco.errors import CapacityExceeded
from cosco.metadata.state.daemons.claims import Claim, Claims
from cosco.metadata.state.daemons.daemon_table import Daemon, DaemonTable
from cosco.metadata.state.daemons.errands import ProbeOutcome, Suspicions
from cosco.metadata.state.daemons.failover import Failover
from cosco.metadata.state.daemons.forgotten_stores import ForgottenStores
from cosco.metadata.state.daemons.placement import (
    cut_ranges,
    group_range_count,
    host_count,
    place,
    range_count,
)
from cosco.metadata.state.exchange.closing import Closing, ClosingTable, Party
from cosco.metadata.state.exchange.directory import Directory
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.history.ending import keep
from cosco.metadata.state.history.history import History
from cosco.metadata.state.records.capability_keys import CapabilityKeys
from cosco.metadata.state.records.changes import ChangeLog, Stored
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.events import Event, EventKind
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import (
    VOLATILE_STORE,
    Assignment,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
    ExchangeSpec,
    PartitionRange,
)


class Members:
    """All daemons of a cluster, and what depends on them: also where exchanges begin and end.

    `failover` is for the rest of the state to call as well.
    """

    def __init__(
        self,
        stored: Stored,
        keys: CapabilityKeys,
        directory: Directory,
        closing: ClosingTable,
        changes: ChangeLog,
        *,
        lease_s: float,
        adoption_grace_s: float,
        ranges_per_daemon: int,
        now: float,
    ) -> None:
        """The caller tells `failover` of the exchanges that are open already."""
        self._directory = directory
        self._closing = closing
        self._changes = changes
        self._cluster_id, self._attempt_secret = stored.cluster_id, stored.attempt_secret
        self._keys = keys
        self._lease_s = lease_s
        #: The time in which a dead daemon's store may be adopted.
        self.grace_s = adoption_grace_s
        self._ranges_per_daemon = ranges_per_daemon
        #: All daemons; others only read it.
        self.known = self._daemons = DaemonTable(
            stored.tables.get("daemons", ()), changes, lease_s=lease_s, now=now
        )
        self._suspicions, self._claims = Suspicions(), Claims()
        #: For the rest of the state to call as well, like `failover`.
        self.history = History(stored.tables.get("history", ()), changes)
        rows = stored.tables.get("forgotten_stores", ())
        self.forgotten = ForgottenStores(rows, self._daemons, closing, changes)
        self.failover = Failover(directory.open, self._daemons, now, changes.tell)

    def status(self, *, figures: bool = False) -> tuple[DaemonStatus, ...]:
        """Return all daemons, by address; with `figures` those that they told last."""
        return self._daemons.status(figures=figures)

    def count_by_state(self) -> Counter[DaemonState]:
        """Return how many daemons there are of each state."""
        return self._daemons.count_by_state()

    # --- time ------------------------------------------------------------------------------

    def stalled(self, now: float, longest_s: float) -> None:
        """Give every daemon a full lease, or grace, if leases are at most `longest_s`."""
        if self._lease_s <= longest_s:
            self._daemons.restart_leases(now)

    def tick(self, now: float) -> None:
        """Let leases run out, ask again those that did not answer, move what can be moved."""
        self.history.tick(now)
        self._died(self._daemons.expire(now))
        self._claims.expire(now)
        for daemon in self._daemons.silent_ones():
            self._suspicions.suspect(daemon.ref, {})
        self.failover.tick(now)

    def _died(self, incarnations: Collection[int]) -> None:
        for incarnation in incarnations:
            self._closing.died(incarnation)
        self.failover.died(incarnations)

    # --- what daemons say ------------------------------------------------------------------

    def has_room_for(self, ref: DaemonRef, daemons_max: int) -> bool:
        """Whether one more daemon may register if `daemons_max` may live at a time."""
        return self._daemons.has_room_for(ref, daemons_max)

    def claim(self, ref: DaemonRef) -> Claim:
        """Return whether a daemon that wants to register has its address to itself.

        Two daemons with one address would otherwise take each other for dead, again and again.
        ASKED: to be called again after `claim_answered`.
        """
        if not self._daemons.others_at(ref):
            self._claims.forget(ref.incarnation)
            return Claim.GRANTED
        outcome = self._claims.claim(ref)
        if outcome is Claim.TAKEN:
            kind, cause = EventKind.REGISTRATION_REFUSED, "address taken"
            self._changes.tell(
                Event(kind=kind, daemon=ref.address, incarnation=ref.incarnation, cause=cause)
            )
        return outcome

    def not_yet(self) -> DaemonOrders:
        """Return the answer to a daemon that is not taken in yet, and is to register again."""
        return self._orders((), known=False)

    @property
    def has_claims(self) -> bool:
        """Whether `pop_claims` has something to give."""
        return bool(self._claims)

    def pop_claims(self) -> list[DaemonRef]:
        """Return the daemons to ask who is at their address; `claim_answered` must follow."""
        return self._claims.pop_all()

    def claim_answered(self, ref: DaemonRef, found: int | None, now: float) -> None:
        """Take who answers at the address of a claimant: an incarnation, 0 if nobody listens
        there, None if nobody answered."""
        outcome = Claim.TAKEN
        if found is None:
            outcome = Claim.UNHEARD
        elif found in (0, ref.incarnation):
            outcome = Claim.GRANTED
        self._claims.answered(ref.incarnation, outcome, now)
        for other in self._daemons.others_at(ref):
            if found != other.ref.incarnation and outcome is not Claim.GRANTED:
                self._suspicions.suspect(other.ref, {})  # it does not answer there, either

    def register(
        self, registration: DaemonRegistration, over: Iterable[int], now: float
    ) -> DaemonOrders:
        """Take a daemon in. `over` are the exchanges that it lists and that are closed."""
        incarnation = registration.incarnation
        came, superseded = self._daemons.register(registration, now)
        daemon = self._daemons.get(incarnation)
        self.forgotten.registered(daemon)
        if came:
            self._closing.returned(incarnation)
        if came and daemon.named:
            self.failover.returned(daemon)
        self._died(superseded)
        if came:
            self.failover.arrived(now)
        if daemon.draining:
            self.failover.seal_all_of(incarnation)
        drop = self._closing.orders(incarnation, registration.store_id)
        return self._orders(
            drop.union(over), drain=daemon.draining, was_forgotten=daemon.was_forgotten
        )

    def heartbeat(
        self, heartbeat: DaemonHeartbeat, over: Iterable[int], now: float
    ) -> DaemonOrders:
        """Renew a daemon's lease and take what it says, if it is known. `over` as above."""
        incarnation = heartbeat.incarnation
        known = self._daemons.live(incarnation)
        was_failing = known is not None and known.store_failing
        daemon = self._daemons.heartbeat(heartbeat, now)
        if daemon is None:
            return self._orders((), known=False)
        self._directory.tell_stored(incarnation, heartbeat.stored)
        if daemon.draining:
            self.failover.seal_all_of(incarnation)
        elif was_failing and not daemon.store_failing:
            self.failover.arrived(now)
        self._closing.confirm(heartbeat.dropped, incarnation, daemon.store_id)
        drop = self._closing.orders(incarnation, daemon.store_id)
        may_exit = (
            daemon.draining  # so that all it had is sealed by now
            and not self.failover.awaits_fence(incarnation)
            and not heartbeat.unstored_bytes
            and not self._daemons.needed_by_readers(daemon)
        )
        if may_exit:
            self._daemons.let_go(daemon)
        return self._orders(drop.union(over), drain=daemon.draining, may_exit=may_exit)

    def _orders(
        self,
        drop: Iterable[int],
        *,
        known: bool = True,
        drain: bool = False,
        may_exit: bool = False,
        was_forgotten: bool = False,
    ) -> DaemonOrders:
        return DaemonOrders(
            known,
            self._cluster_id,
            self._lease_s,
            tuple(sorted(drop)),
            drain,
            may_exit,
            was_forgotten,
        )

    # --- what others say of daemons --------------------------------------------------------

    def drain(self, address: str) -> None:
        """Move everything away from the daemon at an address, and never give it anything.

        Raises InvalidArgument when no live daemon is there.
        """
        daemon = self._daemons.at(address)
        self._daemons.drain(daemon)
        self.failover.seal_all_of(daemon.ref.incarnation)

    def undrain(self, address: str, now: float) -> bool:
        """Give the daemon at an address work again. What has moved away does not come back.

        Returns: whether it drained.

        Raises InvalidArgument when no live daemon is there, or it was told to end.
        """
        was_draining = self._daemons.undrain(self._daemons.at(address))
        if was_draining:
            self.failover.arrived(now)
        return was_draining

    def address_of(self, incarnation: int) -> str:
        """Return where a daemon is, or its number if it is not known any more."""
        daemon = self._daemons.live(incarnation)
        return str(incarnation) if daemon is None else daemon.ref.address

    def daemon(self, incarnation: int) -> Daemon:
        """Return a daemon that lives, or that an open exchange names."""
        return self._daemons.get(incarnation)

    def report(
        self, suspect: DaemonRef, reporter: int, insist: bool, keys: Iterable[AssignmentKey] = ()
    ) -> bool:
        """Have a daemon asked that somebody cannot reach.

        reporter: incarnation of the daemon that reports, 0 for a client.
        insist: it was reported and said to be alive; if it answers again, assignments move
            away from it: those that `reporter` replicates to it, for a client those of `keys`.
        The report is to be answered with `is_live` when `is_probed` is not true any more.

        Returns: False if the daemon is known to be dead.
        """
        daemon = self._daemons.live(suspect.incarnation)
        if daemon is None:
            return False
        if reporter:
            keys = self.failover.replicated_to(reporter, suspect.incarnation)
        insisted = dict.fromkeys(keys if insist else (), not reporter)
        self._suspicions.suspect(daemon.ref, insisted)
        return True

    def is_probed(self, incarnation: int) -> bool:
        """Whether a daemon is being asked who is there, or will be."""
        return incarnation in self._suspicions

    def is_live(self, incarnation: int) -> bool:
        """Whether a daemon is believed to live."""
        return self._daemons.live(incarnation) is not None

    @property
    def has_probes(self) -> bool:
        """Whether `pop_probes` has something to give."""
        return bool(self._suspicions)

    def pop_probes(self) -> list[DaemonRef]:
        """Return the daemons to ask now who is there; `probed` must follow for each."""
        return self._suspicions.pop_all()

    def probed(self, incarnation: int, outcome: ProbeOutcome, now: float) -> None:
        """Take how a daemon answered."""
        insisted = self._suspicions.answered(incarnation)
        daemon = self._daemons.live(incarnation)
        if daemon is None:
            return
        if outcome is ProbeOutcome.ALIVE:
            if daemon.silent_since is not None:
                self._daemons.heard(daemon)
                self.failover.arrived(now)
            for key, is_primary in insisted.items():
                self.failover.insist(key, incarnation, now, is_primary=is_primary)
        elif outcome is ProbeOutcome.GONE or self._daemons.silent(daemon, now):
            cause = "gone" if outcome is ProbeOutcome.GONE else "silent"
            self._daemons.died(incarnation, now, cause)
            self._died((incarnation,))

    def fence_failed(self, incarnation: int) -> None:
        """Have a daemon asked whether it is there, as it could not be fenced."""
        self.failover.fence_failed(incarnation)
        daemon = self._daemons.live(incarnation)
        if daemon is not None:
            self._suspicions.suspect(daemon.ref, {})

    # --- exchanges -------------------------------------------------------------------------

    def first_epochs(
        self, spec: ExchangeSpec, turn: int, *, of_group: bool = False
    ) -> tuple[tuple[PartitionRange, ...], list[list[Placed]]]:
        """Return the ranges of a new exchange, or of those of a group, and where they go; raises
        CapacityExceeded."""
        candidates = self._daemons.candidates()
        silent = {daemon.ref.incarnation for daemon in self._daemons.silent_ones()}
        heard = [c for c in candidates if c.incarnation not in silent]
        if host_count(heard) >= spec.replicas:
            candidates = heard
        if of_group:
            count = group_range_count(spec.partitions, len(candidates))
        else:
            count = range_count(spec.partitions, len(candidates), self._ranges_per_daemon)
        ranges = cut_ranges(spec.partitions, count)
        try:
            placement = place(len(ranges), candidates, spec.replicas, turn)
        except CapacityExceeded as error:
            why = self._daemons.why_no_candidates()
            message = f"{error} ({why})" if why else str(error)
            raise CapacityExceeded(message, shuffle_id=spec.shuffle_id) from None
        placed = []
        for index, (primary, replicas) in enumerate(placement):
            first, *others = (self._daemons.get(c.incarnation) for c in (primary, *replicas))
            refs = tuple(other.ref for other in others)
            placed.append([Placed(Assignment(index, 1, 1, first.ref, refs), first.store_id)])
        return ranges, placed

    def would_take(self, placed: Iterable[Placed]) -> bool:
        """Whether all daemons of these assignments can be given others like them."""
        able = {candidate.incarnation for candidate in self._daemons.candidates()}
        able.difference_update(daemon.ref.incarnation for daemon in self._daemons.silent_ones())
        return all(ref.incarnation in able for p in placed for ref in p.assignment.daemons)

    def open_exchange(
        self,
        spec: ExchangeSpec,
        owner: bytes,
        ranges: tuple[PartitionRange, ...],
        placed: Iterable[Iterable[Placed]],
        *,
        callback: bool,
        tenant: str = "",
        mappers: int = 0,
        capability: str | None = None,
    ) -> ExchangeState:
        """Make an exchange, with the next number. Its lease is the affair of the caller.

        mappers: of each exchange of its group; 0: it is of none. capability: of its part of the
        group; None: it has its own. Raises CapacityExceeded if its tenant has as many as it may.
        """
        self._directory.check_room(tenant, 1)
        exchange = ExchangeState(
            self._directory.next_number,
            spec,
            owner,
            ranges,
            placed,
            self._changes,
            callback=callback,
            attempt_secret=self._attempt_secret,
        )
        exchange.tenant, exchange.created_s = tenant, self.history.unix_s
        if capability is None:
            capability = self._keys.capability(exchange.number, tenant=tenant)
        exchange.capability = capability
        if mappers:
            exchange.join_group(mappers)
        self._directory.add(exchange)
        self.failover.opened(exchange)
        exchange.put_all()
        return exchange

    def close_exchange(self, exchange: ExchangeState, cause: str | None) -> None:
        """Take nothing more for an exchange, and have all who may hold some of it drop it.

        cause: for operators; None: they are told of its group.
        """
        if cause is not None:
            self._changes.tell(exchange.event(EventKind.EXCHANGE_CLOSED, cause))
            keep(self.history, exchange, cause)
        self._directory.remove(exchange)
        exchange.delete_all()
        holders: dict[int, str] = {}
        for epochs in exchange.placed:
            for placed in epochs:
                for ref in placed.assignment.daemons:
                    holders[ref.incarnation] = self._daemons.get(ref.incarnation).store_id
        pending: set[Party] = {
            store_id
            for store_id in holders.values()
            if not store_id.startswith(VOLATILE_STORE) and store_id not in self.forgotten
        }
        pending.update(i for i in holders if self._daemons.live(i) is not None)
        status = exchange.status(closing=True)
        self._closing.begin(Closing(status, holders, pending, exchange.mappers > 0))
        self.failover.closed(exchange)

    def sources(self, placed: Placed, now: float) -> tuple[DaemonRef, ...]:
        """Return who serves what an assignment took, in the order in which to ask.

        Its primary and replicas while they live, as they may hold what is not stored; then
        others of their stores; last the dead whose store nobody serves, as long as they may
        still be started again and adopt what they left. When there are none: nobody.
        """
        refs = placed.assignment.daemons
        found = [ref for ref in refs if self._daemons.live(ref.incarnation) is not None]
        awaited = []
        for ref in refs:
            serving = self._daemons.of_store(self._daemons.get(ref.incarnation).store_id)
            found += serving
            if not serving and not self.forgotten.is_gone(ref.incarnation, self.grace_s, now):
                awaited.append(ref)
        return tuple(dict.fromkeys(found + awaited))

    def store_of(self, ref: DaemonRef) -> str:
        """Return the id of the store of a daemon that `sources` has named."""
        return self._daemons.get(ref.incarnation).store_id
