from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed import (
    arrow_packer,
    blocks_of,
    merge_of,
    row_packer,
    rows_of,
    snapshot_of,
    table_of,
    verify,
)

from cosco.client.write.state import framing
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import ArrowPacker
from cosco.errors import (
    CoscoError,
    InvalidArgument,
    InvalidRow,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.format.block import MAX_CONTENT_BYTES, walk_blocks
from cosco.format.frame import TARGET_FRAME_BYTES
from cosco.protocol.records import AttemptSums

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("packing_way")


def read_back(blocks: Iterable[bytes], partition: int, sums: AttemptSums) -> list[bytes]:
    """What a reader of the partition gets from these blocks, in their order."""
    merge = merge_of(snapshot_of(partition, [(4, 1, sums)]), partition, [4])
    rows = [row for block in blocks for row in rows_of(merge.feed(memoryview(block)))]
    verify(merge)
    return rows


def rows_as(kind: str, rows: list[bytes]) -> Any:
    """Rows in one of the forms that collect_batch takes."""
    padded = [b"left out", *rows, b"left out"]
    forms: dict[str, Any] = {
        "list": rows,
        "views": [memoryview(bytearray(row)) for row in rows],
        "objects": np.array([*rows, None], object)[:-1],
        "binary": pa.array(rows, pa.binary()),
        "large": pa.array(padded, pa.large_binary()).slice(1, len(rows)),
        "sliced": pa.array(padded, pa.binary()).slice(1, len(rows)),
        "view": pa.array(padded, pa.binary_view()).slice(1, len(rows)),
        "chunked": pa.chunked_array([rows[:3], [], rows[3:]], pa.binary()),
    }
    return forms[kind]


def row_partitions_as(one: bool, rng: random.Random, partitions: int, rows: int) -> Any:
    """What to give as the partitions of some rows, and the partition of each."""
    if not one:
        each = [rng.randrange(partitions) for _ in range(rows)]
        return each, each
    partition = rng.randrange(partitions)
    return rng.choice([partition, np.uint16(partition)]), [partition] * rows


FORMS = ["list", "views", "objects", "binary", "large", "sliced", "view", "chunked"]


# --- rows as bytes ------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    partitions=st.sampled_from([1, 7, 1000]),
    buffer_bytes=st.sampled_from([1, 700, 5000, 8 * MIB]),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["collect", "array", "one"]), st.sampled_from(FORMS), st.integers(0, 60)
        ),
        max_size=8,
    ),
    equal=st.booleans(),
)
def test_every_row_comes_back_once_and_in_order(
    seed: int, partitions: int, buffer_bytes: int, calls: list[tuple[str, str, int]], equal: bool
) -> None:
    rng = random.Random(seed)
    packer = row_packer(partitions, buffer_bytes=buffer_bytes)
    wanted: dict[int, list[bytes]] = defaultdict(list)
    frames: list[PackedFrame] = []
    for call, form, count in calls:
        rows = [rng.randbytes(12 if equal else rng.choice([0, 1, 40, 300])) for _ in range(count)]
        given, numbers = row_partitions_as(call == "one", rng, partitions, count)
        for number, row in zip(numbers, rows, strict=True):
            wanted[number].append(row)
        if call == "collect":
            for number, row in zip(numbers, rows, strict=True):
                if packer.collect(number, row):
                    frames += packer.join_pending()
        else:
            frames += packer.collect_batch(given, rows_as(form, rows))
        assert packer.buffered_bytes <= max(buffer_bytes, 1)
    frames += packer.drain()
    assert packer.buffered_bytes == 0
    assert list(packer.drain()) == []
    sums, blocks = packer.sums(), blocks_of(frames, partitions)
    assert sums.partitions.tolist() == sorted(wanted)
    assert sums.rows.tolist() == [len(wanted[p]) for p in sorted(wanted)]
    assert sums.raw_bytes.tolist() == [sum(map(len, wanted[p])) for p in sorted(wanted)]
    assert sums.stored_bytes.tolist() == [sum(map(len, blocks[p])) for p in sorted(wanted)]
    for partition, rows in wanted.items():
        assert read_back(blocks[partition], partition, sums) == rows


