from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from support.metadata_cluster import LEASE_S, Cluster, ref

from cosco.errors import CapacityExceeded, ExchangeClosed, GenerationChanged, InvalidArgument
from cosco.metadata.state.daemons.errands import Fence, ProbeOutcome
from cosco.metadata.state.daemons.failover import AVOID_S, INSIST_S, QUIET_S, RESTORED_PER_TICK
from cosco.metadata.state.state import TICK_S
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import DaemonState, LossCause, LossReport

ALIVE, GONE, SILENT = ProbeOutcome.ALIVE, ProbeOutcome.GONE, ProbeOutcome.SILENT


def cluster_of(*daemons: int, **options: Any) -> Cluster:
    """An exchange of one range on daemons 1 and 2, unless `options` say otherwise."""
    cluster = Cluster(*daemons)
    cluster.create(**({"partitions": 1, "replicas": 2} | options))
    cluster.persist()
    return cluster


# --- the order: seal, fences, next epoch --------------------------------------------------


def test_the_next_epoch_begins_when_the_survivor_is_fenced() -> None:
    cluster = cluster_of(1, 2, 3)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.kill(1)
    assert cluster.placed() == (1, True, [1, 2])
    assert cluster.state.lookup_assignment(1, 0, 1, 2) is None
    assert ("assignments", (1, 0, 1)) in [(c.table, c.key) for c in cluster.persist()]
    assert cluster.state.has_errands
    [fence] = cluster.state.failover.pop_fences()
    assert (fence.daemon, fence.keys) == (ref(2), ((1, 0, 1),))
    assert not cluster.state.has_errands
    assert cluster.state.failover.pop_fences() == []
    cluster.sleep(2.0, 2, 3)
    assert cluster.placed() == (1, True, [1, 2])
    assert cluster.state.failover.pop_begun() == []

    cluster.state.failover.fenced(2, fence.keys)
    assert cluster.placed() == (2, False, [2, 3])
    assert cluster.state.failover.pop_begun() == [(1, 0)]
    assert ("assignments", (1, 0, 2)) in [(c.table, c.key) for c in cluster.persist()]
    found = cluster.state.lookup_assignment(1, 0, 2, 3)
    assert found is not None
    assert cluster.state.lookup_assignment(1, 0, 2, 1) is None
    cluster.state.failover.fenced(2, fence.keys)  # the answer came twice
    assert cluster.placed() == (2, False, [2, 3])


def test_every_survivor_is_waited_for() -> None:
    cluster = cluster_of(1, 2, 3, 4)
    cluster.commit(0, 0)
    cluster.state.report_loss(LossReport(1, 1, 1, 0, LossCause.GONE, "a file is gone"), cluster.now)
    assert cluster.current().build == 1
    assert [f.daemon for f in cluster.fence(2)] == [ref(1), ref(2)]
    assert cluster.placed() == (1, True, [1, 2])
    cluster.state.failover.fenced(2, [AssignmentKey(1, 0, 1)])
    assert cluster.placed()[:2] == (2, False)
    assert cluster.current().build == 2


def test_without_survivors_nobody_is_waited_for() -> None:
    cluster = cluster_of(1, 2, replicas=1)
    cluster.kill(1)
    assert cluster.placed() == (2, False, [2])
    assert cluster.state.failover.pop_fences() == []


def test_a_survivor_that_dies_is_not_waited_for() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.kill(1)
    cluster.state.failover.pop_fences()
    cluster.sleep(LEASE_S, 3)
    assert cluster.placed() == (2, False, [3])
    cluster.state.members.fence_failed(2)
    assert not cluster.state.has_errands


def test_a_fence_is_sent_again_and_again_and_its_daemon_asked() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.kill(1)
    for _ in range(3):
        assert [f.daemon for f in cluster.state.failover.pop_fences()] == [ref(2)]
        cluster.state.members.fence_failed(2)
        assert cluster.state.members.pop_probes() == [ref(2)]
        cluster.state.probed(2, SILENT, cluster.now)
    cluster.state.failover.pop_fences()
    cluster.state.members.fence_failed(2)
    cluster.state.members.pop_probes()
    cluster.state.probed(2, GONE, cluster.now)
    assert cluster.placed() == (2, False, [3])


