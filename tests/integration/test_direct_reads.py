"""Readers that read from the store themselves, under real daemons of one directory."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from support.damage import cut_short, delete, flip
from support.exchanges import (
    Pairs,
    by_partition,
    describe,
    fetch_all,
    never,
    numbered,
    send,
    serving,
    until,
)
from support.processes import Services, python
from support.raw_push import metric

from cosco import CoscoExchange, CoscoReader, CoscoWriter, DataLost
from cosco.client.read.direct_reads import DIRECT_STORES
from cosco.client.read.store_files import StoreFiles
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.observe import fetch_status

MAPPERS = [3, 5]
PARTITIONS = 4
ROWS = 1200
#: All rows that a daemon holds are stored soon, those of a range together.
OPTIONS = ["--segment-bytes", "16MiB", "--memory", "64MiB", "--store-idle-s", "0.1"]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("direct-reads")) as started:
        for _ in range(2):
            started.daemon(*OPTIONS)
        yield started


@pytest.fixture(autouse=True)
def no_store_is_left_alone() -> Iterator[None]:
    DIRECT_STORES.__init__()  # type: ignore[misc]
    yield
    DIRECT_STORES.__init__()  # type: ignore[misc]


def rows_of(mapper: int) -> Pairs:
    return numbered(mapper, ROWS, partitions=PARTITIONS)


def everything() -> list[Counter[bytes]]:
    return by_partition((pair for mapper in MAPPERS for pair in rows_of(mapper)), PARTITIONS)


def counter(services: Services, name: str) -> int:
    """What all daemons have counted."""
    addresses = [one.metrics_address for one in fetch_status(services.metadata).daemons]
    return sum(int(metric(address, f"cosco_{name}_total")) for address in addresses if address)


class Counted:
    """What daemons sent, and what they referred to, since this was made."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._before = self._now()

    def _now(self) -> tuple[int, int]:
        fetched, referenced = (
            counter(self._services, name) for name in ("bytes_fetched", "bytes_referenced")
        )
        return fetched, referenced

    def since(self) -> tuple[int, int]:
        fetched, referenced = self._now()
        return fetched - self._before[0], referenced - self._before[1]


@contextmanager
def stored(services: Services, length: int) -> Iterator[None]:
    """Have daemons say that they have stored so much of what is written in this block.

    A file is seen before its daemon knows that it is durable, and sends no bytes of it any more.
    """
    before = counter(services, "bytes_stored")
    yield
    until(lambda: counter(services, "bytes_stored") >= before + length, 30, "storing")


def length_of(pairs: Pairs) -> int:
    return sum(len(row) for _, row in pairs)


def write_stored(services: Services, name: str) -> None:
    """Have all mappers write, and everything stored."""
    with stored(services, sum(length_of(rows_of(mapper)) for mapper in MAPPERS)):
        for mapper in MAPPERS:
            assert send(name, mapper, rows_of(mapper), services.metadata).won


def stored_files(services: Services, name: str) -> list[Path]:
    number = describe(name, services.metadata).number
    return sorted((services.directory / "store").glob(f"*/{number}/*/*"))


@pytest.fixture
def exchange(services: Services, name: str) -> Iterator[CoscoExchange]:
    """All rows of it are stored."""
    with CoscoExchange(
        name, PARTITIONS, never, codec="none", direct_reads=True, metadata=services.metadata
    ) as exchange:
        write_stored(services, name)
        yield exchange


def reader(services: Services, name: str, partition: object = 0) -> CoscoReader:
    return CoscoReader(
        name,
        MAPPERS,
        partition,  # type: ignore[arg-type]
        timeout_s=30.0,
        metadata=services.metadata,
    )


def stored_bytes(name: str, services: Services) -> int:
    return sum(file.stat().st_size for file in stored_files(services, name))


# --- what is read --------------------------------------------------------------------------------


def test_daemons_send_no_stored_bytes(
    services: Services, exchange: CoscoExchange, name: str
) -> None:
    counted, rows = Counted(services), counter(services, "rows_fetched")
    assert fetch_all(name, MAPPERS, PARTITIONS, services.metadata) == everything()
    fetched, referenced = counted.since()
    assert fetched == 0
    assert counter(services, "rows_fetched") == rows
    assert 0.9 < referenced / stored_bytes(name, services) <= 1.0


def test_without_the_option_they_send_everything(services: Services, name: str) -> None:
    with CoscoExchange(name, PARTITIONS, never, codec="none", metadata=services.metadata):
        write_stored(services, name)
        counted, rows = Counted(services), counter(services, "rows_fetched")
        assert fetch_all(name, MAPPERS, PARTITIONS, services.metadata) == everything()
        fetched, referenced = counted.since()
    assert fetched > 0
    assert counter(services, "rows_fetched") - rows == len(MAPPERS) * ROWS
    assert referenced == 0