@pytest.mark.parametrize("form", ["collect", "list", "binary", "large", "view", "one"])
@pytest.mark.parametrize("buffer_bytes", [1000, 64 * MIB])
def test_rows_longer_than_a_block_come_in_fragments(form: str, buffer_bytes: int) -> None:
    rng = random.Random(1)
    sizes = [10, 3 * MIB, 0, MAX_CONTENT_BYTES - 4, MAX_CONTENT_BYTES - 3, MAX_CONTENT_BYTES, 5]
    rows = [rng.randbytes(size) for size in sizes]
    packer = row_packer(1, buffer_bytes=buffer_bytes)
    frames: list[PackedFrame] = []
    if form == "collect":
        for row in rows:
            if packer.collect(0, row):
                frames += packer.drain()
    elif form == "one":
        frames += packer.collect_batch(0, rows_as("binary", rows))
    else:
        frames += packer.collect_batch([0] * len(rows), rows_as(form, rows))
    frames += packer.drain()
    assert read_back(blocks_of(frames, 1)[0], 0, packer.sums()) == rows


def test_a_row_of_64_mebibytes_passes() -> None:
    row = bytes(64 * MIB - 1) + b"!"
    packer = row_packer(1)
    assert packer.collect(0, row)
    frames = list(packer.drain())
    assert packer.sums().raw_bytes.tolist() == [64 * MIB]
    assert read_back(blocks_of(frames, 1)[0], 0, packer.sums()) == [row]


def test_a_row_with_more_fragments_than_there_are_numbers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(framing, "MAX_ROW_BYTES", 2 * MIB)
    packer = row_packer(1)
    packer.collect(0, bytes(2 * MIB + 1))
    # Not InvalidRow, which says that nothing was taken.
    with pytest.raises(CoscoError, match="the limit is 2097152") as raised:
        list(packer.drain())
    assert not isinstance(raised.value, InvalidRow)


@pytest.mark.parametrize("width", [1, 16, 300_000])
def test_fixed_size_binary_is_taken(width: int) -> None:
    rows = [bytes([i]) * width for i in range(20)]
    array = pa.array([bytes(width), *rows], pa.binary(width)).slice(1)
    packer = row_packer(7)
    frames = [*packer.collect_batch(np.arange(20) % 7, array), *packer.drain()]
    blocks = blocks_of(frames, 7)
    for partition in range(7):
        assert read_back(blocks[partition], partition, packer.sums()) == rows[partition::7]


def test_nothing_of_the_arguments_is_kept() -> None:
    packer = row_packer(3)
    data, numbers = bytearray(b"abcdef"), np.array([0, 1, 2], np.int64)
    array = pa.Array.from_buffers(
        pa.binary(), 3, [None, pa.py_buffer(np.array([0, 2, 4, 6], np.int32)), pa.py_buffer(data)]
    )
    frames = list(packer.collect_batch(numbers, array))
    packer.collect(0, memoryview(data))  # type: ignore[arg-type]
    frames += packer.collect_batch(2, array)
    data[:], numbers[:] = b"------", 0
    frames += packer.drain()
    blocks = blocks_of(frames, 3)
    found = [read_back(blocks[p], p, packer.sums()) for p in range(3)]
    assert found == [[b"ab", b"abcdef"], [b"cd"], [b"ef", b"ab", b"cd", b"ef"]]


def test_blocks_and_frames_are_long_when_there_is_much() -> None:
    rng = np.random.default_rng(1)
    count = 100_000
    array = pa.array([rng.bytes(100) for _ in range(count)])
    packer = row_packer(6, buffer_bytes=32 * MIB)
    frames = [*packer.collect_batch(rng.integers(0, 6, count), array), *packer.drain()]
    contents = [
        header.raw_bytes
        for frame in frames
        for _, header in walk_blocks(memoryview(b"".join(frame.parts)))
    ]
    assert min(contents) >= MAX_CONTENT_BYTES // 2
    assert sorted({frame.range_index for frame in frames}) == [0, 1, 2]
    last_of_range = [a.range_index != b.range_index for a, b in pairwise(frames)]
    for frame, last in zip(frames, [*last_of_range, True], strict=True):
        assert last or frame.body_bytes >= TARGET_FRAME_BYTES


