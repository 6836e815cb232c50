from __future__ import annotations

from dataclasses import replace

import pytest

from cosco.errors import InvalidArgument
from cosco.metadata.state.daemons.daemon_table import DaemonTable
from cosco.metadata.state.records.changes import Change, ChangeLog
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.records import DaemonHeartbeat, DaemonRef, DaemonRegistration, DaemonState

LEASE_S = 10.0


def registration(
    incarnation: int, address: str = "", store: str = "store", free: int = 50
) -> DaemonRegistration:
    return DaemonRegistration(
        incarnation=incarnation,
        address=address or f"host:{incarnation}",
        host_id=f"host-{incarnation}",
        store_id=store,
        memory_bytes=100,
        free_bytes=free,
    )


@pytest.fixture
def table() -> DaemonTable:
    return DaemonTable((), ChangeLog(), lease_s=LEASE_S, now=0.0)


def live(table: DaemonTable) -> list[int]:
    return sorted(candidate.incarnation for candidate in table.candidates())


def test_a_daemon_lives_while_it_is_heard_of(table: DaemonTable) -> None:
    table.register(registration(1), 0.0)
    table.register(registration(2), 0.0)
    assert table.heartbeat(DaemonHeartbeat(1, 40), 9.0) is not None
    assert table.expire(10.0) == [2]
    assert live(table) == [1]
    assert table.expire(18.9) == []
    assert table.expire(19.0) == [1]


def test_heartbeats_of_unknown_and_dead_daemons_ask_for_registration(table: DaemonTable) -> None:
    assert table.heartbeat(DaemonHeartbeat(1, 40), 0.0) is None
    table.register(registration(1), 0.0)
    table.assign(1)
    table.expire(10.0)
    assert table.heartbeat(DaemonHeartbeat(1, 40), 10.0) is None


def test_a_new_start_at_an_address_ends_the_old_one(table: DaemonTable) -> None:
    assert table.register(registration(1, "a:1"), 0.0) == (True, [])
    assert table.register(registration(2, "a:1"), 1.0) == (True, [1])
    assert live(table) == [2]
    assert table.expire(10.0) == []  # nothing is left of the old one's lease


def test_a_registration_may_be_repeated(table: DaemonTable) -> None:
    table.register(registration(1), 0.0)
    table.assign(1)
    assert table.register(registration(1, free=7), 5.0) == (False, [])
    assert table.get(1).assignments == 1
    assert table.get(1).free_bytes == 7
    assert table.expire(14.0) == []


def test_a_daemon_that_was_thought_dead_comes_back(table: DaemonTable) -> None:
    table.register(registration(1), 0.0)
    table.assign(1)
    table.expire(10.0)
    assert table.register(registration(1), 11.0) == (True, [])
    assert live(table) == [1]
    assert table.get(1).assignments == 1


@pytest.mark.parametrize("other", [registration(1, "b:1"), registration(1, store="another")])
def test_an_incarnation_is_one_daemons(table: DaemonTable, other: DaemonRegistration) -> None:
    table.register(registration(1), 0.0)
    with pytest.raises(InvalidArgument, match="incarnation 1 is that of the daemon at host:1"):
        table.register(other, 0.0)


def test_dead_daemons_stay_while_an_exchange_names_them(table: DaemonTable) -> None:
    table.register(registration(1), 0.0)
    table.register(registration(2), 0.0)
    table.assign(1)
    table.expire(10.0)
    assert [(s.ref.incarnation, s.state) for s in table.status()] == [(1, DaemonState.DEAD)]
    table.release(1)
    assert table.status() == ()


def test_daemons_of_a_store(table: DaemonTable) -> None:
    for incarnation, store in ((3, "x"), (1, "x"), (2, "y"), (4, "x")):
        table.register(registration(incarnation, store=store), incarnation)
    table.expire(11.0)  # 1 dies
    assert table.of_store("x") == [DaemonRef(3, "host:3"), DaemonRef(4, "host:4")]


def test_who_adopts_a_store_and_dies_begins_the_grace_anew(table: DaemonTable) -> None:
    """A daemon with a store of its own that is restarted twice."""
    table.register(registration(1, store="own"), now=0)
    table.assign(1)
    table.died(1, now=10)
    table.register(registration(2, store="own"), now=11)
    table.register(registration(3, address="b:1", store="another"), now=11)
    table.assign(3)
    table.died(3, now=12)
    table.died(2, now=40)
    assert table.may_be_adopted(1, 10, now=49)
    assert not table.may_be_adopted(1, 10, now=50)
    assert not table.may_be_adopted(3, 10, now=22)


