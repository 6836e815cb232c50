"""Exchanges of groups: every row of every mapper once, however it is written, kept and read."""

from __future__ import annotations

import pickle
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pytest
from support.exchanges import by_partition, fetch, numbered, until
from support.groups import (
    InBackground,
    committed,
    flush,
    make,
    open_readers,
    put,
    stored_files,
    take,
    take_all,
)

from cosco import (
    ClientClosed,
    CommitTimeout,
    CoscoExchange,
    CoscoExchangeGroup,
    GroupHandle,
    LocalCluster,
)
from cosco.client.groups.following import FOLLOWING, PUSHED_BYTES
from cosco.observe import fetch_status, read_metrics

SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string())])
MAPPERS = 3
#: What its name says of each partition: rows that come with the answer, rows that are fetched,
#: one that spans frames, and none.
SHORT, FETCHED, LONG, EMPTY = range(4)


def mixed(mapper: int) -> list[tuple[int, bytes]]:
    """A mapper's rows for partitions of every kind, in a random order that it repeats."""
    short = [(SHORT, row) for _, row in numbered(mapper, 50, size=20)]
    fetched = [(FETCHED, row) for _, row in numbered(mapper, 300, size=1000)]
    long = [(LONG, b"%d" % mapper + bytes([mapper]) * (3 << 20))]
    pairs = short + fetched + long
    random.Random(mapper).shuffle(pairs)
    return pairs


MIXED = by_partition([pair for m in range(MAPPERS) for pair in mixed(m)], 4)


@pytest.fixture(scope="module", autouse=True)
def flushed(started: LocalCluster) -> Iterator[None]:
    yield
    flush(started.metadata)


@pytest.fixture(scope="module")
def group(started: LocalCluster) -> Iterator[CoscoExchangeGroup]:
    """One for most of these tests: each takes exchanges of its own."""
    with make("rows", started.metadata, size=40, mappers=MAPPERS) as made:
        yield made


@pytest.fixture(scope="module")
def handle(group: CoscoExchangeGroup) -> GroupHandle:
    """As a task has it."""
    made: GroupHandle = pickle.loads(pickle.dumps(group.handle()))
    return made


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(40))


@pytest.fixture
def i(numbers: Iterator[int], group: CoscoExchangeGroup) -> Iterator[int]:
    """The index of an exchange that nobody has used, and that goes in the end."""
    index = next(numbers)
    yield index
    group.release(index)


@pytest.mark.parametrize("opened_before", [0, 2, MAPPERS])
def test_rows_of_all_mappers_come_once_whenever_the_reader_came(
    handle: GroupHandle, i: int, opened_before: int
) -> None:
    for mapper in range(opened_before):
        put(handle, i, mapper, mixed(mapper))
    readers = open_readers(handle, i, range(4))
    waiting = [InBackground(reader.read_table) for reader in readers]
    for mapper in range(opened_before, MAPPERS):
        assert not any(one.is_done() for one in waiting)
        put(handle, i, mapper, mixed(mapper))
    tables = [one.result() for one in waiting]
    assert [Counter(t.column("row").to_pylist()) for t in tables] == MIXED
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("way", ["next", "iteration", "batches"])
def test_every_way_of_reading(handle: GroupHandle, i: int, way: str) -> None:
    for mapper in range(MAPPERS):
        put(handle, i, mapper, mixed(mapper))
    for partition in range(4):
        found: Counter[bytes] = Counter()
        with handle.reader(i, partition, timeout_s=0) as reader:
            if way == "next":
                while reader.next():
                    found[reader.row()] += 1
            elif way == "iteration":
                found.update(reader)
            else:
                for batch in reader.read_batches(max_bytes=100_000):
                    found.update(batch.column(0).to_pylist())
        assert found == MIXED[partition]


def test_a_partition_is_read_again_and_by_two_at_once(handle: GroupHandle, i: int) -> None:
    twins = open_readers(handle, i, [SHORT, SHORT, FETCHED, FETCHED])
    for mapper in range(MAPPERS):
        put(handle, i, mapper, mixed(mapper))
    tables = [InBackground(reader.read_table) for reader in twins]
    for partition, table in zip([SHORT, SHORT, FETCHED, FETCHED], tables, strict=True):
        assert Counter(table.result().column(0).to_pylist()) == MIXED[partition]
    for reader in twins:
        reader.close()
    assert [take(handle, i, p, 0) for p in range(4)] == MIXED