@pytest.mark.parametrize("numbers", [1, [1] * 20_000], ids=["one", "array"])
def test_a_large_batch_never_fills_more_than_the_buffer(numbers: Any) -> None:
    packer = row_packer(2, buffer_bytes=100_000)
    rows = [bytes(90)] * 20_000
    most, rows_out = 0, 0
    for frame in packer.collect_batch(numbers, rows):
        most = max(most, packer.buffered_bytes)
        for _, header in walk_blocks(memoryview(b"".join(frame.parts))):
            assert header.raw_bytes <= 100_000
            rows_out += header.rows
    assert most <= 101_000
    assert packer.sums().rows.sum() == rows_out
    assert rows_out > 19_000


def test_small_batches_gather_in_the_buffer() -> None:
    packer = row_packer(2, buffer_bytes=MIB)
    for _ in range(50):
        assert list(packer.collect_batch([0, 1], [bytes(50), bytes(60)])) == []
        packer.collect(1, b"between")
    assert 0 < packer.buffered_bytes < MIB
    frames = list(packer.drain())
    assert packer.sums().rows.sum() == 150
    assert sum(frame.blocks for frame in frames) <= 4


def test_an_empty_row_is_not_overtaken_by_a_long_one() -> None:
    rows = [b"", random.Random(1).randbytes(6 * MIB), b"x"]
    packer = row_packer(1, buffer_bytes=16 * MIB)
    frames = [*packer.collect_batch([0, 0, 0], rows), *packer.drain()]
    assert read_back(blocks_of(frames, 1)[0], 0, packer.sums()) == rows


@pytest.mark.parametrize("length", [MIB // 3, MIB - 100, MIB, MIB + 1])
def test_a_row_nearly_as_long_as_the_buffer_follows_pending_ones(length: int) -> None:
    rng = random.Random(length)
    rows = [*(rng.randbytes(100) for _ in range(20)), rng.randbytes(length), b"x"]
    packer = row_packer(1, buffer_bytes=MIB)
    frames: list[PackedFrame] = []
    for row in rows:
        if packer.collect(0, row):
            frames += packer.join_pending()
    frames += packer.drain()
    assert read_back(blocks_of(frames, 1)[0], 0, packer.sums()) == rows


def test_collect_says_when_rows_are_to_be_joined() -> None:
    packer = row_packer(2, buffer_bytes=MIB)
    taken = 1
    while not packer.collect(1, bytes(100)):
        taken += 1
    assert taken * 100 <= MIB // 4
    assert list(packer.join_pending()) == []
    assert packer.buffered_bytes >= taken * 100
    assert not packer.collect(1, b"short")
    assert packer.collect(1, bytes(MIB // 4))


@pytest.mark.parametrize(("partitions", "length"), [(2, 100), (5000, 10), (300, 5000)])
def test_rows_collected_one_by_one_fill_the_buffer_and_no_more(
    partitions: int, length: int
) -> None:
    rng = random.Random(1)
    packer = row_packer(partitions, buffer_bytes=MIB)
    frames: list[PackedFrame] = []
    while not frames:
        if packer.collect(rng.randrange(partitions), bytes(rng.randrange(2 * length))):
            frames += packer.join_pending()
        assert packer.buffered_bytes <= MIB
        assert sum(map(len, packer.pending.pairs[1::2])) <= MIB // 4 + 2 * length
    assert packer.sums().raw_bytes.sum() > MIB // 8


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [-1, 7, 2**40, np.int64(7), np.int8(-1)])
def test_a_partition_out_of_range_is_refused(number: Any) -> None:
    packer = row_packer(7)
    for call in (
        lambda: packer.collect(number, b""),
        lambda: list(packer.collect_batch([0, number], [b"", b""])),
        lambda: list(packer.collect_batch(np.array([0, number]), [b"", b""])),
        lambda: list(packer.collect_batch(number, [b"", b""])),
    ):
        with pytest.raises(PartitionOutOfRange, match="it has partitions 0 to 6") as raised:
            call()
        assert raised.value.partition == int(number)
    assert packer.buffered_bytes == 0


@pytest.mark.parametrize("number", [True, 1.0, "1", None, np.float64(1), np.bool_(1)])
def test_a_partition_that_is_no_integer_is_refused(number: Any) -> None:
    packer = row_packer(7)
    packer.collect(1, b"")  # True and 1.0 equal the key of this partition
    with pytest.raises(InvalidRow, match="a partition is an integer"):
        packer.collect(number, b"")
    with pytest.raises(InvalidRow, match="a partition is an integer"):
        list(packer.collect_batch([0, number], [b"", b""]))
    with pytest.raises(InvalidRow, match=r"an integer|one integer|of integers"):
        list(packer.collect_batch(number, [b"", b""]))
    assert len(list(packer.drain())) == packer.sums().rows.sum() == 1


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3)])
def test_numpy_integers_are_partitions(number: Any) -> None:
    packer = row_packer(7)
    packer.collect(number, b"row")
    frames = [*packer.collect_batch([number], [b"next"]), *packer.drain()]
    assert read_back(blocks_of(frames, 7)[3], 3, packer.sums()) == [b"row", b"next"]


