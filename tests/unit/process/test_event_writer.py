"""Events on their way to the log: once what they tell of is durable, and not too many."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cosco.process.event_writer import LINES_AT_ONCE, LINES_PER_S, EventWriter, RateLimit
from cosco.protocol.events import Event, EventKind, EventLog

LOGGER = logging.getLogger("cosco.test.events")


def closed(number: int) -> Event:
    return Event(kind=EventKind.EXCHANGE_CLOSED, number=number)


def test_a_burst_is_told_then_some_a_second_and_the_rest_is_counted() -> None:
    limit, told = RateLimit(), 0
    for _ in range(10_000):  # in one second
        told += limit.admits(closed(1), 100.0)
    assert told == LINES_AT_ONCE
    assert limit.pop_left_out(100.9) == []
    (rest,) = limit.pop_left_out(101.0)
    assert (rest.cause, rest.times) == ("exchange_closed", 10_000 - LINES_AT_ONCE)
    assert sum(limit.admits(closed(1), 101.0) for _ in range(1000)) == LINES_PER_S


def test_one_kind_does_not_crowd_out_another() -> None:
    limit = RateLimit()
    for _ in range(1000):
        limit.admits(closed(1), 0.0)
    assert limit.admits(Event(kind=EventKind.DAEMON_DIED), 0.0)


def test_while_some_are_only_counted_none_overtakes_them() -> None:
    limit = RateLimit()
    for _ in range(LINES_AT_ONCE + 1):
        limit.admits(closed(1), 0.0)
    assert not limit.admits(closed(2), 60.0)
    assert [event.times for event in limit.pop_left_out(60.0)] == [2]
    assert limit.admits(closed(3), 60.0)


def test_an_event_is_told_once_its_change_is_durable(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        gate, asked = asyncio.Event(), asyncio.Event()

        async def durable() -> None:
            asked.set()
            await gate.wait()

        events = EventLog()
        writer = EventWriter(events, LOGGER, durable)
        seen: asyncio.Queue[Event] = asyncio.Queue()
        writer.listeners.append(seen.put_nowait)
        task = asyncio.create_task(writer.run())
        events.add(closed(1))
        await asked.wait()
        assert seen.empty() and not caplog.records
        gate.set()
        assert (await seen.get()).number == 1
        await asyncio.sleep(0)
        task.cancel()
        (record,) = caplog.records
        assert record.event == {"event": "exchange_closed", "number": 1}  # type: ignore[attr-defined]

    with caplog.at_level(logging.INFO, LOGGER.name):
        asyncio.run(asyncio.wait_for(test(), 10))


def test_an_event_that_is_taken_when_the_service_ends_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        asked = asyncio.Event()

        async def durable() -> None:
            asked.set()
            await asyncio.Event().wait()

        events = EventLog()
        writer = EventWriter(events, LOGGER, durable)
        task = asyncio.create_task(writer.run())
        events.add(closed(1))
        await asked.wait()
        task.cancel()
        events.add(closed(2))
        writer.flush()

    with caplog.at_level(logging.INFO, LOGGER.name):
        asyncio.run(asyncio.wait_for(test(), 10))
    assert [record.event["number"] for record in caplog.records] == [1, 2]  # type: ignore[attr-defined]


def test_listeners_get_what_the_log_leaves_out(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        events = EventLog()
        writer = EventWriter(events, LOGGER)
        seen: list[Event] = []
        writer.listeners.append(seen.append)
        for number in range(1000):
            events.add(closed(number))
        writer.flush()
        assert len(seen) == 1000

    with caplog.at_level(logging.INFO, LOGGER.name):
        asyncio.run(test())
    assert len(caplog.records) == LINES_AT_ONCE + 1
    last = caplog.records[-1].event  # type: ignore[attr-defined]
    assert last == {
        "event": "events_left_out",
        "cause": "exchange_closed",
        "times": 1000 - LINES_AT_ONCE,
    }