def test_nothing_is_given_before_the_last_mapper_is_done(handle: GroupHandle, i: int) -> None:
    readers = open_readers(handle, i, range(4))
    waiting = [InBackground(reader.read_table) for reader in readers]
    for mapper in range(MAPPERS - 1):
        put(handle, i, mapper, mixed(mapper))
    with handle.writer(i, MAPPERS - 1) as writer:
        for partition, row in mixed(MAPPERS - 1):
            writer.collect(partition, row)
        for partition in range(4):
            with pytest.raises(CommitTimeout) as caught:
                take(handle, i, partition, 0)
            assert list(caught.value.mappers) == [MAPPERS - 1]
        assert not any(one.is_done() for one in waiting)
    assert [Counter(one.result().column(0).to_pylist()) for one in waiting] == MIXED
    for reader in readers:
        reader.close()


def test_no_rows_at_all(handle: GroupHandle, i: int) -> None:
    reader = open_readers(handle, i, [0])[0]
    for mapper in range(MAPPERS):
        assert put(handle, i, mapper, []).rows == 0
    assert list(reader) == []
    reader.close()
    assert take_all(handle, i) == [Counter()] * 4
    handle.flush()
    assert committed(handle, i) == MAPPERS


def test_an_ordinary_reader_reads_what_is_committed(
    handle: GroupHandle, i: int, metadata: str
) -> None:
    for mapper in range(MAPPERS):
        commit = put(handle, i, mapper, mixed(mapper))
        assert (commit.mapper, commit.rows, commit.won) == (mapper, len(mixed(mapper)), True)
        assert commit.partition_rows.sum() == commit.rows
        row_bytes = sum(len(row) for _, row in mixed(mapper))
        assert commit.partition_bytes.sum() == commit.bytes == row_bytes
    handle.flush()
    for partition in range(4):
        assert fetch(f"rows/{i}", range(MAPPERS), partition, metadata) == MIXED[partition]
    assert sum(fetch(f"rows/{i}", [1], SHORT, metadata).values()) == 50


def test_an_aborted_writer_leaves_nothing_to_be_seen(handle: GroupHandle, i: int) -> None:
    for mapper in range(MAPPERS):
        given_up = handle.writer(i, mapper)
        for partition, row in numbered(99, 20_000, partitions=4, size=200):
            given_up.collect(partition, row)
        given_up.abort()
        with pytest.raises(ZeroDivisionError), handle.writer(i, mapper) as broken:
            broken.collect(0, b"never seen")
            raise ZeroDivisionError
    with pytest.raises(CommitTimeout) as caught:
        take(handle, i, 0, 0)
    assert list(caught.value.mappers) == list(range(MAPPERS))
    for mapper in range(MAPPERS):
        put(handle, i, mapper, mixed(mapper))
    assert take_all(handle, i) == MIXED