@pytest.mark.parametrize("how", ["lease", "superseded", "gone"])
def test_every_way_to_die_moves_the_ranges(how: str) -> None:
    cluster = cluster_of(1, 2, 3)
    if how == "lease":
        cluster.sleep(LEASE_S, 2, 3)
    elif how == "superseded":
        cluster.register(4, address="host:1")
    else:
        cluster.kill(1)
    assert cluster.placed() == (1, True, [1, 2])
    cluster.fence()
    epoch, sealed, members = cluster.placed()
    assert (epoch, sealed) == (2, False)
    assert 1 not in members
    assert len(members) == 2


def test_a_seal_of_a_closed_exchange_is_nobodys() -> None:
    cluster = cluster_of(1, 2)
    cluster.create("b", partitions=1, replicas=2)
    cluster.register(3)
    cluster.kill(1)
    numbers = {key[0] for fence in cluster.state.failover.pop_fences() for key in fence.keys}
    assert numbers == {1, 2}
    cluster.state.close_exchange("a", used=False)
    cluster.state.members.fence_failed(2)
    numbers = {key[0] for fence in cluster.state.failover.pop_fences() for key in fence.keys}
    assert numbers == {2}
    cluster.state.failover.fenced(2, [AssignmentKey(1, 0, 1)])  # the answer comes late
    cluster.state.close_exchange("b", used=False)
    daemons, _ = cluster.state.overview.status()
    assert [(d.ref, d.assignments) for d in daemons] == [(ref(2), 0), (ref(3), 0)]


# --- copies -------------------------------------------------------------------------------


def test_a_range_goes_on_with_fewer_copies_and_gets_them_back() -> None:
    cluster = cluster_of(1, 2)
    assert cluster.state.progress(1).replicas == 2
    cluster.kill(1)
    assert cluster.state.progress(1).replicas == 0
    cluster.fence()
    assert cluster.placed() == (2, False, [2])
    assert cluster.state.progress(1).replicas == 1
    cluster.sleep(LEASE_S, 2)
    assert cluster.placed() == (2, False, [2])

    cluster.register(3)
    cluster.sleep(QUIET_S - TICK_S, 2, 3)
    assert cluster.placed() == (2, False, [2])
    cluster.sleep(TICK_S, 2, 3)
    assert cluster.placed() == (2, True, [2])
    cluster.fence()
    assert cluster.placed()[:2] == (3, False)
    assert cluster.state.progress(1).replicas == 2
    cluster.sleep(LEASE_S, 2, 3)
    assert cluster.placed()[0] == 3


def test_copies_come_back_a_few_at_a_time() -> None:
    cluster = Cluster(1, 2)
    for number in range(RESTORED_PER_TICK):
        cluster.create(str(number), partitions=4, replicas=2)
    cluster.kill(1)
    cluster.fence()
    cluster.register(3)
    cluster.sleep(QUIET_S, 2, 3)
    [fence] = cluster.fence()
    assert len(fence.keys) == RESTORED_PER_TICK
    for _ in range(3):
        cluster.sleep(TICK_S, 2, 3)
        cluster.fence()
    assert {cluster.state.progress(n + 1).replicas for n in range(RESTORED_PER_TICK)} == {2}


def test_below_min_replicas_a_range_waits_for_a_host() -> None:
    cluster = cluster_of(1, 2, min_replicas=2)
    cluster.kill(1)
    assert cluster.renew((0, 1)).waiting_for == (
        "partition range 0 waits for host:2 to confirm its end there"
    )
    cluster.fence()
    assert cluster.renew((0, 1)).waiting_for == (
        "partition range 0 waits for daemons: min_replicas=2 needs them on 2 hosts, 1 are "
        "there; start daemons, with other --host-id"
    )
    cluster.register(4, host_id="host-2")
    assert cluster.placed()[1]
    cluster.register(3)
    assert cluster.placed()[:2] == (2, False)
    assert cluster.renew((0, 1)).waiting_for == ""


