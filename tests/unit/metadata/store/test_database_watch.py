"""How the database does, as metrics and operators are told; and what events are counted as."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from cosco.metadata.service.metadata_metrics import MetadataMetrics
from cosco.metadata.state.records.changes import Change, Stored
from cosco.metadata.store.database import SLOW_WRITE_S, DatabaseWatch, open_database
from cosco.protocol.events import Event, EventKind, EventLog

CHANGES = [Change("t", (1,), (2,)), Change("t", (2,), (2,))]


def value(metrics: MetadataMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_database_that_fails_and_recovers() -> None:
    metrics, told = MetadataMetrics(), []
    failures = ["disk full", "disk full", "read\nonly", ""]

    async def write(_: list[Change]) -> None:
        if failure := failures.pop(0):
            raise OSError(failure)

    async def test() -> None:
        watch = DatabaseWatch(write, metrics.database_measures(), "sqlite:///m.db")
        watch.tell = told.append
        for _ in range(2):
            with pytest.raises(OSError, match="disk full"):
                await watch.write(CHANGES)
            assert watch.doubts(0.0) == ["the database takes no writes: disk full"]
        with pytest.raises(OSError, match="only"):
            await watch.write(CHANGES)
        await watch.write(CHANGES)
        assert watch.doubts(0.0) == []

    asyncio.run(test())
    # Each reason once, however often it is tried again.
    assert [(e.kind.label, e.reason) for e in told] == [
        ("database_failing", "disk full"),
        ("database_failing", "read only"),
        ("database_recovered", None),
    ]
    assert {event.store for event in told} == {"sqlite:///m.db"}
    assert value(metrics, "cosco_journal_failures_total") == 3
    assert value(metrics, "cosco_journal_rows_total") == 2
    assert value(metrics, "cosco_journal_write_seconds_count") == 1


def test_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    told: list[Event] = []

    async def test() -> None:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def write(_: list[Change]) -> None:
            begun.set()
            await goes_on.wait()

        watch = DatabaseWatch(write, MetadataMetrics().database_measures(), "sqlite:///m.db")
        watch.tell = told.append
        writing = asyncio.create_task(watch.write(CHANGES))
        await begun.wait()
        watch.look(100.0 + SLOW_WRITE_S - 0.1)
        assert not told
        assert watch.doubts(100.0 + SLOW_WRITE_S - 0.1) == []
        for now in (100.0 + SLOW_WRITE_S, 107.0):
            watch.look(now)
        assert [event.reason for event in told] == ["a write has been under way for 5 s"]
        assert "under way for 7.0 s" in watch.doubts(107.0)[0]
        goes_on.set()
        await writing
        assert watch.doubts(107.0) == []
        watch.look(107.0)
        assert [e.kind.label for e in told] == ["database_failing", "database_recovered"]

    asyncio.run(test())


def test_events_are_counted() -> None:
    metrics = MetadataMetrics()
    for event in (
        Event(kind=EventKind.ROWS_LOST, cause="gone", range_indexes=(1,)),
        Event(kind=EventKind.ROWS_LOST, cause="late commit", range_indexes=(1,)),
        Event(kind=EventKind.REBUILT),
        Event(kind=EventKind.RANGES_MOVED, range_indexes=(1, 2, 5)),
        Event(kind=EventKind.DAEMON_DIED, cause="lease"),
        Event(kind=EventKind.DAEMON_DIED, cause="gone"),
        Event(kind=EventKind.EXCHANGE_CLOSED, cause="lease", times=3),
        Event(kind=EventKind.EXCHANGE_CLOSED, cause="asked"),
    ):
        metrics.count_event(event)
    assert value(metrics, "cosco_losses_total", cause="gone") == 1
    assert value(metrics, "cosco_losses_total", cause="late commit") == 1
    assert value(metrics, "cosco_rebuilds_total") == 1
    assert value(metrics, "cosco_ranges_moved_total") == 3
    assert value(metrics, "cosco_leases_expired_total", holder="daemon") == 1
    assert value(metrics, "cosco_leases_expired_total", holder="exchange") == 3
    assert value(metrics, "cosco_events_total", event="daemon_died") == 2


def test_what_happens_to_several_ranges_at_once_is_counted_for_each() -> None:
    """A commit that brings back the rows of three ranges ends three losses."""
    metrics, log = MetadataMetrics(), EventLog()
    for index in range(3):
        for kind in (EventKind.ROWS_LOST, EventKind.REBUILT, EventKind.RANGES_MOVED):
            cause = "gone" if kind is EventKind.ROWS_LOST else None
            log.add(Event(kind=kind, number=1, range_indexes=(index,), cause=cause))
    for event in log.pop_all():
        metrics.count_event(event)
    assert value(metrics, "cosco_losses_total", cause="gone") == 3
    assert value(metrics, "cosco_rebuilds_total") == 3
    assert value(metrics, "cosco_ranges_moved_total") == 3


def test_the_state_is_restored_beside_the_event_loop(tmp_path: Path) -> None:
    """Or a service with many exchanges would seem to stand still, and be started again."""

    async def test() -> None:
        beside = threading.Event()

        def build(stored: Stored) -> bool:
            return beside.wait(10)

        async with open_database(f"{tmp_path}/m.db") as database:
            restoring = asyncio.create_task(database.load(build))
            await asyncio.sleep(0)
            beside.set()
            assert await restoring

    asyncio.run(test())
