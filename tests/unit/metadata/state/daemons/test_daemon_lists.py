"""Lists of daemons have each one once, in the order that was asked for."""

from __future__ import annotations

from typing import get_args

import pytest
from support.metadata_cluster import Cluster

from cosco.metadata.http.models import DaemonOrder
from cosco.metadata.state.daemons.daemon_lists import ORDERS, Wanted
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.records import DaemonHeartbeat, DaemonState

WRITES = {1: 5, 2: 70, 3: 5, 4: 900}


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster(*WRITES, 5)
    for incarnation, writes in WRITES.items():
        figures = DaemonFigures(writes=writes)
        found.state.heartbeat(
            DaemonHeartbeat(incarnation, 100 - incarnation, figures=figures), found.now
        )
    return found


def listed(cluster: Cluster, wanted: Wanted, order: str, limit: int = 2) -> list[int]:
    found: list[int] = []
    while True:
        page = cluster.state.view.largest_daemons(wanted, order, len(found), limit)
        found += [one.ref.incarnation for one in page]
        if len(page) < limit:
            return found


def test_those_that_have_most_come_first(cluster: Cluster) -> None:
    assert listed(cluster, Wanted(), "writes") == [4, 2, 1, 3, 5]
    assert listed(cluster, Wanted(), "memory_used_bytes") == [4, 3, 2, 1, 5]
    assert listed(cluster, Wanted(prefix="host:2"), "writes") == [2]
    cluster.create("a", partitions=8)
    most = listed(cluster, Wanted(), "assignments")
    counts = {d.ref.incarnation: d.assignments for d in cluster.state.members.status()}
    assert [counts[one] for one in most] == sorted(counts.values(), reverse=True)
    cluster.kill(4)
    assert listed(cluster, Wanted(), "memory_used_bytes")[0] == 3
    assert 4 not in listed(cluster, Wanted((DaemonState.SERVING,)), "writes")


def test_the_interface_knows_all_orders() -> None:
    assert get_args(DaemonOrder) == ("incarnation", *ORDERS)
