"""Packing of Arrow batches by the native part: the same blocks of the same rows.

Their contents are those that Arrow writes of rows that lie in memory of their own: see
`cosco.client.write.state.native_batches`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed import opened
from support.packing_ways import PACKING_WAYS, packing_by

from cosco.client.content.arrow import ContentEncoder
from cosco.client.content.arrow_message import column_kinds, message_layout
from cosco.client.write.state import native_batches
from cosco.client.write.state.batch_sorting import PortableBatchSorter
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import ArrowPacker

MIB = 1 << 20
#: A value of each simple type, of about so many bytes.
VALUES: dict[pa.DataType, Callable[[random.Random, int], Any]] = {
    pa.int8(): lambda rng, _: rng.randrange(-128, 128),
    pa.uint16(): lambda rng, _: rng.randrange(1 << 16),
    pa.int32(): lambda rng, _: rng.randrange(1 << 31),
    pa.int64(): lambda rng, _: rng.randrange(1 << 63),
    pa.float16(): lambda rng, _: np.float16(rng.random()),
    pa.float64(): lambda rng, _: rng.random(),
    pa.bool_(): lambda rng, _: rng.random() < 0.5,
    pa.date32(): lambda rng, _: rng.randrange(1 << 20),
    pa.timestamp("us", "UTC"): lambda rng, _: rng.randrange(1 << 40),
    pa.decimal128(20, 3): lambda rng, _: Decimal(rng.randrange(1 << 40)) / 1000,
    pa.decimal256(50, 0): lambda rng, _: Decimal(rng.randrange(1 << 60)),
    pa.month_day_nano_interval(): lambda rng, _: (rng.randrange(9), 2, 3),
    pa.binary(5): lambda rng, _: rng.randbytes(5),
    pa.binary(): lambda rng, most: rng.randbytes(rng.randint(0, most)),
    pa.string(): lambda rng, most: "é" * rng.randint(0, most // 2),
    pa.large_binary(): lambda rng, most: rng.randbytes(rng.randint(0, most)),
    pa.large_string(): lambda rng, most: "x" * rng.randint(0, most),
}  # fmt: skip


def batch_of(
    schema: pa.Schema, rng: random.Random, rows: int, most: int, nulls: float
) -> pa.RecordBatch:
    """A batch that is a part of a longer one."""
    skipped = rng.randrange(12)
    columns = []
    for one in schema:
        make = VALUES[one.type]
        values = [
            None if rng.random() < nulls else make(rng, most) for _ in range(rows + skipped + 3)
        ]
        columns.append(pa.array(values, one.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema).slice(skipped, rows)


class Found(NamedTuple):
    """What came of a packer."""

    frames: list[tuple[int, int, bytes]]
    sums: list[list[int]]


def pack(partitions: int, buffer_bytes: int, batches: list[tuple[Any, pa.RecordBatch]]) -> Found:
    packer = ArrowPacker(opened(partitions, codec="none"), buffer_bytes, batches[0][1].schema)
    frames: list[PackedFrame] = []
    for numbers, batch in batches:
        frames += packer.collect_batch(numbers, batch)
        assert packer.buffered_bytes <= max(buffer_bytes, 1)
    frames += packer.drain()
    whole = [(one.range_index, one.blocks, b"".join(one.parts)) for one in frames]
    sums = packer.sums()
    every = sums.partitions, sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests
    return Found(whole, [one.tolist() for one in every])


def encode_alone(_encoder: ContentEncoder, plain: pa.RecordBatch, _pools: Any) -> Any:
    """The message of a block's rows in memory of their own, with nothing under what is null."""
    return plain.take(pa.array(range(plain.num_rows), pa.int64())).serialize()


