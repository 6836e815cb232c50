"""The daemons the service knows, and until when it believes that they live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cosco.errors import InvalidArgument
from cosco.metadata.state.daemons.placement import Candidate
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.metadata.state.records.leases import Leases
from cosco.protocol.api_limits import shown
from cosco.protocol.records import (
    VOLATILE_STORE,
    DaemonHeartbeat,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
)


@dataclass(slots=True)
class Daemon:
    """One start of a daemon. `free_bytes` is as of its last sign of life, and is stored as
    of its registration. `named` counts its places in assignments of open exchanges,
    `assignments` those of them that are not sealed. `draining` never ends but with the
    daemon. `silent_since`: it was asked who is there, and has not answered since."""

    ref: DaemonRef
    host_id: str
    store_id: str
    memory_bytes: int
    free_bytes: int
    metrics_address: str
    live: bool = True
    draining: bool = False
    store_failing: bool = False
    named: int = 0
    assignments: int = 0
    died_at: float = 0.0
    silent_since: float | None = None

    @property
    def state(self) -> DaemonState:
        if not self.live:
            return DaemonState.DEAD
        return DaemonState.DRAINING if self.draining else DaemonState.SERVING

    def row(self) -> Row:
        """Return the columns after the incarnation."""
        return (
            self.ref.address,
            self.host_id,
            self.store_id,
            self.memory_bytes,
            self.free_bytes,
            self.metrics_address,
            self.live,
            self.draining,
        )

    @staticmethod
    def from_row(row: Row, now: float) -> Daemon:
        """Return a daemon as it was stored; one that is dead died now, for all that is known."""
        incarnation, address, *columns, live, draining = row
        daemon = Daemon(DaemonRef(incarnation, address), *columns)
        daemon.live, daemon.draining, daemon.died_at = bool(live), bool(draining), now
        return daemon


class DaemonTable:
    """All daemons that live, and the dead ones that open exchanges still name."""

    def __init__(
        self, rows: Iterable[Row], changes: ChangeLog, *, lease_s: float, now: float
    ) -> None:
        self._changes = changes
        self._lease_s = lease_s
        self._leases: Leases[int] = Leases()
        self._daemons: dict[int, Daemon] = {}
        self._by_store: dict[str, list[DaemonRef]] | None = None  # of those that live
        for row in rows:
            daemon = Daemon.from_row(row, now)
            self._daemons[daemon.ref.incarnation] = daemon
            if daemon.live:
                self._leases.renew(daemon.ref.incarnation, lease_s, now)

    def register(self, registration: DaemonRegistration, now: float) -> tuple[bool, list[int]]:
        """Take a daemon in.

        Whoever had its address before is dead, as two processes cannot listen on one.

        Returns: whether it is new or was thought dead, and the incarnations it supersedes.
        Raises InvalidArgument when another daemon has its incarnation.
        """
        ref = DaemonRef(registration.incarnation, registration.address)
        known = self._daemons.get(ref.incarnation)
        if known and (known.ref, known.store_id) != (ref, registration.store_id):
            raise InvalidArgument(
                f"incarnation {ref.incarnation} is that of the daemon at {known.ref.address}; "
                f"start the one at {ref.address} again"
            )
        superseded = [
            other.ref.incarnation
            for other in self._daemons.values()
            if other.live and other.ref.address == ref.address and other is not known
        ]
        for incarnation in superseded:
            self.died(incarnation, now)
        self._daemons[ref.incarnation] = Daemon(
            ref=ref,
            host_id=registration.host_id,
            store_id=registration.store_id,
            memory_bytes=registration.memory_bytes,
            free_bytes=registration.free_bytes,
            metrics_address=registration.metrics_address,
            draining=registration.draining or (known is not None and known.draining),
            store_failing=known is not None and known.store_failing,
            named=known.named if known else 0,
            assignments=known.assignments if known else 0,
            silent_since=known.silent_since if known else None,
        )
        self._by_store = None
        self._put(ref.incarnation)
        self._leases.renew(ref.incarnation, self._lease_s, now)
        return known is None or not known.live, superseded

    def heartbeat(self, heartbeat: DaemonHeartbeat, now: float) -> Daemon | None:
        """Renew a lease.

        Returns: the daemon, None if it must register (again).
        """
        daemon = self.live(heartbeat.incarnation)
        if daemon is not None:
            daemon.free_bytes = heartbeat.free_bytes
            daemon.store_failing = heartbeat.store_failing
            self._leases.renew(heartbeat.incarnation, self._lease_s, now)
            if heartbeat.draining:
                self.drain(daemon)
        return daemon

    def drain(self, daemon: Daemon) -> None:
        """Give it nothing new any more."""
        if not daemon.draining:
            daemon.draining = True
            self._by_store = None
            self._put(daemon.ref.incarnation)

    def silent(self, daemon: Daemon, now: float) -> bool:
        """Note that a daemon did not answer.

        Returns: whether it has not answered for the time of a lease.

        Such a daemon is as good as dead even if its heartbeats come, as it can neither be told
        anything nor be read from.
        """
        if daemon.silent_since is None:
            daemon.silent_since = now
        return now - daemon.silent_since >= self._lease_s

    def silent_ones(self) -> list[Daemon]:
        """Return the live daemons that did not answer when they were asked last."""
        return [d for d in self._daemons.values() if d.live and d.silent_since is not None]

    def died(self, incarnation: int, now: float) -> None:
        """Take a daemon that lived for dead."""
        daemon = self._daemons[incarnation]
        self._leases.forget(incarnation)
        daemon.live = daemon.store_failing = False
        for other in self._daemons.values():
            if not other.live and other.store_id == daemon.store_id:
                other.died_at = now  # it served what those before it had left
        self._by_store = None
        self._put(incarnation)
        self._forget_if_unused(incarnation)

    def expire(self, now: float) -> list[int]:
        """Take the daemons for dead whose leases ran out.

        Returns: their incarnations.
        """
        expired = self._leases.expire(now)
        for incarnation in expired:
            self.died(incarnation, now)
        return expired

    def restart_leases(self, now: float) -> None:
        """Begin a full period for every daemon, and for the dead ones that of their adoption."""
        self._leases.restart(now)
        for daemon in self._daemons.values():
            if not daemon.live:
                daemon.died_at = now
            elif daemon.silent_since is not None:
                daemon.silent_since = now

    # --- look-ups --------------------------------------------------------------------------

    def get(self, incarnation: int) -> Daemon:
        """Return a daemon that lives, or that an open exchange names."""
        return self._daemons[incarnation]

    def live(self, incarnation: int) -> Daemon | None:
        """Return a daemon, if it is known and believed to live."""
        daemon = self._daemons.get(incarnation)
        return daemon if daemon is not None and daemon.live else None

    def at(self, address: str) -> Daemon:
        """Return the live daemon at an address; raises InvalidArgument."""
        for daemon in self._daemons.values():
            if daemon.live and daemon.ref.address == address:
                return daemon
        raise InvalidArgument(
            f"there is no live shuffle daemon at {shown(address)}: name one that cosco status "
            "lists, as host:port"
        )

    def of_store(self, store_id: str) -> list[DaemonRef]:
        """Return the live daemons that serve a store, by incarnation, those that drain last."""
        if self._by_store is None:
            by_store: defaultdict[str, list[Daemon]] = defaultdict(list)
            for daemon in self._daemons.values():
                if daemon.live:
                    by_store[daemon.store_id].append(daemon)
            self._by_store = {
                store: [d.ref for d in sorted(daemons, key=_serving_order)]
                for store, daemons in by_store.items()
            }
        return self._by_store.get(store_id, [])

    def leaving(self) -> list[Daemon]:
        """Return the live daemons with assignments that drain, or whose store takes nothing."""
        return [
            d
            for d in self._daemons.values()
            if d.live and d.assignments and (d.draining or d.store_failing)
        ]

    def candidates(self) -> list[Candidate]:
        """Return the daemons that can take assignments.

        Where one finds its store full, so will the others of that store.
        """
        failing = {d.store_id for d in self._daemons.values() if d.store_failing}
        return [
            Candidate(d.ref.incarnation, d.host_id, d.free_bytes, d.assignments)
            for d in self._daemons.values()
            if d.live and not d.draining and d.store_id not in failing
        ]

    def why_no_candidates(self) -> str:
        """Return, for people, why live daemons are no candidates; empty if all of them are."""
        live = [d for d in self._daemons.values() if d.live]
        draining = sum(d.draining for d in live)
        failing = sum(d.store_failing and not d.draining for d in live)
        if not draining and not failing:
            return ""
        return (
            f"of {len(live)} shuffle daemons {draining} drain and {failing} cannot write to "
            "their store; start others, or make room in the store"
        )

    def needed_by_readers(self, daemon: Daemon) -> bool:
        """Whether what `daemon` has stored can be had from nobody else once it ends.

        With a store of its own it goes on serving until the exchanges close that name it; what
        is in a volatile one ends with it. Where no daemon would be left to go on with the
        exchanges, as in a cluster of one that is stopped to be started again, waiting for
        them to close would only hold up that restart, which adopts a durable store.
        """
        if not daemon.named:
            return False
        if daemon.store_id.startswith(VOLATILE_STORE):
            return True
        staying = [d for d in self._daemons.values() if d.live and not d.draining]
        return bool(staying) and not any(d.store_id == daemon.store_id for d in staying)

    def may_be_adopted(self, incarnation: int, grace_s: float, now: float) -> bool:
        """Whether a dead daemon may still be started again on the store that it left."""
        daemon = self._daemons[incarnation]
        return now - daemon.died_at < grace_s and not daemon.store_id.startswith(VOLATILE_STORE)

    def status(self) -> tuple[DaemonStatus, ...]:
        return tuple(
            DaemonStatus(
                ref=d.ref,
                host_id=d.host_id,
                store_id=d.store_id,
                state=d.state,
                memory_bytes=d.memory_bytes,
                free_bytes=d.free_bytes,
                metrics_address=d.metrics_address,
                assignments=d.assignments,
            )
            for d in sorted(self._daemons.values(), key=_display_order)
        )

    # --- assignments -----------------------------------------------------------------------

    def assign(self, incarnation: int, *, sealed: bool = False) -> None:
        """Note that an assignment of an open exchange names this daemon."""
        daemon = self._daemons[incarnation]
        daemon.named += 1
        daemon.assignments += not sealed

    def seal(self, incarnation: int) -> None:
        """Note that one of its assignments was sealed."""
        self._daemons[incarnation].assignments -= 1

    def release(self, incarnation: int, *, sealed: bool = False) -> None:
        """Note that an assignment of an open exchange that named this daemon is no more."""
        daemon = self._daemons[incarnation]
        daemon.named -= 1
        daemon.assignments -= not sealed
        self._forget_if_unused(incarnation)

    def _forget_if_unused(self, incarnation: int) -> None:
        daemon = self._daemons[incarnation]
        if not daemon.live and not daemon.named:
            del self._daemons[incarnation]
            self._changes.delete("daemons", (incarnation,))

    def _put(self, incarnation: int) -> None:
        daemon = self._daemons[incarnation]
        self._changes.put("daemons", (incarnation,), daemon.row)


def _display_order(daemon: Daemon) -> tuple[str, bool, int]:
    return daemon.ref.address, not daemon.live, daemon.ref.incarnation


def _serving_order(daemon: Daemon) -> tuple[bool, int]:
    return daemon.draining, daemon.ref.incarnation