def test_restarted_leases_are_full(table: DaemonTable) -> None:
    table.register(registration(1), 0.0)
    table.restart_leases(100.0)
    assert table.expire(109.9) == []
    assert table.expire(110.0) == [1]


def test_a_death_is_stored() -> None:
    changes = ChangeLog()
    table = DaemonTable((), changes, lease_s=LEASE_S, now=0.0)
    table.register(registration(1), 0.0)
    table.assign(1)
    [born] = changes.pop_all()
    table.expire(10.0)
    [died] = changes.pop_all()
    assert born.row is not None
    assert died.row is not None
    assert (born.row[-2], died.row[-2]) == (1, 0)
    table.release(1)
    assert changes.pop_all() == [Change("daemons", (1,), None)]


def test_rows_bring_a_table_back() -> None:
    changes = ChangeLog()
    table = DaemonTable((), changes, lease_s=LEASE_S, now=0.0)
    table.register(registration((1 << 64) - 1, "a:1"), 0.0)
    table.register(registration(2), 5.0)
    table.assign((1 << 64) - 1)
    table.expire(12.0)
    rows = [change.key + change.row for change in changes.pop_all() if change.row is not None]
    restored = DaemonTable(rows, ChangeLog(), lease_s=LEASE_S, now=100.0)
    restored.assign((1 << 64) - 1)
    assert restored.status() == table.status()
    assert restored.expire(109.9) == []
    assert restored.expire(110.0) == [2]


@pytest.mark.parametrize(("what", "limit"), [("mechanics", 256), ("version", 64)])
def test_which_build_it_is_is_what_the_last_heartbeat_said(
    table: DaemonTable, what: str, limit: int
) -> None:
    def told() -> list[str]:
        return [getattr(status, what) for status in table.status()]

    table.register(registration(1), 0.0)
    assert told() == [""]
    table.heartbeat(replace(DaemonHeartbeat(1, 9), **{what: "1.2.3"}), 1.0)
    table.register(registration(1), 2.0)
    assert told() == ["1.2.3"]
    table.heartbeat(replace(DaemonHeartbeat(1, 9), **{what: "n" * 10**6}), 3.0)
    assert told() == ["n" * limit]


def test_others_of_a_store_are_spared_when_it_fails_and_not_when_it_hangs(
    table: DaemonTable,
) -> None:
    for incarnation, store in ((1, "x"), (2, "x"), (3, "y")):
        table.register(registration(incarnation, store=store), 0.0)
    table.heartbeat(DaemonHeartbeat(1, 9, store_failing=True), 1.0)
    assert live(table) == [3]  # where one finds it full, so will the other
    table.heartbeat(DaemonHeartbeat(1, 9, store_failing=True, store_hangs=True), 2.0)
    assert live(table) == [2, 3]  # which may be on another host
    assert [(s.store_failing, s.store_hangs) for s in table.status()] == [
        (True, True),
        (False, False),
        (False, False),
    ]
    table.heartbeat(DaemonHeartbeat(2, 9, store_failing=True, store_hangs=True), 3.0)
    assert live(table) == [3]
    assert "2 cannot write to their store" in table.why_no_candidates()
    table.heartbeat(DaemonHeartbeat(1, 9), 4.0)
    assert live(table) == [1, 3]
    table.register(registration(2, store="x"), 5.0)  # a registration does not say that it is well
    assert live(table) == [1, 3]


def test_one_more_daemon_has_room_if_it_is_known_or_follows_one_or_one_has_ended(
    table: DaemonTable,
) -> None:
    table.register(registration(1, "a:1"), 0.0)
    table.assign(1)
    table.register(registration(2, "a:2"), 5.0)
    new = DaemonRef(3, "a:3")
    assert table.has_room_for(new, 3)
    assert not table.has_room_for(new, 2)
    assert table.has_room_for(DaemonRef(2, "a:2"), 2)
    assert table.has_room_for(DaemonRef(4, "a:2"), 2)  # a new start at that address
    table.expire(10.0)
    assert table.has_room_for(new, 2)
    table.register(registration(3, "a:3"), 10.0)
    assert table.has_room_for(DaemonRef(1, "a:1"), 2)  # it is dead, and rows are known to be there
    assert not table.has_room_for(DaemonRef(5, "a:1"), 2)


def test_figures_are_those_of_the_last_heartbeat_and_told_to_who_asks(table: DaemonTable) -> None:
    table.register(registration(1), 0.0)
    assert table.status(figures=True)[0].figures is None
    for count in (3, 5):
        figures = DaemonFigures(bytes_received=count)
        table.heartbeat(DaemonHeartbeat(1, 9, figures=figures), 1.0)
        assert table.status(figures=True)[0].figures == figures
    assert table.status()[0].figures is None
