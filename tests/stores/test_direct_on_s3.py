"""Readers that read a bucket themselves, by signed URLs, and what goes wrong on that way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.exchanges import by_partition, fetch_all, never, numbered, send, until
from support.http_faults import Fault, HttpFaults
from support.processes import Services
from support.raw_push import metric
from support.s3_servers import S3Server

from cosco import CoscoExchange, CoscoReader
from cosco.client.read import http_ranges
from cosco.client.read.direct_reads import DIRECT_STORES
from cosco.client.read.http_ranges import HttpRanges
from cosco.client.read.state.direct_chunk import DirectFailed
from cosco.dfs import open_store
from cosco.format.chunk import ALIGNMENT
from cosco.observe import fetch_status
from cosco.protocol.fetch_records import Reference

PARTITIONS = 4
MAPPERS = 2
ROWS = 1200
NAME = "direct"
#: What is in URLs of readers, and in no request of a daemon.
SIGNED = "X-Amz-Signature"
OPTIONS = ("--memory", "64MiB", "--segment-bytes", "16MiB", "--store-idle-s", "0.2")


@pytest.fixture(autouse=True)
def no_store_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(http_ranges, "_PAUSE_S", 0.01)
    DIRECT_STORES.__init__()  # type: ignore[misc]
    yield
    DIRECT_STORES.__init__()  # type: ignore[misc]


@pytest.fixture
def services(tmp_path: Path, faulty_url: Callable[..., str]) -> Iterator[Services]:
    """One daemon, whose bucket is behind the proxy, with an exchange that is stored."""
    with Services(tmp_path) as services:
        services.daemon(*OPTIONS, store=faulty_url("&timeout_s=15&retry_s=20"))
        with CoscoExchange(
            NAME, PARTITIONS, never, replicas=1, codec="none", direct_reads=True,
            metadata=services.metadata,
        ):  # fmt: skip
            for mapper in range(MAPPERS):
                send(NAME, mapper, rows_of(mapper), services.metadata)
            length = sum(len(row) for m in range(MAPPERS) for _, row in rows_of(m))
            until(lambda: counter(services, "bytes_stored") >= length, 30, "storing")
            yield services


def rows_of(mapper: int) -> list[tuple[int, bytes]]:
    return numbered(mapper, ROWS, partitions=PARTITIONS)


def counter(services: Services, name: str) -> int:
    [daemon] = fetch_status(services.metadata).daemons
    return int(metric(daemon.metrics_address, f"cosco_{name}_total"))


def check(services: Services) -> None:
    rows = [row for mapper in range(MAPPERS) for row in rows_of(mapper)]
    found = fetch_all(NAME, range(MAPPERS), PARTITIONS, services.metadata)
    assert found == by_partition(rows, PARTITIONS)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "not read directly" in one.getMessage()]


def test_readers_need_no_credentials_and_list_nothing(
    services: Services, faults: HttpFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    before = len(faults.seen("GET"))
    check(services)
    asked = faults.seen("GET")[before:]
    assert asked
    assert all(SIGNED in one.path and one.range for one in asked)
    assert counter(services, "bytes_fetched") == 0
    assert counter(services, "bytes_referenced") > MAPPERS * ROWS * 1000


def test_several_partitions_are_fewer_requests(services: Services, faults: HttpFaults) -> None:
    before = len(faults.seen("GET"))
    with CoscoReader(NAME, range(MAPPERS), range(PARTITIONS), metadata=services.metadata) as reader:
        found = [Counter(table.column(0).to_pylist()) for _, table in reader.read_tables()]
    rows = [row for mapper in range(MAPPERS) for row in rows_of(mapper)]
    assert found == by_partition(rows, PARTITIONS)
    assert len(faults.seen("GET")) - before <= 2 * PARTITIONS
    assert counter(services, "bytes_fetched") == 0


@pytest.mark.parametrize("status", [503, 500, 429])
def test_an_overload_is_waited_for(
    services: Services, faults: HttpFaults, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    fault = faults.fault("answer", "GET", SIGNED, times=2, status=status)
    with caplog.at_level(logging.WARNING, "cosco"):
        check(services)
    assert fault.done == 2
    assert counter(services, "bytes_fetched") == 0
    assert not told(caplog)


#: What goes wrong with all reads of readers, and none of daemons; what is told of it.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "refused, or expired": ({"action": "answer", "status": 403, "code": "AccessDenied"}, "403"),
    "missing": ({"action": "answer", "status": 404, "code": "NoSuchKey"}, "404"),
    "overloaded for long": ({"action": "answer", "status": 503}, "503"),
    "moved": ({"action": "answer", "status": 307, "code": "TemporaryRedirect"}, "307"),
    "broken off": ({"action": "half_answer"}, "answered a part"),
    "short": ({"action": "torn_answer"}, "another range"),
    "silent": ({"action": "hold"}, "silent"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_readers_cannot_read_the_daemon_sends(
    services: Services,
    faults: HttpFaults,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    options, message = FAULTS[name]
    monkeypatch.setattr(http_ranges, "_SILENT_S", 0.5 if name == "silent" else 60.0)
    fault: Fault = faults.fault(method="GET", where=SIGNED, times=10_000, **options)
    with caplog.at_level(logging.WARNING, "cosco"):
        check(services)
    faults.release()
    assert fault.done
    assert counter(services, "bytes_fetched") > MAPPERS * ROWS * 1000
    [one] = told(caplog)
    assert message in one
    assert SIGNED not in one
    before = fault.done
    check(services)  # the store is left alone
    assert fault.done == before


def test_a_url_is_good_for_one_object_and_for_a_while(versity_server: S3Server) -> None:
    data = b"x" * (2 * ALIGNMENT)

    async def prepare() -> list[str | None]:
        store: Any = open_store(versity_server.url())
        await store.open()
        try:
            for path in ("a/1", "a/2"):
                await store.put(path, [memoryview(data)])
            urls = [await store.access("a/1", seconds) for seconds in (60.0, 1.0)]
        finally:
            await store.close()
        return urls

    lasting, short = asyncio.run(prepare())
    assert lasting is not None
    assert short is not None

    def read(url: str) -> bytes:
        reference = Reference(url, "a/1", len(data), 0)
        return bytes(ranges.read(urlsplit(url), reference, ALIGNMENT, ALIGNMENT))

    ranges = HttpRanges()
    try:
        assert read(lasting) == data[ALIGNMENT:]
        with pytest.raises(DirectFailed, match="403"):
            read(lasting.replace("a/1", "a/2"))
        deadline = time.monotonic() + 30
        with pytest.raises(DirectFailed, match=r"40[03]"):
            while time.monotonic() < deadline:
                read(short)
                time.sleep(0.1)
        assert read(lasting) == data[ALIGNMENT:]
    finally:
        ranges.close()
