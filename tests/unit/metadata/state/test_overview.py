"""Lists of exchanges by pages, and one exchange with all there is to know of it."""

from __future__ import annotations

import pytest
from pyroaring import BitMap
from support.metadata_cluster import OWNER, Cluster

import cosco.metadata.state.overview as overview
from cosco.errors import ExchangeClosed, ExchangeNotFound, InvalidArgument
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
