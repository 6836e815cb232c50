"""What a reader's report of one range says of all else that was in the same store."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pyroaring import BitMap
from support.metadata_cluster import GRACE_S, OTHER, OWNER, Cluster

from cosco.protocol.records import LossCause, LossReport, RecomputeCall

MAPPERS = (3, 5, 7)


def cluster_of(*stores: str, replicas: int = 1, exchanges: Sequence[str] = ("a",)) -> Cluster:
    """Daemons 1, 2, … with these stores, and exchanges of 8 partitions that mappers wrote to."""
    cluster = Cluster()
    for incarnation, store in enumerate(stores, 1):
        cluster.register(incarnation, store)
    for shuffle_id in exchanges:
        cluster.create(shuffle_id, replicas=replicas)
        attach(cluster, shuffle_id)
        for mapper in MAPPERS:
            assert cluster.commit(mapper, *range(8), shuffle_id=shuffle_id)
    return cluster


def attach(cluster: Cluster, shuffle_id: str) -> None:
    cluster.state.describe_exchange(shuffle_id, OWNER, cluster.now, used=False, callback=True)


def die(cluster: Cluster, incarnation: int, *, for_good: bool = True) -> None:
    cluster.kill(incarnation)
    cluster.fence()
    if for_good:
        alive = [i for i, state in cluster.daemon_states().items() if state.name == "SERVING"]
        cluster.sleep(GRACE_S, *alive)


def report(
    cluster: Cluster, partition: int, number: int = 1, cause: LossCause = LossCause.GONE
) -> None:
    cluster.state.report_loss(
        LossReport(number, 1, 1, partition, cause, "nobody has it"), cluster.now
    )


def walk(cluster: Cluster) -> list[int]:
    """Look through all exchanges there are to be looked through, as the service does."""
    lost, seen = cluster.state.lost_stores, []
    while (number := lost.pop_next()) is not None:
        lost.judge(number, cluster.now)
        seen.append(number)
    return seen


def ranges_at(cluster: Cluster, incarnation: int, shuffle_id: str = "a") -> list[int]:
    info = cluster.describe(shuffle_id)
    return [a.range_index for a in info.assignments if a.names(incarnation)]


def builds(cluster: Cluster, number: int = 1) -> list[int]:
    exchange = cluster.state._exchanges.get(number)
    return [exchange.build(one.index) for one in exchange.ranges]


def partition_of(cluster: Cluster, index: int) -> int:
    return int(cluster.describe().ranges[index].first)


def calls(cluster: Cluster, number: int = 1) -> tuple[RecomputeCall, ...]:
    return cluster.state.poll_driver(number, OWNER, cluster.now).calls


@pytest.mark.parametrize("store", ["own", "memory:1"])
def test_one_report_ends_all_that_was_in_a_store_that_is_gone(store: str) -> None:
    cluster = cluster_of(store, "second", "third")
    gone = ranges_at(cluster, 1)
    assert len(gone) == 2
    die(cluster, 1, for_good=store == "own")
    report(cluster, partition_of(cluster, gone[1]))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == gone
    [call] = calls(cluster)
    assert call.mappers == BitMap(MAPPERS)
    assert f"store {store} is gone (nobody has it)" in call.reason
    assert f"partition ranges {gone[0]}, {gone[1]} lost rows" in call.reason
    for index in gone:
        report(cluster, partition_of(cluster, index))  # by other readers: it is known
    assert len(calls(cluster)) == 1
    opened = cluster.state.open_attempt("a", MAPPERS[0], used=False)
    assert (opened.partial, list(opened.ranges)) == (True, gone)


def test_within_the_grace_a_report_is_of_its_range_alone() -> None:
    cluster = cluster_of("own", "second")
    first, *_ = gone = ranges_at(cluster, 1)
    die(cluster, 1, for_good=False)
    cluster.sleep(GRACE_S - 1, 2)
    report(cluster, partition_of(cluster, first))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == [first]
    assert len(gone) > 1


def test_a_host_that_comes_back_without_its_store_is_waited_for_no_more() -> None:
    cluster = cluster_of("own", "second")
    gone = ranges_at(cluster, 1)
    die(cluster, 1, for_good=False)
    partition = partition_of(cluster, gone[0])
    assert [daemons for _, _, daemons in cluster.sources(partition)] == [[1], [2]]
    cluster.register(9, "empty", address="host:1")
    assert [daemons for _, _, daemons in cluster.sources(partition)] == [[], [2]]
    report(cluster, partition)
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == gone
    [call] = calls(cluster)
    assert call.mappers == BitMap(MAPPERS)


def test_a_daemon_that_has_adopted_the_store_has_what_is_left() -> None:
    cluster = cluster_of("own", "second")
    first, *_ = ranges_at(cluster, 1)
    die(cluster, 1)
    cluster.register(9, "own", address="host:1")
    report(cluster, partition_of(cluster, first), cause=LossCause.MISSING)
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == [first]


def test_what_another_daemon_serves_is_not_gone() -> None:
    cluster = cluster_of("shared", "shared", "own")
    first, *_ = ranges_at(cluster, 1)
    die(cluster, 1)
    report(cluster, partition_of(cluster, first))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == [first]


def test_ranges_of_which_a_copy_may_survive_are_left_to_their_readers() -> None:
    cluster = cluster_of("own", "second", "third", replicas=2)
    gone = ranges_at(cluster, 1)
    both = [i for i in gone if i in ranges_at(cluster, 2)]
    assert len(both) < len(gone)
    die(cluster, 1, for_good=False)
    die(cluster, 2)
    report(cluster, partition_of(cluster, both[0]))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == both
    assert not walk(cluster)


def test_a_bad_chunk_of_a_live_store_says_nothing_of_others() -> None:
    cluster = cluster_of("own", "second")
    die(cluster, 1)
    alive = ranges_at(cluster, 2)
    [first, *_] = [i for i in alive if cluster.placed(i)[0] == 1]
    report(cluster, partition_of(cluster, first))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == [first]


def test_of_another_store_that_is_gone_nobody_has_asked() -> None:
    cluster = cluster_of("own", "second", "third")
    mine, theirs = ranges_at(cluster, 1), ranges_at(cluster, 2)
    die(cluster, 1, for_good=False)
    die(cluster, 2)
    report(cluster, partition_of(cluster, mine[0]))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == mine
    [call] = calls(cluster)
    # The mappers have not begun yet: they bring back all of it.
    report(cluster, partition_of(cluster, theirs[0]))
    assert [i for i, build in enumerate(builds(cluster)) if build == 2] == sorted(mine + theirs)
    assert calls(cluster) == (call,)


def test_other_exchanges_are_found_and_their_drivers_told() -> None:
    cluster = cluster_of("own", "second", exchanges=("a", "b", "c", "d"))
    gone = {name: ranges_at(cluster, 1, name) for name in "abcd"}
    die(cluster, 1)
    report(cluster, partition_of(cluster, gone["a"][0]))
    assert [builds(cluster, number) for number in (2, 3, 4)] == [[1] * 4] * 3
    cluster.state.close_exchange("c", used=False)
    assert cluster.state.lost_stores.has_more
    assert walk(cluster) == [2, 4]
    for number, name in ((1, "a"), (2, "b"), (4, "d")):
        assert [i for i, build in enumerate(builds(cluster, number)) if build == 2] == gone[name]
        [call] = calls(cluster, number)
        assert call.mappers == BitMap(MAPPERS)
        assert "store own is gone" in call.reason


def test_reports_of_the_same_store_begin_no_other_walk() -> None:
    cluster = cluster_of("own", "second", exchanges=("a", "b", "c"))
    gone = {name: ranges_at(cluster, 1, name) for name in "abc"}
    die(cluster, 1)
    report(cluster, partition_of(cluster, gone["a"][0]))
    first = cluster.state.lost_stores.pop_next()
    assert first is not None
    cluster.state.lost_stores.judge(first, cluster.now)
    [other] = {2, 3} - {first}
    report(cluster, partition_of(cluster, gone["abc"[other - 1]][0]), number=other)
    assert walk(cluster) == [other]
    assert len(calls(cluster, other)) == 1


def test_a_walk_comes_to_the_exchange_in_which_another_store_was_missed_meanwhile() -> None:
    cluster = cluster_of("own", "second", "third", exchanges=("a", "b"))
    mine, theirs = ranges_at(cluster, 1, "b"), ranges_at(cluster, 2, "b")
    [first, *_] = ranges_at(cluster, 1)
    die(cluster, 1, for_good=False)
    die(cluster, 2)
    report(cluster, partition_of(cluster, first))
    report(cluster, partition_of(cluster, theirs[0]), number=2)
    walk(cluster)
    assert [i for i, build in enumerate(builds(cluster, 2)) if build == 2] == sorted(mine + theirs)


def test_a_daemon_that_comes_during_the_walk_ends_it() -> None:
    cluster = cluster_of("own", "second", exchanges=("a", "b"))
    [first, *_] = ranges_at(cluster, 1)
    die(cluster, 1)
    report(cluster, partition_of(cluster, first))
    cluster.register(9, "own", address="host:1")
    assert walk(cluster) == [2]
    assert builds(cluster, 2) == [1] * 4
    assert not calls(cluster, 2)


def test_what_a_restarted_service_has_not_found_readers_find() -> None:
    cluster = cluster_of("own", "second", exchanges=("a", "b"))
    [first, *_] = ranges_at(cluster, 1)
    die(cluster, 1)
    report(cluster, partition_of(cluster, first))
    [told] = calls(cluster)
    cluster.persist()
    cluster.restart()
    assert not walk(cluster)
    assert calls(cluster) == (told,)
    cluster.sleep(GRACE_S, 2)
    [lost, *_] = [i for i in ranges_at(cluster, 2, "b") if cluster.placed(i, "b")[0] > 1]
    report(cluster, partition_of(cluster, lost), number=2)
    [call] = calls(cluster, 2)
    assert call.mappers == BitMap(MAPPERS)
    assert builds(cluster, 2).count(2) == 2


def test_a_generation_ends_once() -> None:
    cluster = Cluster()
    for incarnation, store in ((1, "own"), (2, "second")):
        cluster.register(incarnation, store)
    cluster.create(deterministic=False)
    attach(cluster, "a")
    assert cluster.commit(3, *range(8))
    gone = ranges_at(cluster, 1)
    die(cluster, 1)
    for index in gone:
        report(cluster, partition_of(cluster, index))
    assert cluster.describe().generation == 2
    [call] = calls(cluster)
    assert call.mappers == BitMap([3])


def test_a_stale_report_says_nothing_of_a_store() -> None:
    cluster = cluster_of("own", "second", exchanges=("a", "b"))
    [first, *_] = ranges_at(cluster, 1)
    die(cluster, 1)
    partition = partition_of(cluster, first)
    for generation, build in ((1, 2), (2, 1)):
        stale = LossReport(1, generation, build, partition, LossCause.GONE, "late")
        cluster.state.report_loss(stale, cluster.now)
    assert builds(cluster) == [1] * 4
    assert not cluster.state.lost_stores.has_more


def test_a_mapper_that_commits_late_to_several_lost_ranges_is_called_back_once() -> None:
    cluster = cluster_of("own", "second")
    gone = ranges_at(cluster, 1)
    assert len(gone) > 1
    die(cluster, 1)
    report(cluster, partition_of(cluster, gone[0]))
    cluster.state.poll_driver(1, OWNER, cluster.now, arranged=[c.loss_id for c in calls(cluster)])
    assert cluster.commit(9, *range(8))  # what the daemon had acknowledged before it died
    [call] = calls(cluster)
    assert call.mappers == BitMap([9])
    assert list(cluster.state.open_attempt("a", 9, used=False).ranges) == gone


def test_another_driver_is_told_once_of_all() -> None:
    cluster = cluster_of("own", "second")
    [first, *_] = ranges_at(cluster, 1)
    die(cluster, 1)
    report(cluster, partition_of(cluster, first))
    assert len(calls(cluster)) == 1
    cluster.state.describe_exchange("a", OTHER, cluster.now, used=False, callback=True)
    [call] = cluster.state.poll_driver(1, OTHER, cluster.now).calls
    assert call.mappers == BitMap(MAPPERS)
