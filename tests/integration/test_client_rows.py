"""Rows through the real services: every one exactly once, in every shape."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from cosco import (
    ClientClosed,
    Commit,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
    InvalidRow,
    PartitionOutOfRange,
    SchemaMismatch,
)


def read(name: str, mappers: object, partition: int, metadata: str) -> list[bytes]:
    with CoscoReader(name, mappers, partition, timeout_s=0, metadata=metadata) as reader:  # type: ignore[arg-type]
        return list(reader)


@pytest.mark.parametrize(("partitions", "mappers"), [(1, 1), (7, 3), (1000, 8), (3, 64)])
def test_every_row_once(name: str, metadata: str, partitions: int, mappers: int) -> None:
    rng = random.Random(partitions)
    written: dict[int, Counter[bytes]] = {p: Counter() for p in range(partitions)}
    with CoscoExchange(name, partitions, metadata=metadata) as exchange:
        for mapper in range(mappers):
            with CoscoWriter(name, mapper, buffer_bytes=64 << 10, metadata=metadata) as writer:
                for _ in range(0 if mapper == 1 else 4000 // mappers):
                    partition = rng.randrange(partitions)
                    row = rng.randbytes(rng.choice((0, 1, 20, 300)))
                    writer.collect(partition, row)
                    written[partition][row] += 1
        looked_at = rng.sample(range(partitions), min(partitions, 20))
        for partition in looked_at:
            assert Counter(read(name, range(mappers), partition, metadata)) == written[partition]
        progress = exchange.progress()
        assert progress.mappers_committed == mappers
        assert progress.rows == sum(c.total() for c in written.values())
        assert progress.partition_rows.tolist() == [c.total() for c in written.values()]
        assert progress.bytes_raw == sum(len(r) * n for c in written.values() for r, n in c.items())


def test_more_than_the_daemons_memory_and_a_row_longer_than_a_frame(
    name: str, metadata: str
) -> None:
    long_row = random.Random(1).randbytes(64 << 20)
    with CoscoExchange(name, 2, metadata=metadata):
        with CoscoWriter(name, 0, buffer_bytes=4 << 20, metadata=metadata) as writer:
            writer.collect(0, long_row)
            writer.collect_batch(np.zeros(1000, np.int32), [b"%d" % i for i in range(1000)])
            writer.collect(1, b"")
        rows = read(name, [0], 0, metadata)
        assert max(rows, key=len) == long_row
        assert len(rows) == 1001
        assert read(name, [0], 1, metadata) == [b""]
        with CoscoReader(name, [0], 0, metadata=metadata) as reader:
            assert reader.read_table().num_rows == 1001


def test_only_the_named_mappers_rows(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        for mapper in (5, 2**31 - 1, 0):
            with CoscoWriter(name, mapper, metadata=metadata) as writer:
                assert writer.mapper == mapper
                writer.collect(0, b"%d" % mapper)
        assert read(name, [5], 0, metadata) == [b"5"]
        assert sorted(read(name, {2**31 - 1, 0}, 0, metadata)) == [b"0", b"2147483647"]
        assert read(name, [], 0, metadata) == []


def test_the_service_chooses_mapper_ids(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        writers = [CoscoWriter(name, None, metadata=metadata) for _ in range(3)]
        assert len({writer.mapper for writer in writers}) == 3
        for writer in writers:
            writer.close()


def test_next_and_row(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect(0, b"a")
            writer.collect(0, b"b")
        with CoscoReader(name, [0], 0, metadata=metadata) as reader:
            assert reader.generation == 1
            with pytest.raises(InvalidArgument, match="next"):
                reader.row()
            rows = []
            while reader.next():
                rows.append(reader.row())
                assert reader.row() == rows[-1]
            assert sorted(rows) == [b"a", b"b"]
            assert not reader.next()
            with pytest.raises(InvalidArgument):
                reader.row()
            with pytest.raises(InvalidArgument, match="one pass"):
                reader.read_table()


def test_a_reader_makes_one_pass_and_does_not_end_early(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect_batch([0] * 100, [b"x"] * 100)
        reader = CoscoReader(name, [0], 0, metadata=metadata)
        assert next(reader) == b"x"
        assert len(list(reader)) == 99, "iteration goes on where it was"
        assert list(reader) == []
        reader.close()
        with pytest.raises(ClientClosed):
            list(reader)
        reader = CoscoReader(name, [0], 0, metadata=metadata)
        batches = reader.read_batches(max_bytes=100)
        batch = next(batches)
        reader.close()
        assert batch.column(0)[0].as_py() == b"x", "batches stay valid"
        broken = CoscoReader(name, [0], 0, metadata=metadata)
        batches = broken.read_batches(max_bytes=100)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        with pytest.raises(ClientClosed, match="broken off"):
            broken.next()
        broken.close()


# --- Arrow --------------------------------------------------------------------------------

SCHEMA = pa.schema([pa.field("key", pa.int64(), metadata={"a": "b"}), pa.field("s", pa.string())])


def batch_of(first: int, count: int) -> pa.RecordBatch:
    keys = range(first, first + count)
    return pa.record_batch([list(keys), [f"{k}" * 5 for k in keys]], schema=SCHEMA)


def test_arrow_batches(name: str, metadata: str) -> None:
    with CoscoExchange(name, 4, schema=SCHEMA, metadata=metadata) as exchange:
        assert exchange.schema == pa.schema([("key", pa.int64()), ("s", pa.string())])
        for mapper in range(3):
            with CoscoWriter(name, mapper, buffer_bytes=64 << 10, metadata=metadata) as writer:
                batch = batch_of(mapper * 5000, 5000)
                writer.collect_batch(batch.column(0).to_numpy() % 4, batch)
            commit = writer.close()
            assert commit.rows == 5000
        for partition in range(4):
            with CoscoReader(name, range(3), partition, metadata=metadata) as reader:
                table = reader.read_table()
            assert table.schema.equals(exchange.schema)
            found = table.sort_by("key").to_pydict()
            assert found["key"] == list(range(partition, 15000, 4))
            assert found["s"] == [f"{k}" * 5 for k in found["key"]]
        with CoscoReader(name, range(3), 0, metadata=metadata) as reader:
            sizes = [b.num_rows for b in reader.read_batches(max_bytes=10_000)]
        assert sum(sizes) == 3750
        assert max(sizes) <= 600
        with CoscoReader(name, range(3), 0, metadata=metadata) as reader:
            assert [b.num_rows for b in reader.read_batches()] == [3750], "small ones are joined"
        with (
            CoscoReader(name, [0], 0, metadata=metadata) as reader,
            pytest.raises(SchemaMismatch, match="read_batches"),
        ):
            reader.next()


def test_a_table_is_taken_batch_by_batch(name: str, metadata: str) -> None:
    table = pa.Table.from_batches([batch_of(0, 10), batch_of(10, 5)])
    with CoscoExchange(name, 2, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            with pytest.raises(PartitionOutOfRange):
                writer.collect_batch([0] * 14 + [2], table)
            with pytest.raises(InvalidArgument):
                writer.collect_batch([0] * 14, table)
            writer.collect_batch([i % 2 for i in range(15)], table)
        with CoscoReader(name, [0], 1, metadata=metadata) as reader:
            assert sorted(reader.read_table()["key"].to_pylist()) == list(range(1, 15, 2))


def test_the_first_rows_decide_what_the_rows_are(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        assert exchange.schema is None
        early = CoscoWriter(name, 9, metadata=metadata)  # opened while it is undecided
        undecided = CoscoReader(name, [0], 0, metadata=metadata)
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect_batch([0], batch_of(0, 1))
            with pytest.raises(SchemaMismatch):
                writer.collect(0, b"row")
            with pytest.raises(SchemaMismatch, match="column 'key' is string instead of int64"):
                writer.collect_batch([0], pa.record_batch({"key": ["x"], "s": ["x"]}))
            writer.collect_batch([0], batch_of(1, 1))
        with pytest.raises(SchemaMismatch, match="ARROW rows"):
            early.collect(0, b"row")
        early.collect_batch([], batch_of(0, 0))
        assert early.close().won
        assert undecided.read_table().num_rows == 2
        undecided.close()
        assert CoscoExchange.attach(name, metadata=metadata).schema is not None


def test_tables_without_rows_have_the_schema(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        CoscoWriter(name, 0, metadata=metadata).close()
        for mappers in ([], [0]):
            with CoscoReader(name, mappers, 0, metadata=metadata) as reader:
                assert reader.read_table().schema == pa.schema([("row", pa.binary())])
    with (
        CoscoExchange(f"{name}-2", 1, schema=SCHEMA, metadata=metadata),
        CoscoReader(f"{name}-2", [], 0, metadata=metadata) as reader,
    ):
        assert reader.read_table().schema.names == ["key", "s"]


# --- bad input ----------------------------------------------------------------------------


def test_bad_rows_leave_the_writer_as_it_was(name: str, metadata: str) -> None:
    with CoscoExchange(name, 3, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect(0, b"good")
            for partition in (-1, 3, 2**40):
                with pytest.raises(PartitionOutOfRange, match=r"0 to 2"):
                    writer.collect(partition, b"x")
            with pytest.raises(InvalidRow):
                writer.collect(0, "text")  # type: ignore[arg-type]
            with pytest.raises(InvalidRow):
                writer.collect_batch([0, 1], [b"x", None])
            with pytest.raises(PartitionOutOfRange):
                writer.collect_batch([0, 3], [b"x", b"y"])
            writer.collect(0, memoryview(b"also good"))  # type: ignore[arg-type]
        commit = writer.close()
        assert (commit.rows, commit.bytes) == (2, 13)
        assert sorted(read(name, [0], 0, metadata)) == [b"also good", b"good"]


def test_bad_arguments_are_named_at_once(name: str, metadata: str) -> None:
    bad_exchanges: list[dict[str, object]] = [
        {"partitions": 0},
        {"partitions": 2**21},
        {"partitions": 1.5},
        {"partitions": 1, "replicas": 3},
        {"partitions": 1, "replicas": 1, "min_replicas": 2},
        {"partitions": 1, "codec": "zip"},
        {"partitions": 1, "lease_s": 0},
        {"partitions": 1, "lease_s": float("nan")},
        {"partitions": 1, "schema": "x"},
        {"partitions": 1, "recompute_writers_callback": 3},
        {"partitions": 1, "service_timeout_s": -1},
    ]
    for arguments in bad_exchanges:
        with pytest.raises(InvalidArgument, match=list(arguments)[-1]):
            CoscoExchange(name, metadata="127.0.0.1:1", **arguments)  # type: ignore[arg-type]
    for mapper in (-1, 2**31, "1", 1.0):
        with pytest.raises(InvalidArgument, match="mapper"):
            CoscoWriter(name, mapper, metadata="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="buffer_bytes"):
        CoscoWriter(name, 0, buffer_bytes=1000, metadata="127.0.0.1:1")
    with pytest.raises(InvalidArgument, match="timeout_s"):
        CoscoReader(name, [0], 0, timeout_s=-1, metadata="127.0.0.1:1")
    with CoscoExchange(name, 2, metadata=metadata):
        with pytest.raises(PartitionOutOfRange, match="0 to 1") as caught:
            CoscoReader(name, [0], 2, metadata=metadata)
        assert (caught.value.partition, caught.value.shuffle_id) == (2, name)


def test_ids_are_used_once(name: str, metadata: str) -> None:
    for call in (
        lambda: CoscoWriter(name, 0, metadata=metadata),
        lambda: CoscoReader(name, [0], 0, metadata=metadata),
        lambda: CoscoExchange.attach(name, metadata=metadata),
    ):
        with pytest.raises(ExchangeNotFound, match=name):
            call()
    with CoscoExchange(name, 1, metadata=metadata), pytest.raises(ExchangeExists, match=name):
        CoscoExchange(name, 1, metadata=metadata)
    with pytest.raises(ExchangeExists, match=name):
        CoscoExchange(name, 1, metadata=metadata)


# --- attempts -----------------------------------------------------------------------------


def test_a_commit_is_repeatable_and_the_first_attempt_wins(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        first, second = (CoscoWriter(name, 4, metadata=metadata) for _ in range(2))
        second.collect(0, b"second")
        first.collect(0, b"first!")
        won = second.close()
        assert won == Commit(mapper=4, attempt=won.attempt, won=True, generation=1, rows=1, bytes=6)
        assert second.close() is won
        lost = first.close()
        assert not lost.won
        assert lost.attempt != won.attempt
        assert read(name, [4], 0, metadata) == [b"second"]
        with pytest.raises(ClientClosed):
            second.collect(0, b"x")
        with pytest.raises(ClientClosed):
            second.collect_batch([0], [b"x"])
        second.abort()
        assert second.close() is won


@pytest.mark.parametrize("arrow", [False, True])
def test_a_commit_tells_what_the_attempt_wrote_by_partition(
    name: str, metadata: str, arrow: bool
) -> None:
    """Also that of an attempt that did not win, which is not what counts in the end."""
    with CoscoExchange(name, 5, metadata=metadata) as exchange:
        commits = []
        for numbers in ([3, 0, 3], [1]):
            with CoscoWriter(name, 4, metadata=metadata) as writer:
                rows = [b"x" * (i + 1) for i in range(len(numbers))]
                writer.collect_batch(numbers, pa.table({"a": rows}) if arrow else rows)
                writer.collect_batch(4, pa.table({"a": [b"five!"]}) if arrow else [b"five!"])
            commits.append(writer.close())
        first, second = commits
        assert (first.won, second.won) == (True, False)
        assert first.partition_rows.tolist() == [1, 0, 0, 2, 1]
        assert second.partition_rows.tolist() == [0, 1, 0, 0, 1]
        for one in commits:
            assert one.rows == one.partition_rows.sum()
            assert one.bytes == one.partition_bytes.sum()
            assert np.array_equal(one.partition_bytes > 0, one.partition_rows > 0)
        if not arrow:
            assert first.partition_bytes.tolist() == [2, 0, 0, 4, 5]
            assert second.partition_bytes.tolist() == [0, 1, 0, 0, 5]
        progress = exchange.progress()
        assert np.array_equal(progress.partition_rows, first.partition_rows)
        assert np.array_equal(progress.partition_bytes, first.partition_bytes)


def test_rows_of_aborted_attempts_are_never_seen(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        writer = CoscoWriter(name, 0, buffer_bytes=64 << 10, metadata=metadata)

        def fail() -> None:
            with writer:
                writer.collect_batch([0] * 5000, [b"x" * 100] * 5000)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with pytest.raises(ClientClosed):
            writer.close()
        with CoscoWriter(name, 0, metadata=metadata) as again:
            again.collect(0, b"y")
        assert again.close().won
        assert read(name, [0], 0, metadata) == [b"y"]