# --- the dead come back -------------------------------------------------------------------


def test_one_that_comes_back_is_fenced_from_all_that_was_sealed() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.create("b", partitions=8, replicas=2)
    held = [(2, index, 1) for index in range(6) if 1 in cluster.placed(index, "b")[2]]
    cluster.sleep(LEASE_S, 2, 3)
    cluster.fence()
    assert not cluster.beat(1).known
    cluster.register(1)
    [fence] = cluster.state.failover.pop_fences()
    assert fence.daemon == ref(1)
    assert 0 < len(held) < 6
    assert sorted(fence.keys) == [(1, 0, 1), *held]


def test_one_that_comes_back_before_its_range_moved_is_a_survivor() -> None:
    cluster = cluster_of(1, 2, min_replicas=2)
    cluster.sleep(LEASE_S, 2)
    cluster.fence()
    assert cluster.placed() == (1, True, [1, 2])
    cluster.register(1)
    assert cluster.placed() == (1, True, [1, 2])
    cluster.fence()
    assert cluster.placed()[:2] == (2, False)


def test_a_newcomer_has_nothing_to_be_fenced_from() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.kill(1)
    cluster.fence()
    cluster.register(4)
    cluster.register(2)  # it lives, and says so again
    assert cluster.state.failover.pop_fences() == []


# --- restarts of the service --------------------------------------------------------------


def test_a_restarted_service_fences_again_and_goes_on() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.kill(1)
    cluster.persist()
    cluster.restart()
    assert cluster.placed() == (1, True, [1, 2])
    assert [f.daemon for f in cluster.fence()] == [ref(2)]
    assert cluster.placed() == (2, False, [2, 3])
    cluster.persist()
    cluster.restart()
    # Whether 2 confirmed the end of epoch 1 is not known any more; epoch 2 goes on.
    [fence] = cluster.fence()
    assert fence.keys == ((1, 0, 1),)
    assert cluster.placed() == (2, False, [2, 3])
    cluster.sleep(LEASE_S, 2, 3)
    assert cluster.placed() == (2, False, [2, 3])


def test_a_restarted_service_seals_what_names_the_dead() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.tables["daemons"][1,] = (*cluster.tables["daemons"][1,][:6], 0, 0)
    cluster.restart()
    assert cluster.placed() == (1, True, [1, 2])
    cluster.fence()
    assert cluster.placed() == (2, False, [2, 3])


def test_an_epoch_that_was_not_durable_was_never_told() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.kill(1)
    fences = cluster.state.failover.pop_fences()
    cluster.persist()
    cluster.state.failover.fenced(2, fences[0].keys)
    assert cluster.placed()[:2] == (2, False)
    cluster.restart()  # before that was written
    assert cluster.placed()[:2] == (1, True)
    cluster.fence()
    assert cluster.placed()[:2] == (2, False)


# --- reports and probes -------------------------------------------------------------------


def test_a_daemon_is_asked_once_however_many_report_it() -> None:
    cluster = cluster_of(1, 2, 3)
    assert cluster.report(1)
    assert cluster.report(1)
    assert cluster.state.members.pop_probes() == [ref(1)]
    assert cluster.report(1)
    assert cluster.state.members.pop_probes() == []
    assert cluster.state.members.is_probed(1)
    cluster.state.probed(1, ALIVE, cluster.now)
    assert not cluster.state.members.is_probed(1)
    assert cluster.state.members.is_live(1)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.report(1)
    assert cluster.state.members.pop_probes() == [ref(1)]


def test_the_dead_and_the_unknown_are_not_asked() -> None:
    cluster = cluster_of(1, 2)
    cluster.kill(1)
    assert not cluster.report(1)
    assert not cluster.report(99)
    assert cluster.state.members.pop_probes() == []
    assert not cluster.state.members.is_live(99)


def test_one_that_died_while_it_was_asked() -> None:
    cluster = cluster_of(1, 2)
    cluster.report(1)
    cluster.sleep(LEASE_S, 2)
    assert cluster.state.members.pop_probes() == [ref(1)]
    cluster.state.probed(1, ALIVE, cluster.now)
    assert not cluster.state.members.is_live(1)
    assert not cluster.state.members.is_probed(1)


