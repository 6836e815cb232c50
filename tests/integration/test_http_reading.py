"""What the HTTP interface tells of a cluster, by a service and daemons as users start them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.exchanges import numbered, send, until
from support.http_client import Web, raw, rest_of, url_of
from support.log_lines import JSON
from support.processes import Services

from cosco import CoscoApplication, CoscoExchange, CoscoExchangeGroup
from cosco.metadata.service.polls import MAX_WAIT_S

BOUND_S = 20.0


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("http"), metadata_options=JSON) as started:
        for _ in range(2):
            started.daemon("--heartbeat-s", "0.2", "--memory", "16MiB")
        yield started


def runs(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"first": first, "last": last} for first, last in pairs]


@pytest.fixture(scope="module")
def web(services: Services) -> Web:
    return Web(url_of(services.metadata_service))


def test_the_cluster_and_its_daemons(services: Services, web: Web) -> None:
    cluster = web.get("cluster")
    assert cluster["address"] == services.metadata
    assert cluster["figures"]["daemons_serving"] == 2
    assert cluster["started_s"] == pytest.approx(time.time(), abs=120)
    daemons = web.pages("daemons?limit=1", "daemons")
    assert {one["address"] for one in daemons} == {one.address for one in services.daemons}
    assert {one["state"] for one in daemons} == {"serving"}
    assert cluster["figures"]["memory_bytes"] == sum(one["memory_bytes"] for one in daemons)
    assert web.get("daemons?state=dead") == {"daemons": [], "next": None}
    for one in daemons:
        assert (
            web.get(f"daemons?prefix={one['address']}")["daemons"][0]["address"] == one["address"]
        )
    most = web.pages("daemons?order=memory_used_bytes&limit=1", "daemons")
    assert sorted(one["address"] for one in most) == sorted(one["address"] for one in daemons)
    assert web.get("daemons?prefix=nowhere")["daemons"] == []


def test_an_exchange_from_its_rows_to_its_end(services: Services, web: Web, name: str) -> None:
    odd = f"{name}/ä?%2F#"
    path = f"exchanges/{quote(odd, safe='')}"
    with CoscoExchange(odd, 8, replicas=2, metadata=services.metadata):
        send(odd, 3, numbered(3, 400, partitions=1), services.metadata)
        send(odd, 5, numbered(5, 80, partitions=8), services.metadata)
        [listed] = web.get(f"exchanges?prefix={quote(odd)}")["exchanges"]
        shown = web.get(path)
        assert {key: shown[key] for key in listed} == listed
        assert (shown["shuffle_id"], shown["rows"], shown["mappers_committed"]) == (odd, 480, 2)
        assert (shown["replicas"], shown["copies"], shown["losses"]) == (2, 2, [])
        assert {one["address"] for one in shown["daemons"]} == {d.address for d in services.daemons}
        sizes = web.pages(f"{path}/partitions?limit=3", "partitions")
        assert next(one["partition"] for one in sizes) == 0 and len(sizes) == 8
        assert sorted(shown["largest"], key=str) == sorted(sizes, key=str)
        assert next(b["raw_bytes"] for b in shown["sizes"]["bands"]) == sizes[0]["raw_bytes"]
        assert shown["sizes"]["skew"] > 4
        assert sum(one["raw_bytes"] for one in sizes) == shown["raw_bytes"]
        numbers = web.pages(f"{path}/partitions?order=number&limit=3", "partitions")
        assert [one["partition"] for one in numbers] == list(range(8))
        placed = web.pages(f"{path}/assignments?limit=1", "assignments")
        assert sum(one["count"] for one in placed) == 8
        assert {len(one["replicas"]) for one in placed} == {1}
        commits = web.get(f"{path}/commits")
        assert (commits["committed"], commits["mappers"]) == (2, runs((3, 3), (5, 5)))
    until(lambda: web.get(path)["state"] == "finished", BOUND_S, "its end")
    ended = web.get(path)
    kept = ("rows", "raw_bytes", "sizes", "largest", "mappers_committed", "replicas", "created_s")
    assert {key: ended[key] for key in kept} == {key: shown[key] for key in kept}
    assert ended["cause"] == "asked" and ended["closed_s"] >= ended["created_s"] > 0
    [listed] = web.get(f"exchanges?state=finished&prefix={quote(odd)}")["exchanges"]
    assert {key: ended[key] for key in listed} == listed
    assert web.get(f"exchanges?prefix={quote(odd)}")["exchanges"] == []
    reply = web.ask(f"/api/v1/{path}/commits")
    assert (reply.status, reply.json()["error"]) == (410, "ExchangeClosed")
    assert web.ask(f"/api/v1/exchanges/{name}-nobody").json()["error"] == "ExchangeNotFound"


def test_who_waits_for_commits_is_told_of_the_next_one(
    services: Services, web: Web, name: str
) -> None:
    with CoscoExchange(name, 2, metadata=services.metadata):
        begun = time.monotonic()
        assert web.get(f"exchanges/{name}/commits?wait=0.2")["committed"] == 0
        assert time.monotonic() - begun >= 0.2
        told: list[int] = []
        waits = threading.Thread(
            target=lambda: told.append(
                web.get(f"exchanges/{name}/commits?wait={MAX_WAIT_S}")["committed"]
            )
        )
        waits.start()
        until(lambda: web.get("cluster")["figures"]["waiting_calls"] > 0, BOUND_S, "the call")
        send(name, 0, numbered(0, 10), services.metadata)
        waits.join(BOUND_S)
        assert told == [1]
        assert web.get(f"exchanges/{name}/commits?wait=20&after=0")["committed"] == 1
        # The end of the exchange is news to who waits, too.
        ended: list[int] = []
        path = f"/api/v1/exchanges/{name}/commits?wait=25"
        waits = threading.Thread(target=lambda: ended.append(web.ask(path).status))
        waits.start()
        until(lambda: web.get("cluster")["figures"]["waiting_calls"] > 0, BOUND_S, "the call")
    waits.join(BOUND_S)
    assert ended == [410]


def test_groups_and_applications(services: Services, web: Web, name: str) -> None:
    with (
        CoscoExchangeGroup(f"{name}-g", 2, 3, 1, replicas=1, metadata=services.metadata),
        CoscoApplication(f"{name}-a", metadata=services.metadata) as application,
    ):
        [group] = [g for g in web.pages("groups", "groups") if g["group_id"] == f"{name}-g"]
        assert (group["open"], group["mappers"]) == (3, 1)
        found = {a["application_id"] for a in web.pages("applications", "applications")}
        assert application.application_id in found
        assert web.ask(f"/api/v1/exchanges/{name}-g%2F0").json()["group_id"] == f"{name}-g"
        assert web.ask(f"/api/v1/exchanges/{name}-g/0").status == 404


def test_events_go_on_from_where_they_were(services: Services, web: Web, name: str) -> None:
    cursor = web.get("events?limit=1")["next"]
    with CoscoExchange(name, 2, metadata=services.metadata):
        pass
    found: list[str] = []

    def told() -> bool:
        nonlocal cursor
        page = web.get(f"events?limit=1&cursor={cursor}")
        found.extend(e["event"] for e in page["events"] if e["fields"].get("exchange") == name)
        cursor = page["next"]
        return len(found) >= 2

    until(told, BOUND_S, "the events")
    assert found == ["exchange_created", "exchange_closed"]
    newest = web.get("events?limit=500&severity=warning")["events"]
    assert all(event["severity"] in {"warning", "error"} for event in newest)


def test_a_daemon_is_drained_and_given_work_again(services: Services, web: Web, name: str) -> None:
    """It has a store of its own, so it serves what it has until the exchange is closed."""
    store = f"file://{services.directory}/own"
    daemon = services.daemon("--heartbeat-s", "0.2", "--memory", "16MiB", store=store)
    path = f"daemons/{daemon.address}"

    def state() -> str:
        [one] = [d for d in web.get("daemons")["daemons"] if d["address"] == daemon.address]
        return str(one["state"])

    try:
        with CoscoExchange(name, 12, replicas=1, metadata=services.metadata):
            send(name, 0, numbered(0, 120, partitions=12), services.metadata)
            assert web.post(f"{path}/drain", {}).json()["address"] == daemon.address
            assert state() == "draining"
            assert web.post(f"{path}/undrain").json()["was_draining"] is True
            assert web.post(f"{path}/undrain").json()["was_draining"] is False
            assert state() == "serving"
        assert daemon.stop() == 0
    finally:
        daemon.close()
        services.daemons.remove(daemon)
    until(lambda: web.get("cluster")["figures"]["daemons_serving"] == 2, BOUND_S, "its end")


def test_what_is_closed_and_forgotten_by_hand(services: Services, web: Web, name: str) -> None:
    unknown = web.post("daemons/127.0.0.1:1/drain", {})
    assert (unknown.status, unknown.json()["status"]) == (404, 404)
    exchange = CoscoExchange(name, 2, metadata=services.metadata)
    assert web.post(f"exchanges/{name}/close", {}).json() == {"was_open": True}
    assert web.post(f"exchanges/{name}/close", {}).json() == {"was_open": False}
    assert web.post(f"exchanges/{name}-nobody/close", {}).status == 404
    exchange.close()
    store = web.get("daemons")["daemons"][0]["store_id"]
    refused = web.post(f"stores/{quote(store, safe='')}/forget", {})
    assert (refused.status, refused.json()["error"]) == (400, "InvalidArgument")
    assert web.post("stores/no%2Fsuch/forget", {}).status == 400


def test_what_changes_is_told_as_it_changes(services: Services, web: Web, name: str) -> None:
    with web.live() as events:
        kind, snapshot = next(events)
        assert (kind, snapshot["figures"]["daemons_serving"]) == ("snapshot", 2)
        with CoscoExchange(name, 2, metadata=services.metadata):
            opened: dict[str, Any] = {}
            created: dict[str, Any] = {}
            while not (opened and created):
                kind, data = next(events)
                if kind == "figures" and "exchanges_open" in data:
                    opened = data
                elif kind == "event" and data["fields"].get("exchange") == name:
                    created = data
            assert opened["exchanges_open"] == snapshot["figures"]["exchanges_open"] + 1
            assert created["event"] == "exchange_created"
    missed = {"Last-Event-ID": str(created["sequence"] - 1)}
    with web.live(**missed) as events:
        assert [next(events)[0], next(events)] == ["snapshot", ("event", created)]


def test_head_is_answered_like_get_without_a_body(web: Web) -> None:
    for path in ("/metrics", "/api/v1/cluster", "/api/v1/live", "/healthz", "/api/v1/nothing"):
        whole = 200 if path != "/api/v1/nothing" else 404
        reply = web.ask(path, "HEAD")
        assert (reply.status, reply.body) == (whole, "")


def test_the_document_and_its_page(web: Web) -> None:
    document = web.ask("/openapi.json").json()
    committed = Path(__file__).parents[2] / "docs" / "openapi.json"
    assert document == json.loads(committed.read_text())
    page = web.ask("/api")
    assert page.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert path in page.body
    assert "<script" not in page.body and "style=" not in page.body
    assert web.ask("/api/style.css").headers["content-type"].startswith("text/css")


def test_a_service_that_ends_ends_what_waits(tmp_path: Path) -> None:
    with Services(tmp_path, metadata_options=JSON) as started:
        web = Web(url_of(started.metadata_service))
        ask = f"GET /api/v1/live HTTP/1.1\r\nHost: {web.host}\r\n\r\n"
        with raw(web, ask.encode()) as connection:
            assert connection.recv(1 << 12).startswith(b"HTTP/1.1 200 ")
            begun = time.monotonic()
            assert started.metadata_service.stop() == 0
            assert time.monotonic() - begun < 5
            assert rest_of(connection).endswith(b"0\r\n\r\n"), "it is complete"
