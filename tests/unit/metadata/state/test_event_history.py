"""The last events: which are kept, who sees which, and how somebody goes on from the last one."""

from __future__ import annotations

import pytest

from cosco.metadata.state.event_history import EventHistory
from cosco.protocol.events import Event, EventKind, Severity

DIED, HEARD = EventKind.DAEMON_DIED, EventKind.DAEMON_HEARD


def filled(*tenants: str | None, max_kept: int = 100) -> EventHistory:
    """An event of an exchange for each tenant; None: one of a daemon."""
    history = EventHistory(first=10, max_kept=max_kept)
    for at, tenant in enumerate(tenants):
        event = Event(kind=DIED, daemon="d:1")
        if tenant is not None:
            event = Event(kind=EventKind.ROWS_LOST, exchange="e", number=1, tenant=tenant or None)
        history.add(event, float(at))
    return history


def numbers(history: EventHistory, after: int, limit: int, tenant: str | None) -> list[int]:
    return [told.sequence for told in history.after(after, limit, tenant)[0]]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_have_each_event_once_in_order(limit: int) -> None:
    history, found, after = filled(*[None] * 7), [], 0
    while page := history.after(after, limit, None)[0]:
        found += page
        after = page[-1].sequence
    assert [told.sequence for told in found] == list(range(10, 17))
    assert [told.at_s for told in found] == [0, 1, 2, 3, 4, 5, 6]


def test_a_tenant_sees_its_own_and_what_is_of_no_exchange() -> None:
    history = filled("ours", "theirs", None, "", "ours")
    assert numbers(history, 0, 10, "ours") == [10, 12, 14]
    assert numbers(history, 0, 10, "theirs") == [11, 12]
    assert numbers(history, 0, 10, None) == [10, 11, 12, 13, 14]
    assert [told.sequence for told in history.newest(2, "ours")] == [12, 14]


def test_what_somebody_may_not_see_is_passed_over_for_good() -> None:
    history = filled("ours", "theirs", "theirs")
    found, went_to = history.after(10, 5, "ours")
    assert (found, went_to) == ([], 12)
    assert history.after(0, 1, "ours")[1] == 12, "nothing more is there for it"
    assert filled("ours", "ours").after(0, 1, "ours")[1] == 10


@pytest.mark.parametrize("place", ["group", "application", "exchange"])
def test_events_of_nobody_that_name_something_are_for_who_sees_all(place: str) -> None:
    history = EventHistory()
    history.add(Event(kind=EventKind.GROUP_CLOSED, **{place: "x"}), 0)
    assert history.newest(5, "ours") == []
    assert len(history.newest(5, None)) == 1


def test_the_oldest_goes() -> None:
    history = filled(*[None] * 5, max_kept=2)
    assert numbers(history, 0, 10, None) == [13, 14]
    assert history.last == 14


def test_severe_ones_alone() -> None:
    history = EventHistory()
    for kind in (HEARD, DIED, EventKind.DATA_LOST):
        history.add(Event(kind=kind), 0)
    assert [t.sequence for t in history.newest(5, None, Severity.WARNING)] == [2, 3]
    assert [t.sequence for t in history.after(0, 5, None, Severity.ERROR)[0]] == [3]