def test_silence_is_left_to_the_lease() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.probe(1, SILENT)
    assert cluster.state.members.is_live(1)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.sleep(LEASE_S - TICK_S, 2, 3)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.sleep(TICK_S, 2, 3)
    assert cluster.placed() == (1, True, [1, 2])


def test_whoever_hears_nothing_is_dead_although_it_speaks() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.probe(1, SILENT)
    for _ in range(int(LEASE_S / TICK_S) - 1):
        cluster.sleep(TICK_S, 1, 2, 3)
        assert cluster.state.members.pop_probes() == [ref(1)]
        cluster.state.probed(1, SILENT, cluster.now)
        assert cluster.state.members.is_live(1)
    cluster.sleep(TICK_S, 1, 2, 3)
    cluster.state.members.pop_probes()
    cluster.state.probed(1, SILENT, cluster.now)
    assert not cluster.state.members.is_live(1)
    cluster.fence()
    assert cluster.placed() == (2, False, [2, 3])
    cluster.register(1)  # it does not know; nothing goes there until it answers
    cluster.kill(3)
    cluster.fence(1)
    assert cluster.placed() == (3, False, [2])
    cluster.sleep(QUIET_S, 1, 2)
    assert cluster.placed() == (3, False, [2])
    cluster.probe(1, ALIVE)
    cluster.sleep(QUIET_S, 1, 2)
    cluster.fence()
    assert sorted(cluster.placed()[2]) == [1, 2]


def test_new_exchanges_go_to_a_silent_daemon_only_if_they_must() -> None:
    cluster = Cluster(1, 2, 3)
    cluster.probe(1, ProbeOutcome.SILENT)
    cluster.create("a", replicas=2)
    assert {ref for index in range(4) for ref in cluster.placed(index, "a")[2]} == {2, 3}
    cluster.probe(2, ProbeOutcome.SILENT)
    cluster.create("b", replicas=2)
    assert {ref for index in range(6) for ref in cluster.placed(index, "b")[2]} == {1, 2, 3}


def test_an_answer_ends_the_silence_and_so_does_a_stall_of_the_service() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.probe(1, SILENT)
    cluster.probe(1, ALIVE)
    cluster.sleep(LEASE_S, 1, 2, 3)
    assert cluster.state.members.pop_probes() == []
    cluster.probe(1, SILENT)
    cluster.now += 100.0
    cluster.state.tick(cluster.now)
    cluster.probe(1, SILENT)
    assert cluster.state.members.is_live(1)


# --- insisting ----------------------------------------------------------------------------


def test_a_writer_that_insists_moves_its_range_away_from_the_primary() -> None:
    cluster = cluster_of(1, 2)
    cluster.report(1, insist=True, keys=[AssignmentKey(1, 0, 1)])
    cluster.state.members.pop_probes()
    cluster.state.probed(1, ALIVE, cluster.now)
    assert cluster.placed() == (1, True, [1, 2])
    assert len(cluster.fence()) == 2  # the suspect lives, and is fenced as well
    assert cluster.placed() == (2, False, [2, 1])  # as a replica it may do
    assert cluster.state.members.is_live(1)


def test_a_primary_that_insists_loses_its_replica() -> None:
    cluster = cluster_of(1, 2)
    cluster.report(2, reporter=1, insist=True)
    cluster.state.members.pop_probes()
    cluster.state.probed(2, ALIVE, cluster.now)
    cluster.fence()
    assert cluster.placed() == (2, False, [1])
    cluster.sleep(AVOID_S - 1, 1, 2)  # not given back at once, to be lost again
    assert cluster.placed() == (2, False, [1])
    cluster.sleep(QUIET_S, 1, 2)
    cluster.fence()
    assert cluster.placed()[0] == 3
    assert len(cluster.placed()[2]) == 2


