"""The reader of the Java client reads what Python wrote, while daemons die and rows are lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import (
    Pairs,
    by_partition,
    describe,
    fetch,
    never,
    numbered,
    send,
    until,
)
from support.java_reader import JavaReader, Read
from support.processes import Services
from support.segments import chunks_of

from cosco import CoscoExchange, LocalCluster
from cosco.observe import fetch_status

MAPPERS = range(1, 4)
Rows = list[Counter[bytes]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(daemons=2) as started:
        yield started


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def stored_files(services: Services, name: str) -> list[Path]:
    """Wait until everything is stored, and return the files."""
    number = describe(name, services.metadata).number
    with CoscoExchange.attach(name, metadata=services.metadata) as exchange:
        bytes_stored = exchange.progress().bytes_stored

    def files() -> list[Path]:
        return sorted((services.directory / "store").glob(f"*/{number}/*/*"))

    def is_all() -> bool:
        segments = (chunks_of(file.read_bytes()) for file in files())
        return bytes_stored == sum(len(b) for chunks in segments for b in chunks.values())

    until(is_all, 20, "storing")
    return files()


_begun: list[JavaReader] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No process outlives its test."""
    yield
    while _begun:
        _begun.pop().close()


def begun(metadata: str, name: str, partitions: int, **options: Any) -> JavaReader:
    """Begin to read all partitions."""
    number = describe(name, metadata).number
    reader = JavaReader(metadata, number, name, (1, 4), (0, partitions), **options)
    _begun.append(reader)
    return reader


def java(metadata: str, name: str, partitions: int, **options: Any) -> Read:
    """Read all partitions."""
    return begun(metadata, name, partitions, **options).read()


def written(name: str, metadata: str, pairs: dict[int, Pairs], partitions: int) -> Rows:
    """Have Python write; return what readers must find."""
    for mapper in MAPPERS:
        send(name, mapper, pairs[mapper], metadata, buffer_bytes=1 << 20)
    return by_partition([pair for mapper in MAPPERS for pair in pairs[mapper]], partitions)


def of_all(read: Read, partitions: int) -> Rows:
    """Return the rows of each partition, of a read that has come to its end."""
    assert read.last.startswith("END"), read.last
    assert read.partitions == sorted(read.partitions)
    return [read.of(partition) for partition in range(partitions)]


def is_gone(name: str, metadata: str) -> bool:
    """Whether a closed exchange is not even closing any more."""
    return all(one.shuffle_id != name for one in fetch_status(metadata).exchanges)


def large(partitions: int, rows: int, size: int = 8 << 10) -> dict[int, Pairs]:
    """Rows that no codec makes smaller."""
    rng = random.Random(7)
    return {m: [(i % partitions, rng.randbytes(size)) for i in range(rows)] for m in MAPPERS}


# --- what it gives --------------------------------------------------------------------------------


def test_every_row_once_in_its_partition(cluster: LocalCluster, name: str) -> None:
    metadata = cluster.metadata
    pairs = {mapper: numbered(mapper, 900, partitions=40, size=90) for mapper in MAPPERS}
    pairs[1].append((3, random.Random(1).randbytes(3 << 20)))  # comes in fragments
    pairs[2].append((3, bytes(2 << 20)))
    pairs[3] += [(41, b"")] * 7
    with CoscoExchange(name, 50, metadata=metadata):
        every = written(name, metadata, pairs, 50)
        found = java(metadata, name, 50)
        assert of_all(found, 50) == every
        assert found.figure("records") == 2709
        assert found.figure("fetches") <= 2
        assert found.figure("retries") == 0
        nothing = begun(metadata, name, 0).read()
        assert of_all(nothing, 50) == [Counter()] * 50


def test_rows_of_some_mappers(cluster: LocalCluster, name: str) -> None:
    metadata = cluster.metadata
    pairs = large(6, 120)
    pairs[2].append((3, random.Random(1).randbytes(2 << 20)))
    with CoscoExchange(name, 6, metadata=metadata):
        every = written(name, metadata, pairs, 6)
        whole = java(metadata, name, 6)
        assert of_all(whole, 6) == every
        nothing = java(metadata, name, 6, wanted=(3, 3))
        assert nothing.last.startswith("END records=0 fetches=0 "), nothing.last
        for first, end in ((0, 2), (2, 9)):  # there is no mapper 0, nor any from 4 on
            found = java(metadata, name, 6, wanted=(first, end))
            named = [mapper for mapper in MAPPERS if first <= mapper < end]
            rows = [pair for mapper in named for pair in pairs[mapper]]
            assert of_all(found, 6) == by_partition(rows, 6)
            assert found.figure("records") == len(rows)
            assert 0 < found.figure("bytes") < whole.figure("bytes") * (len(named) + 0.5) / 3