@pytest.mark.parametrize(
    "numbers",
    [
        np.array([0, 1], np.uint64),
        np.array([0, 1], object),
        pa.array([0, 1], pa.int8()),
        pa.chunked_array([[0], [1]]),
        (0, 1),
        range(2),
    ],
)
def test_forms_of_partitions(numbers: Any) -> None:
    packer = row_packer(2)
    frames = [*packer.collect_batch(numbers, [b"a", b"b"]), *packer.drain()]
    assert packer.sums().rows.tolist() == [1, 1]
    assert read_back(blocks_of(frames, 2)[1], 1, packer.sums()) == [b"b"]


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        (np.array([0.0, 1.0]), InvalidRow),
        (np.array([False, True]), InvalidRow),
        (np.array([[0], [1]]), InvalidRow),
        (np.array([0, 1.5], object), InvalidRow),
        (pa.array([0, None]), InvalidRow),
        (pa.array([0.0, 1.0]), InvalidRow),
        ("01", InvalidRow),
        (7, PartitionOutOfRange),
        ([0], InvalidArgument),
        ([0, 1, 1], InvalidArgument),
        ([], InvalidArgument),
        ([0, 2**64], PartitionOutOfRange),
    ],
)
def test_bad_partitions_are_refused_before_anything_is_taken(
    numbers: Any, error: type[CoscoError]
) -> None:
    packer = row_packer(2)
    with pytest.raises(error):
        list(packer.collect_batch(numbers, [b"a", b"b"]))
    assert packer.buffered_bytes == 0
    assert list(packer.drain()) == []


@pytest.mark.parametrize("row", ["text", 5, None, [1], np.int64(5)])
def test_a_row_that_is_not_bytes_like_is_refused(row: Any) -> None:
    packer = row_packer(2)
    with pytest.raises(InvalidRow, match="a row is bytes-like, not"):
        packer.collect(0, row)
    with pytest.raises(InvalidRow, match="a row is bytes-like, not"):
        list(packer.collect_batch([0, 0], [b"good", row]))
    assert packer.buffered_bytes == 0


@pytest.mark.parametrize(
    "rows",
    [
        pa.array([b"a", None]),
        pa.array(["a", "b"]),
        pa.array([1, 2]),
        pa.chunked_array([[b"a"], [None]], pa.binary()),
        np.array([b"a", b"b"]),
        b"ab",
        iter([b"a", b"b"]),
    ],
)
def test_bad_batches_of_rows_are_refused(rows: Any) -> None:
    packer = row_packer(2)
    with pytest.raises(InvalidRow):
        list(packer.collect_batch([0, 0], rows))
    assert packer.buffered_bytes == 0


@pytest.mark.parametrize(
    "row", [bytearray(b"abcd"), memoryview(b"a.b.c.d.")[::2], np.frombuffer(b"abcd", np.uint16)]
)
def test_bytes_like_rows_are_taken_by_their_bytes(row: Any) -> None:
    packer = row_packer(1)
    packer.collect(0, row)
    frames = [*packer.collect_batch([0], [row]), *packer.drain()]
    assert read_back(blocks_of(frames, 1)[0], 0, packer.sums()) == [b"abcd"] * 2


def test_kinds_of_rows_do_not_mix() -> None:
    batch = pa.record_batch({"a": [1]})
    with pytest.raises(SchemaMismatch, match="takes rows as bytes"):
        list(row_packer(1).collect_batch([0], batch))
    with pytest.raises(SchemaMismatch, match="takes Arrow batches, not list"):
        list(arrow_packer(batch.schema, 1).collect_batch([0], [b"row"]))


