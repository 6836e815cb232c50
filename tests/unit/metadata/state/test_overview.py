"""Lists of exchanges by pages, and one exchange with all there is to know of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyroaring import BitMap
from support.metadata_cluster import OWNER, Cluster

import cosco.metadata.state.history.ending as ending
import cosco.metadata.state.overview as overview
from cosco.errors import ExchangeClosed, ExchangeNotFound, InvalidArgument
from cosco.metadata.state.history.history import HistoryBounds
from cosco.protocol import wire
from cosco.protocol.admin_records import (
    ExchangeDetail,
    ExchangePage,
    ExchangePhase,
    LossState,
    PartitionSize,
)
from cosco.protocol.records import DaemonState, ExchangeSpec, LossCause, LossReport, RowKind
from cosco.protocol.wire import mpb


def many(count: int = 7) -> Cluster:
    """Exchanges "a0", "b1", "a2", …, of which every third is closing."""
    cluster = Cluster(1, 2)
    for index in range(count):
        cluster.create(f"{'ab'[index % 2]}{index}")
    for index in range(0, count, 3):
        cluster.state.close_exchange(f"{'ab'[index % 2]}{index}", used=False)
    return cluster


def listed(cluster: Cluster, *, phase: int = 0, prefix: str = "", limit: int = 3) -> list[str]:
    """The ids of all pages."""
    found, after = [], 0
    for _ in range(50):
        page = cluster.state.overview.page(phase, prefix, after, limit)
        assert len(page.exchanges) <= limit
        found += [status.shuffle_id for status in page.exchanges]
        if not page.next:
            return found
        assert page.next > after
        after = page.next
    raise AssertionError("no end")


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 1000])
def test_pages_have_every_exchange_once_by_number(limit: int) -> None:
    assert listed(many(), limit=limit) == ["a0", "b1", "a2", "b3", "a4", "b5", "a6"]


@pytest.mark.parametrize(
    ("phase", "prefix", "expected"),
    [
        (ExchangePhase.OPEN, "", ["b1", "a2", "a4", "b5"]),
        (ExchangePhase.CLOSING, "", ["a0", "b3", "a6"]),
        (0, "b", ["b1", "b3", "b5"]),
        (ExchangePhase.OPEN, "a", ["a2", "a4"]),
        (0, "nobody", []),
    ],
)
@pytest.mark.parametrize("looked_at", [1, 2, 10_000])
def test_pages_have_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, phase: int, prefix: str, expected: list[str], looked_at: int
) -> None:
    monkeypatch.setattr(overview, "MAX_LOOKED_AT", looked_at)
    assert listed(many(), phase=phase, prefix=prefix) == expected


@pytest.mark.parametrize("looked_at", [1, 2, 3])
def test_a_page_may_look_at_few(looked_at: int) -> None:
    overview_of, found, after = many().state.overview, [], 0
    for _ in range(50):
        page = overview_of.page(0, "b", after, 10, looked_at=looked_at)
        assert len(page.exchanges) <= looked_at
        found += [status.shuffle_id for status in page.exchanges]
        after = page.next
        if not after:
            break
    assert found == ["b1", "b3", "b5"]


@example(list(range(40)), 1)
@example(list(range(40)), 3)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 8))
def test_the_largest_partitions_are_those_with_most_rows(sizes: list[int], block: int) -> None:
    rows = np.array(sizes, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "_BLOCK", block)
        found = ending.largest(rows, rows)
    expected = sorted((size for size in sizes if size), reverse=True)[: ending.MAX_LARGEST]
    assert [one.rows for one in found] == expected
    assert all(sizes[one.partition] == one.rows == one.raw_bytes for one in found)
    assert len({one.partition for one in found}) == len(found)


def test_a_page_of_large_exchanges_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MAX_ADDED_UP", 8)
    cluster = many()
    assert len(cluster.state.overview.page(0, "", 0, 1000).exchanges) == 1
    assert len(listed(cluster, limit=1000)) == 7


def test_there_may_be_none() -> None:
    assert Cluster(1).state.overview.page(0, "", 0, 10) == ExchangePage((), 0)


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_limit_out_of_its_bounds(limit: int) -> None:
    with pytest.raises(InvalidArgument, match="limit"):
        Cluster(1).state.overview.page(0, "", 0, limit)


def detail(cluster: Cluster, shuffle_id: str = "a", *, used: bool = False) -> ExchangeDetail:
    """What is answered, over the wire and back."""
    found = cluster.state.overview.detail(shuffle_id, cluster.now, used=used)
    sent = wire.to_pb(found).SerializeToString()
    assert wire.from_pb(ExchangeDetail, mpb.ShowExchangeReply.FromString(sent)) == found
    return found


def test_an_open_exchange() -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=4, replicas=2, codec="none")
    cluster.now += 2
    cluster.commit(5, 0, 3)
    cluster.commit(6, 3)
    cluster.state.open_attempt("a", 7, used=False)
    found = detail(cluster)
    assert (found.status.mappers_committed, found.mappers_opened, found.status.rows) == (2, 3, 3)
    assert found.largest == (PartitionSize(3, 2, 2), PartitionSize(0, 1, 1))
    assert found.empty_partitions == 2
    assert (found.replicas, found.copies, found.codec, found.ranges) == (2, 2, "none", 4)
    assert (found.heard_s, found.lease_s, found.lease_left_s) == (2.0, 300.0, 298.0)
    assert [(d.ref.incarnation, d.primary, d.replica) for d in found.daemons] == [
        (1, 2, 2),
        (2, 2, 2),
    ]
    assert found.unusual == found.losses == found.failures == found.waiting_for == ()
    assert (found.kind, found.group_id) == (RowKind.UNDECIDED, "")


def with_history(*daemons: int, unix_s: float = 5e6) -> Cluster:
    cluster = Cluster(*daemons)
    bounds = HistoryBounds(unix_s, keep_s=100.0, keep_max=4)
    cluster.state.members.history.begin(bounds, cluster.now)
    return cluster


def tick(cluster: Cluster, seconds: float) -> None:
    cluster.sleep(seconds, 1, 2)


def test_an_exchange_that_has_ended_is_shown_for_a_while() -> None:
    cluster = with_history(1, 2)
    cluster.create(partitions=4, replicas=2, codec="none")
    cluster.commit(5, 0, 3)
    cluster.commit(6, 3)
    tick(cluster, 10)
    before = detail(cluster)
    assert before.kind is RowKind.UNDECIDED
    assert (before.created_s, before.closed_s, before.sizes) == (5e6, 0.0, (1, 0, 0, 2))
    cluster.state.close_exchange("a", used=False)
    for phase in ("closing", "finished"):
        found = detail(cluster, used=True)
        assert found.status.closing == (phase == "closing")
        assert bool(found.waiting_for) == (phase == "closing")
        assert (found.status.mappers_committed, found.status.rows, found.cause) == (2, 3, "asked")
        assert (found.created_s, found.closed_s) == (5e6, 5e6 + 10)
        assert (found.sizes, found.largest) == (before.sizes, before.largest)
        assert (found.empty_partitions, found.bytes_raw, found.bytes_stored) == (2, 3, 3)
        assert (found.losses_count, found.rebuilds, found.codec) == (0, 0, "none")
        for incarnation in (1, 2):
            cluster.beat(incarnation, 1)
    assert listed(cluster, phase=ExchangePhase.FINISHED) == ["a"]
    assert not listed(cluster)
    tick(cluster, 99.5)
    assert detail(cluster, used=True)
    tick(cluster, 0.5)
    with pytest.raises(ExchangeClosed):
        detail(cluster, used=True)


def test_losses_and_leases_are_kept_too() -> None:
    cluster = with_history(1, 2)
    cluster.create(partitions=2, replicas=2)
    cluster.commit(5, 0, 1)
    cluster.kill(1)
    cluster.fence()
    cluster.state.report_loss(LossReport(1, 1, 1, 0, LossCause.GONE, "nobody has it"), cluster.now)
    assert detail(cluster).rebuilds == 1
    tick(cluster, 300)
    found = cluster.state.members.history.find("a")
    assert found is not None
    assert (found.cause, found.losses, found.rebuilds) == ("lease", 1, 1)


def test_lists_of_finished_exchanges_have_what_was_asked_for() -> None:
    cluster = with_history(1, 2)
    for name in ("a0", "b1", "a2", "b3", "a4", "b5"):
        cluster.create(name)
        cluster.state.close_exchange(name, used=False)
    assert listed(cluster, phase=ExchangePhase.FINISHED, limit=1) == ["a2", "b3", "a4", "b5"]
    assert listed(cluster, phase=ExchangePhase.FINISHED, prefix="b") == ["b3", "b5"]
    page = cluster.state.overview.page(ExchangePhase.FINISHED, "", 0, 10, "somebody")
    assert not page.exchanges


def test_of_a_group_no_exchange_is_kept() -> None:
    cluster = with_history(1, 2)
    spec = ExchangeSpec("g", 2, replicas=1, lease_s=50.0)
    cluster.state.groups.create(spec, 3, 2, 0, OWNER, cluster.now, callback=True)
    cluster.state.groups.close("g", used=False)
    assert not listed(cluster, phase=ExchangePhase.FINISHED)


def test_an_exchange_that_has_seen_failures() -> None:
    cluster = Cluster(1, 2)
    cluster.create(partitions=2, replicas=2)
    cluster.commit(5, 0, 1)
    cluster.kill(1)
    cluster.fence()
    cluster.state.report_loss(LossReport(1, 1, 1, 0, LossCause.GONE, "nobody has it"), cluster.now)
    found = detail(cluster)
    [loss] = found.losses
    assert (loss.ranges, loss.mappers, loss.state) == ((0,), 1, LossState.FAILED)
    assert "nobody has it" in loss.reason
    assert found.losses_count == 1
    assert [(r.partition_range.index, r.build, r.sealed) for r in found.unusual] == [
        (0, 2, True),
        (1, 1, False),
    ]
    assert "waits for host:2" in found.unusual[0].waiting_for
    states = {d.ref.incarnation: (d.state, d.sealed) for d in found.daemons}
    assert states[1] == (DaemonState.DEAD, 2)


def test_an_exchange_of_a_group_has_the_lease_of_the_group() -> None:
    cluster = Cluster(1, 2)
    spec = ExchangeSpec("g", 2, replicas=1, lease_s=50.0)
    cluster.state.groups.create(spec, 3, 2, 0, OWNER, cluster.now, callback=True)
    cluster.now += 5
    found = detail(cluster, "g/1")
    assert (found.group_id, found.group_mappers, found.callback) == ("g", 3, True)
    assert (found.heard_s, found.lease_left_s) == (5.0, 45.0)


def test_an_exchange_that_is_closing_says_whom_it_waits_for() -> None:
    cluster = Cluster(1, 2)
    cluster.create()
    cluster.state.close_exchange("a", used=False)
    cluster.kill(1)
    found = detail(cluster)
    assert found.status.closing
    assert found.waiting_for == ("daemon host:2", "store shared")


def test_mappers_that_said_two_things() -> None:
    cluster = Cluster(1)
    cluster.create(partitions=1)
    cluster.commit(5, 0)
    exchange = cluster.state.overview._directory.open[1]
    exchange.attempts.contradict(5)
    assert detail(cluster).contradicted == BitMap([5])


def test_what_is_not_there() -> None:
    cluster = Cluster(1)
    with pytest.raises(ExchangeNotFound):
        detail(cluster)
    with pytest.raises(ExchangeClosed):
        detail(cluster, used=True)
