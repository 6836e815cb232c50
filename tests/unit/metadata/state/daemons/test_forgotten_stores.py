"""What follows when people say that a store is gone for good."""

from __future__ import annotations

import pytest
from pyroaring import BitMap
from support.metadata_cluster import GRACE_S, OWNER, Cluster

from cosco.errors import DataLost, InvalidArgument
from cosco.protocol.records import RecomputeCall

REASON = "store own is gone for good"


def with_stores(*stores: str) -> Cluster:
    """Daemons 1, 2, … with these stores."""
    cluster = Cluster()
    for incarnation, store in enumerate(stores, 1):
        cluster.register(incarnation, store)
    return cluster


def forget(cluster: Cluster, store: str = "own") -> tuple[int, int, int]:
    """Closing exchanges that are gone, ranges that are lost, and those that may be."""
    closed, numbers = cluster.state.forget_store(store)
    lose_with = cluster.state.lost_stores.lose_with
    found = [lose_with(number, store, cluster.now) for number in numbers]
    return closed, sum(lost for lost, _ in found), sum(others for _, others in found)


def calls(cluster: Cluster) -> tuple[RecomputeCall, ...]:
    return cluster.state.poll_driver(1, OWNER, cluster.now).calls


def alone(**options: object) -> Cluster:
    """One exchange of four ranges, each on one of two daemons; the first one's host is gone."""
    cluster = with_stores("own", "other")
    spec = {"replicas": 1, **options}
    cluster.create(**spec)
    cluster.state.describe_exchange("a", OWNER, cluster.now, used=False, callback=True)
    assert cluster.commit(7, *range(8))
    cluster.kill(1)
    cluster.fence()
    return cluster


def test_a_closing_exchange_waits_for_it_no_more() -> None:
    cluster = alone()
    cluster.state.close_exchange("a", used=False)
    cluster.beat(2, 1)
    assert cluster.state.counts().closing == 1
    assert forget(cluster) == (1, 0, 0)
    assert cluster.state.counts().closing == 0
    assert forget(cluster) == (0, 0, 0)  # repeated
    cluster.persist()
    assert not cluster.tables.get("closing")
    assert cluster.tables["closed"] == {(1,): ("a",)}


def test_it_still_waits_for_others() -> None:
    cluster = alone()
    cluster.state.close_exchange("a", used=False)
    assert forget(cluster) == (0, 0, 0)
    cluster.beat(2, 1)
    assert cluster.state.counts().closing == 0


def test_a_closing_exchange_that_has_forgotten_its_daemons_is_freed_after_a_restart() -> None:
    cluster = alone()
    cluster.state.close_exchange("a", used=False)
    cluster.beat(2, 1)
    cluster.persist()
    cluster.restart()
    assert forget(cluster) == (1, 0, 0)


def test_what_is_closed_later_does_not_wait_for_it_either() -> None:
    cluster = alone()
    forget(cluster)
    cluster.persist()
    cluster.restart()
    cluster.state.close_exchange("a", used=False)
    cluster.beat(2, 1)
    assert cluster.state.counts().closing == 0


def test_ranges_whose_rows_it_alone_had_are_lost_at_once() -> None:
    cluster = alone()
    state = cluster.state
    before = [state.await_commits(1, BitMap([7]), p, 1, cluster.now).snapshot for p in range(8)]
    assert all(before)  # for all that is known the daemon may come back
    assert forget(cluster) == (0, 2, 0)
    missing = [
        p for p in range(8) if state.await_commits(1, BitMap([7]), p, 1, cluster.now).missing
    ]
    assert len(missing) == 4
    called = calls(cluster)
    assert [call.mappers for call in called] == [BitMap([7])]
    assert all(REASON in call.reason for call in called)
    assert {cluster.placed(index)[2][0] for index in range(4)} == {2}
    assert forget(cluster) == (0, 0, 0)  # they have begun anew


def test_it_is_remembered_over_a_restart() -> None:
    cluster = alone()
    assert forget(cluster) == (0, 2, 0)
    cluster.persist()
    cluster.restart()
    assert forget(cluster) == (0, 0, 0)
    state = cluster.state
    lost = [p for p in range(8) if state.await_commits(1, BitMap([7]), p, 1, cluster.now).missing]
    assert len(lost) == 4


def test_readers_are_told_of_the_store_if_nobody_brings_rows_back() -> None:
    cluster = alone()
    forget(cluster)
    failed = [(call.loss_id, "no") for call in calls(cluster)]
    cluster.state.poll_driver(1, OWNER, cluster.now, failed=failed)
    told = 0
    for partition in range(8):
        try:
            cluster.state.await_commits(1, BitMap([7]), partition, 1, cluster.now)
        except DataLost as error:
            told += REASON in str(error)
    assert told == 4