# --- Arrow rows ---------------------------------------------------------------------------


def read_batches(
    blocks: Iterable[bytes], partition: int, packer: ArrowPacker, schema: pa.Schema
) -> pa.Table:
    merge = merge_of(snapshot_of(partition, [(4, 1, packer.sums())]), partition, [4])
    decoded = [one for block in blocks for one in merge.feed(memoryview(block))]
    verify(merge)
    table = table_of(decoded, schema)
    table.validate(full=True)
    return table


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    partitions=st.sampled_from([1, 7, 1000]),
    buffer_bytes=st.sampled_from([1, 3000, 8 * MIB]),
    calls=st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=4),
    as_table=st.booleans(),
)
def test_every_arrow_row_comes_back_once_and_in_order(
    seed: int, partitions: int, buffer_bytes: int, calls: list[tuple[bool, int]], as_table: bool
) -> None:
    rng = random.Random(seed)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("list", pa.list_(pa.int8()))])
    packer = arrow_packer(schema, partitions, buffer_bytes=buffer_bytes)
    wanted: dict[int, list[Any]] = defaultdict(list)
    frames: list[PackedFrame] = []
    for one, count in calls:
        rows = [
            {"id": i, "text": rng.choice([None, "", "word" * 30]), "list": [1] * rng.randrange(4)}
            for i in range(count)
        ]
        given, numbers = row_partitions_as(one, rng, partitions, count)
        for number, row in zip(numbers, rows, strict=True):
            wanted[number].append(row)
        batch: Any = pa.RecordBatch.from_pylist(rows, schema)
        if as_table:
            batch = pa.concat_tables([pa.Table.from_batches([batch.slice(0, 9), batch.slice(9)])])
        frames += packer.collect_batch(given, batch)
    frames += packer.drain()
    assert packer.buffered_bytes == 0
    blocks = blocks_of(frames, partitions)
    assert packer.sums().rows.sum() == sum(map(len, wanted.values()))
    for partition, rows in wanted.items():
        assert read_batches(blocks[partition], partition, packer, schema).to_pylist() == rows


def test_arrow_rows_of_very_different_lengths() -> None:
    rng = random.Random(2)
    rows = [rng.randbytes(3 * MIB if i % 50 == 7 else 10) for i in range(200)]
    batch = pa.record_batch({"row": pa.array(rows, pa.binary())})
    for buffer_bytes in (1000, 64 * MIB):
        packer = arrow_packer(batch.schema, 3, buffer_bytes=buffer_bytes)
        frames = [
            *packer.collect_batch(np.arange(200) % 2, batch),
            *packer.collect_batch(2, batch),
            *packer.drain(),
        ]
        blocks = blocks_of(frames, 3)
        found = read_batches(blocks[2], 2, packer, batch.schema)
        assert found.column("row").to_pylist() == rows
        for partition in (0, 1):
            found = read_batches(blocks[partition], partition, packer, batch.schema)
            assert found.column("row").to_pylist() == rows[partition::2]


def test_arrow_blocks_are_long_when_there_is_much() -> None:
    count = 200_000
    batch = pa.record_batch({"a": np.arange(count), "b": np.random.default_rng(1).random(count)})
    packer = arrow_packer(batch.schema, 2, buffer_bytes=32 * MIB)
    frames = [*packer.collect_batch(np.arange(count) % 2, batch), *packer.drain()]
    sizes = [
        header.raw_bytes
        for frame in frames
        for _, header in walk_blocks(memoryview(b"".join(frame.parts)))
    ]
    assert min(sizes) >= MAX_CONTENT_BYTES // 2


def test_batches_gather_though_a_column_has_no_type_yet() -> None:
    """Before each batch a writer binds the schema that it saw last, which is seldom a new one."""
    schema = pa.schema([("a", pa.int64()), ("b", pa.null())])
    finer = pa.schema([("a", pa.int64()), ("b", pa.string())])
    packer = arrow_packer(schema, 1)
    frames: list[PackedFrame] = []
    for _ in range(10):
        frames += packer.bind(schema)
        frames += packer.collect_batch([0] * 4, pa.table({"a": range(4), "b": pa.nulls(4)}))
    assert not frames
    frames += packer.bind(finer)  # what came before is told by its blocks themselves
    assert len(frames) == 1
    frames += packer.bind(finer)
    frames += packer.collect_batch([0] * 4, pa.table({"a": range(4), "b": ["x"] * 4}))
    assert len(blocks_of([*frames, *packer.drain()], 1)[0]) == 2


