from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyroaring import BitMap

from cosco.errors import (
    CapacityExceeded,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
)
from cosco.metadata.changes import Stored
from cosco.metadata.state import MAX_STATUS_EXCHANGES, TICK_S, MetadataState
from cosco.records import (
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRegistration,
    DaemonState,
    ExchangeInfo,
    ExchangeSpec,
)

OWNER = b"o" * 16
OTHER = b"p" * 16
LEASE_S = 10.0


class Cluster:
    """A state, and the time as its clients pass it in."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.state = MetadataState(
            Stored("cluster"), daemon_lease_s=LEASE_S, ranges_per_daemon=2, now=self.now
        )

    def register(self, incarnation: int, store: str = "shared", **options: Any) -> DaemonOrders:
        registration = DaemonRegistration(
            incarnation, f"host:{incarnation}", f"host-{incarnation}", store, 100, 100
        )
        return self.state.register(replace(registration, **options), self.now)

    def beat(self, incarnation: int, *dropped: int) -> DaemonOrders:
        return self.state.heartbeat(DaemonHeartbeat(incarnation, 100, dropped), self.now)

    def create(
        self, shuffle_id: str = "a", owner: bytes = OWNER, used: bool = False, **options: Any
    ) -> ExchangeInfo:
        spec = ExchangeSpec(shuffle_id, **({"partitions": 8, "replicas": 1} | options))
        return self.state.create_exchange(spec, owner, self.now, used=used)

    def describe(self, shuffle_id: str = "a", owner: bytes = b"", used: bool = False) -> Any:
        return self.state.describe_exchange(shuffle_id, owner, self.now, used=used)

    def sleep(self, seconds: float, *alive: int) -> list[int]:
        """Let time pass tick by tick; `alive` daemons send heartbeats meanwhile."""
        closed, end = [], self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + TICK_S)
            for incarnation in alive:
                self.beat(incarnation)
            closed += self.state.tick(self.now)
        return closed

    def daemon_states(self) -> dict[int, DaemonState]:
        daemons, _ = self.state.status()
        return {d.ref.incarnation: d.state for d in daemons}


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.register(1)
    cluster.register(2)
    return cluster


# --- creation and look-ups ----------------------------------------------------------------


def test_an_exchange_is_cut_and_placed(cluster: Cluster) -> None:
    info = cluster.create(partitions=9, replicas=2)
    assert info.number == 1
    assert [r.count for r in info.ranges] == [2, 2, 2, 3]
    assert [a.primary.incarnation for a in info.assignments] == [1, 2, 1, 2]
    assert [a.replicas[0].incarnation for a in info.assignments] == [2, 1, 2, 1]
    assert {(a.epoch, a.build) for a in info.assignments} == {(1, 1)}
    assert cluster.describe() == info


def test_a_repeated_create_gives_the_same_answer(cluster: Cluster) -> None:
    info = cluster.create()
    assert cluster.create() == info
    for options in ({"owner": OTHER}, {"partitions": 9}):
        with pytest.raises(ExchangeExists, match="'a' exists or existed"):
            cluster.create(**options)
    assert cluster.create("b").number == 2


def test_an_id_is_used_once(cluster: Cluster) -> None:
    cluster.create()
    cluster.state.close_exchange("a", used=False)
    with pytest.raises(ExchangeExists):
        cluster.create()
    with pytest.raises(ExchangeExists):
        cluster.create("from the database", used=True)
    assert cluster.create("b").number == 2


@pytest.mark.parametrize("options", [{"partitions": 0}, {"owner": b"short"}])
def test_a_bad_create_takes_no_number(cluster: Cluster, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        cluster.create(**options)
    assert cluster.create().number == 1


def test_creation_needs_daemons_that_live(cluster: Cluster) -> None:
    cluster.sleep(LEASE_S, 1)
    with pytest.raises(CapacityExceeded, match="on 2 hosts, there are daemons on 1") as caught:
        cluster.create(replicas=2)
    assert caught.value.shuffle_id == "a"
    assert caught.value.retriable
    cluster.sleep(LEASE_S)
    with pytest.raises(CapacityExceeded, match="no shuffle daemon"):
        cluster.create()


def test_later_exchanges_go_where_fewer_are(cluster: Cluster) -> None:
    first = cluster.create("a", partitions=1)
    second = cluster.create("b", partitions=1)
    assert first.assignments[0].primary.incarnation == 1
    assert second.assignments[0].primary.incarnation == 2
    cluster.state.close_exchange("a", used=False)
    third = cluster.create("c", partitions=1)
    assert third.assignments[0].primary.incarnation == 1


def test_names_that_are_not_open(cluster: Cluster) -> None:
    with pytest.raises(ExchangeNotFound, match="there is no exchange 'a'"):
        cluster.describe()
    with pytest.raises(ExchangeClosed, match="'a' was closed"):
        cluster.describe(used=True)
    with pytest.raises(ExchangeNotFound):
        cluster.state.open_attempt("a", None, used=False)
    with pytest.raises(ExchangeNotFound):
        cluster.state.close_exchange("a", used=False)
    cluster.create()
    cluster.state.close_exchange("a", used=False)
    with pytest.raises(ExchangeClosed):
        cluster.describe()
    with pytest.raises(ExchangeClosed):
        cluster.state.open_attempt("a", 1, used=False)


def test_numbers_that_are_not_open(cluster: Cluster) -> None:
    cluster.create()
    cluster.state.close_exchange("a", used=False)
    for number, error in ((0, ExchangeNotFound), (1, ExchangeClosed), (2, ExchangeNotFound)):
        with pytest.raises(error):
            cluster.state.progress(number)
        with pytest.raises(error):
            cluster.state.await_commits(number, BitMap(), 0, 1)
        with pytest.raises(error):
            cluster.state.lookup_assignment(number, 0, 1, 1)


def test_a_daemon_finds_its_own_assignments_only(cluster: Cluster) -> None:
    cluster.register(3)
    info = cluster.create(replicas=2)
    for part, assignment in zip(info.ranges, info.assignments, strict=True):
        members = {ref.incarnation for ref in (assignment.primary, *assignment.replicas)}
        for incarnation in (1, 2, 3):
            found = cluster.state.lookup_assignment(1, part.index, 1, incarnation)
            assert found == ((assignment, part) if incarnation in members else None)
    assert cluster.state.lookup_assignment(1, 0, 2, 1) is None
    assert cluster.state.lookup_assignment(1, 99, 1, 1) is None


# --- leases -------------------------------------------------------------------------------


def test_a_silent_driver_loses_its_exchange(cluster: Cluster) -> None:
    cluster.create(lease_s=5.0)
    assert cluster.sleep(4.0, 1, 2) == []
    cluster.state.poll_driver(1, OWNER, cluster.now)
    assert cluster.sleep(4.5, 1, 2) == []
    assert cluster.sleep(0.5, 1, 2) == [1]
    with pytest.raises(ExchangeClosed):
        cluster.state.poll_driver(1, OWNER, cluster.now)


def test_attaching_as_owner_takes_the_exchange_over(cluster: Cluster) -> None:
    cluster.create(lease_s=5.0)
    cluster.sleep(4.0, 1, 2)
    cluster.describe(owner=OTHER)
    assert cluster.sleep(4.0, 1, 2) == []
    with pytest.raises(InvalidArgument, match="own=True"):
        cluster.state.poll_driver(1, OWNER, cluster.now)
    assert cluster.state.poll_driver(1, OTHER, cluster.now).calls == ()


def test_attaching_without_owning_renews_nothing(cluster: Cluster) -> None:
    cluster.create(lease_s=5.0)
    cluster.sleep(4.0, 1, 2)
    cluster.describe()
    assert cluster.sleep(1.0, 1, 2) == [1]


def test_silent_daemons_die(cluster: Cluster) -> None:
    cluster.create()
    cluster.sleep(LEASE_S, 1)
    assert cluster.daemon_states() == {1: DaemonState.SERVING, 2: DaemonState.DEAD}
    assert not cluster.beat(2).known
    assert cluster.register(2).known
    assert cluster.daemon_states() == {1: DaemonState.SERVING, 2: DaemonState.SERVING}


def test_after_a_stall_every_lease_is_full(cluster: Cluster) -> None:
    cluster.create(lease_s=5.0)
    cluster.sleep(4.5, 1, 2)
    cluster.now += 100  # the service was stopped, and nobody could be heard of
    assert cluster.state.tick(cluster.now) == []
    assert cluster.sleep(4.5, 1, 2) == []
    assert cluster.sleep(0.5, 1, 2) == [1]
    assert set(cluster.daemon_states().values()) == {DaemonState.SERVING}


def test_a_tick_that_is_a_little_late_is_no_stall(cluster: Cluster) -> None:
    cluster.create(lease_s=5.0)
    cluster.sleep(4.0, 1, 2)
    cluster.now += 1.0
    assert cluster.state.tick(cluster.now) == [1]


# --- closing ------------------------------------------------------------------------------


def test_closing_waits_for_every_daemon(cluster: Cluster) -> None:
    cluster.create()
    assert cluster.state.close_exchange("a", used=False) == 1
    assert cluster.state.close_exchange("a", used=False) is None
    assert cluster.beat(1).drop == cluster.beat(2).drop == (1,)
    assert cluster.beat(1, 1).drop == ()
    assert cluster.state.knows("a")
    _, [status] = cluster.state.status()
    assert status.closing
    assert cluster.beat(2, 1).drop == ()
    assert not cluster.state.knows("a")
    assert cluster.state.close_exchange("a", used=True) is None
    assert cluster.state.status()[1] == ()


def test_a_dead_daemons_private_store_is_waited_for() -> None:
    cluster = Cluster()
    cluster.register(1, store="x")
    cluster.register(2, store="y")
    cluster.create()
    cluster.sleep(LEASE_S, 1)  # 2 dies
    cluster.state.close_exchange("a", used=False)
    cluster.beat(1, 1)
    assert cluster.state.knows("a")
    orders = cluster.register(3, store="y", address="host:2")  # the next start of 2
    assert orders.drop == (1,)
    cluster.beat(3, 1)
    assert not cluster.state.knows("a")


@pytest.mark.parametrize("how", ["lease", "superseded"])
def test_a_death_while_closing_asks_the_store_again(cluster: Cluster, how: str) -> None:
    cluster.create()
    cluster.state.close_exchange("a", used=False)
    cluster.beat(1, 1)
    if how == "lease":
        cluster.sleep(LEASE_S, 1)
    else:
        cluster.register(3, store="another", address="host:2")
    assert cluster.beat(1).drop == (1,)
    cluster.beat(1, 1)
    assert not cluster.state.knows("a")


def test_a_daemon_that_returns_while_closing_must_confirm(cluster: Cluster) -> None:
    cluster.create()
    cluster.sleep(LEASE_S, 1)  # 2 is thought dead
    cluster.state.close_exchange("a", used=False)
    assert cluster.register(2).drop == (1,)
    cluster.beat(1, 1)
    assert cluster.state.knows("a")
    cluster.beat(2, 1)
    assert not cluster.state.knows("a")


def test_a_registering_daemon_drops_what_is_not_open(cluster: Cluster) -> None:
    for shuffle_id in "abc":
        cluster.create(shuffle_id)
    cluster.state.close_exchange("a", used=False)  # closing
    cluster.state.close_exchange("b", used=False)
    for incarnation in (1, 2):
        cluster.beat(incarnation, 2)  # closed
    # 3 is open, 4 was not given yet and so is not this service's to judge.
    orders = cluster.register(9, store="third", exchanges=(0, 1, 2, 3, 4))
    assert orders == DaemonOrders(True, "cluster", LEASE_S, (1, 2))
    assert cluster.beat(9).drop == ()


def test_dead_daemons_are_forgotten_with_their_last_exchange(cluster: Cluster) -> None:
    cluster.create()
    cluster.sleep(LEASE_S, 1)
    assert 2 in cluster.daemon_states()
    cluster.state.close_exchange("a", used=False)
    assert 2 not in cluster.daemon_states()


# --- sources and status -------------------------------------------------------------------


def sources(cluster: Cluster, partition: int = 0) -> list[int]:
    wait = cluster.state.await_commits(1, BitMap(), partition, 1)
    assert wait.snapshot is not None
    [source] = wait.snapshot.sources
    return [ref.incarnation for ref in source.daemons]


def test_sources_are_the_primary_then_its_stores_daemons(cluster: Cluster) -> None:
    cluster.register(3, store="another")
    info = cluster.create(partitions=8)
    primary = info.assignments[0].primary.incarnation
    assert primary == 1
    assert sources(cluster) == [1, 2]
    cluster.sleep(LEASE_S, 2, 3)
    assert sources(cluster) == [2]
    cluster.sleep(LEASE_S, 3)
    assert sources(cluster) == [1]  # nobody lives; it may come back
    cluster.register(4, address="host:1")
    assert sources(cluster) == [4]


def test_status_lists_the_newest_exchanges(cluster: Cluster) -> None:
    for index in range(MAX_STATUS_EXCHANGES + 5):
        cluster.create(f"id-{index}", partitions=1)
    cluster.state.close_exchange(f"id-{MAX_STATUS_EXCHANGES}", used=False)
    daemons, exchanges = cluster.state.status()
    assert [e.number for e in exchanges] == list(range(6, MAX_STATUS_EXCHANGES + 6))
    assert [e.number for e in exchanges if e.closing] == [MAX_STATUS_EXCHANGES + 1]
    assert sum(d.assignments for d in daemons) == MAX_STATUS_EXCHANGES + 4
