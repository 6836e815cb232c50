"""Assignments that are looked up: once for all who wait, and never one that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.daemon_parts import KEY, DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block

from cosco.dfs import MemoryStore
from cosco.errors import ExchangeClosed, ExchangeNotFound, ServiceUnavailable
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.state.core import DaemonCore


class Service:
    """What the metadata service answers look-ups with, one after another."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def lookup(self, *_: int) -> object:
        self.asked += 1
        await asyncio.sleep(0)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def assigned(incarnation: int = INCARNATION) -> FoundAssignment:
    assignment = Assignment(0, 1, 1, DaemonRef(incarnation, "a"))
    return FoundAssignment(assignment, PartitionRange(0, 0, 9))


async def parts_with(service: Service) -> DaemonParts:
    """A daemon that has to ask `service` for its assignment."""
    store = MemoryStore()
    await store.open()
    parts = DaemonParts(store, link=service)
    parts.core.drop(EXCHANGE)
    parts.core.alike._dropped.clear()
    return parts


def test_many_who_wait_for_one_assignment_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosco.shuffle_service.io.lookups._RETRY_S", 0.0)

    async def main() -> None:
        service = Service(ServiceUnavailable("not now"), assigned())
        parts = await parts_with(service)
        await asyncio.gather(*(parts.take(block(p, 0)) for p in range(8)))
        assert service.asked == 2
        assert parts.core.assignment(KEY) is not None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (None, NotAssigned),
        (assigned(INCARNATION + 1), NotAssigned),
        (ExchangeNotFound("nobody knows it"), NotAssigned),
        (ExchangeClosed("over"), ExchangeClosed),
        (RuntimeError("unforeseen"), NotAssigned),
    ],
)
def test_what_the_service_denies_is_refused_to_all_who_wait(
    answer: object, refusal: type[Exception]
) -> None:
    async def main() -> None:
        service = Service(*[answer] * 3)
        parts = await parts_with(service)
        takes = [parts.take(block(p, 0)) for p in range(3)]
        results = await asyncio.gather(*takes, return_exceptions=True)
        assert [type(result) for result in results] == [refusal] * 3
        assert parts.core.unstored_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize("how", [DaemonCore.drop, None])
def test_an_exchange_dropped_during_the_look_up_stays_dropped(
    how: Callable[[DaemonCore, int], object] | None,
) -> None:
    async def main() -> None:
        parts = await parts_with(Service(assigned()))
        take = asyncio.create_task(parts.take(block(0, 0)))
        await asyncio.sleep(0)
        if how is None:
            await take
            return
        how(parts.core, EXCHANGE)
        with pytest.raises(ExchangeClosed):
            await take
        assert parts.core.assignment(KEY) is None

    asyncio.run(main())


def test_the_next_question_is_asked_whenever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the moment in which the last one was answered."""
    monkeypatch.setattr("cosco.shuffle_service.io.lookups.MAX_LOOK_UPS", 1)

    async def main() -> None:
        service = Service(None, None)
        parts = await parts_with(service)
        second = asyncio.Event()

        def found(_: object, __: float) -> None:
            asyncio.get_running_loop().call_soon(
                lambda: parts.lookups.look_up(KEY, lambda *_: second.set())
            )

        parts.lookups.look_up(KEY, found)
        async with asyncio.timeout(5):
            await second.wait()
        assert service.asked == 2

    asyncio.run(main())


def test_nobody_is_told_what_is_not_asked_for_any_more() -> None:
    async def main() -> None:
        service = Service(assigned())
        parts = await parts_with(service)
        found: list[object] = []
        stop = parts.lookups.look_up(KEY, lambda result, _: found.append(result))
        await asyncio.sleep(0)
        assert service.asked == 1
        stop()
        for _ in range(10):
            await asyncio.sleep(0)
        assert found == []
        assert not parts.core.alike._looked_up

    asyncio.run(main())


def test_one_who_cannot_use_an_answer_keeps_it_from_nobody_else() -> None:
    async def main() -> None:
        service = Service(assigned(), None)
        parts = await parts_with(service)
        told = asyncio.Event()

        def fails(_: object, __: float) -> None:
            raise RuntimeError("unforeseen")

        parts.lookups.look_up(KEY, fails)
        parts.lookups.look_up(KEY, lambda *_: told.set())
        async with asyncio.timeout(5):
            await told.wait()
        await asyncio.sleep(0)
        assert not parts.core.alike._looked_up
        parts.core.drop(EXCHANGE)
        parts.core.alike._dropped.clear()
        again = asyncio.Event()  # it is asked anew, not joined to what has ended
        parts.lookups.look_up(KEY, lambda *_: again.set())
        async with asyncio.timeout(5):
            await again.wait()
        assert service.asked == 2

    asyncio.run(main())
