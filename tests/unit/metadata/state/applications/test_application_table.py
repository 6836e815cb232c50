"""Applications, as the state of the metadata service keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap
from support.metadata_cluster import OTHER, OWNER
from support.stored_cluster import StoredCluster

import cosco.metadata.state.applications.application_table as module
from cosco.errors import (
    CapacityExceeded,
    CoscoError,
    DataLost,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
)
from cosco.protocol.application_records import (
    ApplicationAnswer,
    ApplicationCall,
    application_name,
    application_number,
)
from cosco.protocol.events import EventKind
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    CommitWait,
    ExchangeInfo,
    ExchangeSpec,
    LossCause,
    LossReport,
    pairs_array,
)

LEASE_S = 60.0


class ApplicationCluster(StoredCluster):
    """Daemons, and applications."""

    def start(self, label: str = "etl", owner: bytes = OWNER, lease_s: float = LEASE_S) -> str:
        return self.state.applications.create(label, owner, lease_s, self.now)

    def make(
        self,
        shuffle_id: str = "a",
        application_id: str = "etl-1",
        owner: bytes = OWNER,
        *,
        callback: bool = True,
        lease_s: float = LEASE_S,
        **options: Any,
    ) -> ExchangeInfo:
        """CreateExchange, with what the database knows."""
        spec = ExchangeSpec(shuffle_id, 4, 1, lease_s=lease_s, **options)
        used = self.used(shuffle_id)
        return self.state.create_exchange(
            spec, owner, self.now, used=used, callback=callback, application_id=application_id
        )

    def poll(
        self, *answers: ApplicationAnswer, application_id: str = "etl-1", owner: bytes = OWNER
    ) -> tuple[ApplicationCall, ...]:
        self.state.applications.answer(application_id, owner, answers)
        return self.state.applications.poll(application_id, owner, self.now)

    def close(self, application_id: str = "etl-1", owner: bytes = OWNER) -> list[int] | None:
        return self.state.applications.close(application_id, owner)

    def write(self, shuffle_id: str) -> None:
        """Mapper 0 commits a row of partition 0."""
        opened = self.state.open_attempt(shuffle_id, 0, used=False)
        one = np.ones(1, dtype=np.uint64)
        sums = AttemptSums(np.zeros(1, dtype=np.uint32), one, one, one, one)
        acknowledged = pairs_array([(part.index, 1) for part in opened.info.ranges])
        number, attempt = opened.info.number, opened.attempt
        assert self.state.commit(CommitRequest(number, 0, attempt, 1, acknowledged, sums))

    def lose(self, number: int) -> None:
        """A reader has found that rows of partition 0 are gone."""
        self.state.report_loss(LossReport(number, 1, 1, 0, LossCause.GONE, "gone"), self.now)

    def wait(self, number: int) -> CommitWait:
        return self.state.await_commits(number, BitMap([0]), 0, 0, self.now)

    def is_open(self, shuffle_id: str) -> bool:
        try:
            self.state.describe_exchange(shuffle_id, b"", self.now, used=self.used(shuffle_id))
        except ExchangeClosed:
            return False
        return True


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ApplicationCluster]:
    made = ApplicationCluster(str(tmp_path / "metadata.db"), 1, 2)
    yield made
    made.store.close()


# --- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application_id", "number"),
    [
        ("etl-7", 7),
        ("nightly run-2-10", 10),
        ("--1", 1),
        ("-1", None),
        ("etl-", None),
        ("etl", None),
        ("etl-07", None),
        ("etl-0", None),
        ("etl-1 ", None),
        ("etl-²", None),
        ("etl-٣", None),
        ("etl-" + "9" * 5000, None),
    ],
)
def test_an_id_says_its_number(application_id: str, number: int | None) -> None:
    assert application_number(application_id) == number
    if number is not None:
        assert application_name(application_id.rpartition("-")[0], number) == application_id


def test_labels_may_be_alike_and_numbers_are_never_given_twice(
    cluster: ApplicationCluster,
) -> None:
    assert [cluster.start(owner=bytes([i]) * 16) for i in range(3)] == ["etl-1", "etl-2", "etl-3"]
    assert cluster.close("etl-3", bytes([2]) * 16) == []
    cluster.persist()
    cluster.restart()
    assert cluster.start("other", OTHER) == "other-4"


def test_a_repeated_call_makes_one_application(cluster: ApplicationCluster) -> None:
    assert cluster.start() == cluster.start() == "etl-1"
    assert cluster.start(owner=OTHER) == "etl-2"
    assert len(cluster.state.applications) == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"label": ""}, "is 0 bytes long, it must be 1 to 256"),
        ({"label": "é" * 129}, "is 258 bytes long"),
        ({"label": "\ud800"}, "is no text"),
        ({"owner": b"me"}, "owner is 2 bytes long"),
        ({"lease_s": 0.5}, "lease_s is 0.5, it must be 1 to 604800"),
        ({"lease_s": float("nan")}, "lease_s is nan"),
    ],
)
def test_what_cannot_be_an_application(
    cluster: ApplicationCluster, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidArgument, match=named):
        cluster.start(**options)
    assert cluster.start() == "etl-1"


# --- its exchanges ------------------------------------------------------------------------


def test_an_exchange_of_an_application_is_one_like_others(cluster: ApplicationCluster) -> None:
    cluster.start()
    info = cluster.make()
    assert cluster.state.applications.id_of(info.number) == "etl-1"
    assert cluster.commit(0, 0, 1)
    assert cluster.wait(info.number).snapshot is not None
    assert cluster.state.overview.detail("a", cluster.now, used=False).application_id == "etl-1"


def test_a_repeated_create_makes_one_exchange_and_another_is_refused(
    cluster: ApplicationCluster,
) -> None:
    cluster.start()
    cluster.start(owner=OTHER)
    assert cluster.make() == cluster.make()
    for others in (
        {"application_id": "etl-2", "owner": OTHER},
        {"application_id": ""},
        {"application_id": "", "owner": OTHER},
        {"mappers": 3},
    ):
        with pytest.raises(ExchangeExists):
            cluster.make(**others)  # type: ignore[arg-type]
    assert cluster.state.applications.id_of(1) == "etl-1"


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"application_id": "etl-2"}, ExchangeNotFound, "there is no application 'etl-2'"),
        ({"application_id": "nonsense"}, ExchangeNotFound, "there is no application 'nonsense'"),
        ({"application_id": "other-1"}, ExchangeClosed, "'other-1' was closed"),
        ({"owner": OTHER}, InvalidArgument, "'etl-1' has another driver"),
        ({"lease_s": 61.0}, InvalidArgument, "lease_s of exchange 'a' is 61, and 60 of"),
    ],
)
def test_an_exchange_that_the_application_cannot_have(
    cluster: ApplicationCluster, options: dict[str, Any], error: type[CoscoError], named: str
) -> None:
    cluster.start()
    with pytest.raises(error, match=named):
        cluster.make(**options)
    assert cluster.make().number == 1  # nothing was made


def test_an_exchange_without_daemons_is_refused_and_the_application_stays(
    tmp_path: Path,
) -> None:
    cluster = ApplicationCluster(str(tmp_path / "metadata.db"))
    cluster.start()
    with pytest.raises(CapacityExceeded):
        cluster.make()
    cluster.register(1)
    cluster.make()
    cluster.store.close()


def test_who_closes_an_exchange_may_name_its_driver(cluster: ApplicationCluster) -> None:
    cluster.start()
    number = cluster.make().number
    with pytest.raises(InvalidArgument, match="another driver"):
        cluster.state.close_exchange("a", used=False, owner=OTHER)
    assert cluster.is_open("a")
    assert cluster.state.close_exchange("a", used=False, owner=OWNER) == number
    assert cluster.state.close_exchange("a", used=True, owner=OWNER) is None


def test_the_application_outlives_its_last_exchange(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.make()
    cluster.state.close_exchange("a", used=False)
    assert cluster.state.applications.id_of(1) is None
    assert cluster.poll() == ()
    assert cluster.make("b").number == 2


# --- leases -------------------------------------------------------------------------------


def test_one_poll_renews_all_and_nobody_polls_for_one(cluster: ApplicationCluster) -> None:
    cluster.start()
    for name in "abc":
        cluster.make(name)
    for _ in range(3):
        assert cluster.sleep(LEASE_S * 0.9, 1, 2) == []
        cluster.poll()
    with pytest.raises(InvalidArgument, match="'b' is of application 'etl-1', whose driver polls"):
        cluster.state.poll_driver(2, OWNER, cluster.now)
    assert cluster.sleep(LEASE_S + 1, 1, 2) == [1, 2, 3]
    assert len(cluster.state.applications) == 0
    for use in (cluster.poll, cluster.make):
        with pytest.raises(ExchangeClosed, match="'etl-1' was closed, or its driver's lease ran"):
            use()
    assert not cluster.is_open("a")


@pytest.mark.parametrize("call", ["start", "make"])
def test_other_calls_of_the_driver_renew_as_well(cluster: ApplicationCluster, call: str) -> None:
    cluster.start()
    for name in "ab":
        cluster.sleep(LEASE_S * 0.9, 1, 2)
        cluster.start() if call == "start" else cluster.make(name)
    assert cluster.poll() == ()


def test_the_lease_begins_in_full_after_a_restart(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.make()
    cluster.sleep(LEASE_S * 0.9, 1, 2)
    cluster.persist()
    cluster.restart(after_s=100 * LEASE_S)
    assert cluster.sleep(LEASE_S * 0.9, 1, 2) == []
    assert cluster.poll() == ()
    assert cluster.sleep(LEASE_S + 1, 1, 2) == [1]


def test_a_stall_begins_leases_in_full(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.make()
    cluster.now += LEASE_S * 0.9
    assert cluster.state.tick(cluster.now) == []
    assert cluster.sleep(LEASE_S * 0.9, 1, 2) == []
    assert cluster.poll() == ()


# --- ends ---------------------------------------------------------------------------------


def test_closing_ends_what_is_open_of_it_and_nothing_else(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.start("other", OTHER)
    cluster.make("a")
    cluster.make("b", "other-2", OTHER)
    cluster.make("c")
    cluster.create("d")
    cluster.state.close_exchange("a", used=False)
    with pytest.raises(InvalidArgument, match="another driver"):
        cluster.close(owner=OTHER)
    assert cluster.close() == [3]
    assert [cluster.is_open(name) for name in "abcd"] == [False, True, False, True]
    assert cluster.close() is None  # a repeated call
    with pytest.raises(ExchangeNotFound, match="'etl-9'"):
        cluster.close("etl-9")


def test_nothing_is_left_of_it_in_the_database(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.make("a")
    cluster.persist()
    cluster.make("b")
    cluster.close()
    cluster.persist()
    tables = cluster.store.load().tables
    assert tables["applications"] == tables["application_exchanges"] == []
    assert tables["numbers_given"] == [("applications", 1)]
    cluster.restart()
    with pytest.raises(ExchangeClosed):
        cluster.poll()


def test_a_restart_goes_on_with_what_there_was(cluster: ApplicationCluster) -> None:
    cluster.start()
    for name in "abc":
        cluster.make(name)
    cluster.state.close_exchange("b", used=False)
    cluster.commit(0, 0)
    cluster.lose(1)
    calls = cluster.poll()
    cluster.persist()
    cluster.restart()
    assert cluster.poll() == calls
    assert [cluster.state.applications.id_of(n) for n in (1, 2, 3)] == ["etl-1", None, "etl-1"]
    assert cluster.make("c").number == 3  # a repeated call
    assert cluster.close() == [1, 3]


def test_an_exchange_that_is_taken_over_leaves_it(cluster: ApplicationCluster) -> None:
    cluster.start()
    for name in "ab":
        cluster.make(name)
    cluster.commit(0, 0)
    cluster.lose(1)
    assert [call.number for call in cluster.poll()] == [1]
    cluster.state.describe_exchange("a", OTHER, cluster.now, used=False, callback=True)
    assert cluster.poll() == ()
    assert cluster.poll(ApplicationAnswer(1, 1, "too late")) == ()
    assert len(cluster.state.poll_driver(1, OTHER, cluster.now).calls) == 1
    cluster.persist()
    cluster.restart()
    assert cluster.close() == [2]
    assert cluster.sleep(LEASE_S * 0.9, 1, 2) == []  # its lease is its own
    cluster.state.poll_driver(1, OTHER, cluster.now)
    assert cluster.sleep(LEASE_S + 1, 1, 2) == [1]


# --- losses -------------------------------------------------------------------------------


def test_losses_of_all_its_exchanges_come_until_they_are_answered(
    cluster: ApplicationCluster,
) -> None:
    cluster.start()
    cluster.make("a")
    cluster.commit(0, 0)
    cluster.make("b")
    assert cluster.poll() == ()
    cluster.lose(1)
    cluster.lose(2)  # of which nobody has written any row
    [call] = cluster.poll()
    assert (call.number, list(call.call.mappers)) == (1, [0])
    assert "gone" in call.call.reason
    assert cluster.poll() == (call,)
    assert cluster.wait(1).recompute
    loss = call.call.loss_id
    assert cluster.poll(ApplicationAnswer(1, loss), ApplicationAnswer(77, 1)) == ()


def test_a_callback_that_failed_is_told_to_readers(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.make()
    cluster.commit(0, 0)
    cluster.lose(1)
    [call] = cluster.poll()
    failed = [ApplicationAnswer(1, call.call.loss_id, "no workers")]
    assert cluster.state.applications.answer("etl-1", OWNER, failed) == [1]
    assert cluster.state.applications.answer("etl-1", OWNER, failed) == []
    with pytest.raises(DataLost, match="no workers"):
        cluster.wait(1)


def test_an_exchange_without_a_callback_calls_nobody(cluster: ApplicationCluster) -> None:
    cluster.start()
    cluster.make(callback=False)
    cluster.commit(0, 0)
    cluster.lose(1)
    assert cluster.poll() == ()
    with pytest.raises(DataLost):
        cluster.wait(1)


def test_a_poll_has_so_many_calls(
    cluster: ApplicationCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CALLS", 2)
    cluster.start()
    for number in range(1, 5):
        cluster.make(f"e{number}")
        cluster.write(f"e{number}")
        cluster.lose(number)
    calls = cluster.poll()
    assert [call.number for call in calls] == [1, 2]
    answers = [ApplicationAnswer(call.number, call.call.loss_id) for call in calls]
    assert [call.number for call in cluster.poll(*answers)] == [3, 4]


@pytest.mark.parametrize("use", ["poll", "answer", "close"])
@pytest.mark.parametrize(
    ("application_id", "owner", "error"),
    [
        ("etl-1", OTHER, InvalidArgument),
        ("etl-2", OWNER, ExchangeNotFound),
        ("", OWNER, ExchangeNotFound),
    ],
)
def test_who_may_not(
    cluster: ApplicationCluster,
    use: str,
    application_id: str,
    owner: bytes,
    error: type[CoscoError],
) -> None:
    cluster.start()
    table = cluster.state.applications
    uses: dict[str, Callable[[], object]] = {
        "poll": lambda: table.poll(application_id, owner, cluster.now),
        "answer": lambda: table.answer(application_id, owner, [ApplicationAnswer(1, 1)]),
        "close": lambda: table.close(application_id, owner),
    }
    with pytest.raises(error):
        uses[use]()


# --- what operators are told --------------------------------------------------------------


def test_operators_are_told_of_it(cluster: ApplicationCluster) -> None:
    def told() -> list[tuple[str, str | None, str | None, int | None]]:
        return [
            (event.kind.label, event.application, event.cause, event.exchanges)
            for event in cluster.state.events.pop_all()
            if event.kind in {EventKind.APPLICATION_CREATED, EventKind.APPLICATION_CLOSED}
        ]

    cluster.start()
    cluster.start(owner=OTHER)
    assert told() == [
        ("application_created", "etl-1", None, 0),
        ("application_created", "etl-2", None, 0),
    ]
    cluster.make()
    cluster.close()
    assert told() == [("application_closed", "etl-1", "asked", 1)]
    cluster.sleep(LEASE_S + 1, 1, 2)
    assert told() == [("application_closed", "etl-2", "lease", 0)]