def test_ranges_nobody_wrote_to_there_are_left_alone() -> None:
    cluster = with_stores("own", "other")
    cluster.create(replicas=1)
    mine = [i for i in range(4) if cluster.placed(i)[2] == [1]]
    theirs = [i for i in range(4) if i not in mine]
    assert cluster.commit(7, *(p for i in theirs for p in (2 * i, 2 * i + 1)))
    cluster.kill(1)
    cluster.fence()
    assert forget(cluster) == (0, 0, 0)
    assert not calls(cluster)


def test_ranges_of_which_a_copy_may_survive_are_left_to_readers() -> None:
    cluster = with_stores("own", "other")
    cluster.create(replicas=2)
    assert cluster.commit(7, *range(8))
    cluster.kill(1)
    cluster.fence()
    assert [daemons for _, _, daemons in cluster.sources()] == [[2, 1], [2]]
    assert forget(cluster) == (0, 0, 4)
    assert not calls(cluster)
    # Nobody is waited for any more: who is left is asked, and readers know at once.
    assert [daemons for _, _, daemons in cluster.sources()] == [[2], [2]]


def test_ranges_of_which_a_store_may_return_are_left_to_readers() -> None:
    cluster = with_stores("own", "other", "third")
    cluster.create(replicas=2, partitions=1)
    assert cluster.commit(7, 0)
    members = cluster.placed()[2]
    for incarnation in members:
        cluster.kill(incarnation)
    cluster.fence()
    stores = {1: "own", 2: "other", 3: "third"}
    first, second = (stores[i] for i in members)
    assert forget(cluster, first) == (0, 0, 1)
    assert forget(cluster, second) == (0, 1, 0)


def test_memory_of_a_dead_daemon_is_no_copy() -> None:
    cluster = with_stores("own", "memory:2")
    cluster.create(replicas=2, partitions=1)
    assert cluster.commit(7, 0)
    cluster.kill(1)
    cluster.kill(2)
    cluster.fence()
    assert forget(cluster) == (0, 1, 0)


def test_a_shared_store_that_others_serve_is_not_forgotten() -> None:
    cluster = with_stores("shared", "shared")
    cluster.create()
    cluster.kill(1)
    with pytest.raises(InvalidArgument, match="served by the live shuffle daemon at 'host:2'"):
        forget(cluster, "shared")


@pytest.mark.parametrize("store", ["", "nobody's", "\x1b[31m"])
def test_a_store_that_nobody_knows_is_not_forgotten(store: str) -> None:
    cluster = alone()
    with pytest.raises(InvalidArgument, match="no exchange has anything in a store") as told:
        forget(cluster, store)
    assert "\x1b" not in str(told.value)
    cluster.persist()
    assert not cluster.tables.get("forgotten_stores")


def test_a_daemon_that_comes_back_is_told_and_sweeps_what_is_closed() -> None:
    cluster = alone()
    forget(cluster)
    cluster.state.close_exchange("a", used=False)
    cluster.beat(2, 1)
    orders = cluster.register(3, "own", address="host:1", exchanges=(1, 99))
    assert (orders.was_forgotten, orders.drop) == (True, (1,))
    assert cluster.register(3, "own", address="host:1").was_forgotten  # the answer was lost
    cluster.persist()
    assert not cluster.tables["forgotten_stores"]
    assert not cluster.register(4, "own", address="host:4").was_forgotten
    assert not cluster.register(2, "other").was_forgotten


def test_a_store_that_comes_back_serves_what_was_not_lost_yet() -> None:
    cluster = with_stores("own", "other")
    cluster.create(replicas=2, partitions=1)
    assert cluster.commit(7, 0)
    cluster.kill(1)
    cluster.fence()
    forget(cluster)
    assert cluster.sources()[0][2] == [2]
    cluster.register(3, "own", address="host:1")
    assert sorted(cluster.sources()[0][2]) == [2, 3]
    cluster.sleep(GRACE_S, 2, 3)
    assert sorted(cluster.sources()[0][2]) == [2, 3]


def test_without_determinism_a_generation_begins_once() -> None:
    cluster = alone(deterministic=False)
    assert forget(cluster)[1] == 2
    assert cluster.describe().generation == 2
    assert forget(cluster) == (0, 0, 0)
    assert cluster.describe().generation == 2