def test_nothing_of_an_arrow_batch_is_kept() -> None:
    data = np.arange(4, dtype=np.int64)
    batch = pa.RecordBatch.from_arrays(
        [pa.Array.from_buffers(pa.int64(), 4, [None, pa.py_buffer(data)])], ["a"]
    )
    packer = arrow_packer(batch.schema, 1)
    frames = list(packer.collect_batch(np.zeros(4, int), batch))
    frames += packer.collect_batch(0, batch)
    data[:] = -1
    frames += packer.drain()
    found = read_batches(blocks_of(frames, 1)[0], 0, packer, batch.schema)
    assert found.column("a").to_pylist() == [0, 1, 2, 3] * 2


def test_rows_without_columns_are_counted() -> None:
    schema = pa.schema([])
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * 10, pa.struct([])))
    packer = arrow_packer(schema, 3)
    numbers = np.arange(10) % 3
    frames = [
        *packer.collect_batch(numbers, batch),
        *packer.collect_batch(numbers, pa.table({"a": numbers}).select([])),
        *packer.collect_batch(2, batch),
        *packer.drain(),
    ]
    assert packer.sums().rows.tolist() == [8, 6, 16]
    assert set(blocks_of(frames, 3)) == {0, 1, 2}


def test_another_schema_is_refused_with_the_first_difference() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())], metadata={"kept": "not"})
    packer = arrow_packer(schema, 1)
    good = pa.record_batch({"a": [1], "b": ["x"]}).replace_schema_metadata({"other": "metadata"})
    list(packer.collect_batch([0], good))
    buffered = packer.buffered_bytes
    for bad, difference in [
        (pa.record_batch({"a": [1]}), "it has no 'b'"),
        (pa.record_batch({"a": [1], "c": ["x"]}), "it has no 'b'; the exchange has no 'c'"),
        (pa.table({"a": [1.0], "b": ["x"]}), "column 'a' is double instead of int64"),
    ]:
        with pytest.raises(SchemaMismatch, match=difference):
            list(packer.collect_batch([0], bad))
    assert packer.buffered_bytes == buffered


# --- dictionaries -------------------------------------------------------------------------


def categories(values: list[str], index: pa.DataType, *, ordered: bool = False) -> pa.Array:
    indices = pa.array(range(len(values)), index)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values), ordered=ordered)


def pack_batches(batches: list[pa.RecordBatch]) -> list[Any]:
    """The single column's values after a way through partition 0."""
    schema = batches[0].schema
    packer = arrow_packer(schema, 1, buffer_bytes=8 * MIB)
    frames: list[PackedFrame] = []
    for batch in batches:
        frames += packer.collect_batch(np.zeros(batch.num_rows, int), batch)
    frames += packer.drain()
    table = read_batches(blocks_of(frames, 1)[0], 0, packer, schema)
    return list(table.column(0).to_pylist())


@pytest.mark.parametrize("ordered", [False, True])
def test_dictionaries_of_many_batches_that_are_not_one(ordered: bool) -> None:
    batches = [
        pa.record_batch(
            {"c": categories([f"{b}-{i}" for i in range(100)], pa.int8(), ordered=ordered)}
        )
        for b in range(3)  # 300 values together, more than int8 can number
    ]
    wanted = [value for batch in batches for value in batch.column(0).to_pylist()]
    assert pack_batches(batches) == wanted


@pytest.mark.parametrize("ordered", [False, True])
def test_a_dictionary_longer_than_a_block_is_cut_to_what_is_used(ordered: bool) -> None:
    values = [f"{i:06}" * 50 for i in range(20_000)]
    batch = pa.record_batch({"c": categories(values, pa.int32(), ordered=ordered)})
    assert pack_batches([batch]) == values


