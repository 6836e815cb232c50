"""Shards on their way through an exchange, at every length that matters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cosco.ray.shards
from cosco import CoscoExchange, DataCorrupted
from cosco.ray.shards import ShardWriter, read_shards


def through(
    exchange: CoscoExchange, shards: dict[int, list[tuple[int, object]]]
) -> list[list[tuple[int, object]]]:
    """Write shards, by mapper, and read all partitions."""
    handle = exchange.handle()
    for mapper, own in shards.items():
        with handle.writer(mapper) as writer:
            shard_writer = ShardWriter(writer, mapper)
            for partition, block in own:
                shard_writer.add(partition, block)
            shard_writer.flush()
    found = []
    for partition in range(exchange.partitions):
        with handle.reader(partition, list(shards)) as reader:
            found.append(read_shards(reader.read_batches()))
    return found


@pytest.fixture
def exchange(metadata: str, name: str) -> CoscoExchange:
    with CoscoExchange(name, 3, metadata=metadata) as exchange:
        yield exchange


def table(rows: int, first: int = 0) -> pa.Table:
    return pa.table({"i": range(first, first + rows), "s": [f"{i}" for i in range(rows)]})


def test_shards_come_by_mapper(exchange: CoscoExchange) -> None:
    shards = {m: [(p, table(10 + p, m)) for p in range(3) if (m + p) % 3] for m in (5, 0, 3)}
    expected = [
        [(m, block) for m in sorted(shards) for own, block in shards[m] if own == p]
        for p in range(3)
    ]
    assert through(exchange, shards) == expected


def test_any_block_is_a_shard(exchange: CoscoExchange) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [object, complex(1, 2)]})
    chunked = pa.concat_tables([table(3), table(2)])
    [[(_, first)], [(_, second)], []] = through(exchange, {0: [(0, frame), (1, chunked)]})
    pd.testing.assert_frame_equal(first, frame)
    assert second == chunked


def test_long_shards_are_cut(exchange: CoscoExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosco.ray.shards, "PIECE_BYTES", 4096)
    long, short = table(5000), table(7)
    frame = pd.DataFrame({"a": np.arange(3000)})
    shards = {0: [(0, short), (1, long), (2, short)], 1: [(1, frame), (2, long)], 2: [(1, short)]}
    [first, [(_, a), (_, b), (_, c)], last] = through(exchange, shards)
    assert first == [(0, short)]
    assert (a, c) == (long, short)
    pd.testing.assert_frame_equal(b, frame)
    assert last == [(0, short), (1, long)]


def test_columns_lie_where_arrow_can_use_them(exchange: CoscoExchange) -> None:
    [[(_, found)], *_] = through(exchange, {0: [(0, table(1001)), (1, table(3))]})
    for column in found.columns:
        for chunk in column.chunks:
            assert all(b is None or b.address % 8 == 0 for b in chunk.buffers())


def test_other_rows_are_refused(exchange: CoscoExchange) -> None:
    with exchange.handle().writer(0) as writer:
        writer.collect(0, b"no shard")
    with exchange.handle().reader(0, [0]) as reader, pytest.raises(DataCorrupted, match="8 bytes"):
        read_shards(reader.read_batches())
