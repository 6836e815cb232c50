"""Rows by mapper: through the real services, whichever way their blocks went."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from cosco import CapacityExceeded, CoscoExchange, CoscoReader, CoscoWriter

MAPPERS = 5


def reader(name: str, metadata: str, mappers: object = range(MAPPERS), **o: int) -> CoscoReader:
    return CoscoReader(name, mappers, 1, timeout_s=0, metadata=metadata, **o)  # type: ignore[arg-type]


def test_rows_of_bytes(name: str, metadata: str) -> None:
    rng = random.Random(5)
    written: dict[int, list[bytes]] = {mapper: [] for mapper in range(MAPPERS)}
    with CoscoExchange(name, 2, metadata=metadata):
        writers = [
            CoscoWriter(name, m, buffer_bytes=64 << 10, metadata=metadata) for m in range(MAPPERS)
        ]
        for i in range(20_000):
            mapper = rng.randrange(MAPPERS)
            row = b"%d of %d" % (i, mapper) + rng.randbytes(rng.randrange(40))
            if i in (3_000, 13_000):
                row = rng.randbytes(3 << 20)  # comes in fragments
            writers[mapper].collect(1, row)
            written[mapper].append(row)
        for one in rng.sample(writers, MAPPERS):
            one.close()
        with reader(name, metadata) as all_of_them:
            table = all_of_them.read_table(order="mapper")
        assert table.column("row").to_pylist() == [row for m in written for row in written[m]]
        with reader(name, metadata, [3, 1]) as two:
            batches = list(two.read_batches(max_bytes=10_000, order="mapper"))
        assert len(batches) > 10
        rows = [row for batch in batches for row in batch.column(0).to_pylist()]
        assert rows == written[1] + written[3]
        with reader(name, metadata, max_held_bytes=4 << 20) as small:
            with pytest.raises(CapacityExceeded, match="max_held_bytes") as caught:
                small.read_table(order="mapper")
            assert (caught.value.shuffle_id, caught.value.partition) == (name, 1)


def variant(mapper: int, rng: random.Random) -> pa.RecordBatch:
    """Some rows, in one of the types that go into one exchange."""
    count = rng.randrange(1, 400)
    words = [rng.choice([None, "x", f"word {rng.randrange(500)}"]) for _ in range(count)]
    values = pa.array(words, rng.choice([pa.string(), pa.large_string()]))
    kinds = pa.array([rng.choice(["a", "b", None, f"of {mapper}"]) for _ in range(count)])
    numbers = pa.array([rng.choice([None, i]) for i in range(count)], pa.int64())
    nested = pa.array([[{"n": i}] * (i % 3) for i in range(count)])
    return pa.record_batch(
        [values, kinds.dictionary_encode(), numbers, nested], ["word", "kind", "number", "nested"]
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_of_columns(name: str, metadata: str, seed: int) -> None:
    rng = random.Random(seed)
    expected: dict[int, list[dict[str, object]]] = {mapper: [] for mapper in range(MAPPERS)}
    with CoscoExchange(name, 2, metadata=metadata):
        writers = [
            CoscoWriter(name, m, buffer_bytes=64 << 10, metadata=metadata) for m in range(MAPPERS)
        ]
        for _ in range(60):
            mapper = rng.randrange(MAPPERS)
            batch = variant(mapper, rng)
            row_partitions = np.array([rng.randrange(2) for _ in range(batch.num_rows)])
            writers[mapper].collect_batch(row_partitions, batch)
            expected[mapper] += batch.filter(pa.array(row_partitions == 1)).to_pylist()
        for one in rng.sample(writers, MAPPERS):
            one.close()
        everything = [row for mapper in expected for row in expected[mapper]]
        with reader(name, metadata) as by_table:
            table = by_table.read_table(order="mapper")
        table.validate(full=True)
        assert table.to_pylist() == everything
        with reader(name, metadata) as by_batches:
            batches = list(by_batches.read_batches(max_bytes=5_000, order="mapper"))
        assert [row for batch in batches for row in batch.to_pylist()] == everything
        with reader(name, metadata, []) as of_nobody:
            assert of_nobody.read_table(order="mapper").equals(table.slice(0, 0))