def test_what_is_in_memory_is_sent(services: Services, exchange: CoscoExchange, name: str) -> None:
    late = numbered(8, 400, partitions=PARTITIONS)
    expected = [a + b for a, b in zip(everything(), by_partition(late, PARTITIONS), strict=True)]
    with stored(services, length_of(late)):
        send(name, 8, late, services.metadata)
        # Perhaps it is in memory still.
        assert fetch_all(name, [*MAPPERS, 8], PARTITIONS, services.metadata) == expected
    counted = Counted(services)
    assert fetch_all(name, [*MAPPERS, 8], PARTITIONS, services.metadata) == expected
    assert counted.since()[0] == 0


def test_several_partitions_come_by_one_stream(
    services: Services, exchange: CoscoExchange, name: str
) -> None:
    counted = Counted(services)
    with reader(services, name, range(PARTITIONS)) as rows:
        found: list[Counter[bytes]] = [Counter() for _ in range(PARTITIONS)]
        for row in rows:
            found[rows.partition][row] += 1
    assert found == everything()
    with reader(services, name, [3, 1]) as tables:
        by_table = {p: Counter(t.column(0).to_pylist()) for p, t in tables.read_tables()}
    assert by_table == {p: everything()[p] for p in (1, 3)}
    assert counted.since()[0] == 0


@pytest.mark.parametrize("partition", [2, range(PARTITIONS)], ids=["one", "several"])
def test_rows_in_mapper_order(
    services: Services, exchange: CoscoExchange, name: str, partition: object
) -> None:
    counted = Counted(services)
    with reader(services, name, partition) as rows:
        found = rows.read_table(order="mapper").column(0).to_pylist()
    wanted = [partition] if isinstance(partition, int) else range(PARTITIONS)
    assert found == [
        row for each in wanted for mapper in MAPPERS for p, row in rows_of(mapper) if p == each
    ]
    assert counted.since()[0] == 0


def test_some_mappers_alone(services: Services, exchange: CoscoExchange, name: str) -> None:
    counted = Counted(services)
    found = fetch_all(name, MAPPERS[:1], PARTITIONS, services.metadata)
    assert found == by_partition(rows_of(MAPPERS[0]), PARTITIONS)
    assert counted.since()[0] == 0


def test_rows_of_columns(services: Services, name: str) -> None:
    halves = pa.array([n / 2 if n % 3 else None for n in range(40_000)])
    batch = pa.record_batch({"n": range(40_000), "half": halves})
    with CoscoExchange(name, 2, never, codec="none", direct_reads=True, metadata=services.metadata):
        with stored(services, 16 * 40_000 * len(MAPPERS)):
            for mapper in MAPPERS:
                with CoscoWriter(name, mapper, metadata=services.metadata) as writer:
                    writer.collect_batch([n % 2 for n in range(40_000)], batch)
        counted = Counted(services)
        with reader(services, name, [0, 1]) as tables:
            found = tables.read_table(order="mapper")
        assert counted.since()[0] == 0
    parts = [batch.take(pa.array(range(first, 40_000, 2))) for first in (0, 1)]
    assert (
        found.combine_chunks()
        == pa.Table.from_batches([part for part in parts for _ in MAPPERS]).combine_chunks()
    )


def test_the_option_is_part_of_the_exchange(services: Services, name: str) -> None:
    with CoscoExchange(
        name, PARTITIONS, never, codec="none", direct_reads=True, mappers=9,
        metadata=services.metadata,
    ) as exchange:  # fmt: skip
        write_stored(services, name)
        services.metadata_service.kill()
        services.metadata_service.start()
        until(lambda: len(serving(services.metadata)) == 2, 30, "coming back")
        counted = Counted(services)
        with exchange.handle().reader(1, MAPPERS) as rows:
            assert Counter(rows) == everything()[1]
        attached = CoscoExchange.attach(name, metadata=services.metadata)
        with attached.handle().reader(2, MAPPERS) as rows:
            assert Counter(rows) == everything()[2]
        attached.__exit__(None, None, None)
        fetched, referenced = counted.since()
    assert fetched == 0
    assert referenced > 0


def test_files_of_a_daemon_that_died(services: Services, name: str) -> None:
    """Others of its store find them, and refer to them."""
    with CoscoExchange(
        name, PARTITIONS, never, codec="none", direct_reads=True, metadata=services.metadata
    ):
        write_stored(services, name)
        services.daemons[0].kill()
        try:
            found = fetch_all(name, MAPPERS, PARTITIONS, services.metadata)
            assert found == everything()
        finally:
            services.daemons[0].start()
            until(lambda: len(serving(services.metadata)) == 2, 30, "coming back")


# --- what fails ----------------------------------------------------------------------------------


