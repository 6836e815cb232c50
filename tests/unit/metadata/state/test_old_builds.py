"""When old builds go, and which daemons are told of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from support.metadata_cluster import OLD_BUILD_GRACE_S, OWNER, Cluster

from cosco.metadata.state import old_builds
from cosco.protocol.events import EventKind
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    EpochsDrop,
    EpochsDropped,
    LossCause,
    LossReport,
    pairs_array,
)

PARTITIONS = 4
MAPPERS = (1, 2)


def cluster_of(*exchanges: str, **options: Any) -> Cluster:
    """One daemon, and exchanges that have two ranges, to which mappers wrote."""
    cluster = Cluster(1)
    for shuffle_id in exchanges or ("a",):
        cluster.create(shuffle_id, partitions=PARTITIONS, **options)
        cluster.state.describe_exchange(shuffle_id, OWNER, cluster.now, used=False, callback=True)
        assert len(cluster.describe(shuffle_id).ranges) == 2
        for mapper in MAPPERS:
            assert cluster.commit(mapper, *range(PARTITIONS), shuffle_id=shuffle_id)
    cluster.persist()
    return cluster


def lose(cluster: Cluster, partition: int = 0, number: int = 1) -> None:
    """A reader has missed rows of it."""
    exchange = cluster.state._exchanges.get(number)
    build = exchange.build(exchange.builds.index_of(partition))
    report = LossReport(number, exchange.generation, build, partition, LossCause.GONE, "gone")
    cluster.state.report_loss(report, cluster.now)
    cluster.fence()


def rerun(cluster: Cluster, *mappers: int, shuffle_id: str = "a", rows: int = 1) -> None:
    """Mappers that were called back write again what they are asked for."""
    for mapper in mappers or MAPPERS:
        opened = cluster.state.open_attempt(shuffle_id, mapper, used=False)
        info = opened.info
        ranges = opened.ranges or tuple(one.index for one in info.ranges)
        wanted = [p for i in ranges for p in range(info.ranges[i].first, info.ranges[i].end)]
        ones = np.full(len(wanted), rows, dtype=np.uint64)
        acknowledged = pairs_array([(i, info.assignments[i].epoch) for i in ranges])
        sums = AttemptSums(np.array(wanted, dtype=np.uint32), ones, ones, ones, ones)
        assert cluster.state.commit(
            CommitRequest(
                info.number,
                mapper,
                opened.attempt,
                info.generation,
                acknowledged,
                sums,
                partial=opened.partial,
                ranges=opened.ranges,
            )
        )
    cluster.persist()


def told(
    cluster: Cluster, *listed: int, dropped: Iterable[EpochsDropped] = ()
) -> tuple[EpochsDrop, ...]:
    """What the daemon is told that sweeps, and has something of these exchanges."""
    orders = cluster.beat(1, exchanges=listed or (1,), epochs_dropped=tuple(dropped))
    cluster.persist()
    return orders.epochs_drop


def pass_grace(cluster: Cluster, *, but_s: float = 0.0) -> None:
    cluster.sleep(OLD_BUILD_GRACE_S - but_s, 1)


def test_an_old_build_goes_when_the_next_one_is_complete_and_the_grace_has_passed() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster, but_s=1)
    assert not told(cluster)
    cluster.sleep(2, 1)
    assert told(cluster) == (EpochsDrop(1, 0, 2, 1),)  # range 1 was not lost
    [event] = [e for e in cluster.state.events.pop_all() if e.kind is EventKind.OLD_BUILDS_DROPPED]
    assert (event.exchange, event.range_indexes, event.build) == ("a", (0,), 2)


def test_nothing_goes_while_a_mapper_is_pending() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster, MAPPERS[0])
    for _ in range(3):
        pass_grace(cluster)
        assert not told(cluster)
    rerun(cluster, MAPPERS[1])
    pass_grace(cluster, but_s=1)
    assert not told(cluster)
    cluster.sleep(2, 1)
    assert told(cluster)


def test_a_range_that_is_lost_again_waits_for_a_build_that_is_complete() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster, but_s=2)
    lose(cluster)
    pass_grace(cluster)
    assert not told(cluster)
    rerun(cluster)
    pass_grace(cluster, but_s=1)
    assert not told(cluster)
    cluster.sleep(2, 1)
    assert told(cluster) == (EpochsDrop(1, 0, 3, 1),)  # of both


def test_a_range_lost_again_between_two_looks_gets_a_grace_of_its_own() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster, but_s=2)
    lose(cluster)
    rerun(cluster)  # nobody has looked meanwhile
    cluster.sleep(5, 1)
    assert not told(cluster)
    pass_grace(cluster)
    assert told(cluster) == (EpochsDrop(1, 0, 3, 1),)


def test_a_late_commit_to_the_old_build_makes_it_wait() -> None:
    """It wrote before the loss: until its mapper has run again the next build lacks its rows."""
    cluster = cluster_of()
    late = cluster.state.open_attempt("a", 3, used=False)
    lose(cluster)
    rerun(cluster)
    ones = np.ones(2, dtype=np.uint64)
    sums = AttemptSums(np.array([0, 1], dtype=np.uint32), ones, ones, ones, ones)
    request = CommitRequest(1, 3, late.attempt, 1, pairs_array([(0, 1)]), sums)
    assert cluster.state.commit(request)
    pass_grace(cluster)
    cluster.sleep(5, 1)
    assert not told(cluster)
    rerun(cluster, 3)
    pass_grace(cluster, but_s=1)  # from now on, and not from when it was complete before
    assert not told(cluster)
    cluster.sleep(2, 1)
    assert told(cluster)


def test_epochs_of_the_present_build_are_never_named_however_often_it_moves() -> None:
    cluster = cluster_of()
    cluster.register(2)
    lose(cluster)
    rerun(cluster)
    for _ in range(3):  # it moves, and its sealed epochs have the rows
        exchange = cluster.state._exchanges.get(1)
        cluster.state.failover.seal(exchange, 0)
        cluster.fence()
    assert cluster.current().epoch == 5
    cluster.sleep(OLD_BUILD_GRACE_S + 2, 1, 2)
    assert told(cluster) == (EpochsDrop(1, 0, 2, 1),)
    assert [epoch for epoch, *_ in cluster.sources(0)] == [2, 3, 4, 5]


def test_a_daemon_is_told_until_it_says_that_it_is_done() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert told(cluster) == told(cluster) != ()
    assert not told(cluster, dropped=[EpochsDropped(1, 1)])
    assert told(cluster)  # it was started again, say, and knows nothing of it
    lose(cluster, PARTITIONS - 1)
    rerun(cluster)
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster)
    cluster.sleep(3, 1)
    news = told(cluster, dropped=[EpochsDropped(1, 1)])
    assert sorted((one.range_index, one.before) for one in news) == [(0, 3), (1, 2)]
    assert not told(cluster, dropped=[EpochsDropped(1, max(one.sequence for one in news))])


def test_who_has_nothing_of_an_exchange_is_told_nothing_nor_who_is_not_known() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert not cluster.beat(1).epochs_drop
    assert not told(cluster, 2, 99)
    assert not cluster.beat(77, exchanges=(1,)).epochs_drop
    assert not told(cluster, dropped=[EpochsDropped(1, 1 << 40)])  # nonsense harms itself alone


def test_the_grace_begins_anew_when_the_service_was_away_and_what_has_gone_stays_so() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster, but_s=1)
    cluster.restart()
    cluster.sleep(2, 1)
    assert not told(cluster)
    pass_grace(cluster)
    assert told(cluster)
    cluster.restart(after_s=100)
    cluster.register(1)
    assert told(cluster) == (EpochsDrop(1, 0, 2, 1),)
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster)
    cluster.sleep(3, 1)
    assert told(cluster) == (EpochsDrop(1, 0, 3, 2),)


@pytest.mark.parametrize(("stall_s", "begins"), [(OLD_BUILD_GRACE_S, True), (0.5, False)])
def test_the_grace_begins_anew_after_a_stall_unless_that_was_short(
    stall_s: float, begins: bool
) -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    pass_grace(cluster, but_s=1)
    cluster.state.restart_periods(cluster.now, stall_s)
    cluster.sleep(3, 1)
    assert bool(told(cluster)) is not begins


def test_ticks_that_did_not_come_begin_it_anew() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster)
    cluster.sleep(1, 1)
    cluster.now += OLD_BUILD_GRACE_S
    cluster.state.tick(cluster.now)
    cluster.sleep(2, 1)
    assert not told(cluster)


def test_a_generation_makes_old_builds_of_all_ranges() -> None:
    cluster = cluster_of(deterministic=False)
    lose(cluster)
    rerun(cluster, MAPPERS[0])
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert not told(cluster)
    rerun(cluster, MAPPERS[1])
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert [(one.range_index, one.before) for one in told(cluster)] == [(0, 2), (1, 2)]


def test_a_range_that_has_failed_for_good_keeps_what_it_has() -> None:
    cluster = cluster_of()
    lose(cluster)
    rerun(cluster, rows=2)  # other rows than before
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert not told(cluster)


def test_a_build_without_an_epoch_makes_up_for_nothing() -> None:
    """A generation may be complete, as nobody wrote to a range, before that is placed anew."""
    cluster = cluster_of(deterministic=False)
    exchange = cluster.state._exchanges.get(1)
    cluster.state.lost_stores.reported(
        LossReport(1, 1, 1, 0, LossCause.GONE, "gone"), cluster.now
    )  # and the daemon does not confirm the seals
    exchange.losses._settle(None)
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert not told(cluster)
    assert exchange.dropped.left() == [0, 1]
    cluster.fence()
    pass_grace(cluster)
    cluster.sleep(2, 1)
    assert len(told(cluster)) == 2


def test_many_exchanges_have_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_builds, "LOOKED_AT_PER_TICK", 1)
    names = ("a", "b", "c")
    cluster = cluster_of(*names)
    for number, name in enumerate(names, 1):
        lose(cluster, number=number)
        rerun(cluster, shuffle_id=name)
    pass_grace(cluster)
    cluster.sleep(6, 1)
    assert sorted(one.number for one in told(cluster, 1, 2, 3)) == [1, 2, 3]
    assert len(cluster.state._old_builds) == 0


def test_an_answer_is_bounded_and_begins_elsewhere_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(old_builds, "MAX_DROPS", 3)
    cluster = cluster_of("a", "b", deterministic=False)
    for number, name in enumerate("ab", 1):
        lose(cluster, number=number)
        rerun(cluster, shuffle_id=name)
    pass_grace(cluster)
    cluster.sleep(2, 1)
    answers = [told(cluster, 1, 2) for _ in range(2)]
    assert [len(answer) for answer in answers] == [3, 3]
    assert {answer[0].number for answer in answers} == {1, 2}
    # The oldest of an exchange first, so that its sequence says what was carried out.
    assert all([one.sequence for one in answer] == [1, 2, 1] for answer in answers)


def test_nothing_is_left_of_an_exchange_that_is_closed() -> None:
    cluster = cluster_of()
    lose(cluster)
    assert len(cluster.state._old_builds) == 1
    rerun(cluster)
    pass_grace(cluster)
    cluster.sleep(2, 1)
    lose(cluster)
    cluster.state.close_exchange("a", used=False)
    cluster.sleep(1, 1)
    assert len(cluster.state._old_builds) == 0
    assert not told(cluster)
    assert not cluster.tables["dropped_builds"]
    cluster.restart()
    assert len(cluster.state._old_builds) == 0


def test_a_second_driver_or_a_move_changes_nothing_of_it() -> None:
    """Takeover and failover in the midst of the grace."""
    cluster = cluster_of()
    cluster.register(2)
    lose(cluster)
    rerun(cluster)
    cluster.sleep(10, 1, 2)
    cluster.state.describe_exchange("a", b"q" * 16, cluster.now, used=False, callback=True)
    cluster.kill(1)
    cluster.fence()
    cluster.sleep(OLD_BUILD_GRACE_S - 9, 2)
    orders = cluster.beat(2, exchanges=(1,))
    assert orders.epochs_drop == (EpochsDrop(1, 0, 2, 1),)


def test_a_store_that_has_only_old_epochs_may_go_without_a_loss() -> None:
    cluster = Cluster()
    cluster.register(1, "own")
    cluster.create("a", partitions=PARTITIONS)
    cluster.register(2, "other")
    cluster.state.describe_exchange("a", OWNER, cluster.now, used=False, callback=True)
    for mapper in MAPPERS:
        cluster.commit(mapper, *range(PARTITIONS))
    cluster.kill(1)
    cluster.fence()
    lose(cluster)
    lose(cluster, PARTITIONS - 1)
    rerun(cluster)
    cluster.sleep(OLD_BUILD_GRACE_S + 2, 2)
    assert len(cluster.beat(2, exchanges=(1,)).epochs_drop) == 2
    cluster.state.forget_store("own")
    assert cluster.state.lost_stores.lose_with(1, "own", cluster.now) == (0, 0)
    assert not cluster.state.poll_driver(1, OWNER, cluster.now).calls
    assert [daemons for _, _, daemons in cluster.sources(0)] == [[2]]
