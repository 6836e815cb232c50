"""Groups of exchanges, as the state of the metadata service keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap
from support.metadata_cluster import OTHER, OWNER
from support.stored_cluster import StoredCluster

import cosco.metadata.state.groups.group_table as groups_module
from cosco.errors import (
    CapacityExceeded,
    CoscoError,
    DataLost,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
)
from cosco.metadata.state.daemons import placement
from cosco.metadata.state.daemons.errands import ProbeOutcome
from cosco.metadata.state.groups.group_table import RECALL_S
from cosco.protocol.group_records import (
    Alike,
    FoundAssignment,
    GroupAnswer,
    GroupCall,
    GroupPart,
    group_of,
    member_name,
)
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.mark import MAX_MARK_PARTITIONS
from cosco.protocol.records import (
    FIRST_OWN_ATTEMPT,
    AttemptSums,
    CommitRequest,
    CommitWait,
    ExchangeSpec,
    LossCause,
    LossReport,
    RowKind,
    pairs_array,
)

DRIVER_LEASE_S = 60.0
MAPPERS = 3

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class GroupCluster(StoredCluster):
    """Daemons, and groups in a database that is opened again at a restart."""

    def make(
        self,
        group_id: str = "g",
        *,
        size: int = 4,
        first: int = 0,
        mappers: int = MAPPERS,
        owner: bytes = OWNER,
        callback: bool = True,
        **options: Any,
    ) -> GroupPart:
        """CreateGroup, with what the database knows."""
        self.persist()
        defaults = {"partitions": 4, "replicas": 1, "lease_s": DRIVER_LEASE_S}
        spec = ExchangeSpec(group_id, **(defaults | options))
        return self.state.groups.create(
            spec, mappers, size, first, owner, self.now, callback=callback,
            used=not self.state.groups.knows(group_id) and self.store.was_group(group_id),
            taken=None if first else self.store.used_in_group(group_id),
        )  # fmt: skip

    def poll(self, *answers: GroupAnswer, owner: bytes = OWNER) -> tuple[GroupCall, ...]:
        self.state.groups.answer("g", owner, answers)
        return self.state.groups.poll("g", owner, self.now)

    def release(self, *indexes: int) -> list[int]:
        return self.state.groups.release("g", BitMap(indexes))

    def commit_own(
        self, number: int, mapper: int, attempt: int = FIRST_OWN_ATTEMPT + 7, epoch: int = 1
    ) -> bool:
        """One row in each partition, by an attempt that the writer made."""
        exchange = self.state._exchanges.get(number)
        count = exchange.spec.partitions
        ones = np.ones(count, dtype=np.uint64)
        sums = AttemptSums(np.arange(count, dtype=np.uint32), ones, ones, ones, ones)
        ranges = pairs_array([(part.index, epoch) for part in exchange.ranges])
        return self.state.commit(CommitRequest(number, mapper, attempt, 1, ranges, sums))

    def wait(self, number: int, *mappers: int, partition: int = 0) -> CommitWait:
        return self.state.await_commits(number, BitMap(mappers), partition, 0, self.now)

    def alike(self, number: int, index: int = 0, incarnation: int = 1) -> Alike | None:
        found = self.state.lookup_assignment(number, index, 1, incarnation)
        assert found is not None
        return found.alike

    def look_through(self) -> None:
        """What the service does after a report of a store that is gone."""
        while (number := self.state.lost_stores.pop_next()) is not None:
            self.state.lost_stores.judge(number, self.now)

    def lose(self, number: int) -> None:
        """A reader has found that rows of partition 0 are gone."""
        self.state.report_loss(LossReport(number, 1, 1, 0, LossCause.GONE, "gone"), self.now)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GroupCluster]:
    monkeypatch.setattr(placement, "GROUP_RANGE_PARTITIONS", 1)  # so that few partitions do
    made = GroupCluster(str(tmp_path / "metadata.db"), 1, 2)
    yield made
    made.store.close()


# --- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("g/0", ("g", 0)),
        ("g/10", ("g", 10)),
        ("a/1/2", ("a/1", 2)),
        ("g//7", ("g/", 7)),
        ("/7", None),
        ("g/", None),
        ("g", None),
        ("g/07", None),
        ("g/-1", None),
        ("g/+1", None),
        ("g/1 ", None),
        ("g/1_0", None),
        ("g/²", None),
        ("g/٣", None),
        ("g/" + "9" * 5000, None),
    ],
)
def test_a_name_says_its_group(name: str, found: tuple[str, int] | None) -> None:
    assert group_of(name) == found
    if found is not None:
        assert member_name(*found) == name


def test_a_member_is_an_exchange_like_others(cluster: GroupCluster) -> None:
    before = cluster.create("g")  # another name
    block = cluster.make(size=3)
    assert (block.group_id, block.first, block.size, block.mappers) == ("g", 0, 3, MAPPERS)
    assert block.info.number == before.number + 1
    for index in range(3):
        info = cluster.describe(f"g/{index}")
        spec = replace(block.info.spec, shuffle_id=f"g/{index}")
        number = block.info.number + index
        assert info == replace(block.info, number=number, spec=spec)
        assert info.kind is RowKind.BYTES
    _, exchanges = cluster.state.overview.status()
    assert [e.shuffle_id for e in exchanges] == ["g", "g/0", "g/1", "g/2"]


def test_rows_with_a_schema_are_arrow_at_once(cluster: GroupCluster) -> None:
    assert cluster.make(schema=b"schema").info.kind is RowKind.ARROW
    assert cluster.describe("g/1").kind is RowKind.ARROW
    assert cluster.describe("g/1").schema == b"schema"


def test_an_id_of_a_group_is_no_exchanges(cluster: GroupCluster) -> None:
    cluster.make(size=2)
    for name in ("g/0", "g/1", "g/2"):  # the last one is kept for an extension
        for owner in (OWNER, OTHER):
            with pytest.raises(ExchangeExists, match="exists or existed, or is for a group"):
                cluster.create(name, owner, partitions=4, lease_s=DRIVER_LEASE_S)
    for name in ("g/x", "g/01", "g/", "g"):
        cluster.create(name)
    with pytest.raises(ExchangeNotFound):
        cluster.describe("g/2", used=cluster.used("g/2"))


@pytest.mark.parametrize("life", ["open", "not durable", "closing", "closed", "restarted"])
def test_a_group_is_refused_whose_ids_were_used(cluster: GroupCluster, life: str) -> None:
    number = cluster.create("g/7", partitions=1).number
    cluster.create("g/x")
    if life != "not durable":
        cluster.persist()
    if life in ("closing", "closed", "restarted"):
        cluster.state.close_exchange("g/7", used=False)
    if life in ("closed", "restarted"):
        for incarnation in (1, 2):
            cluster.beat(incarnation, number)
        assert not cluster.state.knows("g/7")
    if life == "restarted":
        cluster.persist()
        cluster.restart()
        for incarnation in (1, 2):
            cluster.register(incarnation)
    if life == "not durable":  # the database was asked before
        with pytest.raises(ExchangeExists, match=r"exchange 'g/7' exists or existed, and group"):
            cluster.state.groups.create(
                ExchangeSpec("g", partitions=4, replicas=1), 1, 1, 0, OWNER, 0.0, callback=True
            )
    with pytest.raises(ExchangeExists, match=r"exchange 'g/7' exists or existed, and group 'g'"):
        cluster.make()
    assert cluster.make("h").info.number == number + 2


def test_ids_of_a_closed_group_stay_used(cluster: GroupCluster) -> None:
    block = cluster.make(size=3)
    cluster.release(1)
    cluster.state.groups.close("g")
    for incarnation in (1, 2):
        cluster.beat(incarnation, *range(block.info.number, block.info.number + 3))
    for _ in range(2):
        assert not cluster.state.knows("g/1")
        assert [cluster.used(f"g/{i}") for i in range(4)] == [True, True, True, False]
        assert cluster.store._rows("SELECT * FROM closed") == []
        assert cluster.store._rows("SELECT * FROM used_groups") == [("g", 3, 3)]
        with pytest.raises(ExchangeExists):
            cluster.create("g/1", used=cluster.used("g/1"))
        with pytest.raises(ExchangeExists, match="group 'g' existed"):
            cluster.make()
        cluster.restart()
        for incarnation in (1, 2):
            cluster.register(incarnation)
    assert cluster.create("g/3", used=cluster.used("g/3")).number == 4  # never one again


# --- bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"deterministic": False}, InvalidArgument, "deterministic=False: groups are for"),
        ({"partitions": 0}, InvalidArgument, "partitions is 0"),
        ({"owner": b"short"}, InvalidArgument, "owner is 5 bytes"),
        ({"group_id": ""}, InvalidArgument, "shuffle_id is 0 bytes"),
        ({"group_id": "x" * 1014}, InvalidArgument, "must be 1 to 1013"),
        ({"replicas": 2, "min_replicas": 3}, InvalidArgument, "min_replicas is 3"),
        ({"first": 4}, ExchangeNotFound, "there is no group 'g'"),
    ],
)
def test_a_bad_create_makes_nothing(
    cluster: GroupCluster, options: dict[str, Any], error: type[CoscoError], message: str
) -> None:
    with pytest.raises(error, match=message):
        cluster.make(**options)
    assert cluster.make().info.number == 1


def test_a_group_needs_daemons(cluster: GroupCluster) -> None:
    cluster.kill(1)
    with pytest.raises(CapacityExceeded) as caught:
        cluster.make(replicas=2)
    assert caught.value.retriable
    cluster.register(3)
    assert cluster.make(replicas=2).info.number == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 5}, InvalidArgument, "has 4 exchanges: extend it from index 4, not 0"),
        ({"first": 3}, InvalidArgument, "extend it from index 4, not 3"),
        ({"first": 5}, InvalidArgument, "extend it from index 4, not 5"),
        ({"first": 4, "mappers": 9}, InvalidArgument, "other options or another number of"),
        ({"first": 4, "partitions": 9}, InvalidArgument, "other options or another number of"),
        ({"partitions": 9}, InvalidArgument, "other options or another number of"),
        ({"first": 4, "owner": OTHER}, InvalidArgument, "has another driver"),
        ({"owner": OTHER}, ExchangeExists, "group 'g' exists"),
    ],
)
def test_a_call_that_does_not_fit_the_group(
    cluster: GroupCluster, options: dict[str, Any], error: type[CoscoError], message: str
) -> None:
    cluster.make()
    with pytest.raises(error, match=message):
        cluster.make(**options)
    assert cluster.make(first=4).info.number == 5


def test_calls_of_a_group_that_is_not_open(cluster: GroupCluster) -> None:
    groups = cluster.state.groups
    calls: tuple[Callable[[bool], Any], ...] = (
        lambda used: groups.poll("g", OWNER, 0.0, used=used),
        lambda used: groups.answer("g", OWNER, (), used=used),
        lambda used: groups.release("g", BitMap([0]), used=used),
    )
    for call in (*calls, lambda used: groups.close("g", used=used)):
        with pytest.raises(ExchangeNotFound, match="there is no group 'g'"):
            call(False)
    cluster.make()
    assert groups.close("g") == [1, 2, 3, 4]
    for call in calls:
        with pytest.raises(ExchangeClosed, match="group 'g' was closed"):
            call(True)
    assert groups.close("g", used=True) == []
    with pytest.raises(ExchangeClosed):
        cluster.make(first=4)


def test_indexes_outside_of_the_group(cluster: GroupCluster) -> None:
    cluster.make()
    with pytest.raises(InvalidArgument, match="exchange 4 is outside of group 'g'"):
        cluster.release(0, 4)
    with pytest.raises(InvalidArgument, match="exchange 4 is outside of group 'g'"):
        cluster.poll(GroupAnswer(4, 1))
    cluster.describe("g/0")


def test_a_member_has_no_driver_of_its_own(cluster: GroupCluster) -> None:
    cluster.make()
    with pytest.raises(InvalidArgument, match="is of group 'g', whose driver polls"):
        cluster.state.poll_driver(1, OWNER, cluster.now)
    with pytest.raises(InvalidArgument, match="is of group 'g', whose driver polls"):
        cluster.describe("g/0", OTHER)
    with pytest.raises(InvalidArgument, match="has another driver"):
        cluster.poll(owner=OTHER)
    cluster.poll()


def test_mappers_outside_of_the_group(cluster: GroupCluster) -> None:
    cluster.make()
    with pytest.raises(InvalidArgument, match="mapper is 3, it must be 0 to 2"):
        cluster.state.open_attempt("g/0", 3, used=False)
    with pytest.raises(InvalidArgument, match="mapper is 3, it must be 0 to 2"):
        cluster.commit_own(1, 3)
    with pytest.raises(InvalidArgument, match="mapper 3 is reported, exchange 'g/0' has mappers 0"):
        cluster.state.groups.report_uncommitted(1, BitMap([0, 3]), "", cluster.now)
    single = cluster.create("a")
    with pytest.raises(InvalidArgument, match="is of no group"):
        cluster.state.groups.report_uncommitted(single.number, BitMap([0]), "", cluster.now)
    with pytest.raises(InvalidArgument, match="was never opened"):
        cluster.commit_own(single.number, 0)
    with pytest.raises(ExchangeNotFound):
        cluster.state.groups.report_uncommitted(99, BitMap([0]), "", cluster.now)
    assert cluster.wait(1, 0).missing == BitMap([0])


# --- repeats, extension, placement --------------------------------------------------------


def test_repeated_calls_are_answered_alike(cluster: GroupCluster) -> None:
    blocks = [cluster.make(size=2), cluster.make(first=2, size=3)]
    cluster.persist()
    cluster.kill(1)  # they moved since
    for _ in range(2):
        assert [cluster.make(size=2), cluster.make(first=2, size=3)] == blocks
        cluster.restart()
        for incarnation in (1, 2):
            cluster.register(incarnation)
    assert cluster.make(first=5, size=1).info.number == 6


@pytest.mark.parametrize("size", [1, 3, 5])
def test_an_extension_that_nobody_heard_of_is_what_the_next_one_is_told(
    cluster: GroupCluster, size: int
) -> None:
    cluster.make(size=2)
    unheard = cluster.make(first=2, size=3)
    assert cluster.make(first=2, size=size) == unheard  # which says how many there are
    assert cluster.make(first=5, size=size).info.number == 6
    with pytest.raises(InvalidArgument, match="extend it from index"):
        cluster.make(first=3, size=size)


def test_ranges_are_cut_by_the_daemons(cluster: GroupCluster) -> None:
    assert [r.count for r in cluster.make("a", partitions=9).info.ranges] == [4, 5]
    assert [r.count for r in cluster.make("b", partitions=1).info.ranges] == [1]
    many = cluster.make("c", partitions=2 * MAX_MARK_PARTITIONS + 1, size=1).info
    assert len(many.ranges) == 3
    assert max(r.count for r in many.ranges) <= MAX_MARK_PARTITIONS


def test_an_extension_is_placed_like_what_is_there(cluster: GroupCluster) -> None:
    first = cluster.make().info
    cluster.register(3)  # a new placement would take it
    assert cluster.make(first=4).info.assignments == first.assignments
    cluster.release(*range(8))
    cluster.persist()
    cluster.restart()
    for incarnation in (1, 2, 3):
        cluster.register(incarnation)
    assert cluster.make(first=8).info.assignments == first.assignments


@pytest.mark.parametrize("trouble", ["dead", "draining", "failing"])
def test_an_extension_avoids_daemons_that_end(cluster: GroupCluster, trouble: str) -> None:
    cluster.make()
    cluster.register(3, "another")
    if trouble == "dead":
        cluster.kill(1)
    elif trouble == "draining":
        cluster.state.members.drain("host:1")
    else:
        cluster.register(1, "its own", store_failing=True) if False else None
        cluster.beat(1, store_failing=True)  # and so the store of 2
    info = cluster.make(first=4).info
    taken = {a.primary.incarnation for a in info.assignments}
    assert taken <= ({3} if trouble == "failing" else {2, 3})
    assert cluster.make(first=8).info.assignments == info.assignments
    assert cluster.describe("g/5").assignments == info.assignments


# --- leases, releases ---------------------------------------------------------------------


def test_one_lease_for_the_group(cluster: GroupCluster) -> None:
    cluster.make()
    assert cluster.sleep(DRIVER_LEASE_S - 1, 1, 2) == []
    cluster.release(1)
    cluster.poll()
    assert cluster.sleep(DRIVER_LEASE_S - 1, 1, 2) == []
    assert cluster.sleep(2, 1, 2) == [1, 3, 4]
    with pytest.raises(ExchangeClosed):
        cluster.describe("g/0", used=cluster.used("g/0"))
    assert not cluster.state.groups.knows("g")


def test_a_stall_and_a_restart_begin_leases_anew(cluster: GroupCluster) -> None:
    cluster.make()
    cluster.persist()
    cluster.now += 2 * DRIVER_LEASE_S
    assert cluster.state.tick(cluster.now) == []
    assert cluster.sleep(DRIVER_LEASE_S - 1, 1, 2) == []
    cluster.restart(2 * DRIVER_LEASE_S)
    for incarnation in (1, 2):
        cluster.register(incarnation)
    assert cluster.sleep(DRIVER_LEASE_S - 1, 1, 2) == []
    cluster.poll()  # for all of them
    assert cluster.sleep(DRIVER_LEASE_S - 1, 1, 2) == []
    assert cluster.sleep(2, 1, 2) == [1, 2, 3, 4]


def test_released_exchanges_are_closed(cluster: GroupCluster) -> None:
    cluster.make()
    assert cluster.release(1, 3) == [2, 4]
    assert cluster.release(1, 2, 3) == [3]
    assert cluster.state.close_exchange("g/0", used=False) == 1
    assert cluster.release(0, 1, 2, 3) == []
    assert cluster.beat(1).drop == (1, 2, 3, 4)
    with pytest.raises(ExchangeClosed):
        cluster.commit_own(2, 0)
    cluster.poll()
    assert cluster.make(first=4, size=1).info.number == 5
    assert cluster.state.groups.close("g") == [5]


def test_a_restart_with_groups_half_released(cluster: GroupCluster) -> None:
    cluster.make(size=3)
    cluster.make(first=3, size=3)
    cluster.make(first=6, size=3)
    cluster.release(0, 1, 2, 4, 7)
    assert cluster.commit_own(6, 1)
    cluster.persist()
    blocks = "SELECT first, number, size FROM blocks"
    assert cluster.store._rows(blocks) == [(3, 4, 3), (6, 7, 3)]  # all of the first is closed
    cluster.restart()
    for incarnation in (1, 2):
        cluster.register(incarnation)
    for number in (4, 6, 7, 9):
        with pytest.raises(InvalidArgument, match="is of group 'g'"):
            cluster.state.poll_driver(number, OWNER, cluster.now)
    snapshot = cluster.wait(6, 1).snapshot
    assert snapshot is not None
    assert snapshot.attempts.tolist() == [FIRST_OWN_ATTEMPT + 7]
    assert cluster.commit_own(6, 2)  # an attempt of its own, still
    assert cluster.describe("g/5").kind is RowKind.BYTES
    assert cluster.alike(6) == Alike(4, 3, BitMap([1]))
    assert cluster.release(3, 4, 5) == [4, 6]
    cluster.persist()
    assert cluster.store._rows(blocks) == [(6, 7, 3)]
    assert cluster.make(first=9, size=1).info.number == 10
    assert cluster.state.groups.close("g") == [7, 9, 10]
    cluster.persist()
    for table in ("open_groups", "blocks", "exchanges", "mappers", "sums"):
        assert cluster.store._rows(f"SELECT * FROM {table}") == []


def test_the_number_of_a_group_that_is_gone_is_never_given_again(cluster: GroupCluster) -> None:
    cluster.make(size=5)
    cluster.state.groups.close("g")
    for incarnation in (1, 2):
        cluster.beat(incarnation, 1, 2, 3, 4, 5)
    cluster.persist()
    cluster.restart()
    cluster.register(1)
    assert cluster.make("h").info.number == 6


# --- losses -------------------------------------------------------------------------------


def test_losses_of_all_are_told_by_one_poll(cluster: GroupCluster) -> None:
    cluster.make()
    for number in (2, 4):
        for mapper in range(MAPPERS):
            cluster.commit_own(number, mapper)
        cluster.lose(number)
    calls = cluster.poll()
    assert [(c.index, c.call.loss_id, c.call.mappers) for c in calls] == [
        (1, 1, BitMap(range(MAPPERS))),
        (3, 1, BitMap(range(MAPPERS))),
    ]
    assert cluster.poll() == calls  # until they are answered
    cluster.persist()
    cluster.restart()
    cluster.register(1)
    assert cluster.poll() == calls
    assert cluster.poll(GroupAnswer(1, 1)) == calls[1:]
    assert cluster.state.groups.answer("g", OWNER, [GroupAnswer(3, 1, "no\nworkers")]) == [4]
    assert cluster.poll() == ()
    assert cluster.wait(2, 0).recompute
    with pytest.raises(DataLost, match="callback failed: no workers"):
        cluster.wait(4, 0)
    cluster.release(1, 3)
    assert cluster.poll(GroupAnswer(3, 1, "again")) == ()  # it is closed


def test_a_poll_is_told_of_so_many_losses(
    cluster: GroupCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "MAX_CALLS", 2)
    cluster.make()
    for number in range(1, 5):
        cluster.state.groups.report_uncommitted(number, BitMap([0]), "dead", cluster.now)
    assert [c.index for c in cluster.poll()] == [0, 1]
    assert [c.index for c in cluster.poll(GroupAnswer(0, 1), GroupAnswer(1, 1))] == [2, 3]


@pytest.mark.parametrize("late", ["the first attempt", "a re-run", "an opened attempt"])
def test_uncommitted_mappers_are_called_back_until_they_commit(
    cluster: GroupCluster, late: str
) -> None:
    cluster.make()
    cluster.commit_own(2, 0)
    report = partial(cluster.state.groups.report_uncommitted, now=cluster.now)
    report(2, BitMap([0, 1]), "a worker\ndied")
    [call] = cluster.poll()
    assert (call.index, call.call.mappers, call.call.reason) == (1, BitMap([1]), "a worker died")
    wait = cluster.wait(2, 0, 1)
    assert wait.recompute
    assert wait.missing == BitMap([1])
    assert cluster.wait(2, 0).snapshot is not None  # this one is there
    report(2, BitMap([1]), "again")
    assert cluster.poll() == (call,)
    assert cluster.poll(GroupAnswer(1, call.call.loss_id)) == ()
    report(2, BitMap([1]), "again")
    assert cluster.poll() == ()
    report(2, BitMap([1, 2]), "another one")
    [other] = cluster.poll()
    assert other.call.mappers == BitMap([2])
    cluster.persist()
    cluster.restart()
    for incarnation in (1, 2):
        cluster.register(incarnation)
    assert cluster.poll() == (other,)
    assert cluster.wait(2, 1).recompute
    attempt = FIRST_OWN_ATTEMPT + {"the first attempt": 7, "a re-run": 8}.get(late, 0)
    if late == "an opened attempt":
        opened = cluster.state.open_attempt("g/1", 1, used=False)
        assert not opened.partial  # all of its rows are wanted
        attempt = opened.attempt
    assert cluster.commit_own(2, 1, attempt)
    snapshot = cluster.wait(2, 0, 1).snapshot
    assert snapshot is not None
    assert (snapshot.rows, snapshot.attempts.tolist()[1]) == (2, attempt)
    assert cluster.poll() == (other,)
    assert cluster.commit_own(2, 2)
    assert cluster.poll() == ()
    assert not cluster.state._exchanges.get(2).losses.pending(None)


def test_a_re_run_that_dies_as_well_is_called_back_after_a_while(cluster: GroupCluster) -> None:
    cluster.make()
    report = cluster.state.groups.report_uncommitted
    report(2, BitMap([1, 2]), "dead", cluster.now)
    [call] = cluster.poll()
    report(2, BitMap([1]), "dead", cluster.now + RECALL_S)
    assert cluster.poll() == (call,)  # the driver has not answered
    assert cluster.poll(GroupAnswer(1, call.call.loss_id)) == ()
    report(2, BitMap([1]), "dead", cluster.now + 2 * RECALL_S - 0.1)
    assert cluster.poll() == ()
    report(2, BitMap([1]), "dead again", cluster.now + 2 * RECALL_S)
    [again] = cluster.poll()
    assert (again.call.mappers, again.call.reason) == (BitMap([1]), "dead again")
    assert again.call.loss_id > call.call.loss_id
    assert cluster.wait(2, 1, 2).missing == BitMap([1, 2])
    assert cluster.commit_own(2, 1)
    assert cluster.poll() == ()
    assert cluster.wait(2, 1, 2).missing == BitMap([2])
    cluster.persist()
    cluster.restart()
    assert cluster.wait(2, 1, 2).missing == BitMap([2])


def test_a_re_run_that_was_in_vain_is_called_back(cluster: GroupCluster) -> None:
    cluster.make()
    cluster.commit_own(1, 0)
    cluster.lose(1)
    [first] = cluster.poll()
    assert cluster.poll(GroupAnswer(0, first.call.loss_id)) == ()
    # It names the build that ended, as one does whose handle is older.
    assert not cluster.commit_own(1, 0, FIRST_OWN_ATTEMPT + 5, epoch=1)
    [again] = cluster.poll()
    assert again.call.mappers == BitMap([0])
    assert again.call.loss_id > first.call.loss_id


def test_a_re_run_for_a_lost_range_that_dies_as_well_is_called_back(cluster: GroupCluster) -> None:
    cluster.make(partitions=1)
    for mapper in (0, 1):
        cluster.commit_own(1, mapper)
    cluster.lose(1)
    [first] = cluster.poll()
    report = partial(cluster.state.groups.report_uncommitted, 1, reason="dead", range_index=0)
    both = BitMap([0, 1])
    report(both, now=cluster.now, build=2)
    assert cluster.poll() == (first,)  # the driver has not answered
    assert cluster.poll(GroupAnswer(0, first.call.loss_id)) == ()
    later = cluster.now + RECALL_S
    report(both, now=later)  # their marks of before the loss say nothing
    report(both, now=later, build=1)
    report(both, now=later, build=3)
    report(BitMap([2]), now=later, build=2)  # is not called back
    report(both, now=later - 0.1, build=2)
    assert cluster.poll() == ()
    report(BitMap([1]), now=later, build=2)
    [again] = cluster.poll()
    assert (again.call.mappers, again.call.reason) == (BitMap([1]), "dead")
    assert again.call.loss_id > first.call.loss_id
    cluster.persist()
    cluster.restart()
    for incarnation in (1, 2):
        cluster.register(incarnation)
    assert cluster.poll() == (again,)
    assert cluster.wait(1, 0, 1).missing == both
    cluster.fence()
    epoch = cluster.state._exchanges.get(1).current(0).epoch
    for mapper in (0, 1):
        assert cluster.commit_own(1, mapper, FIRST_OWN_ATTEMPT + 9, epoch=epoch)
    assert cluster.poll() == ()
    assert cluster.wait(1, 0, 1).snapshot is not None


def test_a_report_of_a_range_there_is_not(cluster: GroupCluster) -> None:
    cluster.make()
    with pytest.raises(InvalidArgument, match="range 2 are reported, exchange 'g/0' has ranges 0"):
        cluster.state.groups.report_uncommitted(
            1, BitMap([0]), "", cluster.now, range_index=2, build=1
        )


@pytest.mark.parametrize("why", ["no callback", "it raised"])
def test_uncommitted_mappers_that_nobody_has_run(cluster: GroupCluster, why: str) -> None:
    cluster.make(callback=why != "no callback")
    cluster.state.groups.report_uncommitted(1, BitMap([1]), "", cluster.now)
    if why == "it raised":
        assert not cluster.poll(GroupAnswer(0, 1, "no workers"))
    with pytest.raises(DataLost, match="mappers did not commit; nobody brings them back"):
        cluster.wait(1, 1)
    assert not cluster.wait(1, 0).recompute  # waits for a commit that may still come
    cluster.commit_own(1, 1)
    assert cluster.wait(1, 1).snapshot is not None


def test_reports_leave_losses_of_ranges_alone(cluster: GroupCluster) -> None:
    cluster.make()
    cluster.commit_own(1, 0)
    cluster.lose(1)
    cluster.state.groups.report_uncommitted(1, BitMap([1]), "dead", cluster.now)
    assert [c.call.mappers for c in cluster.poll()] == [BitMap([0]), BitMap([1])]
    cluster.commit_own(1, 1, epoch=1)  # its rows in range 0 went with the first epoch
    assert cluster.wait(1, 0, 1).missing == BitMap([0, 1])
    assert cluster.wait(1, 1, partition=3).snapshot is not None


# --- what daemons look up -----------------------------------------------------------------


def check_alike(cluster: GroupCluster, block: GroupPart) -> None:
    """What every look-up says holds for each exchange that it names, asked for one by one."""
    exchanges = cluster.state._exchanges
    for offset in range(block.size):
        exchange = exchanges.open.get(block.info.number + offset)
        for index in range(len(block.info.ranges)) if exchange else ():
            for incarnation in (1, 2, 3):
                found = cluster.state.lookup_assignment(exchange.number, index, 1, incarnation)
                if found is None:
                    continue
                assert found.mappers == MAPPERS
                assert found.alike is not None
                alike = found.alike
                assert (alike.first_number, alike.size) == (block.info.number, block.size)
                for other in range(block.size):
                    own = None
                    if block.info.number + other in exchanges.open:
                        own = cluster.state.lookup_assignment(
                            block.info.number + other, index, 1, incarnation
                        )
                    expected = own is not None and own.assignment == found.assignment
                    assert (other not in alike.without) == expected


def test_an_assignment_is_told_for_all_that_have_it(cluster: GroupCluster) -> None:
    block = cluster.make(replicas=2)
    part = block.info.ranges[1]
    found = cluster.state.lookup_assignment(3, 1, 1, 2)
    assert found == FoundAssignment(block.info.assignments[1], part, MAPPERS, Alike(1, 4))
    check_alike(cluster, block)
    second = cluster.make(first=4, size=2, replicas=2)
    assert cluster.alike(6) == Alike(5, 2)
    check_alike(cluster, second)
    traced = cluster.make("t", trace=TRACE)
    found = cluster.state.lookup_assignment(traced.info.number + 1, 0, 1, 1)
    assert found is not None
    assert found.trace == TRACE == traced.info.spec.trace
    more = cluster.make("t", first=4, trace=TRACE.replace("b7", "c8"))
    assert more.info.spec.trace == TRACE  # that of the group
    single = cluster.create("a", partitions=1).number
    found = cluster.state.lookup_assignment(single, 0, 1, 1)
    assert found is None or (found.mappers, found.alike) == (0, None)


def test_alike_never_names_what_is_fenced(cluster: GroupCluster) -> None:
    cluster.register(3)
    block = cluster.make(size=5, replicas=2)
    number = block.info.number
    cluster.release(4)
    for mapper in range(MAPPERS):
        cluster.commit_own(number + 1, mapper)
    cluster.lose(number + 1)
    key = AssignmentKey(number + 2, 0, 1)
    primary = block.info.assignments[0].primary.incarnation
    cluster.state.members.report(block.info.assignments[0].primary, 0, True, [key])
    cluster.state.members.pop_probes()
    cluster.state.probed(primary, ProbeOutcome.ALIVE, cluster.now)
    alike = cluster.alike(number, 0, primary)
    assert alike == Alike(number, 5, BitMap([1, 2, 4]))
    assert cluster.alike(number, 2, block.info.assignments[2].primary.incarnation) == Alike(
        number, 5, BitMap([4])
    )
    check_alike(cluster, block)
    fenced = {key for fence in cluster.fence() for key in fence.keys}
    assert {(number + 1, 0, 1), key} <= fenced
    assert cluster.alike(number, 0, primary) == alike  # sealed stays sealed
    moved = cluster.current(0, "g/2")
    assert moved.epoch == 2
    found = cluster.state.lookup_assignment(number + 2, 0, 2, moved.primary.incarnation)
    assert found == FoundAssignment(moved, block.info.ranges[0], MAPPERS)  # this one's alone
    cluster.persist()
    cluster.restart()
    for incarnation in (1, 2, 3):
        cluster.register(incarnation)
    assert cluster.alike(number, 0, primary) == alike
    check_alike(cluster, block)
    cluster.state.members.drain(block.info.assignments[0].primary.address)
    assert cluster.state.lookup_assignment(number, 0, 1, primary) is None
    check_alike(cluster, block)


def test_status_lists_the_newest_of_many(cluster: GroupCluster) -> None:
    cluster.make(size=1500)
    cluster.release(*range(1490, 1500))
    _, exchanges = cluster.state.overview.status()
    assert [e.number for e in exchanges] == list(range(501, 1501))
    assert [e.closing for e in exchanges] == [False] * 990 + [True] * 10


def test_a_store_that_is_gone_is_one_call_back_for_each_exchange(cluster: GroupCluster) -> None:
    for incarnation in (1, 2):
        cluster.kill(incarnation)
    for incarnation, store in ((3, "memory:3"), (4, "memory:4")):
        cluster.register(incarnation, store)
    first = cluster.make(size=3).info.number
    for number in (first, first + 1):
        for mapper in range(MAPPERS):
            assert cluster.commit_own(number, mapper)
    gone = cluster.state._exchanges.get(first).current(0).primary.incarnation
    cluster.kill(gone)
    cluster.fence()
    cluster.lose(first)
    assert [call.index for call in cluster.poll()] == [0]
    cluster.look_through()
    everyone = BitMap(range(MAPPERS))
    assert [(c.index, c.call.mappers) for c in cluster.poll()] == [(0, everyone), (1, everyone)]
