"""The database of the metadata service takes nothing: clients and `cosco status` are told why, and
wait; when it takes changes again everything goes on, and nobody's lease has ended meanwhile."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest
from support.commands import command, environment
from support.exchanges import fetch, never, numbered, send, serving
from support.processes import Services

from cosco import CoscoExchange, CoscoWriter, ServiceUnavailable
from cosco.observe import fetch_status

#: So many that the sums of one commit do not fit into what a database has left over.
PARTITIONS = 50_000
LEASE_S = 1.0
OUTAGE_S = 2.0


class Failing(Protocol):
    """Has the database take nothing, for as long as the context lasts."""

    def __call__(self, services: Services, database: Path) -> object: ...


@contextmanager
def full_disk(services: Services, database: Path) -> Iterator[None]:
    filler = database.parent / "filler"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink()


@contextmanager
def failing_writes(services: Services, database: Path) -> Iterator[None]:
    """No file of the service's becomes longer, as if its disk had a quota."""
    pid = services.metadata_service.pid
    longest = max(file.stat().st_size for file in database.parent.glob("metadata.db*"))
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def locked(services: Services, database: Path) -> Iterator[None]:
    """Somebody looks into the database by hand, and keeps a transaction open."""
    by_hand = sqlite3.connect(database, isolation_level=None)
    try:
        by_hand.execute("BEGIN IMMEDIATE")
        yield
    finally:
        by_hand.close()


@pytest.fixture(params=["full disk", "failing writes", "locked"])
def case(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Callable[[Services, Path], object], Path, str]:
    """What fails, where the database is, and what people are told."""
    if request.param == "full disk":
        return full_disk, request.getfixturevalue("small_disk"), "database or disk is full"
    if request.param == "failing writes":
        return failing_writes, tmp_path, "disk I/O error"
    return locked, tmp_path, "database is locked"


def status(metadata: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    asked = command("main", "status", "--metadata", metadata, "--timeout-s", str(timeout_s))
    return subprocess.run(
        asked, capture_output=True, text=True, check=False, env=environment(), timeout=30
    )


def test_the_database_takes_nothing_for_a_while(
    case: tuple[Callable[[Services, Path], object], Path, str], tmp_path: Path, name: str
) -> None:
    failing, directory, reason = case
    database = directory / "metadata.db"
    options = ("--store", f"sqlite:///{database}", "--daemon-lease-s", str(LEASE_S))
    with Services(tmp_path, metadata_options=options) as services, ThreadPoolExecutor() as threads:
        services.daemon("--heartbeat-s", "0.2")
        metadata = services.metadata
        before = serving(metadata)
        rows = numbered(1, 20, partitions=2, size=10)
        with CoscoExchange(
            name, PARTITIONS, never, replicas=1, lease_s=LEASE_S, metadata=metadata
        ) as exchange:
            assert send(name, 0, rows, metadata).won
            writer = CoscoWriter(name, 1, metadata=metadata, service_timeout_s=60)
            for partition, row in rows:
                writer.collect(partition, row)
            impatient = CoscoWriter(name, 2, metadata=metadata, service_timeout_s=0.5)
            with failing(services, database):  # type: ignore[attr-defined]
                waiting = threads.submit(writer.close)
                shown = status(metadata, OUTAGE_S)
                assert (shown.returncode, shown.stdout) == (2, "")
                assert reason in shown.stderr
                assert "runs there" not in shown.stderr
                with pytest.raises(ServiceUnavailable, match=reason) as told:
                    impatient.close()
                assert told.value.retriable
                assert str(database) in str(told.value)
                assert not waiting.done()
            assert waiting.result(30).won
            assert exchange.progress().mappers_committed == 2  # not what was told that it is not
            for mapper in (0, 1):
                assert sum(fetch(name, [mapper], 0, metadata).values()) == 10
            assert serving(metadata).keys() == before.keys()
            incarnations = {d.ref.incarnation for d in before.values()}
            assert {d.ref.incarnation for d in serving(metadata).values()} == incarnations
            services.metadata_service.kill()
            services.metadata_service.start()
            for mapper in (0, 1):
                assert sum(fetch(name, [mapper], 1, metadata).values()) == 10
        assert "Traceback" not in services.daemons[0].tail()


def test_a_service_is_started_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    database = small_disk / "metadata.db"
    options = ("--store", f"sqlite:///{database}")
    with Services(tmp_path, metadata_options=options) as services:
        cluster_id = fetch_status(services.metadata).cluster_id
        services.metadata_service.kill()
        with full_disk(services, database):
            services.metadata_service.start()
            assert fetch_status(services.metadata).cluster_id == cluster_id
