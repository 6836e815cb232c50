"""Who uses an exchange in this process: until it is removed, or collected."""

from __future__ import annotations

import time

import pytest

from cosco.client.rpc import in_use
from cosco.client.rpc.in_use import InUse


class User:
    """Whatever can be collected."""


def test_users_count_until_they_are_removed_or_collected() -> None:
    table = InUse()
    removed, collected = User(), User()
    use = table.add("a", removed)
    table.add("a", collected)
    assert table.is_used("a")
    table.remove(use)
    table.remove(use)
    assert table.is_used("a")
    del collected
    assert not table.is_used("a")
    assert not table._users


def test_an_exchange_of_a_group_is_of_the_group() -> None:
    table = InUse()
    user = User()
    table.add("group/3", user)
    assert table.is_used("group")
    assert table.is_used("group/3")
    assert not table.is_used("group/4")
    assert not table.is_used("gro")


def test_an_exchange_of_an_application_is_of_the_application() -> None:
    table = InUse()
    user = User()
    table.add("orders", user)
    assert table.is_used("etl-1", {"orders"}.__contains__)
    assert not table.is_used("etl-1", {"others"}.__contains__)
    assert not table.is_used("etl-1")


def test_the_next_user_of_an_application_is_told_of() -> None:
    table = InUse()
    told: list[str] = []
    own = {"orders"}.__contains__
    assert table.tell_of_next("etl-1", 10.0, lambda: told.append("etl-1"), own)
    users = [User(), User(), User()]
    table.add("others", users[0])
    assert not told
    table.add("orders", users[1])
    table.add("orders", users[2])
    assert told == ["etl-1"]
    assert not table.tell_of_next("etl-1", 10.0, lambda: None, own)


def test_equal_users_are_two() -> None:
    class Equal(User):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    table = InUse()
    first, second = Equal(), Equal()
    table.add("a", first)
    table.add("a", second)
    del first
    assert table.is_used("a")
    del second
    assert not table.is_used("a")


@pytest.mark.parametrize("name", ["a", "a/0"])
def test_the_next_user_is_told_of_once(name: str) -> None:
    table, told = InUse(), []
    assert table.tell_of_next("a", 60.0, lambda: told.append(1))
    users = [User(), User()]
    for user in users:
        table.add("b", user)
    assert not told
    for user in users:
        table.add(name, user)
    assert told == [1]
    assert not table.tell_of_next("a", 60.0, lambda: told.append(2))


def test_who_waits_too_long_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    table, told = InUse(), []
    assert table.tell_of_next("a", 5.0, lambda: told.append(1))
    later = time.monotonic() + 6.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    user = User()
    table.add("a", user)
    assert not told
    assert table.tell_of_next("b", 5.0, lambda: None)
    monkeypatch.setattr(time, "monotonic", lambda: later + 6.0)
    assert table.tell_of_next("c", 5.0, lambda: None)
    assert set(table._waiting) == {"c"}


def test_ids_whose_users_are_gone_take_no_memory() -> None:
    table = InUse()
    for i in range(10 * in_use._PRUNE_EVERY):
        table.add(f"{i}", User())
    assert len(table._users) <= in_use._PRUNE_EVERY