def test_attempts_of_one_mapper_side_by_side_count_once(handle: GroupHandle, i: int) -> None:
    readers = open_readers(handle, i, range(4))
    start = threading.Barrier(2 * MAPPERS)

    def attempt(mapper: int) -> bool:
        start.wait(20)
        return put(handle, i, mapper, mixed(mapper)).won

    attempts = [InBackground(lambda m=n // 2: attempt(m)) for n in range(2 * MAPPERS)]
    assert [one.result() for one in attempts]
    found = [Counter(reader.read_table().column(0).to_pylist()) for reader in readers]
    assert found == MIXED
    for reader in readers:
        reader.close()
    assert put(handle, i, 0, mixed(0)).rows == len(mixed(0))  # a late one
    assert take_all(handle, i) == MIXED
    handle.flush()
    assert committed(handle, i) == MAPPERS


def test_arrow_rows(metadata: str, name: str) -> None:
    def batch(mapper: int) -> pa.RecordBatch:
        keys = list(range(1000 * mapper, 1000 * mapper + 1000))
        return pa.record_batch([keys, [f"text {key}" * (key % 7) for key in keys]], schema=SCHEMA)

    def write(handle: GroupHandle, i: int, mapper: int) -> None:
        with handle.writer(i, mapper) as writer:
            rows = batch(mapper)
            writer.collect_batch([key % 3 for key in rows.column(0).to_pylist()], rows)

    with make(name, metadata, schema=SCHEMA, mappers=2, replicas=1) as group:
        handle = group.handle()
        early = open_readers(handle, 0, range(4))
        for mapper in range(2):
            write(handle, 0, mapper)
        for mapper in range(2):
            with handle.writer(1, mapper):
                pass
        tables = [reader.read_table() for reader in early]
        for reader in early:
            reader.close()
        rows = [row for mapper in range(2) for row in batch(mapper).to_pylist()]
        for partition, table in enumerate(tables):
            assert table.schema == SCHEMA
            expected = [row for row in rows if row["key"] % 3 == partition]
            assert sorted(table.to_pylist(), key=lambda row: row["key"]) == expected
        with handle.reader(1, 3) as reader:
            table = reader.read_table()
        assert (table.schema, table.num_rows) == (SCHEMA, 0)
        with handle.reader(0, 2, timeout_s=0) as reader:
            batches = list(reader.read_batches(max_bytes=1000))
        assert pa.Table.from_batches(batches).num_rows == tables[2].num_rows


@pytest.mark.parametrize(("mappers", "partitions"), [(1, 1), (40, 7)])
def test_one_mapper_and_many(metadata: str, name: str, mappers: int, partitions: int) -> None:
    sent = {m: numbered(m, 30, partitions=partitions, size=10) for m in range(mappers)}
    with make(name, metadata, partitions=partitions, mappers=mappers, replicas=1) as group:
        handle = group.handle()
        reader = handle.reader(2, 0)
        for mapper, pairs in sent.items():
            put(handle, 2, mapper, pairs)
        expected = by_partition([pair for pairs in sent.values() for pair in pairs], partitions)
        assert Counter(reader) == expected[0]
        reader.close()
        assert take_all(handle, 2) == expected


def test_more_than_the_memory_spills_and_others_go_on(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    """One reader never comes, and its exchange is longer than all memory there is."""
    with make(name, metadata, size=3, mappers=2, partitions=2) as group:
        handle = group.handle()
        noise = random.Random(1).randbytes(100_000)
        large = {
            m: [(n % 2, b"%d.%d" % (m, n) + noise[n * 100 : n * 100 + 50_000]) for n in range(480)]
            for m in range(2)
        }
        late = open_readers(handle, 0, [0, 1])
        others = set(stored_files(cluster))  # of tests before this one
        for mapper, pairs in large.items():
            put(handle, 0, mapper, pairs)
        spilled = {path.parent for path in set(stored_files(cluster)) - others}
        assert spilled
        for mapper in range(2):
            put(handle, 1, mapper, numbered(mapper, 100, partitions=2))
        assert sum(map(Counter.total, take_all(handle, 1))) == 200
        found = [Counter(reader) for reader in late]
        assert found == by_partition([p for pairs in large.values() for p in pairs], 2)
        for reader in late:
            reader.close()
        group.release(0)
        until(
            lambda: not [path for path in stored_files(cluster) if path.parent in spilled],
            10,
            "the end of its files",
        )


def test_rows_move_while_the_metadata_service_is_away(
    cluster: LocalCluster, metadata: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits arrive when it is there again. Daemons ask once what is their own: who comes
    before that waits."""
    monkeypatch.setattr(
        "cosco.client.read.state.read_plan.POLL_S", 0.05
    )  # readers look whether it is there
    with (
        make(name, metadata, service_timeout_s=20.0) as group,
        make(f"new-{name}", metadata) as new,
    ):
        handle: GroupHandle = pickle.loads(pickle.dumps(group.handle()))
        for mapper in range(MAPPERS):
            put(handle, 0, mapper, mixed(mapper))
        handle.flush()
        cluster.metadata_service.kill()
        try:
            early = open_readers(handle, 1, range(4), timeout_s=None)
            waiting = [InBackground(reader.read_table) for reader in early]
            waits_long = InBackground(partial(take, replace(handle, service_timeout_s=0.2), 1, 0))
            begun = [InBackground(partial(put, new.handle(), 0, m, mixed(m))) for m in range(3)]
            reads_new = InBackground(partial(take_all, new.handle(), 0))
            assert not waits_long.is_done(0.5)
            for mapper in range(MAPPERS):
                put(handle, 1, mapper, mixed(mapper))
            found = [Counter(one.result().column(0).to_pylist()) for one in waiting]
            assert found == MIXED
            assert waits_long.result() == MIXED[0]
            for reader in early:
                reader.close()
            assert [take(handle, 1, p, 0) for p in range(4)] == MIXED
            put(handle, 2, 0, mixed(0))
            with pytest.raises(CommitTimeout) as caught:
                take(handle, 2, 0, 0.05)
            assert list(caught.value.mappers) == [1, 2]
            flushing = InBackground(handle.flush)
            assert not flushing.is_done(0.2)
            assert not any(one.is_done() for one in [*begun, reads_new])
        finally:
            cluster.metadata_service.restart()
        flushing.result()
        assert committed(handle, 1) == MAPPERS
        assert fetch(f"{name}/1", range(MAPPERS), SHORT, metadata) == MIXED[SHORT]
        for one in begun:
            one.result()
        assert reads_new.result() == MIXED


@pytest.mark.usefixtures("group")
def test_an_exchange_of_a_group_is_one_like_others(metadata: str) -> None:
    attached = CoscoExchange.attach("rows/39", metadata=metadata)
    assert (attached.shuffle_id, attached.partitions) == ("rows/39", 4)
    assert attached.progress().mappers_committed == 0


def test_a_close_meets_the_answer(metadata: str, name: str) -> None:
    """At any moment of it: either the rows, all of them, or ClientClosed; nothing is kept."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    with make(name, metadata, size=30, partitions=2, mappers=1) as group:
        handle = group.handle()
        ended: Counter[str] = Counter()
        for i in range(30):
            readers = [handle.reader(i, p) for p in range(2) for _ in range(3)]
            reading = [InBackground(reader.read_table) for reader in readers]
            writing = InBackground(partial(put, handle, i, 0, [(0, b"a"), (1, b"b")]))
            writing.is_done(chance.random() * 0.006)
            for reader in readers:
                reader.close()
            for one, row in zip(reading, [b"a", b"a", b"a", b"b", b"b", b"b"], strict=True):
                try:
                    assert one.result().column(0).to_pylist() == [row]
                    ended["read"] += 1
                except ClientClosed:
                    ended["closed"] += 1
            writing.result()
        print(ended)
        assert FOLLOWING._left_bytes == PUSHED_BYTES
        assert not any(stream._waiters for stream in FOLLOWING._streams.values())


def test_two_hundred_live_exchanges_and_nothing_is_left_of_them(
    cluster: LocalCluster, metadata: str, name: str
) -> None:
    def gauges(what: str) -> float:
        daemons = fetch_status(metadata).daemons
        return sum(read_metrics(d.metrics_address)[f"cosco_{what}"] for d in daemons)

    group = make(name, metadata, size=200, partitions=2, mappers=2, replicas=1)
    handle = group.handle()
    readers = [handle.reader(i, i % 2) for i in range(200)]
    never_read = [handle.reader(i, 1) for i in range(0, 200, 20)]
    # Of small daemons, which may have no room for all: the others go by commits.
    until(lambda: gauges("followers") >= 100, 10, "the waiting of readers")
    for mapper in range(2):
        for i in range(200):
            put(handle, i, mapper, [(p, b"%d.%d.%d" % (i, mapper, p)) for p in range(2)])
    for i, reader in enumerate(readers):
        p = i % 2
        assert sorted(reader) == [b"%d.%d.%d" % (i, mapper, p) for mapper in range(2)]
        reader.close()
    for reader in never_read:
        reader.close()
    handle.flush()
    assert {committed(handle, i) for i in (0, 99, 199)} == {2}
    for i in range(100):
        group.release(i)
    group.close()
    until(lambda: gauges("followers") == 0, 10, "the end of readers")
    until(lambda: name not in str(fetch_status(metadata).exchanges), 10, "the end of exchanges")