def test_the_same_dictionary_with_every_batch_is_buffered_once() -> None:
    batch = pa.record_batch({"c": categories([f"{i:06}" * 500 for i in range(100)], pa.int8())})
    packer = arrow_packer(batch.schema, 1, buffer_bytes=8 * MIB)
    list(packer.collect_batch(np.zeros(100, int), batch))
    first = packer.buffered_bytes
    for _ in range(9):
        list(packer.collect_batch(np.zeros(100, int), batch))
    assert packer.buffered_bytes < 2 * first


# --- attempts that are wanted in part -----------------------------------------------------


def of_range_1(partition: int) -> bool:
    """Whether a partition of 7, in 3 ranges of 3, 3 and 1, is in the second one."""
    return 3 <= partition < 6


@pytest.mark.parametrize("form", [None, *FORMS])
def test_rows_of_ranges_that_are_not_wanted_are_dropped(form: str | None) -> None:
    rng = random.Random(5)
    packer = row_packer(7, buffer_bytes=5000, wanted={1})
    rows = [rng.randbytes(rng.randrange(40)) for _ in range(500)]
    numbers = [rng.randrange(7) for _ in rows]
    frames: list[PackedFrame] = []
    if form is None:
        for partition, row in zip(numbers, rows, strict=True):
            if packer.collect(partition, row):
                frames += packer.drain()
    else:
        frames += packer.collect_batch(numbers, rows_as(form, rows))
    frames += packer.drain()
    blocks = blocks_of(frames, 7)
    assert sorted(blocks) == packer.sums().partitions.tolist() == [3, 4, 5]
    kept = [row for n, row in zip(numbers, rows, strict=True) if of_range_1(n)]
    assert packer.sums().rows.sum() == len(kept)
    assert packer.sums().raw_bytes.sum() == sum(map(len, kept))
    for partition in blocks:
        expected = [row for n, row in zip(numbers, rows, strict=True) if n == partition]
        assert read_back(blocks[partition], partition, packer.sums()) == expected


def test_a_partial_attempt_checks_all_that_it_drops() -> None:
    packer = row_packer(7, wanted={1})
    row: Any = "text"
    with pytest.raises(InvalidRow):
        packer.collect(0, row)
    with pytest.raises(PartitionOutOfRange):
        packer.collect(7, b"x")
    with pytest.raises(PartitionOutOfRange):
        list(packer.collect_batch([0, 7], [b"x", b"y"]))
    with pytest.raises(PartitionOutOfRange):
        list(packer.collect_batch(7, [b"x", b"y"]))
    with pytest.raises(InvalidRow):
        list(packer.collect_batch(0, [b"x", row]))
    with pytest.raises(InvalidRow):
        list(packer.collect_batch([0, 1], [b"x", row]))
    assert packer.buffered_bytes == 0


def test_a_partial_attempt_that_keeps_nothing_makes_no_frames() -> None:
    packer = row_packer(7, wanted={1})
    assert not packer.collect(0, b"x")
    assert [*packer.collect_batch([0, 6], pa.array([b"x", b"y"])), *packer.drain()] == []
    assert [*packer.collect_batch(6, pa.array([b"x", b"y"])), *packer.drain()] == []
    assert not len(packer.sums().partitions)


@pytest.mark.parametrize("tables", [False, True])
def test_batches_of_ranges_that_are_not_wanted_are_dropped(tables: bool) -> None:
    schema = pa.schema([("n", pa.int64())])
    packer = arrow_packer(schema, 7, buffer_bytes=5000, wanted={1})
    numbers = np.arange(700) % 7
    batch = pa.record_batch({"n": np.arange(700)}, schema)
    given_rows = pa.Table.from_batches([batch[:100], batch[100:]]) if tables else batch
    frames = [*packer.collect_batch(numbers, given_rows), *packer.drain()]
    assert sorted(blocks_of(frames, 7)) == packer.sums().partitions.tolist() == [3, 4, 5]
    assert packer.sums().rows.sum() == 300
    for unwanted in (np.zeros(10, np.int64), 0):
        assert [*packer.collect_batch(unwanted, batch[:10]), *packer.drain()] == []
    list(packer.collect_batch(4, given_rows))
    list(packer.drain())
    assert packer.sums().rows.tolist() == [100, 800, 100]
    with pytest.raises(SchemaMismatch):
        list(packer.collect_batch([0], pa.record_batch({"m": [1]})))
