"""Events: what is alike joins, and the list of them is bounded."""

from __future__ import annotations

import dataclasses

import pytest

from cosco.protocol.events import Event, EventKind, EventLog, shown_ranges


def moved(number: int, *indexes: int, daemon: str = "a:1") -> Event:
    return Event(
        kind=EventKind.RANGES_MOVED, number=number, daemon=daemon, range_indexes=indexes, epoch=2
    )


def test_an_event_shows_the_fields_that_apply() -> None:
    event = Event(kind=EventKind.ROWS_LOST, exchange="x", number=7, range_indexes=(3,), mappers=0)
    assert event.shown() == {
        "event": "rows_lost",
        "exchange": "x",
        "number": 7,
        "range": "3",
        "ranges": 1,
        "mappers": 0,
    }


def test_an_event_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        moved(1, 0).number = 2  # type: ignore[misc]


def test_names_are_distinct_and_fit_for_machines() -> None:
    names = [kind.label for kind in EventKind]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)


def test_ranges_of_one_exchange_and_daemon_are_one_event() -> None:
    log = EventLog()
    for index in range(1000):
        log.add(moved(1, index))
    log.add(moved(2, 5))
    log.add(moved(1, 5, daemon="b:1"))
    first, second, third = log.pop_all()
    assert first.shown()["range"] == "0-999"
    assert first.shown()["ranges"] == 1000
    assert first.epoch is None  # they may differ
    assert (second.number, second.epoch) == (2, 2)
    assert third.daemon == "b:1"
    assert not log


def test_what_has_no_ranges_is_counted() -> None:
    log = EventLog()
    for _ in range(3):
        log.add(Event(kind=EventKind.DATA_LOST, number=1, reason="r"))
    log.add(Event(kind=EventKind.DATA_LOST, number=1, reason="another"))
    assert [(event.reason, event.times) for event in log.pop_all()] == [("r", 3), ("another", 1)]


def test_what_happens_to_a_range_again_is_counted() -> None:
    log = EventLog()
    for _ in range(3):
        log.add(Event(kind=EventKind.DATA_LOST, number=1, range_indexes=(4,), build=2))
    (event,) = log.pop_all()
    assert (event.range_indexes, event.build, event.times) == ((4,), 2, 3)


def test_an_event_knows_how_many_it_stands_for() -> None:
    log = EventLog()
    for index in (None, 0, 1, 1, 2):
        ranges = None if index is None else (index,)
        log.add(Event(kind=EventKind.REBUILT, number=1, range_indexes=ranges))
    (event,) = log.pop_all()
    assert event.count == 5
    assert moved(1, 0).count == 1


def test_the_list_is_bounded_and_says_what_it_left_out() -> None:
    log = EventLog(max_events=10)
    for number in range(25):
        log.add(Event(kind=EventKind.EXCHANGE_CLOSED, number=number))
    *told, rest = log.pop_all()
    assert [event.number for event in told] == list(range(10))
    assert rest.shown() == {"event": "events_left_out", "cause": "exchange_closed", "times": 15}
    assert log.pop_all() == []


def test_whoever_waits_is_called() -> None:
    log, calls = EventLog(), []
    log.on_add = lambda: calls.append(1)
    log.add(moved(1, 0))
    log.add(moved(1, 1))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("indexes", "shown"),
    [
        ([], ""),
        ([3], "3"),
        ([2, 0, 1, 7], "0-2,7"),
        (range(0, 40, 2), "0,2,4,6,8,10,12,14,…"),
    ],
)
def test_ranges_are_shown_short(indexes: list[int], shown: str) -> None:
    assert shown_ranges(indexes) == shown
