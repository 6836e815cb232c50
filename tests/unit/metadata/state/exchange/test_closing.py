from __future__ import annotations

import pytest

from cosco.metadata.state.exchange.closing import Closing, ClosingTable, Party
from cosco.metadata.state.records.changes import Change, ChangeLog
from cosco.protocol.records import ExchangeStatus


def closing(number: int, holders: dict[int, str], pending: set[Party] | None = None) -> Closing:
    status = ExchangeStatus(f"id-{number}", number, 4, 2, 10, closing=True)
    return Closing(
        status, holders, {*holders, *holders.values()} if pending is None else set(pending)
    )


@pytest.fixture
def changes() -> ChangeLog:
    return ChangeLog()


@pytest.fixture
def table(changes: ChangeLog) -> ClosingTable:
    return ClosingTable((), changes)


def test_it_ends_when_every_daemon_has_confirmed(table: ClosingTable, changes: ChangeLog) -> None:
    table.begin(closing(7, {1: "s", 2: "s"}))
    assert table.orders(1, "s") == table.orders(2, "s") == {7}
    table.confirm([7], 1, "s")
    assert table.orders(1, "s") == set()
    assert table.orders(2, "s") == {7}
    assert "id-7" in table
    changes.pop_all()
    table.confirm([7], 2, "s")
    assert "id-7" not in table
    assert table.status() == []
    assert changes.pop_all() == [Change("closing", (7,), None), Change("closed", (7,), ("id-7",))]


def test_each_store_must_confirm(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "x", 2: "y"}))
    table.confirm([7], 1, "x")
    assert table.orders(2, "y") == {7}
    assert table.orders(3, "x") == set()
    table.confirm([7], 2, "y")
    assert "id-7" not in table


def test_a_daemon_without_assignment_can_confirm_for_its_store(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "s"}, pending={"s"}))
    assert table.orders(9, "s") == {7}
    table.confirm([7], 9, "s")
    assert "id-7" not in table


def test_confirmations_of_others_change_nothing(table: ClosingTable, changes: ChangeLog) -> None:
    table.begin(closing(7, {1: "s"}))
    changes.pop_all()
    table.confirm([6, 7, 8], 5, "other")
    assert table.orders(1, "s") == {7}
    assert not changes


def test_the_store_of_a_dead_daemon_must_confirm_after_its_death(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "s", 2: "s"}))
    table.confirm([7], 2, "s")  # daemon 1 may still write to the store
    table.died(1)
    assert table.orders(2, "s") == {7}
    table.confirm([7], 2, "s")
    assert "id-7" not in table


def test_a_dead_daemons_private_store_waits_for_its_next_start(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "s", 2: "t"}))
    table.confirm([7], 2, "t")
    table.died(1)
    assert "id-7" in table
    assert table.orders(2, "t") == set()
    assert table.orders(3, "s") == {7}  # started again on the same directory
    table.confirm([7], 3, "s")
    assert "id-7" not in table


def test_the_death_of_one_that_confirmed_changes_nothing(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "s", 2: "t"}))
    table.confirm([7], 1, "s")
    table.died(1)
    assert table.orders(3, "s") == set()


def test_one_that_was_thought_dead_must_confirm_its_memory(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "s"}))
    table.begin(closing(8, {2: "s"}))
    table.died(1)
    table.returned(1)
    table.confirm([7], 2, "s")
    assert "id-7" in table
    table.confirm([7], 1, "s")
    assert "id-7" not in table


def test_rows_bring_a_table_back(table: ClosingTable, changes: ChangeLog) -> None:
    big = (1 << 64) - 1
    table.begin(closing(7, {big: "s", 2: "t"}))
    table.confirm([7], 2, "t")
    [(name, key, row)] = changes.pop_all()
    assert name == "closing"
    assert row is not None
    restored = ClosingTable([key + row], ChangeLog())
    assert restored.status() == table.status()
    assert restored.orders(big, "x") == restored.orders(0, "s") == {7}
    assert restored.orders(2, "t") == set()
    restored.died(big)
    restored.confirm([7], 5, "s")
    assert "id-7" not in restored


def test_a_store_in_memory_ends_with_its_daemon(table: ClosingTable) -> None:
    table.begin(closing(7, {1: "memory:a", 2: "s"}, pending={1, 2, "s"}))
    table.died(1)
    assert table.orders(9, "memory:a") == set()
    assert "id-7" in table
    table.confirm([7], 2, "s")
    assert "id-7" not in table
