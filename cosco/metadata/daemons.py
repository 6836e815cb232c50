"""The daemons the service knows, and until when it believes that they live."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cosco.errors import InvalidArgument
from cosco.metadata.changes import ChangeLog, Row, signed64, unsigned64
from cosco.metadata.leases import Leases
from cosco.metadata.placement import Candidate
from cosco.records import (
    DaemonHeartbeat,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    DaemonStatus,
)


@dataclass(slots=True)
class Daemon:
    """One start of a daemon. `free_bytes` is as of its last sign of life, and is stored as
    of its registration; `assignments` counts those of open exchanges."""

    ref: DaemonRef
    host_id: str
    store_id: str
    memory_bytes: int
    free_bytes: int
    metrics_address: str
    live: bool = True
    assignments: int = 0

    def row(self) -> Row:
        return (
            self.ref.address,
            self.host_id,
            self.store_id,
            signed64(self.memory_bytes),
            signed64(self.free_bytes),
            self.metrics_address,
            int(self.live),
        )

    @staticmethod
    def from_row(row: Row) -> Daemon:
        incarnation, address, host_id, store_id, memory_bytes, free_bytes, metrics, live = row
        return Daemon(
            ref=DaemonRef(unsigned64(incarnation), str(address)),
            host_id=str(host_id),
            store_id=str(store_id),
            memory_bytes=unsigned64(memory_bytes),
            free_bytes=unsigned64(free_bytes),
            metrics_address=str(metrics),
            live=bool(live),
        )


class DaemonTable:
    """All daemons that live, and the dead ones that open exchanges still name."""

    def __init__(
        self, rows: Iterable[Row], changes: ChangeLog, *, lease_s: float, now: float
    ) -> None:
        self._changes = changes
        self._lease_s = lease_s
        self._leases: Leases[int] = Leases()
        self._daemons: dict[int, Daemon] = {}
        for row in rows:
            daemon = Daemon.from_row(row)
            self._daemons[daemon.ref.incarnation] = daemon
            if daemon.live:
                self._leases.renew(daemon.ref.incarnation, lease_s, now)

    def register(self, registration: DaemonRegistration, now: float) -> tuple[bool, list[int]]:
        """Take a daemon in: (whether it was thought dead, incarnations it supersedes).

        Whoever had its address before is dead, as two processes cannot listen on one.
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
            self._died(incarnation)
        self._daemons[ref.incarnation] = Daemon(
            ref=ref,
            host_id=registration.host_id,
            store_id=registration.store_id,
            memory_bytes=registration.memory_bytes,
            free_bytes=registration.free_bytes,
            metrics_address=registration.metrics_address,
            assignments=known.assignments if known else 0,
        )
        self._put(ref.incarnation)
        self._leases.renew(ref.incarnation, self._lease_s, now)
        return known is None or not known.live, superseded

    def heartbeat(self, heartbeat: DaemonHeartbeat, now: float) -> Daemon | None:
        """Renew a lease; None for a daemon that must register (again)."""
        daemon = self.live(heartbeat.incarnation)
        if daemon is not None:
            daemon.free_bytes = heartbeat.free_bytes
            self._leases.renew(heartbeat.incarnation, self._lease_s, now)
        return daemon

    def get(self, incarnation: int) -> Daemon:
        """A daemon that an open exchange names, or that lives."""
        return self._daemons[incarnation]

    def live(self, incarnation: int) -> Daemon | None:
        """A daemon, if it is known and believed to live."""
        daemon = self._daemons.get(incarnation)
        return daemon if daemon is not None and daemon.live else None

    def of_store(self, store_id: str) -> list[DaemonRef]:
        """The live daemons that serve a store, by incarnation."""
        return sorted(
            (d.ref for d in self._daemons.values() if d.live and d.store_id == store_id),
            key=lambda ref: ref.incarnation,
        )

    def candidates(self) -> list[Candidate]:
        """The daemons that can take assignments."""
        return [
            Candidate(d.ref.incarnation, d.host_id, d.free_bytes, d.assignments)
            for d in self._daemons.values()
            if d.live
        ]

    def assign(self, incarnation: int) -> None:
        """An open exchange names this daemon once more."""
        self._daemons[incarnation].assignments += 1

    def release(self, incarnation: int) -> None:
        """An open exchange names this daemon once less."""
        self._daemons[incarnation].assignments -= 1
        self._forget_if_unused(incarnation)

    def expire(self, now: float) -> list[int]:
        """The incarnations that die now because their leases ran out."""
        expired = self._leases.expire(now)
        for incarnation in expired:
            self._died(incarnation)
        return expired

    def restart_leases(self, now: float) -> None:
        self._leases.restart(now)

    def status(self) -> tuple[DaemonStatus, ...]:
        return tuple(
            DaemonStatus(
                ref=d.ref,
                host_id=d.host_id,
                store_id=d.store_id,
                state=DaemonState.SERVING if d.live else DaemonState.DEAD,
                memory_bytes=d.memory_bytes,
                free_bytes=d.free_bytes,
                metrics_address=d.metrics_address,
                assignments=d.assignments,
            )
            for d in sorted(self._daemons.values(), key=_display_order)
        )

    def _died(self, incarnation: int) -> None:
        self._leases.forget(incarnation)
        self._daemons[incarnation].live = False
        self._put(incarnation)
        self._forget_if_unused(incarnation)

    def _forget_if_unused(self, incarnation: int) -> None:
        daemon = self._daemons[incarnation]
        if not daemon.live and not daemon.assignments:
            del self._daemons[incarnation]
            self._changes.delete("daemons", (signed64(incarnation),))

    def _put(self, incarnation: int) -> None:
        daemon = self._daemons[incarnation]
        self._changes.put("daemons", (signed64(incarnation),), daemon.row)


def _display_order(daemon: Daemon) -> tuple[str, bool, int]:
    return daemon.ref.address, not daemon.live, daemon.ref.incarnation
