"""Readers of several partitions through the real services, also while those die, stall and lose."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.exchanges import (
    SERVICE_TIMEOUT_S,
    by_partition,
    describe,
    never,
    numbered,
    send,
    until,
)
from support.processes import Services
from support.segments import chunks_of

from cosco import CommitTimeout, CoscoExchange, CoscoReader, CoscoWriter, DataLost, LocalCluster
from cosco.client.read import row_source
from cosco.client.read.state import read_plan
from cosco.format.chunk import CHUNK_HEADER_BYTES

MAPPERS = [1, 2]
BOUND_S = 30.0


def reader(name: str, partitions: object, metadata: str, **options: object) -> CoscoReader:
    options = {"timeout_s": BOUND_S, "service_timeout_s": SERVICE_TIMEOUT_S, **options}
    return CoscoReader(name, MAPPERS, partitions, metadata=metadata, **options)  # type: ignore[arg-type]


def taken(rows: CoscoReader, into: list[Counter[bytes]], count: int = 1 << 60) -> None:
    """Take so many rows, each for its partition."""
    for row in rows:
        into[rows.partition][row] += 1
        count -= 1
        if not count:
            return


# --- what they give -------------------------------------------------------------------------------


def test_every_row_once_in_its_partition(name: str, metadata: str) -> None:
    pairs = {mapper: numbered(mapper, 900, partitions=40, size=90) for mapper in MAPPERS}
    pairs[1].append((3, random.Random(1).randbytes(3 << 20)))  # comes in fragments
    with CoscoExchange(name, 50, metadata=metadata):
        for mapper in MAPPERS:
            send(name, mapper, pairs[mapper], metadata)
        every = by_partition([pair for mapper in MAPPERS for pair in pairs[mapper]], 50)
        found: list[Counter[bytes]] = [Counter() for _ in range(50)]
        with reader(name, np.arange(50)[::-1], metadata) as rows:
            taken(rows, found)
        assert found == every
        with reader(name, [45, 7, 3], metadata) as tables:
            by_table = [(p, Counter(t.column(0).to_pylist())) for p, t in tables.read_tables()]
        assert by_table == [(3, every[3]), (7, every[7]), (45, Counter())]
        with CoscoReader(name, [2], range(50), metadata=metadata) as batches:
            ordered: list[list[bytes]] = [[] for _ in range(50)]
            for batch in batches.read_batches(max_bytes=1000, order="mapper"):
                ordered[batches.partition] += batch.column(0).to_pylist()
        assert ordered == [[row for p, row in pairs[2] if p == each] for each in range(50)]


def test_tables_have_the_schema_where_there_are_no_rows(name: str, metadata: str) -> None:
    batch = pa.record_batch(
        {"n": [1, 2, 3], "word": pa.array(["a", None, "a"]).dictionary_encode()}
    )
    with CoscoExchange(name, 6, metadata=metadata):
        for mapper in MAPPERS:
            with CoscoWriter(name, mapper, metadata=metadata) as writer:
                writer.collect_batch([1, 4, 4], batch)
        with reader(name, range(6), metadata) as tables:
            found = dict(tables.read_tables(order="mapper"))
        assert list(found) == list(range(6))
        assert {table.schema for table in found.values()} == {batch.schema}
        assert found[4].to_pylist() == batch.slice(1).to_pylist() * 2
        assert [table.num_rows for table in found.values()] == [0, 2, 0, 0, 4, 0]
        with reader(name, [5, 4, 1], metadata) as one:
            assert one.read_table(order="mapper").column("n").to_pylist() == [1, 1, 2, 3, 2, 3]


def test_they_wait_for_their_mappers(name: str, metadata: str) -> None:
    with CoscoExchange(name, 4, metadata=metadata):
        send(name, 1, [(0, b"row")], metadata)
        with reader(name, [0, 3], metadata, timeout_s=0) as early:
            with pytest.raises(CommitTimeout) as caught:
                list(early)
            assert list(caught.value.mappers) == [2]
        with reader(name, [0, 3], metadata) as rows:
            send(name, 2, [(3, b"other")], metadata)
            assert [(row, rows.partition) for row in rows] == [(b"row", 0), (b"other", 3)]


# --- what happens to them -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("several")) as started:
        for _ in range(2):
            started.daemon("--segment-bytes", "64KiB", "--memory", "16MiB", "--store-idle-s", "0.1")
        yield started


def stored_files(services: Services, name: str) -> list[Path]:
    """Wait until everything is stored, and return the files."""
    number = describe(name, services.metadata).number
    store = services.directory / "store"
    with CoscoExchange.attach(name, metadata=services.metadata) as exchange:
        bytes_stored = exchange.progress().bytes_stored

    def files() -> list[Path]:
        return sorted(store.glob(f"*/{number}/*/*"))

    def is_all() -> bool:
        segments = (chunks_of(file.read_bytes()) for file in files())
        found = sum(len(blocks) for chunks in segments for blocks in chunks.values())
        assert found <= bytes_stored
        return found == bytes_stored

    until(is_all, BOUND_S, "storing")
    return files()


def range_of(file: Path) -> int:
    return int(file.parent.name.split("-")[0])


class Runs:
    """The mappers of an exchange of 8 partitions, and when they were called back."""

    partitions = 8

    def __init__(self, name: str, metadata: str) -> None:
        self.name, self.metadata = name, metadata
        self.pairs = {m: numbered(m, 1600, partitions=self.partitions) for m in MAPPERS}
        every = [pair for mapper in MAPPERS for pair in self.pairs[mapper]]
        self.every = by_partition(every, self.partitions)
        self.found: list[Counter[bytes]] = [Counter() for _ in range(self.partitions)]
        #: Which partitions had been read whole, each time.
        self.read_by_then: list[list[int]] = []

    def __call__(self, mappers: list[int], reason: str) -> None:
        self.read_by_then.append(self.whole())
        assert sorted(mappers) == MAPPERS
        self.run()

    def run(self) -> None:
        for mapper in MAPPERS:
            send(self.name, mapper, self.pairs[mapper], self.metadata)

    def whole(self) -> list[int]:
        return [p for p in range(self.partitions) if self.found[p] == self.every[p]]


def test_a_loss_in_the_middle_costs_its_range_alone(services: Services, name: str) -> None:
    metadata = services.metadata
    runs = Runs(name, metadata)
    with CoscoExchange(name, runs.partitions, runs, codec="none", metadata=metadata):
        runs.run()
        ranges = describe(name, metadata).ranges
        middle = ranges[len(ranges) // 2]
        assert middle.first > 0
        for file in stored_files(services, name):
            if range_of(file) == middle.index:
                file.unlink()
        with reader(name, range(runs.partitions), metadata) as rows:
            taken(rows, runs.found)
    assert runs.found == runs.every
    assert runs.read_by_then == [list(range(middle.first))]


def test_a_partition_that_was_given_in_part_is_read_again_by_another_reader(
    services: Services, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_source, "HOLD_BYTES", 0)
    metadata = services.metadata
    runs = Runs(name, metadata)
    with CoscoExchange(name, runs.partitions, runs, codec="none", metadata=metadata):
        runs.run()
        ranges = describe(name, metadata).ranges
        broken = ranges[-1].first
        last = max(
            (file for file in stored_files(services, name) if file.name.startswith(f"{broken}-")),
            key=lambda file: int(file.name.split("-")[3], 16),  # its serial: what is read last
        )
        lost = chunks_of(last.read_bytes())[broken]
        os.truncate(last, CHUNK_HEADER_BYTES + len(lost) // 2)  # its first chunk
        with reader(name, range(runs.partitions), metadata) as rows:
            with pytest.raises(DataLost, match="rows of it were lost after others") as caught:
                taken(rows, runs.found)
            assert rows.partition == broken
        assert caught.value.partition == broken
        assert caught.value.retriable
        assert runs.whole() == list(range(broken))
        runs.found[broken].clear()
        with reader(name, range(broken, runs.partitions), metadata) as rows:
            taken(rows, runs.found)
    assert runs.found == runs.every
    assert len(runs.read_by_then) == 1


@pytest.mark.parametrize("fault", ["killed", "paused", "stopped"])
def test_a_daemon_goes_in_the_middle(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_plan, "STALL_S", 1.0)
    partitions = 48
    rng = random.Random(4)
    pairs = [(i % partitions, rng.randbytes(8 << 10)) for i in range(48 * partitions)]
    every = by_partition(pairs, partitions)
    with LocalCluster(2) as cluster:
        metadata = cluster.metadata
        with CoscoExchange(name, partitions, never, metadata=metadata):
            send(name, 1, pairs, metadata, buffer_bytes=8 << 20)
            send(name, 2, [], metadata)
            found: list[Counter[bytes]] = [Counter() for _ in range(partitions)]
            with reader(name, range(partitions), metadata) as rows:
                taken(rows, found, 5 * 48 + 7)
                daemon = cluster.daemons[1]
                match fault:
                    case "killed":
                        daemon.kill()
                    case "stopped":
                        daemon.stop()
                    case _:
                        os.kill(daemon.pid, signal.SIGSTOP)
                try:
                    taken(rows, found)
                finally:
                    if fault == "paused":
                        os.kill(daemon.pid, signal.SIGCONT)
            assert found == every