def test_a_third_host_replaces_the_replica() -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.report(2, reporter=1, insist=True)
    cluster.state.members.pop_probes()
    cluster.state.probed(2, ALIVE, cluster.now)
    cluster.fence()
    assert sorted(cluster.placed()[2]) == [1, 3]


@pytest.mark.parametrize(
    "report",
    [
        {"incarnation": 1},  # nobody insists
        {"incarnation": 1, "insist": True},  # on nothing
        {"incarnation": 1, "insist": True, "keys": [AssignmentKey(1, 0, 2)]},
        {
            "incarnation": 1,
            "insist": True,
            "keys": [AssignmentKey(1, 7, 1), AssignmentKey(9, 0, 1)],
        },
        {"incarnation": 2, "insist": True, "keys": [AssignmentKey(1, 0, 1)]},  # no primary
        {"incarnation": 1, "insist": True, "reporter": 2},  # no replica of 2
        {"incarnation": 3, "insist": True, "reporter": 1},  # not of this range
        {"incarnation": 1, "insist": True, "reporter": 99, "keys": [AssignmentKey(1, 0, 1)]},
    ],
)
def test_reports_that_move_nothing(report: dict[str, Any]) -> None:
    cluster = cluster_of(1, 2, 3)
    assert cluster.report(**report)
    cluster.state.members.pop_probes()
    cluster.state.probed(report["incarnation"], ALIVE, cluster.now)
    assert cluster.placed() == (1, False, [1, 2])


@pytest.mark.parametrize("outcome", [SILENT, GONE])
def test_insisting_matters_only_if_the_suspect_answers(outcome: ProbeOutcome) -> None:
    cluster = cluster_of(1, 2, 3)
    cluster.report(1, insist=True, keys=[AssignmentKey(1, 0, 1)])
    cluster.state.members.pop_probes()
    cluster.state.probed(1, outcome, cluster.now)
    assert cluster.state.members.is_live(1) == (outcome is SILENT)
    assert cluster.placed()[1] == (outcome is GONE)


@pytest.mark.parametrize(("replicas", "suspect", "reporter"), [(1, 1, 0), (2, 2, 1)])
def test_without_another_daemon_insisting_moves_nothing(
    replicas: int, suspect: int, reporter: int
) -> None:
    cluster = cluster_of(*range(1, replicas + 1), replicas=replicas, min_replicas=replicas)
    cluster.report(suspect, reporter=reporter, insist=True, keys=[AssignmentKey(1, 0, 1)])
    cluster.state.members.pop_probes()
    cluster.state.probed(suspect, ALIVE, cluster.now)
    assert cluster.placed()[:2] == (1, False)


def test_a_range_does_not_spin() -> None:
    cluster = cluster_of(1, 2, 3, replicas=1)
    moves = 0
    for _ in range(int(3 * INSIST_S / TICK_S)):
        epoch, _, [primary] = cluster.placed()
        cluster.report(primary, insist=True, keys=[AssignmentKey(1, 0, epoch)])
        cluster.state.members.pop_probes()
        cluster.state.probed(primary, ALIVE, cluster.now)
        cluster.fence()
        moves += cluster.placed()[0] != epoch
        cluster.sleep(TICK_S, 1, 2, 3)
    assert moves == 3


# --- renewals -----------------------------------------------------------------------------


def test_renewals() -> None:
    cluster = Cluster(1, 2, 3)
    cluster.create(partitions=8, replicas=1)  # on 1, 2, 3, 1, 2, 3
    by_primary = [cluster.placed(index)[2][0] for index in range(6)]
    lost = by_primary.index(1)
    kept = by_primary.index(2)
    assert cluster.renew((kept, 1)).alive
    cluster.state.members.drain("host:1")
    waits = cluster.renew((lost, 1))
    assert (waits.assignments, waits.alive) == ((), False)
    assert "host:1" in waits.waiting_for
    both = cluster.renew((kept, 1), (lost, 1))
    assert (both.alive, both.assignments) == (True, ())
    cluster.fence()
    moved = cluster.renew((lost, 1))
    assert moved.assignments == (cluster.current(lost),)
    assert (moved.alive, moved.waiting_for) == (False, "")
    assert cluster.renew((lost, 2)).alive
    assert cluster.renew() == type(moved)()