def test_a_directory_of_another_store_is_not_read_from(
    services: Services, exchange: CoscoExchange, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a host that has something else at the same path."""
    identity = services.directory / "store" / "cosco-store.json"
    own = identity.read_text()
    identity.write_text(json.dumps({"format": 1, "store_id": "0" * 32}))
    try:
        with caplog.at_level(logging.WARNING, "cosco"):
            counted = Counted(services)
            with reader(services, name, range(PARTITIONS)) as rows:
                found: list[Counter[bytes]] = [Counter() for _ in range(PARTITIONS)]
                for row in rows:
                    found[rows.partition][row] += 1
            assert found == everything()
            assert counted.since()[0] > 0
            counted = Counted(services)
            assert fetch_all(name, MAPPERS, PARTITIONS, services.metadata) == everything()
            assert counted.since()[1] == 0  # the store is left alone
    finally:
        identity.write_text(own)
    told = [one.getMessage() for one in caplog.records if "not read directly" in one.getMessage()]
    assert len(told) == 1
    assert "is of another store" in told[0]


def spoiled(read: Callable[..., memoryview]) -> Callable[..., memoryview]:
    """What a network does that flips bits: of blocks, so that headers of chunks are right."""

    def with_flips(self: StoreFiles, *arguments: object) -> memoryview:
        data = bytearray(read(self, *arguments))
        data[CHUNK_HEADER_BYTES + 500] ^= 4
        return memoryview(data)

    return with_flips


def test_bytes_that_change_on_their_way(
    services: Services,
    exchange: CoscoExchange,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(StoreFiles, "read", spoiled(StoreFiles.read))
    counted = Counted(services)
    with caplog.at_level(logging.WARNING, "cosco"):
        with reader(services, name) as rows:
            assert Counter(rows) == everything()[0]
        with reader(services, name, [2, 3]) as tables:
            found = [Counter(t.column(0).to_pylist()) for _, t in tables.read_tables()]
    assert found == everything()[2:]
    assert counted.since()[0] > 0
    told = [one.getMessage() for one in caplog.records if "not read directly" in one.getMessage()]
    assert len(told) == 1


READ = """
    import os, sys
    from collections import Counter
    from cosco import CoscoReader
    name, metadata = sys.argv[1:]
    os.setgid(65534)
    os.setuid(65534)
    print("ready", flush=True)
    with CoscoReader(name, [3, 5], 1, metadata=metadata, timeout_s=30.0) as rows:
        print(len(rows.read_table()), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_user_who_may_not_read_the_store(
    services: Services, exchange: CoscoExchange, name: str
) -> None:
    store = services.directory / "store"
    mode = store.stat().st_mode
    store.chmod(0o700)
    counted = Counted(services)
    try:
        with python(READ, name, services.metadata) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{sum(everything()[1].values())}\n"
    finally:
        store.chmod(mode)
    fetched, referenced = counted.since()
    assert fetched > 0
    assert referenced > 0


def flip_the_chunk_header(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(40)
        opened.write(b"\xff")


DAMAGES = [delete, cut_short, flip, flip_the_chunk_header]


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_what_is_damaged_is_found_and_computed_again_once(
    damage: Callable[[Path], None], several: bool, services: Services, name: str
) -> None:
    calls: list[list[int]] = []

    def again(mappers: list[int], _reason: str) -> None:
        calls.append(sorted(mappers))
        for mapper in mappers:
            send(name, mapper, rows_of(mapper), services.metadata)

    with CoscoExchange(
        name, PARTITIONS, again, codec="none", direct_reads=True, metadata=services.metadata
    ):
        write_stored(services, name)
        damage(stored_files(services, name)[0])
        if several:
            with reader(services, name, range(PARTITIONS)) as tables:
                found = [Counter(t.column(0).to_pylist()) for _, t in tables.read_tables()]
        else:
            found = fetch_all(name, MAPPERS, PARTITIONS, services.metadata)
    assert found == everything()
    # A header of a chunk is no part of its rows, and daemons find them by the index.
    assert calls == ([] if damage is flip_the_chunk_header else [MAPPERS])


def test_a_loss_without_a_callback_is_told(services: Services, name: str) -> None:
    with CoscoExchange(
        name, PARTITIONS, codec="none", direct_reads=True, metadata=services.metadata
    ):
        write_stored(services, name)
        for file in stored_files(services, name):
            file.unlink()
        with reader(services, name) as rows, pytest.raises(DataLost) as lost:
            list(rows)
        assert sorted(lost.value.mappers) == MAPPERS


# --- what is left --------------------------------------------------------------------------------


def direct_threads() -> int:
    return sum(thread.name == "cosco-direct" for thread in threading.enumerate())


def store_descriptors(services: Services) -> int:
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += str(link.readlink()).startswith(str(services.directory / "store"))
        except OSError:  # it was closed meanwhile
            continue
    return found


@pytest.mark.parametrize("partition", [0, range(PARTITIONS)], ids=["one", "several"])
def test_a_reader_that_is_closed_in_the_middle_leaves_nothing(
    services: Services, exchange: CoscoExchange, name: str, partition: object
) -> None:
    rows = reader(services, name, partition)
    batches = rows.read_batches(max_bytes=10_000)
    next(batches)
    rows.close()
    until(lambda: not direct_threads(), 30, "the end of its threads")
    assert not store_descriptors(services)


def test_a_read_to_the_end_leaves_nothing(
    services: Services, exchange: CoscoExchange, name: str
) -> None:
    rows = reader(services, name, range(PARTITIONS))
    assert len(rows.read_table()) == ROWS * len(MAPPERS)
    until(lambda: not direct_threads(), 30, "the end of its threads")
    assert not store_descriptors(services)
    rows.close()
