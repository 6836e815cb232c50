"""A metadata state without a service, and the time as its callers pass it in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pyroaring import BitMap

from cosco.metadata.state.daemons.errands import Fence, ProbeOutcome
from cosco.metadata.state.records.changes import Change, Stored
from cosco.metadata.state.state import TICK_S, MetadataState
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import (
    Assignment,
    AttemptSums,
    CommitRequest,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    DaemonState,
    ExchangeInfo,
    ExchangeSpec,
    RenewedAssignments,
    Source,
    pairs_array,
)

OWNER = b"o" * 16
OTHER = b"p" * 16
LEASE_S = 10.0
GRACE_S = 4.0
OLD_BUILD_GRACE_S = 30.0


def ref(incarnation: int) -> DaemonRef:
    return DaemonRef(incarnation, f"host:{incarnation}")


class Cluster:
    """Daemon `n` is at host:n on host-n. What is durable is what `persist` took."""

    def __init__(self, *daemons: int) -> None:
        self.now = 1000.0
        self.tables: dict[str, dict[Any, Any]] = {}
        self.state = self._start(Stored("cluster"))
        for incarnation in daemons:
            self.register(incarnation)

    def _start(self, stored: Stored) -> MetadataState:
        return MetadataState(
            stored,
            daemon_lease_s=LEASE_S,
            ranges_per_daemon=2,
            adoption_grace_s=GRACE_S,
            old_build_grace_s=OLD_BUILD_GRACE_S,
            now=self.now,
        )

    # --- the database ---

    def persist(self) -> list[Change]:
        changes = self.state.pop_changes()
        for table, key, row in changes:
            rows = self.tables.setdefault(table, {})
            if row is not None:
                rows[key] = row
            else:
                for other in [k for k in rows if k[: len(key)] == key]:
                    del rows[other]
        return changes

    def restart(self, after_s: float = 0.0) -> None:
        """Go on with what was persisted, and nothing else."""
        self.now += after_s
        tables = {
            name: [(*key, *row) for key, row in sorted(rows.items())]
            for name, rows in self.tables.items()
        }
        numbers = [
            key[0]
            for name in ("exchanges", "closing", "closed")
            for key in self.tables.get(name, ())
        ]
        numbers += [last for _, last in self.tables.get("used_groups", {}).values()]
        self.state = self._start(Stored("cluster", max(numbers, default=0) + 1, tables))

    # --- daemons ---

    def register(self, incarnation: int, store: str = "shared", **options: Any) -> DaemonOrders:
        registration = DaemonRegistration(
            incarnation, f"host:{incarnation}", f"host-{incarnation}", store, 100, 100
        )
        return self.state.register(replace(registration, **options), self.now)

    def beat(self, incarnation: int, *dropped: int, **options: Any) -> DaemonOrders:
        heartbeat = DaemonHeartbeat(incarnation, 100, dropped, **options)
        return self.state.heartbeat(heartbeat, self.now)

    def report(
        self, incarnation: int, reporter: int = 0, insist: bool = False, keys: Any = ()
    ) -> bool:
        return self.state.members.report(ref(incarnation), reporter, insist, keys)

    def probe(self, incarnation: int, outcome: ProbeOutcome) -> None:
        """Report a daemon, ask it, and have this answer."""
        self.report(incarnation)
        self.state.members.pop_probes()
        assert self.state.members.is_probed(incarnation)
        self.state.probed(incarnation, outcome, self.now)

    def kill(self, incarnation: int) -> None:
        self.probe(incarnation, ProbeOutcome.GONE)

    def fence(self, *but: int) -> list[Fence]:
        """Carry out all fences there are, but those of these daemons."""
        fences = self.state.failover.pop_fences()
        self.persist()
        for fence in fences:
            if fence.daemon.incarnation not in but:
                self.state.failover.fenced(fence.daemon.incarnation, fence.keys)
        return fences

    def daemon_states(self) -> dict[int, DaemonState]:
        daemons, _ = self.state.overview.status()
        return {d.ref.incarnation: d.state for d in daemons}

    # --- exchanges ---

    def create(
        self, shuffle_id: str = "a", owner: bytes = OWNER, used: bool = False, **options: Any
    ) -> ExchangeInfo:
        spec = ExchangeSpec(shuffle_id, **({"partitions": 8, "replicas": 1} | options))
        return self.state.create_exchange(spec, owner, self.now, used=used)

    def describe(self, shuffle_id: str = "a", owner: bytes = b"", used: bool = False) -> Any:
        return self.state.describe_exchange(shuffle_id, owner, self.now, used=used)

    def current(self, index: int = 0, shuffle_id: str = "a") -> Assignment:
        assignment = self.describe(shuffle_id).assignments[index]
        assert isinstance(assignment, Assignment)
        return assignment

    def placed(self, index: int = 0, shuffle_id: str = "a") -> tuple[int, bool, list[int]]:
        """Epoch, sealed and members of the current assignment of a range."""
        a = self.current(index, shuffle_id)
        return a.epoch, a.sealed, [ref.incarnation for ref in a.daemons]

    def renew(self, *stale: tuple[int, int], number: int = 1) -> RenewedAssignments:
        return self.state.renew_assignments(number, 1, [RangeEpoch(*pair) for pair in stale])

    def commit(self, mapper: int, *partitions: int, epoch: int = 1, shuffle_id: str = "a") -> bool:
        """One row in each of these partitions, acknowledged by this epoch of every range."""
        opened = self.state.open_attempt(shuffle_id, mapper, used=False)
        ones = np.ones(len(partitions), dtype=np.uint64)
        sums = AttemptSums(np.array(partitions, dtype=np.uint32), ones, ones, ones, ones)
        acknowledged = pairs_array([(part.index, epoch) for part in opened.info.ranges])
        return self.state.commit(
            CommitRequest(opened.info.number, opened.mapper, opened.attempt, 1, acknowledged, sums)
        )

    def sources(self, partition: int = 0) -> list[tuple[int, bool, list[int]]]:
        """Epoch, sealed and daemons of each source."""
        wait = self.state.await_commits(1, BitMap(), partition, 1, self.now)
        assert wait.snapshot is not None

        def shown(source: Source) -> tuple[int, bool, list[int]]:
            return source.epoch, source.sealed, [r.incarnation for r in source.daemons]

        return list(map(shown, wait.snapshot.sources))

    # --- time ---

    def sleep(self, seconds: float, *alive: int) -> list[int]:
        """Let time pass tick by tick; `alive` daemons send heartbeats meanwhile."""
        closed, end = [], self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + TICK_S)
            for incarnation in alive:
                self.beat(incarnation)
            closed += self.state.tick(self.now)
        return closed
