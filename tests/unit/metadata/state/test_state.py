from __future__ import annotations

from typing import Any

import pytest
from pyroaring import BitMap
from support.metadata_cluster import GRACE_S, LEASE_S, OTHER, OWNER, Cluster

from cosco.errors import (
    CapacityExceeded,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
)
from cosco.metadata.state.daemons.errands import ProbeOutcome
from cosco.metadata.state.overview import MAX_STATUS_EXCHANGES
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.records import DaemonOrders, DaemonState

TRACE = f"00-{1:032x}-{2:016x}-01"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(1, 2)


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


@pytest.mark.parametrize(("kept", "said"), [("", TRACE), (TRACE, "")])
def test_a_create_is_repeated_also_where_its_trace_was_not_kept(
    cluster: Cluster, kept: str, said: str
) -> None:
    """A service of the build before knew none."""
    info = cluster.create(trace=kept)
    assert cluster.create(trace=said) == info


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
            cluster.state.await_commits(number, BitMap(), 0, 1, cluster.now)
        with pytest.raises(error):
            cluster.state.lookup_assignment(number, 0, 1, 1)


def test_a_daemon_finds_its_own_assignments_only(cluster: Cluster) -> None:
    cluster.register(3)
    info = cluster.create(replicas=2)
    for part, assignment in zip(info.ranges, info.assignments, strict=True):
        members = {ref.incarnation for ref in (assignment.primary, *assignment.replicas)}
        for incarnation in (1, 2, 3):
            found = cluster.state.lookup_assignment(1, part.index, 1, incarnation)
            assert found == (FoundAssignment(assignment, part) if incarnation in members else None)
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


def test_a_database_that_is_always_slow_keeps_nobody_alive(cluster: Cluster) -> None:
    cluster.create(lease_s=3.0)
    cluster.create("b", lease_s=1.0)  # of which one such write is a large part
    closed: list[int] = []
    for _ in range(2 * int(LEASE_S)):
        cluster.now += 0.5
        cluster.beat(1)
        cluster.state.restart_periods(cluster.now, 0.7)
        closed += cluster.state.tick(cluster.now)
    assert cluster.daemon_states() == {1: DaemonState.SERVING, 2: DaemonState.DEAD}
    assert closed == [1]


def test_after_a_stall_every_grace_is_full_for_whoever_asks_first() -> None:
    cluster = Cluster()
    cluster.register(1, "x")
    cluster.register(2, "y")
    cluster.create(partitions=1, replicas=1)
    cluster.kill(1)
    cluster.sleep(1.0, 2)
    cluster.now += 100.0
    assert cluster.sources()[0] == (1, True, [1])  # it had no one to register with
    cluster.sleep(GRACE_S, 2)
    assert cluster.sources()[0] == (1, True, [])


def test_silence_does_not_last_through_a_stall() -> None:
    cluster = Cluster(1, 2)
    cluster.probe(1, ProbeOutcome.SILENT)
    cluster.sleep(1.0, 1, 2)
    cluster.state.members.pop_probes()
    cluster.now += 100.0
    cluster.state.probed(1, ProbeOutcome.SILENT, cluster.now)  # asked before the stall
    assert cluster.daemon_states()[1] is DaemonState.SERVING
    assert cluster.sleep(1.0) == []
    assert cluster.daemon_states()[1] is DaemonState.SERVING


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
    _, [status] = cluster.state.overview.status()
    assert status.closing
    assert cluster.beat(2, 1).drop == ()
    assert not cluster.state.knows("a")
    assert cluster.state.close_exchange("a", used=True) is None
    assert cluster.state.overview.status()[1] == ()


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
    # Also at a sweep, which comes with a heartbeat.
    assert cluster.beat(9, exchanges=(0, 1, 2, 3, 4)).drop == (1, 2)
    assert not cluster.beat(8, exchanges=(1,)).known


def test_dead_daemons_are_forgotten_with_their_last_exchange(cluster: Cluster) -> None:
    cluster.create()
    cluster.sleep(LEASE_S, 1)
    assert 2 in cluster.daemon_states()
    cluster.state.close_exchange("a", used=False)
    assert 2 not in cluster.daemon_states()