def test_many_partitions(cluster: LocalCluster, name: str) -> None:
    pairs = {m: numbered(m, 9000, partitions=4096, size=20) for m in MAPPERS}
    with CoscoExchange(name, 4096, metadata=cluster.metadata):
        every = written(name, cluster.metadata, pairs, 4096)
        found = java(cluster.metadata, name, 4096)
        assert of_all(found, 4096) == every
        assert found.figure("fetches") <= 2


def test_a_reader_that_is_not_read_holds_little_and_keeps_no_other_one_away(
    cluster: LocalCluster, name: str
) -> None:
    ahead = {"prefetch_bytes": 4 << 20, "heap": "64m"}  # for 230 MiB of rows
    with CoscoExchange(name, 4, metadata=cluster.metadata):
        every = written(name, cluster.metadata, large(4, 1200, 64 << 10), 4)
        found = java(cluster.metadata, name, 4, stop_at=1, then="nested", stall_s=5, **ahead)
        assert of_all(found, 4) == every
        assert found.figure("retries") == 0


def test_mappers_that_did_not_commit(cluster: LocalCluster, name: str) -> None:
    with CoscoExchange(name, 4, metadata=cluster.metadata):
        send(name, 2, numbered(2, 9, partitions=4), cluster.metadata)
        found = java(cluster.metadata, name, 4)
        assert found.last.startswith("ERROR DataLost true ")
        assert "2 of 3 mappers did not commit: 1, 3;" in found.last


def test_an_exchange_that_is_closed(cluster: LocalCluster, name: str) -> None:
    with CoscoExchange(name, 2, metadata=cluster.metadata):
        written(name, cluster.metadata, large(2, 400, 64 << 10), 2)
        reader = begun(cluster.metadata, name, 2, stop_at=1, prefetch_bytes=1 << 20)
        reader.await_stop()
    until(lambda: is_gone(name, cluster.metadata), 20, "the daemons to drop it")
    found = reader.read()
    assert found.last.startswith("ERROR ExchangeClosed false "), found.last


# --- what happens to it ---------------------------------------------------------------------------


def test_a_daemon_that_died_before(name: str) -> None:
    with LocalCluster(2) as cluster, CoscoExchange(name, 8, never, metadata=cluster.metadata):
        every = written(name, cluster.metadata, large(8, 800), 8)
        cluster.daemons[0].kill()
        assert of_all(java(cluster.metadata, name, 8), 8) == every


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_a_daemon_goes_in_the_middle(name: str, fault: str) -> None:
    with LocalCluster(2) as cluster, CoscoExchange(name, 8, never, metadata=cluster.metadata):
        every = written(name, cluster.metadata, large(8, 2400), 8)
        reader = begun(cluster.metadata, name, 8, stop_at=3, stall_s=1, prefetch_bytes=2 << 20)
        reader.await_stop()
        daemons = cluster.daemons
        first = min(describe(name, cluster.metadata).ranges, key=lambda one: one.first).index
        primary = next(
            one.primary.address
            for one in describe(name, cluster.metadata).assignments
            if one.range_index == first
        )
        daemon = next(one for one in daemons if one.address == primary)
        if fault == "killed":
            daemon.kill()
        else:
            os.kill(daemon.pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            found = reader.read()
            assert time.monotonic() - began < 12  # not only as the connection is found dead
        finally:
            if fault == "paused":
                os.kill(daemon.pid, signal.SIGCONT)
        assert of_all(found, 8) == every
        assert found.figure("retries") > 0


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_a_wait_ends_at_once(name: str, how: str) -> None:
    with LocalCluster(2) as cluster, CoscoExchange(name, 8, never, metadata=cluster.metadata):
        written(name, cluster.metadata, large(8, 2400), 8)
        reader = begun(cluster.metadata, name, 8, stop_at=3, then=how, prefetch_bytes=2 << 20)
        reader.await_stop()
        for daemon in cluster.daemons:
            os.kill(daemon.pid, signal.SIGSTOP)
        began = time.monotonic()
        found = reader.read()
        assert time.monotonic() - began < 5
        assert found.last.startswith("ERROR ClientClosed false "), found.last
        for daemon in cluster.daemons:
            os.kill(daemon.pid, signal.SIGCONT)


def test_rows_that_are_lost_are_never_waited_for(tmp_path: Path, name: str) -> None:
    pairs = large(8, 80)
    called: list[list[int]] = []
    with Services(tmp_path) as services:
        for _ in range(2):
            services.daemon("--memory", "16MiB", store="memory://")
        metadata = services.metadata
        driver = CoscoExchange(
            name, 8, lambda m, _: called.append(m), replicas=1, metadata=metadata
        )
        with driver:
            every = written(name, metadata, pairs, 8)
            services.daemons[0].kill()
            services.daemon("--memory", "16MiB", store="memory://")
            found = java(metadata, name, 8)
            assert found.last.startswith("ERROR DataLost true "), found.last
            assert "committed rows" in found.last
            until(lambda: bool(called), 10, "the driver to be told")
            found = java(metadata, name, 8)
            assert found.last.startswith("ERROR DataLost true "), found.last
            assert "3 of 3 mappers were called back, as rows were lost: 1, 2, 3;" in found.last
            for mapper in sorted(called[0]):
                send(name, mapper, pairs[mapper], metadata)
            assert of_all(java(metadata, name, 8), 8) == every


@pytest.fixture(scope="module")
def storing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("storing")) as started:
        for _ in range(2):
            started.daemon("--segment-bytes", "64KiB", "--memory", "16MiB", "--store-idle-s", "0.1")
        yield started