@pytest.mark.parametrize("pair", [(2, 1), (0, 2), (0, 0)])
def test_renewals_of_what_never_was(pair: tuple[int, int]) -> None:
    cluster = cluster_of(1, 2)
    with pytest.raises(InvalidArgument, match="there is no"):
        cluster.renew(pair)


def test_renewals_of_an_old_generation_and_of_a_closed_exchange() -> None:
    cluster = cluster_of(1, 2, deterministic=False)
    cluster.commit(0, 0)
    cluster.state.report_loss(LossReport(1, 1, 1, 0, LossCause.GONE, "a file is gone"), cluster.now)
    assert cluster.placed()[1]
    with pytest.raises(GenerationChanged):
        cluster.renew((0, 1))
    cluster.state.close_exchange("a", used=False)
    with pytest.raises(ExchangeClosed):
        cluster.renew((0, 1))


# --- full stores --------------------------------------------------------------------------


def test_a_full_store_is_left_for_another() -> None:
    cluster = Cluster()
    for incarnation in (1, 2, 3):
        cluster.register(incarnation, f"store-{incarnation}")
    cluster.create(partitions=1, replicas=2)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.beat(2, store_failing=True)  # a replica keeps its copies in memory
    cluster.sleep(TICK_S)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.beat(2)
    cluster.beat(1, store_failing=True)
    cluster.sleep(TICK_S)
    cluster.fence()
    assert cluster.placed()[:2] == (2, False)
    assert sorted(cluster.placed()[2]) == [2, 3]


def test_with_one_full_store_for_all_there_is_nowhere_to_go() -> None:
    cluster = cluster_of(1, 2)
    cluster.beat(1, store_failing=True)
    cluster.sleep(TICK_S)
    assert cluster.placed() == (1, False, [1, 2])
    cluster.register(3, "another")
    cluster.sleep(TICK_S)
    cluster.fence()
    assert cluster.placed() == (2, False, [3])
    cluster.beat(1)  # there is room again
    cluster.sleep(QUIET_S, 1, 2, 3)
    cluster.fence()
    assert cluster.placed()[0] == 3
    assert len(cluster.placed()[2]) == 2


# --- whatever happens ---------------------------------------------------------------------