# --- sources and status -------------------------------------------------------------------


def test_sources_are_the_members_then_their_stores_daemons() -> None:
    cluster = Cluster()
    for incarnation, store in ((1, "x"), (2, "y"), (3, "x"), (4, "y"), (5, "z")):
        cluster.register(incarnation, store)
    cluster.create(partitions=1, replicas=2)
    assert cluster.placed() == (1, False, [1, 2])
    assert cluster.sources() == [(1, False, [1, 2, 3, 4])]
    cluster.kill(2)  # its files are to be had from 4
    cluster.fence()
    [first, _] = cluster.sources()
    assert first == (1, True, [1, 3, 4])
    cluster.kill(1)
    [first, *_] = cluster.sources()
    assert first == (1, True, [3, 4])


def test_the_draining_serve_but_are_asked_last() -> None:
    cluster = Cluster(1, 2, 3)
    cluster.create(partitions=1)
    cluster.kill(1)
    cluster.state.members.drain("host:2")
    assert cluster.sources()[0] == (1, True, [3, 2])


@pytest.mark.parametrize("grace", [True, False])
def test_a_source_that_nobody_serves_is_named_while_it_may_come_back(grace: bool) -> None:
    cluster = Cluster()
    cluster.register(1, "x")
    cluster.register(2, "y")
    cluster.create(partitions=1, replicas=1)
    cluster.kill(1)
    cluster.sleep(GRACE_S - 0.5 if grace else GRACE_S, 2)
    assert cluster.sources() == [(1, True, [1] if grace else []), (2, False, [2])]
    cluster.register(3, "x", address="host:1")  # it was started again on what it left
    assert cluster.sources()[0] == (1, True, [3])


def test_what_a_dead_member_stored_alone_is_awaited_behind_who_lives() -> None:
    cluster = Cluster()
    for incarnation, store in ((1, "x"), (2, "y"), (3, "y")):
        cluster.register(incarnation, store)
    cluster.create(partitions=1, replicas=2)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.kill(1)  # its replica has dropped the copies of what it stored
    cluster.fence()
    assert cluster.sources()[0] == (1, True, [2, 3, 1])
    cluster.kill(2)  # another serves its store
    assert cluster.sources()[0] == (1, True, [3, 1])
    cluster.sleep(GRACE_S, 3)
    assert cluster.sources()[0] == (1, True, [3])
    cluster.register(4, "x", address="host:1")
    assert cluster.sources()[0] == (1, True, [4, 3])


def test_a_restart_of_the_service_gives_the_dead_their_grace_again() -> None:
    cluster = Cluster()
    cluster.register(1, "x")
    cluster.register(2, "y")
    cluster.create(partitions=1, replicas=1)
    cluster.kill(1)
    cluster.persist()
    cluster.restart(after_s=100.0)
    assert cluster.sources()[0] == (1, True, [1])
    cluster.sleep(GRACE_S, 2)
    assert cluster.sources()[0] == (1, True, [])


def test_what_a_volatile_store_had_ends_with_its_daemon() -> None:
    cluster = Cluster()
    cluster.register(1, "memory:1")
    cluster.register(2, "memory:2")
    cluster.create(partitions=1, replicas=2)
    cluster.kill(1)
    cluster.fence()
    assert cluster.sources()[0] == (1, True, [2])
    cluster.kill(2)
    assert cluster.sources()[0] == (1, True, [])


def test_status_lists_the_newest_exchanges(cluster: Cluster) -> None:
    for index in range(MAX_STATUS_EXCHANGES + 5):
        cluster.create(f"id-{index}", partitions=1)
    cluster.state.close_exchange(f"id-{MAX_STATUS_EXCHANGES}", used=False)
    daemons, exchanges = cluster.state.overview.status()
    assert [e.number for e in exchanges] == list(range(6, MAX_STATUS_EXCHANGES + 6))
    assert [e.number for e in exchanges if e.closing] == [MAX_STATUS_EXCHANGES + 1]
    assert sum(d.assignments for d in daemons) == MAX_STATUS_EXCHANGES + 4
