"""The daemons the service knows, and until when it believes that they live."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cosco.errors import InvalidArgument
from cosco.metadata.state.daemons.figure_totals import FigureTotals
from cosco.metadata.state.daemons.placement import Candidate
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.metadata.state.records.leases import Leases
from cosco.protocol.api_limits import shown
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import (
    VOLATILE_STORE,
    DaemonHeartbeat,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
)

#: The bound of daemons that live, as metrics call it.
DAEMONS: Final = "daemons"
#: What a daemon says of its mechanics is kept up to this length.
MAX_MECHANICS_CHARACTERS: Final = 256
MAX_VERSION_CHARACTERS: Final = 64


@dataclass(slots=True)
class Daemon:
    """One start of a daemon. `free_bytes` is as of its last sign of life, and is stored as
    of its registration. `named` counts its places in assignments of open exchanges,
    `assignments` those of them that are not sealed. `draining` ends with the
    daemon, or by `undrain` unless it `ends`: it was asked to by more than the service.
    `silent_since`: it was asked who is there, and has not answered since. `released`: it
    drained, and was told that it may end. `is_restored`: it began before this service."""

    ref: DaemonRef
    host_id: str
    store_id: str
    memory_bytes: int
    free_bytes: int
    metrics_address: str
    live: bool = True
    draining: bool = False
    ends: bool = False
    was_forgotten: bool = False
    store_failing: bool = False
    store_hangs: bool = False
    mechanics: str = ""
    version: str = ""
    figures: DaemonFigures | None = None
    is_restored: bool = False
    named: int = 0
    assignments: int = 0
    died_at: float = 0.0
    silent_since: float | None = None
    released: bool = False

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
        daemon.is_restored = True
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
        self._totals = FigureTotals()
        for row in rows:
            daemon = Daemon.from_row(row, now)
            self._daemons[daemon.ref.incarnation] = daemon
            if daemon.live:
                self._leases.renew(daemon.ref.incarnation, lease_s, now)

    def register(self, registration: DaemonRegistration, now: float) -> tuple[bool, list[int]]:
        """Take a daemon in.

        Whoever had its address before is dead: see `Members.claim`, which comes first.

        Returns: whether it is new or was thought dead, and the incarnations it supersedes.
        Raises InvalidArgument when another daemon has its incarnation.
        """
        ref = DaemonRef(registration.incarnation, registration.address)
        known = self._daemons.get(ref.incarnation)
        if known and (known.ref, known.store_id) != (ref, registration.store_id):
            self._tell(EventKind.REGISTRATION_REFUSED, known, "incarnation", address=ref.address)
            raise InvalidArgument(
                f"incarnation {ref.incarnation} is that of the daemon at {known.ref.address}; "
                f"start the one at {ref.address} again"
            )
        superseded = [other.ref.incarnation for other in self.others_at(ref)]
        for incarnation in superseded:
            self.died(incarnation, now, "address taken")
        adopts = self._would_adopt(registration.store_id)
        self._daemons[ref.incarnation] = Daemon(
            ref=ref,
            host_id=registration.host_id,
            store_id=registration.store_id,
            memory_bytes=registration.memory_bytes,
            free_bytes=registration.free_bytes,
            metrics_address=registration.metrics_address,
            draining=registration.draining or (known is not None and known.draining),
            store_failing=known is not None and known.store_failing,
            store_hangs=known is not None and known.store_hangs,
            mechanics=known.mechanics if known else "",
            version=known.version if known else "",
            named=known.named if known else 0,
            assignments=known.assignments if known else 0,
            silent_since=known.silent_since if known else None,
            ends=known is not None and known.ends,
            was_forgotten=known is not None and known.was_forgotten,
            figures=known.figures if known else None,
            is_restored=known is not None and known.is_restored,
        )
        self._by_store = None
        self._tell_registered(self._daemons[ref.incarnation], known, adopts=adopts)
        self._put(ref.incarnation)
        self._leases.renew(ref.incarnation, self._lease_s, now)
        return known is None or not known.live, superseded

    def has_room_for(self, ref: DaemonRef, daemons_max: int) -> bool:
        """Whether a daemon may register if `daemons_max` may live: it is known, be it as a dead one
        that an open exchange names, or would follow one at its address, or there are fewer."""
        if len(self._leases) < daemons_max or ref.incarnation in self._daemons:
            return True
        return bool(self.others_at(ref))

    def came_back(self, daemon: Daemon) -> None:
        """Note that the store of a daemon had been forgotten, which it is told."""
        daemon.was_forgotten = True
        self._tell(EventKind.FORGOTTEN_STORE_RETURNED, daemon)

    def heartbeat(self, heartbeat: DaemonHeartbeat, now: float) -> Daemon | None:
        """Renew a lease.

        Returns: the daemon, None if it must register (again).
        """
        daemon = self.live(heartbeat.incarnation)
        if daemon is not None:
            daemon.free_bytes = heartbeat.free_bytes
            if heartbeat.store_failing != daemon.store_failing:
                failing = heartbeat.store_failing
                kind = "DAEMON_STORE_FAILING" if failing else "DAEMON_STORE_RECOVERED"
                self._tell(EventKind[kind], daemon)
            daemon.store_failing = heartbeat.store_failing
            daemon.store_hangs = heartbeat.store_hangs
            if heartbeat.figures is not None:
                self._add_figures(daemon, heartbeat.figures)
            daemon.mechanics = heartbeat.mechanics[:MAX_MECHANICS_CHARACTERS]
            daemon.version = heartbeat.version[:MAX_VERSION_CHARACTERS]
            self._leases.renew(heartbeat.incarnation, self._lease_s, now)
            daemon.ends = heartbeat.draining
            if heartbeat.draining:
                self.drain(daemon)
        return daemon

    def _add_figures(self, daemon: Daemon, figures: DaemonFigures) -> None:
        before = daemon.figures
        # What it did before this service began would be a leap in what is done now.
        if before is not None or not daemon.is_restored:
            self._totals.add(before, figures)
        daemon.figures = figures

    def drain(self, daemon: Daemon) -> None:
        """Give it nothing new any more."""
        if not daemon.draining:
            daemon.draining = True
            self._tell(EventKind.DAEMON_DRAINS, daemon, ranges=daemon.assignments)
            self._by_store = None
            self._put(daemon.ref.incarnation)

    def undrain(self, daemon: Daemon) -> bool:
        """Let a daemon be given something again that drains by an order.

        Returns: whether it drained.

        Raises InvalidArgument for one that ends.
        """
        if daemon.ends or daemon.released:
            raise InvalidArgument(
                f"the shuffle daemon at {shown(daemon.ref.address)} has been told to end, or has "
                "drained: start it again when it has"
            )
        was_draining, daemon.draining = daemon.draining, False
        if was_draining:
            self._tell(EventKind.DAEMON_UNDRAINED, daemon)
            self._by_store = None
            self._put(daemon.ref.incarnation)
        return was_draining

    def silent(self, daemon: Daemon, now: float) -> bool:
        """Note that a daemon did not answer.

        Returns: whether it has not answered for the time of a lease.

        Such a daemon is as good as dead even if its heartbeats come, as it can neither be told
        anything nor be read from.
        """
        if daemon.silent_since is None:
            daemon.silent_since = now
            self._tell(EventKind.DAEMON_SILENT, daemon)
        return now - daemon.silent_since >= self._lease_s

    def heard(self, daemon: Daemon) -> None:
        """Note that a daemon answers that was silent."""
        daemon.silent_since = None
        self._tell(EventKind.DAEMON_HEARD, daemon)

    def let_go(self, daemon: Daemon) -> None:
        """Note that a daemon has drained and may end; repeatable."""
        if not daemon.released:
            daemon.released = True
            self._tell(EventKind.DAEMON_RELEASED, daemon)

    def silent_ones(self) -> list[Daemon]:
        """Return the live daemons that did not answer when they were asked last."""
        return [d for d in self._daemons.values() if d.live and d.silent_since is not None]

    def died(self, incarnation: int, now: float, cause: str | None = None) -> None:
        """Take a daemon that lived for dead. `cause`: for operators."""
        daemon = self._daemons[incarnation]
        kind = EventKind.DAEMON_LEFT if daemon.released else EventKind.DAEMON_DIED
        self._tell(kind, daemon, cause, ranges=daemon.assignments)
        self._leases.forget(incarnation)
        daemon.live = daemon.store_failing = daemon.store_hangs = False
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
            self.died(incarnation, now, "lease")
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

    def has(self, address: str) -> bool:
        """Whether a live daemon has an address."""
        return any(d.live and d.ref.address == address for d in self._daemons.values())

    def others_at(self, ref: DaemonRef) -> list[Daemon]:
        """Return the live daemons with the address of this one: one, if any."""
        return [
            other
            for other in self._daemons.values()
            if other.live
            and other.ref.address == ref.address
            and other.ref.incarnation != ref.incarnation
        ]

    def starts_on(self, store_id: str) -> set[int]:
        """Return the incarnations of all that are known to have a store, living or dead."""
        return {i for i, daemon in self._daemons.items() if daemon.store_id == store_id}

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

    def has_store(self, store_id: str) -> bool:
        """Whether a daemon that lives, or that an open exchange names, has this store."""
        return any(daemon.store_id == store_id for daemon in self._daemons.values())

    def leaving(self) -> list[Daemon]:
        """Return the live daemons with assignments that drain, or whose store takes nothing."""
        return [
            d
            for d in self._daemons.values()
            if d.live and d.assignments and (d.draining or d.store_failing)
        ]

    def candidates(self) -> list[Candidate]:
        """Return the daemons that can take assignments.

        Where one finds its store full, so will the others of that store. Where one's store hangs,
        that is often its own host, or its way there: the others find out for themselves.
        """
        failing = {
            d.store_id for d in self._daemons.values() if d.store_failing and not d.store_hangs
        }
        return [
            Candidate(d.ref.incarnation, d.host_id, d.free_bytes, d.assignments)
            for d in self._daemons.values()
            if d.live and not (d.draining or d.store_failing) and d.store_id not in failing
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

    def status(self, *, figures: bool = False) -> tuple[DaemonStatus, ...]:
        """Return all daemons, by address; with `figures` those that they told last."""
        daemons = sorted(self._daemons.values(), key=_display_order)
        return tuple(status_of(daemon, with_figures=figures) for daemon in daemons)

    def everyone(self) -> Iterable[Daemon]:
        """Return all daemons, only to be read."""
        return self._daemons.values()

    def memory(self) -> tuple[int, int]:
        """Return the bytes of memory for rows of all daemons that live, and how many are free."""
        living = [daemon for daemon in self._daemons.values() if daemon.live]
        return sum(d.memory_bytes for d in living), sum(d.free_bytes for d in living)

    def totals(self) -> list[float]:
        """Return the figures of all together by `figure_totals.TOTALS`."""
        return self._totals.point(d.figures for d in self._daemons.values() if d.live and d.figures)

    def count_by_state(self) -> Counter[DaemonState]:
        """Return how many there are of each state."""
        return Counter(daemon.state for daemon in self._daemons.values())

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

    def _would_adopt(self, store_id: str) -> bool:
        """Whether a daemon that comes serves what the dead left, and nobody else does."""
        return (
            not store_id.startswith(VOLATILE_STORE)
            and not self.of_store(store_id)
            and any(d.store_id == store_id and d.named for d in self._daemons.values())
        )

    def _tell_registered(self, daemon: Daemon, known: Daemon | None, *, adopts: bool) -> None:
        if known is None:
            self._tell(EventKind.DAEMON_REGISTERED, daemon)
        elif not known.live:
            self._tell(EventKind.DAEMON_RETURNED, daemon)
        if adopts:
            self._tell(EventKind.STORE_ADOPTED, daemon)

    def _tell(
        self,
        kind: EventKind,
        daemon: Daemon,
        cause: str | None = None,
        *,
        ranges: int | None = None,
        address: str | None = None,
    ) -> None:
        self._changes.tell(
            Event(
                kind=kind,
                daemon=daemon.ref.address,
                incarnation=daemon.ref.incarnation,
                host_id=daemon.host_id,
                store=daemon.store_id,
                address=address,
                ranges=ranges,
                cause=cause,
            )
        )

    def _put(self, incarnation: int) -> None:
        daemon = self._daemons[incarnation]
        self._changes.put("daemons", (incarnation,), daemon.row)


def status_of(daemon: Daemon, *, with_figures: bool) -> DaemonStatus:
    """Return a daemon as people are shown it; with its figures as it told them last."""
    return DaemonStatus(
        ref=daemon.ref,
        host_id=daemon.host_id,
        store_id=daemon.store_id,
        state=daemon.state,
        memory_bytes=daemon.memory_bytes,
        free_bytes=daemon.free_bytes,
        metrics_address=daemon.metrics_address,
        assignments=daemon.assignments,
        store_failing=daemon.store_failing,
        store_hangs=daemon.store_hangs,
        mechanics=daemon.mechanics,
        version=daemon.version,
        figures=daemon.figures if with_figures else None,
    )


def _display_order(daemon: Daemon) -> tuple[str, bool, int]:
    return daemon.ref.address, not daemon.live, daemon.ref.incarnation


def _serving_order(daemon: Daemon) -> tuple[bool, int]:
    return daemon.draining, daemon.ref.incarnation
