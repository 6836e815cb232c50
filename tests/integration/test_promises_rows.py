"""What the public surface promises about rows, tried from outside."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from cosco import (
    ClientClosed,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    PartitionOutOfRange,
    SchemaMismatch,
)


def read(name: str, mappers: list[int], partition: int, metadata: str) -> list[bytes]:
    with CoscoReader(name, mappers, partition, timeout_s=10, metadata=metadata) as reader:
        return list(reader)


@pytest.mark.parametrize(("partitions", "mappers"), [(1, 64), (7, 5), (1000, 1), (1000, 16)])
def test_every_row_once(partitions: int, mappers: int, name: str, metadata: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ids = [mapper * 3 for mapper in range(mappers)]
    plan = {
        mapper: [
            (
                chance.choice([0, partitions - 1, chance.randrange(partitions)]),
                b"%d.%d." % (mapper, i) * chance.choice([0, 1, 20]),
            )
            for i in range(0 if mapper and chance.random() < 0.2 else chance.randrange(1, 1000))
        ]
        for mapper in ids
    }
    expected = [Counter[bytes]() for _ in range(partitions)]
    for rows in plan.values():
        for partition, row in rows:
            expected[partition][row] += 1

    def write(mapper: int) -> None:
        with CoscoWriter(name, mapper, buffer_bytes=64 << 10, metadata=metadata) as writer:
            rows = plan[mapper]
            if mapper % 2:
                for partition, row in rows:
                    writer.collect(partition, row)
            else:
                writer.collect_batch([p for p, _ in rows], [row for _, row in rows])
        with CoscoWriter(name, mapper, metadata=metadata) as late:  # a second attempt
            late.collect(0, b"never seen")
        assert not late.close().won

    with CoscoExchange(name, partitions, metadata=metadata) as exchange:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, ids))
            tried = sorted({0, partitions - 1, *chance.sample(range(partitions), partitions // 8)})
            found = threads.map(lambda p: Counter(read(name, ids, p, metadata)), tried)
            assert list(found) == [expected[p] for p in tried]
        assert exchange.progress().rows == sum(map(len, plan.values()))
        assert Counter(read(name, ids[:1], 0, metadata)) == Counter(
            row for partition, row in plan[0] if not partition
        )


def test_long_rows_between_empty_ones(name: str, metadata: str) -> None:
    long = np.random.default_rng(1).bytes(64 << 20)
    with CoscoExchange(name, 2, metadata=metadata):
        with CoscoWriter(name, 2**31 - 1, buffer_bytes=1 << 20, metadata=metadata) as writer:
            for row in (b"", long, b""):
                writer.collect(1, row)
            writer.collect_batch([1, 1], [long, b""])
        assert sorted(read(name, [2**31 - 1], 1, metadata)) == [b"", b"", b"", long, long]


def test_nothing_of_the_arguments_is_kept(name: str, metadata: str) -> None:
    expected = [b"%06d" % i for i in range(2000)]
    with CoscoExchange(name, 2, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            for row in expected:
                shared = bytearray(row)
                writer.collect(1, shared)
                shared[:] = b"ABCDEF"
            partitions = np.ones(len(expected), np.int64)
            content = np.frombuffer(b"".join(expected), np.uint8).copy()
            ends = np.arange(len(expected) + 1, dtype=np.int32) * 6
            buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
            writer.collect_batch(
                partitions, pa.Array.from_buffers(pa.binary(), len(expected), buffers)
            )
            partitions[:], content[:], ends[:] = 0, 9, 0
        assert sorted(read(name, [0], 1, metadata)) == sorted(expected * 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3, 4], pa.int8()),
        pa.array(["a", None, "", "ü"], pa.large_string()),
        pa.array([[1], None, [], [2, 3]]),
        pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}, {"a": 4, "b": []}]),
        pa.array([[("a", 1)], None, [], [("b", None)]], pa.map_(pa.string(), pa.int64())),
        pa.array(["a", "b", None, "a"]).dictionary_encode(),
        pa.nulls(4),
        pa.array([None, 1, 2, 3]).cast(pa.decimal256(60, 2)),
        pa.array([1, None, 2, 3], pa.timestamp("ns", tz="Europe/Berlin")),
        pa.array([b"ab", None, b"cd", b"ef"], pa.binary(2)),
        pa.array([b"a" * 40, None, b"", b"c"], pa.binary_view()),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_columns_of_any_type(column: pa.Array, name: str, metadata: str) -> None:
    whole = pa.record_batch({"number": pa.array(range(4)), "column": column})
    with CoscoExchange(name, 2, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect_batch([0, 1, 0, 1], whole)
            writer.collect_batch([1, 1], whole.slice(1, 2))
            writer.collect_batch([], whole.slice(0, 0))
        with CoscoReader(name, [0], 1, metadata=metadata) as reader:
            table = reader.read_table()
        assert table.schema == whole.schema
        rows = whole.to_pylist()
        assert sorted(table.to_pylist(), key=lambda row: row["number"]) == [
            rows[1], rows[1], rows[2], rows[3],
        ]  # fmt: skip


def test_batches_without_columns_still_have_rows(name: str, metadata: str) -> None:
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * 5, pa.struct([])))
    with CoscoExchange(name, 2, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect_batch([0, 1, 0, 1, 0], batch)
        with CoscoReader(name, [0], 0, metadata=metadata) as reader:
            assert reader.read_table().num_rows == 3


def test_a_batch_that_is_refused_leaves_the_writer_as_it_was(name: str, metadata: str) -> None:
    with CoscoExchange(name, 3, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect_batch(np.array([2], np.uint8), [b"before"])
            for partitions in ([0, -1], [0, 3], np.array([0, 2**63], np.uint64), [0, 2**80]):
                with pytest.raises(PartitionOutOfRange):
                    writer.collect_batch(partitions, [b"x", b"y"])
            for rows in (["x"], pa.array(["x"]), pa.array([None], pa.binary()), b"x", None):
                with pytest.raises(TypeError):
                    writer.collect_batch([0], rows)
            with pytest.raises(SchemaMismatch):
                writer.collect_batch([0], pa.record_batch({"a": [1]}))
            writer.collect(np.int8(2), b"after")
        assert sorted(read(name, [0], 2, metadata)) == [b"after", b"before"]
        assert read(name, [0], 0, metadata) == []


def test_a_reader_that_was_closed_never_seems_to_have_ended(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            writer.collect_batch([0] * 100, [np.random.default_rng(1).bytes(100_000)] * 100)
        for mode in (iter, lambda reader: reader.read_batches(max_bytes=1 << 20)):
            with CoscoReader(name, [0], 0, metadata=metadata) as reader:
                parts = mode(reader)
                next(parts)
            with pytest.raises(ClientClosed):
                list(parts)


@pytest.mark.parametrize("batches", [False, True])
def test_threads_that_share_a_writer_lose_nothing(batches: bool, name: str, metadata: str) -> None:
    threads, rows = 6, 2000
    errors: list[BaseException] = []
    start = threading.Barrier(threads)
    with CoscoExchange(name, 3, metadata=metadata):
        with CoscoWriter(name, 0, buffer_bytes=64 << 10, metadata=metadata) as writer:

            def collect(thread: int) -> None:
                start.wait()
                try:
                    for i in range(rows):
                        if batches:
                            writer.collect_batch([i % 3], [b"%d.%d" % (thread, i)])
                        else:
                            writer.collect(i % 3, b"%d.%d" % (thread, i))
                except BaseException as error:  # noqa: BLE001 - compared below
                    errors.append(error)

            workers = [threading.Thread(target=collect, args=(n,)) for n in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert not errors
        assert writer.close().rows == threads * rows
        found = [row for partition in range(3) for row in read(name, [0], partition, metadata)]
        assert sorted(found) == sorted(
            b"%d.%d" % (t, i) for t in range(threads) for i in range(rows)
        )


_WRITE_TINY_ROWS = """
import sys
import numpy as np, pyarrow as pa
from pathlib import Path
from cosco import CoscoWriter
name, metadata, length = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = pa.FixedSizeBinaryArray.from_buffers(
    pa.binary(8), 100_000, [None, pa.py_buffer(bytes(800_000))]).cast(pa.binary())
rows = rows if length else pa.Array.from_buffers(
    pa.binary(), 100_000, [None, pa.py_buffer(bytes(400_004)), pa.py_buffer(b"")])
partitions = np.arange(100_000) % 1000
with CoscoWriter(name, 0, metadata=metadata) as writer:
    for _ in range(60):
        writer.collect_batch(partitions, rows)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("length", [0, 8])
def test_a_writer_of_tiny_rows_keeps_to_its_memory(length: int, name: str, metadata: str) -> None:
    with CoscoExchange(name, 1000, metadata=metadata):
        command = [sys.executable, "-c", _WRITE_TINY_ROWS, name, metadata, str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 2 * 32 + 150  # MiB: twice its default buffer, and 150
