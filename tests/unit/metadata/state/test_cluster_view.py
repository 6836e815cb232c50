"""Lists of daemons, groups and applications by pages, and the figures of a cluster."""

from __future__ import annotations

import pytest
from support.metadata_cluster import OWNER, Cluster

from cosco.errors import ExchangeClosed, ExchangeNotFound
from cosco.metadata.state.daemons.daemon_lists import Wanted
from cosco.protocol.events import EventKind
from cosco.protocol.records import DaemonState, ExchangeSpec

DEAD = Wanted({DaemonState.DEAD})
ALL = frozenset(DaemonState)


def group(cluster: Cluster, group_id: str, tenant: str = "", size: int = 2) -> None:
    spec = ExchangeSpec(group_id, 4, replicas=1)
    cluster.state.groups.create(
        spec, 1, size, 0, OWNER, cluster.now, callback=False, tenant=tenant, used=False, taken=None
    )


def application(cluster: Cluster, label: str, tenant: str = "") -> str:
    return cluster.state.applications.create(label, OWNER, 30.0, cluster.now, tenant=tenant)


def test_daemons_come_by_incarnation_each_once() -> None:
    cluster = Cluster(5, 3, 9)
    cluster.create("a")
    cluster.kill(3)
    found, after = [], 0
    while page := cluster.state.view.daemons(Wanted(ALL), after, 1):
        found += page
        after = page[-1].ref.incarnation
    assert [daemon.ref.incarnation for daemon in found] == [3, 5, 9]
    assert {d.ref.incarnation for d in cluster.state.view.daemons(DEAD, 0, 9)} == {3}
    assert {d.ref.incarnation: d for d in found} == {
        d.ref.incarnation: d for d in cluster.state.members.status()
    }


def test_groups_come_by_id_and_each_tenant_sees_its_own() -> None:
    cluster = Cluster(1)
    for group_id, tenant in (("c", "ours"), ("a", "ours"), ("b", "theirs")):
        group(cluster, group_id, tenant)
    view, now = cluster.state.view, cluster.now
    assert [g.group_id for g in view.groups("", 10, None, now)] == ["a", "b", "c"]
    assert [g.group_id for g in view.groups("a", 1, None, now)] == ["b"]
    assert [g.group_id for g in view.groups("", 10, "ours", now)] == ["a", "c"]
    (one,) = view.groups("b", 1, None, now + 1)
    assert (one.exchanges, one.open, one.mappers, one.heard_s) == (2, 2, 1, 1.0)
    assert one.lease_left_s == one.lease_s - 1


def test_applications_come_by_number_and_each_tenant_sees_its_own() -> None:
    cluster = Cluster(1)
    ids = [application(cluster, name, who) for name, who in (("x", "ours"), ("y", "theirs"))]
    view, now = cluster.state.view, cluster.now
    assert [a.application_id for a in view.applications(0, 10, None, now)] == ids
    assert [a.application_id for a in view.applications(1, 10, None, now)] == ids[1:]
    assert [a.application_id for a in view.applications(0, 10, "theirs", now)] == ids[1:]


def test_figures_are_of_all_or_of_one_tenant() -> None:
    cluster = Cluster(1, 2)
    cluster.create("a")
    group(cluster, "g", "ours")
    application(cluster, "x", "theirs")
    cluster.kill(2)
    everybody, ours = cluster.state.view.figures(None), cluster.state.view.figures("ours")
    assert (everybody.open, everybody.groups, everybody.applications) == (3, 1, 1)
    assert (ours.open, ours.closing, ours.groups, ours.applications) == (2, 0, 1, 0)
    assert everybody.daemons[DaemonState.SERVING] == 1
    (living,) = cluster.state.view.daemons(Wanted({DaemonState.SERVING}), 0, 9)
    assert everybody.memory_bytes == living.memory_bytes


def test_places_and_commits_of_an_exchange() -> None:
    cluster = Cluster(1, 2)
    cluster.create("a", partitions=4)
    cluster.commit(3, 0, 1)
    view = cluster.state.view
    number = view.number_of("a", used=False)
    places = view.places(number, -1, 100)
    assert [place.partition_range.index for place in places] == list(range(len(places)))
    assert sum(place.partition_range.count for place in places) == 4
    assert view.places(number, 0, 1) == places[1:2]
    assert all(place.last == cluster.current(i) for i, place in enumerate(places))
    assert list(view.committed(number)) == [3]
    rows, raw_bytes = view.sizes(number)
    assert rows.tolist() == [1, 1, 0, 0] and raw_bytes.sum() > 0
    cluster.state.close_exchange("a", used=False)
    for read in (view.committed, view.sizes, lambda n: view.places(n, -1, 1)):
        with pytest.raises(ExchangeClosed):
            read(number)
    with pytest.raises(ExchangeNotFound):
        view.number_of("b", used=False)


def test_events_of_a_tenants_exchange_say_so_to_its_end() -> None:
    cluster = Cluster(1)
    spec = ExchangeSpec("a", 4, replicas=1)
    cluster.state.create_exchange(spec, OWNER, cluster.now, used=False, tenant="ours")
    cluster.state.close_exchange("a", used=False)
    group(cluster, "g", "theirs")
    cluster.state.groups.close("g", used=False)
    application_id = application(cluster, "x", "ours")
    cluster.state.applications.close(application_id, OWNER)
    told = {event.kind: event.tenant for event in cluster.state.events.pop_all()}
    assert told[EventKind.EXCHANGE_CREATED] == told[EventKind.EXCHANGE_CLOSED] == "ours"
    assert told[EventKind.GROUP_CREATED] == told[EventKind.GROUP_CLOSED] == "theirs"
    assert told[EventKind.APPLICATION_CREATED] == told[EventKind.APPLICATION_CLOSED] == "ours"
    assert told[EventKind.DAEMON_REGISTERED] is None