def test_a_block_that_went_bad_in_the_store(storing: Services, name: str) -> None:
    metadata, pairs = storing.metadata, large(8, 80)
    called: list[list[int]] = []
    driver = CoscoExchange(name, 8, lambda m, _: called.append(m), codec="none", metadata=metadata)
    with driver:
        every = written(name, metadata, pairs, 8)
        for file in stored_files(storing, name):
            content = bytearray(file.read_bytes())
            content[2000] ^= 1
            file.write_bytes(content)
        found = java(metadata, name, 8)
        assert found.last.startswith("ERROR DataLost true "), found.last
        assert "checksum" in found.last or "does not match" in found.last, found.last
        until(lambda: bool(called), 10, "the driver to be told")
        for mapper in sorted(called[0]):
            send(name, mapper, pairs[mapper], metadata)
        again = java(metadata, name, 8)
        # Of other ranges nobody has read the bad blocks yet.
        assert again.last.startswith("ERROR DataLost true ") or of_all(again, 8) == every


def test_a_build_that_ends_in_the_middle(storing: Services, name: str) -> None:
    """Of a partition of which nothing was given the rows of the next build are given."""
    metadata, pairs = storing.metadata, large(8, 400)

    def again(mappers: list[int], _: str) -> None:
        for mapper in mappers:
            send(name, mapper, pairs[mapper], metadata)

    with CoscoExchange(name, 8, again, codec="none", metadata=metadata):
        every = written(name, metadata, pairs, 8)
        files = stored_files(storing, name)
        reader = begun(metadata, name, 8, stop_at=1, prefetch_bytes=1 << 20)
        reader.await_stop()
        last = describe(name, metadata).ranges[-1]
        for file in files:
            if int(file.parent.name.split("-")[0]) == last.index:
                file.unlink()
        assert fetch(name, MAPPERS, last.first, metadata) == every[last.first]
        assert of_all(reader.read(), 8) == every


def test_a_build_that_ends_after_rows_of_it_were_given(storing: Services, name: str) -> None:
    metadata, pairs = storing.metadata, large(2, 1200)

    def again(mappers: list[int], _: str) -> None:
        for mapper in mappers:
            send(name, mapper, pairs[mapper], metadata)

    with CoscoExchange(name, 2, again, codec="none", metadata=metadata):
        every = written(name, metadata, pairs, 2)
        files = stored_files(storing, name)
        reader = begun(metadata, name, 2, stop_at=1, prefetch_bytes=1 << 20)
        reader.await_stop()
        for file in files:
            file.unlink()
        assert [fetch(name, MAPPERS, partition, metadata) for partition in (0, 1)] == every
        found = reader.read()
        assert found.last.startswith("ERROR DataLost true "), found.last
        assert "partition 0: rows were lost after others had been read" in found.last
        assert of_all(java(metadata, name, 2), 2) == every
