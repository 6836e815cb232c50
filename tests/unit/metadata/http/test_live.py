"""Who listens is told what changes, of what he may see; who takes nothing is dropped."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.metadata_cluster import OWNER, Cluster

from cosco.errors import CapacityExceeded
from cosco.metadata.http import live
from cosco.metadata.http.live import LiveFeed, last_sequence
from cosco.metadata.state.event_history import EventHistory
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.events import Event, EventKind
from cosco.protocol.records import ExchangeSpec

LOST = Event(kind=EventKind.ROWS_LOST, exchange="e", number=1, tenant="ours")
DIED = Event(kind=EventKind.DAEMON_DIED, daemon="d:1", incarnation=1 << 60)


class Feed(LiveFeed):
    def __init__(self) -> None:
        self.cluster = Cluster(1)
        super().__init__(self.cluster.state, EventHistory(), lambda: 0, lambda: 1.0)

    def add(self, event: Event) -> None:
        self._history.add(event, 1.0)

    def create(self, shuffle_id: str, tenant: str) -> None:
        spec = ExchangeSpec(shuffle_id, 4, replicas=1)
        state, now = self.cluster.state, self.cluster.now
        state.create_exchange(spec, OWNER, now, used=False, tenant=tenant)


def parsed(text: str) -> tuple[str, Any, str]:
    fields = dict(line.split(": ", 1) for line in text.rstrip("\n").split("\n"))
    return fields["event"], json.loads(fields["data"]), fields.get("id", "")


async def taken(listener: live.Listener) -> list[tuple[str, Any, str]]:
    return [parsed(await listener.next()) for _ in range(listener._waiting.qsize())]


def test_a_snapshot_comes_first_and_then_what_changes() -> None:
    async def main() -> None:
        feed = Feed()
        listener = feed.listen(None)
        feed.look()
        [(kind, data, _)] = await taken(listener)
        assert (kind, data["figures"]["daemons_serving"]) == ("snapshot", 1)
        feed.create("a", "")
        feed.look()
        feed.look()
        [(kind, data, _)] = await taken(listener)
        assert (kind, data) == ("figures", {"exchanges_open": 1})
        feed.add(DIED)
        [(kind, data, number)] = await taken(listener)
        assert (kind, data["event"], number) == ("event", "daemon_died", str(data["sequence"]))
        assert data["fields"]["incarnation"] == str(1 << 60)
        feed.leave(listener)
        feed.add(DIED)
        assert await taken(listener) == []

    asyncio.run(main())


def test_totals_are_told_once_a_second_and_those_of_before_to_who_comes() -> None:
    async def main() -> None:
        feed = Feed()
        feed.count()
        early = feed.listen("ours")
        feed.cluster.beat(1, figures=DaemonFigures(bytes_received=5, waiting_bytes=2))
        feed.count()
        [(_, snapshot, _), (kind, point, _)] = await taken(early)
        names = snapshot["totals"]["names"]
        assert (kind, len(snapshot["totals"]["points"])) == ("totals", 1)
        told = dict(zip(names, point, strict=True))
        assert (told["at_s"], told["bytes_received"], told["waiting_bytes"]) == (1.0, 5, 2)
        [(_, snapshot, _)] = await taken(feed.listen(None))
        assert snapshot["totals"]["points"][1:] == [point]

    asyncio.run(main())


def test_daemons_are_added_up_once_for_all_who_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        feed = Feed()
        for tenant in ("ours", "theirs", None):
            feed.listen(tenant)
        asked = []
        view = feed.cluster.state.view
        real = view.daemon_sums
        monkeypatch.setattr(view, "daemon_sums", lambda: asked.append(1) or real())
        feed.look()
        assert len(asked) == 1

    asyncio.run(main())


def test_each_is_told_of_its_own() -> None:
    async def main() -> None:
        feed = Feed()
        listeners = {tenant: feed.listen(tenant) for tenant in ("ours", "theirs", None)}
        for listener in listeners.values():
            await taken(listener)
        feed.create("a", "ours")
        feed.look()
        feed.add(LOST)
        told = {tenant: await taken(one) for tenant, one in listeners.items()}
        assert told["theirs"] == []
        assert [kind for kind, *_ in told["ours"]] == ["figures", "event"]
        assert [kind for kind, *_ in told[None]] == ["figures", "event"]

    asyncio.run(main())


def test_who_was_away_is_told_what_he_has_missed() -> None:
    async def main() -> None:
        feed = Feed()
        for event in (DIED, LOST, DIED):
            feed.add(event)
        told = await taken(feed.listen("theirs", 1))
        assert [number for _, _, number in told] == ["", "3"]

    asyncio.run(main())


def test_who_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_WAITING", 4)

    async def main() -> None:
        feed = Feed()
        slow, quick = feed.listen(None), feed.listen(None)
        for _ in range(10):
            feed.add(DIED)
            await taken(quick)
        assert await slow.next() == ""
        assert feed._listeners == {quick}

    asyncio.run(main())


def test_listeners_are_bounded_and_tenants_leave_room_for_admins() -> None:
    async def main() -> None:
        feed = Feed()
        ours = [feed.listen("ours") for _ in range(live.MAX_OF_ONE)]
        with pytest.raises(CapacityExceeded):
            feed.listen("ours")
        for _ in range(live.MAX_LISTENERS - live.FOR_ADMINS - live.MAX_OF_ONE):
            feed.listen("theirs")
        for tenant in ("theirs", "others"):
            with pytest.raises(CapacityExceeded):
                feed.listen(tenant)
        for _ in range(live.FOR_ADMINS):
            feed.listen(None)
        with pytest.raises(CapacityExceeded):
            feed.listen(None)
        feed.leave(ours[0])
        with pytest.raises(CapacityExceeded):
            feed.listen("ours")
        feed.listen(None)
        feed.stop()
        assert await ours[1].next() == ""

    asyncio.run(main())


def test_admins_are_bounded_too() -> None:
    async def main() -> None:
        feed = Feed()
        for _ in range(live.MAX_OF_ONE):
            feed.listen(None)
        with pytest.raises(CapacityExceeded):
            feed.listen(None)
        for _ in range(live.MAX_LISTENERS - live.FOR_ADMINS - live.MAX_OF_ONE):
            feed.listen("ours")

    asyncio.run(main())


def test_something_is_said_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUIET_S", 0.0)

    async def main() -> None:
        listener = Feed().listen(None)
        await taken(listener)
        assert (await listener.next()).startswith(":")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "found"), [("12", 12), (None, None), ("", None), ("-1", None), ("9" * 20, None)]
)
def test_the_last_event_that_a_browser_has(text: str | None, found: int | None) -> None:
    assert last_sequence(text) == found
