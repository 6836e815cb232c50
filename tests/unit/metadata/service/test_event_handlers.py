"""The call for events: what came, what follows, and how many may wait for that."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.metadata.service import event_handlers
from cosco.metadata.service.event_handlers import EventHandlers
from cosco.metadata.service.guard import Visit
from cosco.metadata.state import event_history
from cosco.metadata.state.access.rights import ANYBODY, Caller
from cosco.metadata.state.event_history import EventHistory
from cosco.protocol.events import Event, EventKind, Severity
from cosco.protocol.peer import Principal, Role
from cosco.protocol.wire import mpb

DIED = Event(kind=EventKind.DAEMON_DIED, daemon="a:1", cause="lease")
OURS = Event(kind=EventKind.EXCHANGE_CREATED, exchange="x", tenant="ours")


def visit(tenant: str = "") -> Visit:
    who = Caller(Principal("p", tenant, Role.VIEWER)) if tenant else ANYBODY
    return Visit(who, lambda: None, lambda _: None, is_daemon=False)


class Rig:
    def __init__(self) -> None:
        self.history = EventHistory(first=50)
        self.handlers = EventHandlers(self.history)

    async def ask(self, tenant: str = "", **request: float) -> tuple[list[str], int]:
        asked = {"limit": 10, "severity": int(Severity.DEBUG)} | request
        message = mpb.ListEventsRequest(**asked)  # type: ignore[arg-type]
        reply = await self.handlers.list_events(message, visit(tenant))
        assert [one.sequence for one in reply.events] == sorted(o.sequence for o in reply.events)
        return [json.loads(one.fields)["event"] for one in reply.events], reply.last


def test_the_newest_come_first_and_then_what_follows() -> None:
    async def main() -> None:
        rig = Rig()
        assert await rig.ask() == ([], 49)
        for _ in range(3):
            rig.history.add(DIED, 1.0)
        rig.history.add(OURS, 2.0)
        assert await rig.ask(limit=2) == (["daemon_died", "exchange_created"], 53)
        assert await rig.ask(after=51) == (["daemon_died", "exchange_created"], 53)
        assert await rig.ask(after=51, limit=1) == (["daemon_died"], 52)
        assert await rig.ask(after=49, severity=Severity.WARNING) == (["daemon_died"] * 3, 53)
        assert await rig.ask(after=53) == ([], 53)
        assert await rig.ask("ours", after=49) == (["daemon_died"] * 3 + ["exchange_created"], 53)
        assert await rig.ask("theirs", after=52) == ([], 53)

    asyncio.run(main())


def test_who_waits_is_told_of_the_first_that_he_may_see() -> None:
    async def main() -> None:
        rig = Rig()
        waiting = asyncio.create_task(rig.ask("theirs", after=49, wait_s=30))
        await asyncio.sleep(0)
        rig.history.add(OURS, 1.0)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        rig.history.add(DIED, 2.0)
        assert await waiting == (["daemon_died"], 51)
        assert await rig.ask(after=51, wait_s=0.01) == ([], 51)
        assert not rig.handlers._waiting

    asyncio.run(main())


def test_few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_handlers, "MAX_WAITING", 2)

    async def main() -> None:
        rig = Rig()
        waiting = [asyncio.create_task(rig.ask(after=49, wait_s=30)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable):
            await rig.ask(after=49, wait_s=30)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        more = asyncio.create_task(rig.ask(after=49, wait_s=30))
        await asyncio.sleep(0)
        rig.history.add(DIED, 1.0)
        assert await more == await waiting[1] == (["daemon_died"], 50)

    asyncio.run(main())


def test_one_tenant_leaves_places_to_others_and_all_to_admins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("MAX_WAITING", 6), ("MAX_OF_ONE", 2), ("KEPT_FOR_ADMINS", 2)):
        monkeypatch.setattr(event_handlers, name, value)

    async def main() -> None:
        rig, waiting = Rig(), []

        async def wait(tenant: str) -> bool:
            one = asyncio.create_task(rig.ask(tenant, after=49, wait_s=30))
            waiting.append(one)
            await asyncio.sleep(0)
            if one.done():
                assert isinstance(one.exception(), ServiceUnavailable)
            return not one.done()

        assert [await wait("ours") for _ in range(3)] == [True, True, False]
        assert [await wait("theirs") for _ in range(3)] == [True, True, False]
        assert not await wait("others")  # the rest is for admins
        assert [await wait("") for _ in range(3)] == [True, True, False]
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not rig.handlers._waiting

    asyncio.run(main())


def test_few_are_looked_at_for_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_history, "MAX_LOOKED_AT", 3)

    async def main() -> None:
        rig = Rig()
        for _ in range(7):
            rig.history.add(OURS, 1.0)
        rig.history.add(DIED, 2.0)
        last, found = 49, []
        for _ in range(3):
            events, last = await rig.ask("theirs", after=last, wait_s=30)
            found.append((events, last))
        assert found == [([], 52), ([], 55), (["daemon_died"], 57)]

    asyncio.run(main())


def test_who_waits_looks_at_no_event_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event for others must not have all who wait look through all that they have seen."""

    async def main() -> None:
        rig, looked_at = Rig(), []
        after = rig.history.after

        def noted(sequence: int, *rest: Any) -> Any:
            looked_at.append(sequence)
            return after(sequence, *rest)

        monkeypatch.setattr(rig.history, "after", noted)
        for _ in range(5):
            rig.history.add(OURS, 1.0)
        waiting = asyncio.create_task(rig.ask("theirs", after=49, wait_s=30))
        for _ in range(3):
            await asyncio.sleep(0)
            rig.history.add(OURS, 1.0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert looked_at == sorted(set(looked_at))
        assert looked_at[:2] == [49, 54]

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_",
    [{"limit": 0}, {"limit": 1001}, {"wait_s": -1.0}, {"wait_s": 31.0}, {"wait_s": math.nan},
     {"severity": 0}, {"severity": 25}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(request_: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        asyncio.run(Rig().ask(**request_))