class RandomWalk:
    """Random events, with what must hold after each of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = Cluster(1, 2, 3)
        self.next_incarnation = 4
        self.names = 0
        self.fences: list[Fence] = []
        self.confirmed: set[tuple[int, tuple[int, int, int]]] = set()
        self.died: set[int] = set()
        self.seen: dict[tuple[int, int], int] = {}

    def step(self) -> None:
        name = self.random.choice(
            ["create", "close", "kill", "start", "come_back", "drain", "fence", "fence", "fence",
             "lose", "insist", "pass_time", "restart", "fill_up"]
        )  # fmt: skip
        getattr(self, name)()

    def daemons(self, *, dead: bool = False) -> list[int]:
        states = self.cluster.daemon_states()
        return [i for i, state in states.items() if (state is DaemonState.DEAD) == dead]

    def create(self) -> None:
        self.names += 1
        copies = self.random.choice([1, 2])
        with suppress(CapacityExceeded):
            self.cluster.create(f"{self.names}", replicas=2, min_replicas=copies, partitions=5)

    def close(self) -> None:
        if self.open():
            shuffle_id = self.random.choice(self.open()).spec.shuffle_id
            self.cluster.state.close_exchange(shuffle_id, used=False)

    def kill(self) -> None:
        if self.daemons():
            self.cluster.kill(self.random.choice(self.daemons()))

    def start(self) -> None:
        if len(self.daemons()) < 6:
            self.cluster.register(self.next_incarnation)
            self.next_incarnation += 1

    def come_back(self) -> None:
        if self.daemons(dead=True):
            self.cluster.register(self.random.choice(self.daemons(dead=True)))

    def drain(self) -> None:
        if self.daemons():
            self.cluster.state.members.drain(f"host:{self.random.choice(self.daemons())}")

    def fence(self) -> None:
        self.cluster.persist()
        self.fences += self.cluster.state.failover.pop_fences()
        self.random.shuffle(self.fences)
        for _ in range(min(len(self.fences), self.random.randrange(4))):
            self.answer(self.fences.pop(), reached=self.random.random() < 0.7)

    def answer(self, fence: Fence, *, reached: bool) -> None:
        incarnation = fence.daemon.incarnation
        if reached:
            self.confirmed.update((incarnation, key) for key in fence.keys)
            self.cluster.state.failover.fenced(incarnation, fence.keys)
        else:
            self.cluster.state.members.fence_failed(incarnation)

    def lose(self) -> None:
        if self.open():
            exchange = self.random.choice(self.open())
            index = self.random.randrange(len(exchange.ranges))
            self.cluster.state.failover.seal(exchange, index)

    def insist(self) -> None:
        if self.open():
            exchange = self.random.choice(self.open())
            current = exchange.placed[0][-1].assignment
            key = AssignmentKey(exchange.number, 0, current.epoch)
            self.cluster.report(current.primary.incarnation, insist=True, keys=[key])
        for probe in self.cluster.state.members.pop_probes():
            outcome = self.random.choice(list(ProbeOutcome))
            self.cluster.state.probed(probe.incarnation, outcome, self.cluster.now)

    def fill_up(self) -> None:
        if self.daemons():
            failing = self.random.random() < 0.5
            self.cluster.beat(self.random.choice(self.daemons()), store_failing=failing)

    def restart(self) -> None:
        self.cluster.persist()
        self.fences.clear()
        self.cluster.restart()

    def pass_time(self) -> None:
        heard = [i for i in self.daemons() if self.random.random() < 0.9]
        self.cluster.sleep(self.random.choice([0.5, 4.0]), *heard)

    def open(self) -> list[Any]:
        return list(self.cluster.state._exchanges.open.values())

    def check(self) -> None:
        state = self.cluster.state
        self.died.update(self.daemons(dead=True))
        daemons = {d.ref.incarnation: d for d in state.overview.status()[0]}
        counts = dict.fromkeys(daemons, 0)
        for exchange in self.open():
            for index, epochs in enumerate(exchange.placed):
                *ended, last = (placed.assignment for placed in epochs)
                assert [a.epoch for a in (*ended, last)] == list(range(1, len(epochs) + 1))
                assert all(a.sealed for a in ended)
                known = self.seen.get((exchange.number, index), 0)
                self.seen[exchange.number, index] = len(ended)
                for a in ended[known:]:
                    for member in a.daemons:
                        key = AssignmentKey(exchange.number, index, a.epoch)
                        dead = member.incarnation in self.died or member.incarnation not in daemons
                        assert dead or (member.incarnation, key) in self.confirmed
                if not last.sealed:
                    hosts = {daemons[member.incarnation].host_id for member in last.daemons}
                    assert exchange.spec.min_replicas <= len(hosts) == len(last.daemons)
                    for member in last.daemons:
                        assert state.members.is_live(member.incarnation)
                        counts[member.incarnation] += 1
        assert {i: d.assignments for i, d in daemons.items()} == counts

    def settle(self) -> None:
        """With hosts enough, and everybody reached, all goes on, with all copies."""
        cluster = self.cluster
        for incarnation in (2001, 2002):
            cluster.register(incarnation)
        for fence in self.fences:
            self.answer(fence, reached=False)
        for _ in range(100):
            cluster.persist()
            for fence in cluster.state.failover.pop_fences():
                self.answer(fence, reached=True)
            for probe in cluster.state.members.pop_probes():
                cluster.state.probed(probe.incarnation, ALIVE, cluster.now)
            cluster.sleep(TICK_S, *self.daemons())
        for exchange in self.open():
            assert cluster.state.progress(exchange.number).replicas == 2


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens(seed: int) -> None:
    walk = RandomWalk(seed)
    for _ in range(120):
        walk.step()
        walk.check()
    walk.settle()
    walk.check()