def check_same(partitions: int, buffer_bytes: int, batches: list[tuple[Any, Any]]) -> None:
    """Check that all ways of packing come to the same."""
    with packing_by("portable"), pytest.MonkeyPatch.context() as patched:
        patched.setattr(ContentEncoder, "encode", encode_alone)
        expected = pack(partitions, buffer_bytes, batches)
    for way in PACKING_WAYS[1:]:
        with packing_by(way):
            found = pack(partitions, buffer_bytes, batches)
        assert found.sums == expected.sums
        assert found.frames == expected.frames


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4),
    partitions=st.sampled_from([1, 4, 300, 70_000]),
    buffer_bytes=st.sampled_from([1, 2000, 50_000, 8 * MIB]),
    calls=st.lists(
        st.tuples(st.booleans(), st.integers(0, 60), st.sampled_from([0, 30, 3000])),
        min_size=1,
        max_size=5,
    ),
    nulls=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
)
def test_the_blocks_of_batches_are_the_same(
    seed: int,
    kinds: list[pa.DataType],
    partitions: int,
    buffer_bytes: int,
    calls: list[tuple[bool, int, int]],
    nulls: float,
) -> None:
    rng = random.Random(seed)
    schema = pa.schema([pa.field(f"c{i}", kind) for i, kind in enumerate(kinds)])
    used = [rng.randrange(partitions) for _ in range(5)]
    batches: list[tuple[Any, Any]] = []
    for to_one, rows, most in calls:
        batch = batch_of(schema, rng, rows, most, rng.choice([0.0, nulls]))
        numbers: Any = rng.choice(used) if to_one else [rng.choice(used) for _ in range(rows)]
        batches.append((numbers, batch))
    check_same(partitions, buffer_bytes, batches)


@pytest.mark.parametrize("partitions", [1, 3, 40, 3000])
@pytest.mark.parametrize("nulls", [False, True])
def test_the_blocks_of_many_rows_are_the_same(partitions: int, nulls: bool) -> None:
    rng = np.random.default_rng(partitions)
    count = 120_000
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 200, count))]).astype(np.int32)
    valid = pa.py_buffer(rng.bytes(count // 8)) if nulls else None
    texts = pa.Array.from_buffers(
        pa.binary(), count, [valid, pa.py_buffer(offsets), pa.py_buffer(rng.bytes(offsets[-1]))]
    )
    keys = pa.Array.from_buffers(pa.int32(), count, [valid, pa.py_buffer(rng.bytes(4 * count))])
    batch = pa.record_batch({"key": keys, "text": texts, "is": pa.array(rng.random(count) < 0.5)})
    numbers = rng.integers(0, partitions, count)
    few = [(numbers[i : i + 700], batch.slice(i, 700)) for i in range(0, count, 700)]
    # Where nothing is sorted, values stay in the portable one that are under what is null.
    clean = batch.take(pa.array(range(count), pa.int64()))
    check_same(partitions, 9 * MIB, [(numbers, batch), *few, (partitions - 1, clean)])


def test_rows_longer_than_a_block_are_the_same() -> None:
    rng = random.Random(1)
    rows = [rng.randbytes(3 * MIB if i % 20 == 7 else 10) for i in range(60)]
    batch = pa.record_batch({"n": pa.array(range(60)), "row": pa.array(rows, pa.binary())})
    check_same(3, 64 * MIB, [(np.arange(60) % 3, batch), (1, batch)])


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int8()),
        pa.struct([("a", pa.int8())]),
        pa.dictionary(pa.int8(), pa.string()),
        pa.null(),
        pa.binary(0),
    ],
)
def test_other_columns_are_for_arrow(kind: pa.DataType) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", kind)])
    with packing_by(PACKING_WAYS[-1]):
        packer = ArrowPacker(opened(3), MIB, schema)
    assert isinstance(packer._sorter, PortableBatchSorter)


def test_a_message_that_arrow_writes_in_another_way_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = column_kinds(pa.schema([("a", pa.int16()), ("b", pa.large_string())]))
    assert kinds == (2, -8)
    layout = message_layout(kinds)
    assert layout is not None
    wrong = layout._replace(rows_at=layout.body_at, body_at=layout.rows_at)
    monkeypatch.setattr(native_batches, "message_layout", lambda _: wrong)
    native_batches._checked_layout.cache_clear()
    schema = pa.schema([("a", pa.int16()), ("b", pa.large_string())])
    with packing_by(PACKING_WAYS[-1]):
        packer = ArrowPacker(opened(3), MIB, schema)
    native_batches._checked_layout.cache_clear()
    assert isinstance(packer._sorter, PortableBatchSorter)
