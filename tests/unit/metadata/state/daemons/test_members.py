"""What daemons are told: to drain, and when they may end. Moves are in test_failover."""

from __future__ import annotations

import pytest
from support.metadata_cluster import LEASE_S, Cluster

from cosco.errors import CapacityExceeded, InvalidArgument
from cosco.metadata.state.state import TICK_S
from cosco.protocol.records import DaemonState


def with_stores(**stores: str) -> Cluster:
    """Daemons d1, d2, … with these stores."""
    cluster = Cluster()
    for name, store in stores.items():
        cluster.register(int(name[1:]), store)
    return cluster


def may_exit(cluster: Cluster, incarnation: int, unstored_bytes: int = 0) -> bool:
    orders = cluster.beat(incarnation, draining=True, unstored_bytes=unstored_bytes)
    assert orders.drain
    return orders.may_exit


@pytest.mark.parametrize("how", ["command", "heartbeat", "registration"])
def test_a_draining_daemon_is_given_nothing_and_loses_what_it_has(how: str) -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=1)
    assert cluster.placed() == (1, False, [1])
    if how == "command":
        cluster.state.members.drain("host:1")
        assert cluster.beat(1).drain
    elif how == "heartbeat":
        assert cluster.beat(1, draining=True).drain
    else:
        assert cluster.register(1, draining=True).drain
    assert cluster.placed() == (1, True, [1])
    cluster.fence()
    assert cluster.placed() == (2, False, [2])
    assert cluster.daemon_states() == {1: DaemonState.DRAINING, 2: DaemonState.SERVING}
    assert cluster.create("b", partitions=1).assignments[0].primary.incarnation == 2
    # It is for good, whatever it says later, and whatever becomes of the service.
    assert cluster.beat(1).drain
    assert cluster.register(1).drain
    cluster.persist()
    cluster.restart()
    assert cluster.beat(1).drain
    assert cluster.daemon_states()[1] is DaemonState.DRAINING


def test_a_new_start_of_a_drained_daemon_serves() -> None:
    cluster = Cluster(1, 2)
    cluster.state.members.drain("host:1")
    assert not cluster.register(3, address="host:1").drain
    assert cluster.daemon_states()[3] is DaemonState.SERVING


@pytest.mark.parametrize("address", ["host:9", "", "host:1\n", "host:2"])
def test_only_daemons_that_live_are_drained(address: str) -> None:
    cluster = Cluster(1, 2)
    cluster.kill(2)
    with pytest.raises(InvalidArgument, match="there is no live shuffle daemon at '"):
        cluster.state.members.drain(address)


def test_without_another_daemon_writers_wait_for_one() -> None:
    cluster = Cluster(1)
    cluster.create(partitions=1)
    cluster.state.members.drain("host:1")
    cluster.fence()
    cluster.sleep(TICK_S, 1)
    assert cluster.placed() == (1, True, [1])
    assert "of 1 shuffle daemons 1 drain and 0 cannot" in cluster.renew((0, 1)).waiting_for
    with pytest.raises(CapacityExceeded, match="of 1 shuffle daemons 1 drain and 0 cannot"):
        cluster.create("b")
    cluster.register(2)
    assert cluster.placed() == (2, False, [2])


def test_exit_waits_for_fences_and_for_the_store() -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=1)
    assert not may_exit(cluster, 1)
    cluster.fence()
    assert not may_exit(cluster, 1, unstored_bytes=1)
    assert may_exit(cluster, 1)
    assert not cluster.beat(2).may_exit


def test_exit_needs_no_other_host_for_what_waits() -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=1, replicas=2, min_replicas=2)
    assert not may_exit(cluster, 1)
    cluster.fence()
    assert cluster.placed()[1]
    assert may_exit(cluster, 1)


@pytest.mark.parametrize(
    ("stores", "also_draining", "allowed"),
    [
        ({"d1": "x", "d2": "x"}, [], True),  # shared, another one serves it
        ({"d1": "x", "d2": "x"}, [2], True),  # nobody goes on; a restart adopts
        ({"d1": "x", "d2": "x", "d3": "y"}, [2], False),  # 2 must not be relied on
        ({"d1": "x", "d2": "y"}, [], False),  # private: it serves on
        ({"d1": "x", "d2": "y"}, [2], True),
        ({"d1": "x"}, [], True),
        ({"d1": "memory:1", "d2": "y"}, [], False),
        ({"d1": "memory:1"}, [], False),
    ],
)
def test_exit_leaves_a_store_to_others(
    stores: dict[str, str], also_draining: list[int], allowed: bool
) -> None:
    cluster = with_stores(**stores)
    cluster.create(partitions=8)
    for incarnation in also_draining:
        cluster.state.members.drain(f"host:{incarnation}")
    cluster.state.members.drain("host:1")
    cluster.fence()
    assert may_exit(cluster, 1) == allowed
    cluster.state.close_exchange("a", used=False)
    assert may_exit(cluster, 1)


def test_a_private_store_that_nobody_wrote_to_is_no_reason_to_stay() -> None:
    cluster = with_stores(d1="x", d2="y")
    cluster.create(partitions=1)
    assert cluster.placed()[2] == [1]
    assert may_exit(cluster, 2)


def test_one_that_was_drained_and_ended_is_only_dead() -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=1)
    cluster.state.members.drain("host:1")
    cluster.fence()
    cluster.sleep(LEASE_S, 2)
    assert cluster.daemon_states() == {1: DaemonState.DEAD, 2: DaemonState.SERVING}
    assert cluster.placed() == (2, False, [2])
    cluster.state.close_exchange("a", used=False)
    assert cluster.daemon_states() == {2: DaemonState.SERVING}


def test_a_drain_by_command_is_taken_back() -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=1, min_replicas=1)
    cluster.state.members.drain("host:1")
    cluster.state.members.drain("host:2")
    cluster.fence()
    assert cluster.placed()[1]  # with nowhere to go
    assert cluster.state.members.undrain("host:1", cluster.now)
    assert cluster.placed()[1:] == (False, [1])  # it is taken up at once
    assert not cluster.beat(1).drain
    assert not cluster.state.members.undrain("host:1", cluster.now)  # repeated
    cluster.persist()
    cluster.restart()
    assert cluster.daemon_states() == {1: DaemonState.SERVING, 2: DaemonState.DRAINING}


def test_a_daemon_that_was_told_to_end_is_not_undrained() -> None:
    cluster = Cluster(1, 2)
    cluster.beat(1, draining=True)
    with pytest.raises(InvalidArgument, match="told to end"):
        cluster.state.members.undrain("host:1", cluster.now)
    assert cluster.beat(1, draining=True).drain


def test_a_daemon_that_has_drained_is_not_undrained() -> None:
    cluster = Cluster(1, 2)
    cluster.state.members.drain("host:1")
    assert cluster.beat(1).may_exit
    with pytest.raises(InvalidArgument, match="has drained"):
        cluster.state.members.undrain("host:1", cluster.now)


def test_nobody_there_is_undrained() -> None:
    with pytest.raises(InvalidArgument, match="no live shuffle daemon at 'host:9'"):
        Cluster(1).state.members.undrain("host:9", 0.0)
