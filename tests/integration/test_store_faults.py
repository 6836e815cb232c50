"""Stored files that go, change or find no room, under real daemons."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.damage import cut_short, delete, flip
from support.exchanges import (
    Pairs,
    assignment,
    by_partition,
    describe,
    fetch,
    fetch_all,
    numbered,
    send,
    until,
)
from support.processes import Services

from cosco import (
    CapacityExceeded,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    DataCorrupted,
    DataLost,
    RecomputeMismatch,
)
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.format.segment_check import parse_segment_path

MAPPERS = [3, 5, 8]
PARTITIONS = 4
ROWS = 600
CHUNK = ["--segment-bytes", "64KiB", "--memory", "16MiB"]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Two daemons of one store, which write soon."""
    with Services(tmp_path_factory.mktemp("store-faults")) as started:
        for _ in range(2):
            started.daemon(*CHUNK)
        yield started


def rows_of(mapper: int) -> Pairs:
    return numbered(mapper, ROWS, partitions=PARTITIONS)


def everything() -> list[Counter[bytes]]:
    return by_partition((pair for mapper in MAPPERS for pair in rows_of(mapper)), PARTITIONS)


@dataclass
class Runs:
    """The mappers of an exchange, and how they were called back."""

    name: str
    metadata: str
    rows: Callable[[int], Pairs] = rows_of
    calls: list[list[int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def __call__(self, mappers: list[int], reason: str) -> None:
        self.calls.append(sorted(mappers))
        self.reasons.append(reason)
        for mapper in mappers:
            self.run(mapper)

    def run(self, mapper: int) -> None:
        assert send(self.name, mapper, self.rows(mapper), self.metadata).won


def stored_files(services: Services, name: str) -> list[Path]:
    """The files of an exchange of which something is durable."""
    number = describe(name, services.metadata).number
    folder = services.directory / "store"
    return sorted(path for path in folder.glob(f"*/{number}/*/*") if path.stat().st_size)


def epoch_of(file: Path) -> int:
    parsed = parse_segment_path("/".join(file.parts[-4:]))
    assert parsed
    return parsed[0].epoch


def partition_of(file: Path) -> int:
    return int(file.name.split("-")[0])


def flip_header(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(CHUNK_HEADER_BYTES + 3)
        opened.write(b"\xff")


DAMAGES = [delete, cut_short, flip, flip_header]


def write_stored(services: Services, name: str, runs: Runs) -> Path:
    """All mappers write; a file that holds some of it."""
    for mapper in MAPPERS:
        runs.run(mapper)
    until(lambda: len(stored_files(services, name)) >= PARTITIONS, 10, "storing")
    return stored_files(services, name)[0]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_what_is_damaged_is_computed_again(
    damage: Callable[[Path], None], services: Services, name: str
) -> None:
    runs = Runs(name, services.metadata)
    with CoscoExchange(name, PARTITIONS, runs, codec="none", metadata=services.metadata):
        damage(write_stored(services, name, runs))
        assert fetch_all(name, MAPPERS, PARTITIONS, services.metadata) == everything()
        assert runs.calls == [MAPPERS]
        assert fetch_all(name, MAPPERS, PARTITIONS, services.metadata) == everything()
        assert len(runs.calls) == 1  # the loss was one loss


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_without_a_callback_readers_are_told_and_writers_repair(
    damage: Callable[[Path], None], services: Services, name: str
) -> None:
    metadata = services.metadata
    runs = Runs(name, metadata)
    with CoscoExchange(name, PARTITIONS, codec="none", metadata=metadata):
        damaged = write_stored(services, name, runs)
        damage(damaged)
        partition = partition_of(damaged)
        with pytest.raises((DataLost, DataCorrupted)) as caught:
            fetch(name, MAPPERS, partition, metadata)
        assert sorted(caught.value.mappers) == MAPPERS
        assert caught.value.partition == partition
        # Row by row it raises at the end at the latest, and never yields what nobody wrote.
        rows: Counter[bytes] = Counter()
        with pytest.raises((DataLost, DataCorrupted)):
            with CoscoReader(name, MAPPERS, partition, timeout_s=20, metadata=metadata) as reader:
                for row in reader:
                    rows[row] += 1
        assert rows <= everything()[partition]
        for mapper in caught.value.mappers:
            runs.run(mapper)
        assert fetch_all(name, MAPPERS, PARTITIONS, metadata) == everything()


def test_another_range_is_read_meanwhile(services: Services, name: str) -> None:
    """Only what was lost is built again, and only its readers wait."""
    metadata = services.metadata
    runs = Runs(name, metadata)
    others: list[Counter[bytes]] = []

    def recompute(mappers: list[int], reason: str) -> None:
        others.extend(fetch(name, MAPPERS, p, metadata, timeout_s=5) for p in untouched)
        runs(mappers, reason)

    with CoscoExchange(name, PARTITIONS, recompute, codec="none", metadata=metadata):
        damaged = write_stored(services, name, runs)
        lost = next(
            r
            for r in describe(name, metadata).ranges
            if r.first <= partition_of(damaged) < r.first + r.count
        )
        lost_partitions = range(lost.first, lost.first + lost.count)
        untouched = [p for p in range(PARTITIONS) if p not in lost_partitions]
        assert untouched
        before = {path: path.stat().st_mtime_ns for path in stored_files(services, name)}
        delete(damaged)
        assert (
            fetch(name, MAPPERS, partition_of(damaged), metadata)
            == everything()[partition_of(damaged)]
        )
        assert others == [everything()[p] for p in untouched]
        for path, written_ns in before.items():
            if partition_of(path) in untouched:
                assert path.stat().st_mtime_ns == written_ns  # nothing was sent twice


def test_a_rerun_with_other_rows_is_refused(services: Services, name: str) -> None:
    metadata = services.metadata
    runs = Runs(name, metadata)
    with CoscoExchange(name, PARTITIONS, runs, codec="none", metadata=metadata):
        damaged = write_stored(services, name, runs)
        runs.rows = lambda mapper: rows_of(mapper)[: ROWS // 2]
        delete(damaged)
        with pytest.raises(RecomputeMismatch):
            fetch(name, MAPPERS, partition_of(damaged), metadata)


def test_a_callback_that_raises(services: Services, name: str) -> None:
    metadata = services.metadata
    runs = Runs(name, metadata)

    def refuse(mappers: list[int], reason: str) -> None:
        raise RuntimeError("no such task any more")

    with CoscoExchange(name, PARTITIONS, refuse, codec="none", metadata=metadata):
        damaged = write_stored(services, name, runs)
        delete(damaged)
        with pytest.raises(DataLost) as caught:
            fetch(name, MAPPERS, partition_of(damaged), metadata)
        assert sorted(caught.value.mappers) == MAPPERS


def test_lost_again_and_again(services: Services, name: str) -> None:
    """What is lost after each rebuild is not rebuilt for ever."""
    metadata = services.metadata
    runs = Runs(name, metadata, lambda mapper: numbered(mapper, ROWS))

    def recompute(mappers: list[int], reason: str) -> None:
        *most, last = mappers
        runs(most, reason)
        epoch = assignment(name, metadata).epoch  # of this build: files of others count no more
        until(lambda: epoch in map(epoch_of, stored_files(services, name)), 10, "storing")
        for file in stored_files(services, name):
            delete(file)
        runs.run(last)  # readers can read no sooner

    with CoscoExchange(name, 1, recompute, codec="none", metadata=metadata):
        recompute(MAPPERS, "the first time")
        with pytest.raises((DataLost, DataCorrupted)):
            fetch(name, MAPPERS, 0, metadata, timeout_s=60)
        assert 1 <= len(runs.calls) <= 20


# --- no room ----------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Services]:
    """A metadata service, and a daemon with memory for little and a store that is soon full."""
    options = ["--memory", "16MiB", "--full-store-wait-s", "2"]
    with Services(tmp_path) as services:
        if request.param == "disk":
            disk: Path = request.getfixturevalue("small_disk")
            services.daemon(*options, store=f"file://{disk}/store")
        else:  # what anybody may have: no file may become longer than 1 MiB
            options += ["--segment-bytes", "512KiB"]
            services.daemon(*options, store=f"file://{tmp_path}/small", file_kib=1024)
        yield services


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_store_that_fills_is_left(replicas: int, full: Services) -> None:
    """The epoch moves to a daemon with another store, and nobody has to run again."""
    metadata = full.metadata
    losses: list[object] = []
    if replicas == 2:
        full.daemon("--memory", "16MiB")
    exchange = CoscoExchange(
        "fills", 1, lambda *loss: losses.append(loss), replicas=replicas, codec="none",
        metadata=metadata,
    )  # fmt: skip
    with exchange:
        first = assignment("fills", metadata)
        roomy = full.daemon("--memory", "64MiB", store=f"file://{full.directory}/roomy")
        rows = [(0, os.urandom(100_000)) for _ in range(500)]
        assert send("fills", 1, rows, metadata, buffer_bytes=1 << 20).won
        last = assignment("fills", metadata)
        if first.primary.address == full.daemons[0].address:
            assert last.epoch > first.epoch
            assert last.primary.address != first.primary.address
        assert roomy.is_running()
        assert fetch("fills", [1], 0, metadata) == Counter(row for _, row in rows)
        assert not losses


def test_with_nowhere_to_go_writers_are_refused(full: Services) -> None:
    metadata = full.metadata
    with CoscoExchange("full", 1, replicas=1, codec="none", metadata=metadata):
        few = [(0, os.urandom(100_000)) for _ in range(8)]
        assert send("full", 1, few, metadata).won
        writer = CoscoWriter("full", 2, buffer_bytes=1 << 20, metadata=metadata)
        with pytest.raises(CapacityExceeded):
            for _ in range(1000):
                writer.collect(0, os.urandom(100_000))
        writer.abort()
        assert fetch("full", [1], 0, metadata) == Counter(row for _, row in few)
