"""What the state tells operators of its decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap
from support.metadata_cluster import GRACE_S, LEASE_S, OTHER, Cluster

from cosco.errors import DataLost, InvalidArgument
from cosco.metadata.state.daemons.errands import ProbeOutcome
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    DaemonRegistration,
    DaemonState,
    LossCause,
    LossReport,
    pairs_array,
)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(1, 2, 3)
    told(made)
    return made


def told(cluster: Cluster, kind: EventKind | None = None) -> list[Event]:
    """What was told since the last call."""
    found = cluster.state.events.pop_all()
    return [event for event in found if kind is None or event.kind is kind]


def only(cluster: Cluster, kind: EventKind) -> dict[str, Any]:
    (event,) = told(cluster, kind)
    return event.shown()


def kinds(cluster: Cluster) -> list[str]:
    return [event.kind.label for event in told(cluster)]


# --- daemons -----------------------------------------------------------------------------------


def test_a_daemon_that_is_new(cluster: Cluster) -> None:
    cluster.register(4)
    line = only(cluster, EventKind.DAEMON_REGISTERED)
    assert (line["daemon"], line["incarnation"], line["host_id"]) == ("host:4", 4, "host-4")
    cluster.register(4)  # again, as it does where it has found files
    assert kinds(cluster) == []


@pytest.mark.parametrize(
    ("outcome", "cause"), [(ProbeOutcome.GONE, "gone"), (ProbeOutcome.SILENT, "silent")]
)
def test_a_daemon_that_does_not_answer(outcome: ProbeOutcome, cause: str, cluster: Cluster) -> None:
    cluster.create(replicas=2)
    told(cluster)
    cluster.probe(1, outcome)
    if outcome is ProbeOutcome.SILENT:
        assert kinds(cluster) == ["daemon_silent"]
        cluster.sleep(LEASE_S, 1, 2, 3)
        cluster.probe(1, outcome)
    line = only(cluster, EventKind.DAEMON_DIED)
    assert (line["cause"], line["ranges"]) == (cause, 4)


def test_a_daemon_that_answers_again(cluster: Cluster) -> None:
    cluster.probe(1, ProbeOutcome.SILENT)
    cluster.probe(1, ProbeOutcome.SILENT)
    cluster.probe(1, ProbeOutcome.ALIVE)
    assert kinds(cluster) == ["daemon_silent", "daemon_heard"]


def test_a_lease_that_runs_out_and_a_daemon_that_returns(cluster: Cluster) -> None:
    cluster.create()  # which names all of them
    told(cluster)
    cluster.sleep(LEASE_S, 2, 3)
    found = told(cluster)
    assert [(e.kind.label, e.cause) for e in found[:1]] == [("daemon_died", "lease")]
    cluster.register(1)
    assert "daemon_returned" in kinds(cluster)


def test_an_address_that_another_has_now(cluster: Cluster) -> None:
    cluster.register(4, address="host:1")
    assert only(cluster, EventKind.DAEMON_DIED)["cause"] == "address taken"


def test_a_registration_that_is_refused(cluster: Cluster) -> None:
    registration = DaemonRegistration(1, "host:9", "host-9", "shared", 100, 100)
    with pytest.raises(InvalidArgument):
        cluster.state.register(registration, cluster.now)
    line = only(cluster, EventKind.REGISTRATION_REFUSED)
    assert (line["cause"], line["daemon"], line["address"]) == ("incarnation", "host:1", "host:9")


def test_a_store_that_is_adopted(cluster: Cluster) -> None:
    cluster.register(4, store="own")
    cluster.create(partitions=16)
    cluster.kill(4)
    told(cluster)
    cluster.register(5, store="own")
    assert kinds(cluster) == ["daemon_registered", "store_adopted"]
    cluster.register(6, store="own")  # 5 serves it
    assert kinds(cluster) == ["daemon_registered"]


def test_a_daemon_that_leaves_in_good_order_has_not_died(cluster: Cluster) -> None:
    cluster.create()
    told(cluster)
    cluster.state.members.drain("host:1")
    found = told(cluster)
    assert found[0].kind is EventKind.DAEMON_DRAINS
    assert found[0].ranges and found[0].ranges > 0
    assert {e.cause for e in found if e.kind is EventKind.RANGES_SEALED} == {"daemon drains"}
    cluster.fence()
    told(cluster)
    assert cluster.beat(1, draining=True).may_exit
    assert kinds(cluster) == ["daemon_released"]
    cluster.beat(1, draining=True)  # said once
    cluster.kill(1)
    assert kinds(cluster) == ["daemon_left"]


def test_a_store_that_fails_and_recovers(cluster: Cluster) -> None:
    for failing in (True, True, False):
        cluster.beat(1, store_failing=failing)
    assert kinds(cluster) == ["daemon_store_failing", "daemon_store_recovered"]


def test_a_service_that_stood_still(cluster: Cluster) -> None:
    cluster.now += 100
    cluster.state.tick(cluster.now)
    assert only(cluster, EventKind.LEASES_RESTARTED)["seconds"] == 100


# --- ranges ------------------------------------------------------------------------------------


def test_ranges_that_move_are_one_line_for_each_daemon(cluster: Cluster) -> None:
    cluster.create("a", partitions=8, replicas=2)
    told(cluster)
    cluster.kill(1)
    sealed = told(cluster, EventKind.RANGES_SEALED)
    assert {e.daemon for e in sealed} == {"host:1", "host:3"}  # who were primaries
    assert {e.cause for e in sealed} == {"daemon died"}
    cluster.fence()
    moved = told(cluster, EventKind.RANGES_MOVED)
    indexes = [index for e in moved for index in e.range_indexes or ()]
    assert sorted(indexes) == sorted(index for e in sealed for index in e.range_indexes or ())
    assert len(moved) <= 2 < len(indexes)
    assert {e.exchange for e in moved} == {"a"}


def test_ranges_that_leave_a_store_that_fails() -> None:
    cluster = Cluster()
    for incarnation in (1, 2, 3):
        cluster.register(incarnation, store=f"store-{incarnation}")
    cluster.create(replicas=1)
    primary = cluster.current().primary.incarnation
    told(cluster)
    cluster.beat(primary, store_failing=True)
    cluster.sleep(1.0, *({1, 2, 3} - {primary}))
    assert told(cluster, EventKind.RANGES_SEALED)[0].cause == "store fails"


# --- exchanges ---------------------------------------------------------------------------------


def test_the_life_of_an_exchange(cluster: Cluster) -> None:
    cluster.create("a\n", replicas=2)
    line = only(cluster, EventKind.EXCHANGE_CREATED)
    assert (line["exchange"], line["number"], line["replicas"]) == ("a\n", 1, 2)
    cluster.create("a\n", replicas=2)  # the call is repeated
    assert kinds(cluster) == []
    cluster.describe("a\n", OTHER)
    cluster.describe("a\n", OTHER)
    assert kinds(cluster) == ["exchange_taken_over"]
    cluster.state.close_exchange("a\n", used=False)
    assert only(cluster, EventKind.EXCHANGE_CLOSED)["cause"] == "asked"
    for incarnation in (1, 2, 3):
        cluster.beat(incarnation, 1)
    assert kinds(cluster) == ["exchange_removed"]


def test_a_driver_that_is_gone(cluster: Cluster) -> None:
    cluster.create(lease_s=1.0)
    told(cluster)
    cluster.sleep(2.0, 1, 2, 3)
    assert only(cluster, EventKind.EXCHANGE_CLOSED)["cause"] == "lease"


def lose(cluster: Cluster, cause: LossCause = LossCause.GONE) -> None:
    build = cluster.current().build
    report = LossReport(1, 1, build, 0, cause, "a checksum\nis wrong")
    cluster.state.report_loss(report, cluster.now)


def test_a_loss_that_nobody_brings_back(cluster: Cluster) -> None:
    cluster.create(replicas=1)
    cluster.commit(0, 0)
    told(cluster)
    lose(cluster)
    found = {event.kind: event for event in told(cluster)}
    lost = found[EventKind.ROWS_LOST].shown()
    assert (lost["cause"], lost["build"], lost["mappers"], lost["range"]) == ("gone", 1, 1, "0")
    assert "a checksum is wrong" in lost["reason"]
    assert "no callback" in str(found[EventKind.RECOMPUTE_FAILED].reason)
    assert found[EventKind.RANGES_SEALED].cause == "rows lost"
    for _ in range(3):
        with pytest.raises(DataLost):
            cluster.state.await_commits(1, BitMap([0]), 0, 1, cluster.now)
    given = only(cluster, EventKind.DATA_LOST)
    assert (given["cause"], given["times"]) == ("DataLost", 3)


def test_a_loss_that_is_brought_back(cluster: Cluster) -> None:
    cluster.create(replicas=1)
    cluster.describe("a", OTHER)
    cluster.state.describe_exchange("a", OTHER, cluster.now, used=False, callback=True)
    cluster.commit(0, 0)
    lose(cluster)
    (call,) = cluster.state.poll_driver(1, OTHER, cluster.now).calls
    told(cluster)
    cluster.state.poll_driver(1, OTHER, cluster.now, [call.loss_id])
    assert only(cluster, EventKind.RECOMPUTE_ARRANGED)["mappers"] == 1
    cluster.fence()
    assert cluster.current().build == 2
    opened = cluster.state.open_attempt("a", 0, used=False)
    assert opened.partial
    told(cluster)
    ones = np.ones(1, dtype=np.uint64)
    sums = AttemptSums(np.zeros(1, dtype=np.uint32), ones, ones, ones, ones)
    acknowledged = pairs_array([(0, cluster.current().epoch)])
    cluster.state.commit(CommitRequest(1, 0, opened.attempt, 1, acknowledged, sums, True, (0,)))
    line = only(cluster, EventKind.REBUILT)
    assert (line["range"], line["build"]) == ("0", 2)


# --- how much there is -------------------------------------------------------------------------


def test_counts(cluster: Cluster) -> None:
    cluster.create("a", replicas=2)
    cluster.create("b", replicas=2)
    cluster.persist()
    cluster.state.close_exchange("b", used=False)
    cluster.state.members.drain("host:1")
    cluster.kill(2)
    counts = cluster.state.counts()
    assert (counts.open, counts.closing, counts.groups) == (1, 1, 0)
    assert counts.daemons == {
        DaemonState.DRAINING: 1,
        DaemonState.DEAD: 1,
        DaemonState.SERVING: 1,
    }
    assert counts.waiting_rows > 0
    cluster.persist()
    assert cluster.state.counts().waiting_rows == 0


def test_a_restart_tells_of_what_it_moves(cluster: Cluster) -> None:
    cluster.create(replicas=1)
    cluster.kill(1)
    cluster.persist()
    cluster.restart(GRACE_S)
    assert {event.kind for event in told(cluster)} <= {EventKind.RANGES_MOVED}
