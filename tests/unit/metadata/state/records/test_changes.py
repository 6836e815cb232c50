from __future__ import annotations

import time

from cosco.metadata.state.records.changes import Change, ChangeLog, Row, Stored


def test_a_row_is_rendered_once_when_it_is_taken() -> None:
    log = ChangeLog()
    value = 1

    def render() -> Row:
        return (value,)

    log.put("t", (1,), render)
    value = 2
    log.put("t", (1,), render)
    assert log
    assert log.pop_all() == [Change("t", (1,), (2,))]
    assert not log
    assert log.pop_all() == []


def test_deleting_takes_what_is_below_the_key() -> None:
    log = ChangeLog()
    for key in ((1, 1), (1, 2), (2, 1)):
        log.put("t", key, lambda: ("x",))
    log.put("other", (1, 1), lambda: ("y",))
    log.delete("t", (1,))
    assert sorted(log.pop_all()) == [
        Change("other", (1, 1), ("y",)),
        Change("t", (1,), None),
        Change("t", (2, 1), ("x",)),
    ]


def test_deleting_by_a_part_of_the_key_comes_before_what_is_put_then() -> None:
    log = ChangeLog()
    for key in ((1, 1, 1), (1, 1, 2), (1, 2, 1)):
        log.put("t", key, lambda: ("old",))
    log.delete("t", (1, 1))
    log.put("t", (1, 1, 2), lambda: ("new",))
    log.delete("t", (1, 2, 1))
    changes = log.pop_all()
    assert [change for change in changes if change.key[:2] == (1, 1)] == [
        Change("t", (1, 1), None),
        Change("t", (1, 1, 2), ("new",)),
    ]
    assert [change for change in changes if change.key[:2] != (1, 1)] == [
        Change("t", (1, 2, 1), None)
    ]


def test_deleting_takes_no_longer_for_what_else_has_changed() -> None:
    log = ChangeLog()
    began = time.process_time()
    for row in range(30_000):
        log.put("t", (1, row), lambda: ("x",))
        log.delete("other", (row,))
    for row in range(30_000):
        log.delete("t", (1, row))
    assert time.process_time() - began < 5.0  # looking at every row takes minutes
    assert len(log.pop_all()) == 60_000


def test_what_comes_after_a_delete_stays() -> None:
    log = ChangeLog()
    log.delete("t", (1,))
    log.put("t", (1,), lambda: ("new",))
    assert log.pop_all() == [Change("t", (1,), ("new",))]


def test_numbers_of_a_database_that_was_used_go_on_from_the_clock() -> None:
    new = Stored("cluster")
    assert new.as_of(10**15) == new
    used = Stored("cluster", next_number=7)
    assert used.as_of(10**15).next_number == 10**15
    assert Stored("cluster", next_number=10**15 + 5).as_of(10**15).next_number == 10**15 + 5
