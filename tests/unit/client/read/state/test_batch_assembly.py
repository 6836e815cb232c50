"""Every type of Arrow, from the packer to the batches of a reader."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrow_arrays import (
    INDEXES,
    Tagged,
    logical,
    random_array,
    random_type,
    related_type,
    says,
)
from support.packed import arrow_packer, blocks_of, merge_of, snapshot_of, verify

from cosco.client.content import Decoded
from cosco.client.content.arrow_binding import binding_schema, refined
from cosco.client.content.arrow_schema import schema_from_bytes
from cosco.client.read.state.batch_assembly import ArrowAssembly, grouped
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import ArrowPacker

MIB = 1 << 20
_Row = tuple[Any, ...]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    pa.register_extension_type(Tagged(pa.int8()))
    yield
    pa.unregister_extension_type("cosco.tests.tagged")


def pack(
    batches: Iterable[pa.RecordBatch], row_partitions: Sequence[Any], **options: Any
) -> dict[int, list[Decoded]]:
    """The blocks of each partition, as a merge gives them."""
    batches = list(batches)
    partitions = 1 + max((int(max(one, default=0)) for one in row_partitions), default=0)
    packer = arrow_packer(batches[0].schema, partitions, **options)
    frames: list[PackedFrame] = []
    for batch, one in zip(batches, row_partitions, strict=True):
        frames += packer.collect_batch(one, batch)
    frames += packer.drain()
    assert packer.buffered_bytes == 0
    found: dict[int, list[Decoded]] = defaultdict(list)
    for partition, blocks in blocks_of(frames, partitions).items():
        merge = merge_of(snapshot_of(partition, [(4, 1, packer.sums())]), partition, [4])
        found[partition] = [one for block in blocks for one in merge.feed(memoryview(block))]
        verify(merge)
    return found


def packed(*columns: Any, **options: Any) -> list[Decoded]:
    """The blocks of one partition, each column a batch of one."""
    batches = [pa.record_batch([one], ["c"]) for one in columns]
    return pack(batches, [np.zeros(len(one), int) for one in columns], **options)[0]


def batches_of(
    blocks: Iterable[Decoded], schema: pa.Schema, max_bytes: int = 4 * MIB
) -> list[pa.RecordBatch]:
    assembly = ArrowAssembly(schema)
    return [
        one for group in grouped(blocks, max_bytes) for one in assembly.batches(group, max_bytes)
    ]


def table_of(blocks: Iterable[Decoded], schema: pa.Schema) -> pa.Table:
    return ArrowAssembly(schema).table(grouped(blocks, 4 * MIB))


def rows_of(batches: Iterable[pa.RecordBatch], *, full: bool = True) -> list[_Row]:
    rows: list[_Row] = []
    for batch in batches:
        batch.validate(full=full)
        rows += zip(*map(logical, batch.columns), strict=True)
    return rows


def values_of(batches: Iterable[pa.RecordBatch]) -> list[Any]:
    return [row[0] for row in rows_of(batches)]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_every_type_nested_in_every_other_comes_back_as_it_was(seed: int) -> None:
    rng = random.Random(seed)
    fields = [pa.field(f"c{i}", random_type(rng, 3)) for i in range(rng.randrange(1, 3))]
    schema = pa.schema([pa.field("row", pa.int32()), *fields])
    partitions = rng.choice([1, 3])
    batches: list[pa.RecordBatch] = []
    row_partitions: list[Any] = []
    wanted: dict[int, list[_Row]] = defaultdict(list)
    for _ in range(rng.randrange(1, 4)):
        count, first = rng.choice([0, 1, 7, 40]), sum(map(len, row_partitions))
        columns = [pa.array(range(first, first + count), pa.int32())]
        columns += [random_array(rng, one.type, count) for one in fields]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        row_partitions.append([rng.randrange(partitions) for _ in range(count)])
        for partition, row in zip(
            row_partitions[-1], rows_of(batches[-1:], full=False), strict=True
        ):
            wanted[partition].append(row)
    found = pack(batches, row_partitions, buffer_bytes=rng.choice([1, 2000, MIB]))
    for partition, all_rows in wanted.items():
        for max_bytes in (1, 500, 4 * MIB):
            made = batches_of(found[partition], schema, max_bytes)
            assert all(one.schema.equals(schema, check_metadata=True) for one in made)
            assert rows_of(made) == all_rows
        assert rows_of(table_of(found[partition], schema).to_batches()) == all_rows


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_mappers_whose_types_differ_in_how_they_lie_and_where_they_have_values(seed: int) -> None:
    rng = random.Random(seed)
    kind = random_type(rng, 3)
    schema: pa.Schema | None = None
    wanted: list[Any] = []
    blocks: list[Decoded] = []
    for _ in range(rng.randrange(1, 4)):
        packer: ArrowPacker | None = None
        frames: list[PackedFrame] = []
        for _ in range(rng.randrange(1, 4)):
            count = rng.choice([0, 1, 7, 40])
            rows = pa.array(range(len(wanted), len(wanted) + count), pa.int32())
            column = random_array(rng, related_type(rng, kind), count)
            batch = pa.record_batch([rows, column], ["row", "c"])
            wanted += logical(column)
            schema = schema or schema_from_bytes(binding_schema(batch.schema))
            finer = refined(schema, batch.schema)
            schema = schema if finer is None else schema_from_bytes(finer)
            if packer is None:
                packer = arrow_packer(schema, 1, buffer_bytes=rng.choice([1, 2000, MIB]))
            frames += packer.bind(schema)
            frames += packer.collect_batch(np.zeros(count, int), batch)
        assert packer is not None
        frames += packer.drain()
        merge = merge_of(snapshot_of(0, [(4, 1, packer.sums())]), 0, [4])
        for block in blocks_of(frames, 1)[0]:
            blocks += merge.feed(memoryview(block))
        verify(merge)
    assert schema is not None
    for max_bytes in (1, 500, 4 * MIB):
        made = batches_of(blocks, schema, max_bytes)
        assert all(one.schema.equals(schema, check_metadata=True) for one in made)
        check_rows(made, wanted)
    check_rows(table_of(blocks, schema).to_batches(), wanted)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "items",
    [
        pa.DictionaryArray.from_arrays(pa.nulls(3, pa.uint8()), pa.nulls(0, pa.int32())),
        pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.nulls(1, pa.int32())),
    ],
    ids=["codes", "runs"],
)
def test_below_lists_that_are_null_nothing_refers_to_values_that_there_are_not(
    items: Any, whole: bool
) -> None:
    """Arrow's `take` puts zeros that are valid below a null of a fixed size."""
    lists = pa.FixedSizeListArray.from_arrays(items, 3, mask=pa.array([True]))
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), lists)
    blocks, schema = packed(runs), pa.schema([("c", runs.type)])
    made = table_of(blocks, schema).to_batches() if whole else batches_of(blocks, schema)
    assert values_of(made) == [None, None]


def check_rows(batches: Iterable[pa.RecordBatch], wanted: list[Any]) -> None:
    rows = rows_of(batches)
    assert [number for number, _ in rows] == list(range(len(wanted)))
    assert all(says(row, one) for (_, row), one in zip(rows, wanted, strict=True))


# --- dictionaries -------------------------------------------------------------------------


def categories(
    values: Sequence[Any],
    index: pa.DataType | None = None,
    *,
    of: pa.DataType | None = None,
    ordered: bool = False,
) -> Any:
    """A row of each category."""
    codes = pa.array(range(len(values)), index or pa.int8())
    return pa.DictionaryArray.from_arrays(codes, pa.array(values, of), ordered=ordered)


def texts(first: int, count: int) -> list[str]:
    return [f"{number:04}" for number in range(first, first + count)]


@pytest.mark.parametrize("index", INDEXES, ids=str)
@pytest.mark.parametrize("counts", [(64, 63), (64, 64), (64, 65), (128, 128)], ids=str)
@pytest.mark.parametrize("max_bytes", [1, 200, 4 * MIB])
def test_dictionaries_of_two_mappers_are_joined_where_codes_reach(
    index: pa.DataType, counts: tuple[int, int], max_bytes: int
) -> None:
    one, other = categories(texts(0, counts[0]), index), categories(texts(500, counts[1]), index)
    blocks = [*packed(one), *packed(other)]
    schema = pa.schema([("c", one.type)])
    made = batches_of(blocks, schema, max_bytes)
    assert all(batch.schema == schema for batch in made)
    assert values_of(made) == [*texts(0, counts[0]), *texts(500, counts[1])]
    if max_bytes == 4 * MIB:
        assert (len(made) > 1) == (index == pa.int8() and sum(counts) > 128)
    table = table_of(blocks, schema)
    joined = table.combine_chunks().column("c")
    assert joined.to_pylist() == values_of(made)
    widened = pa.int16() if index == pa.int8() and sum(counts) > 128 else index
    assert table.schema == pa.schema([("c", pa.dictionary(widened, pa.string()))])


@pytest.mark.parametrize("count", [32_768, 32_769])
def test_two_bytes_of_codes_reach_as_far_as_they_do(count: int) -> None:
    values = texts(0, count)
    one = categories(values[:20_000], pa.int16())
    other = categories(values[20_000:], pa.int16())
    table = table_of([*packed(one), *packed(other)], pa.schema([("c", one.type)]))
    index = pa.int16() if count == 32_768 else pa.int32()
    assert table.schema.field("c").type.index_type == index
    assert table.combine_chunks().column("c").to_pylist() == values


@pytest.mark.parametrize(
    "wrap",
    [
        pa.list_,
        pa.large_list,
        pa.list_view,
        lambda kind: pa.list_(kind, 1),
        lambda kind: pa.struct([("x", kind)]),
        lambda kind: pa.map_(pa.string(), kind),
        lambda kind: pa.map_(kind, pa.int8()),
        lambda kind: pa.list_(pa.struct([("x", pa.list_(kind))])),
        lambda kind: pa.sparse_union([pa.field("x", kind)]),
        lambda kind: pa.dense_union([pa.field("x", kind)]),
        lambda kind: pa.run_end_encoded(pa.int32(), kind),
        lambda kind: pa.dictionary(pa.int16(), pa.list_(kind)),
        Tagged,
    ],
    ids=[
        "list", "large_list", "list_view", "fixed_size_list", "struct", "map", "keys", "deep",
        "sparse", "dense", "runs", "dictionary", "extension",
    ],
)  # fmt: skip
def test_nested_dictionaries_of_two_mappers_are_joined(wrap: Any) -> None:
    kind = wrap(pa.dictionary(pa.int8(), pa.string()))
    one, other = nested(kind, texts(0, 64)), nested(kind, texts(500, 65))
    schema = pa.schema([("c", kind)])
    blocks = [*packed(one), *packed(other)]
    wanted = [*logical(one), *logical(other)]
    made = batches_of(blocks, schema)
    assert values_of(made) == wanted
    assert all(batch.schema == schema for batch in made)
    table = table_of(blocks, schema)
    assert values_of(table.to_batches()) == wanted
    if not isinstance(kind, Tagged | pa.RunEndEncodedType):  # whose codes cannot be widened, or are
        assert [*logical(table.combine_chunks().column("c").chunk(0))] == wanted


def nested(kind: Any, values: list[str]) -> Any:
    """An array of `kind` whose rows have one value each."""
    count = len(values)
    if isinstance(kind, pa.DictionaryType) and pa.types.is_string(kind.value_type):
        return categories(values, kind.index_type)
    if isinstance(kind, Tagged):
        return kind.wrap_array(nested(kind.storage_type, values))
    if isinstance(kind, pa.DictionaryType):
        indices = pa.array(range(count), kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, nested(kind.value_type, values))
    ends = pa.py_buffer(np.arange(count + 1, dtype=np.int32))
    if isinstance(kind, pa.RunEndEncodedType):
        children = [pa.array(range(1, count + 1), pa.int32()), nested(kind.value_type, values)]
        return pa.Array.from_buffers(kind, count, [None], children=children)
    if isinstance(kind, pa.MapType):
        plain = {pa.int8().id: pa.nulls(count, pa.int8()), pa.string().id: pa.array(values)}
        children = [
            plain[one.id] if one.id in plain else nested(one, values)
            for one in (kind.key_type, kind.item_type)
        ]
        entries = pa.Array.from_buffers(
            pa.struct([kind.key_field, kind.item_field]), count, [None], children=children
        )
        return pa.Array.from_buffers(kind, count, [None, ends], children=[entries])
    children = [nested(kind.field(0).type, values)]
    codes = pa.py_buffer(bytes(count))
    longs = pa.py_buffer(np.arange(count + 1, dtype=np.int64))
    ones = pa.py_buffer(np.ones(count, np.int32))
    buffers = {
        pa.ListType: [None, ends],
        pa.LargeListType: [None, longs],
        pa.ListViewType: [None, ends, ones],
        pa.SparseUnionType: [None, codes],
        pa.DenseUnionType: [None, codes, ends],
    }.get(type(kind), [None])
    return pa.Array.from_buffers(kind, count, buffers, children=children)


def test_one_row_with_more_categories_than_the_codes_of_the_exchange_gets_wider_ones() -> None:
    codes = pa.array(range(200), pa.int16())
    row = pa.DictionaryArray.from_arrays(codes, pa.array(texts(0, 200)))
    wide = pa.Array.from_buffers(
        pa.list_(row.type), 1, [None, pa.py_buffer(np.array([0, 200], "i4"))], children=[row]
    )
    schema = pa.schema([("c", pa.list_(pa.dictionary(pa.int8(), pa.string())))])
    (batch,) = batches_of(packed(wide), schema)
    assert batch.column(0).type == pa.list_(pa.dictionary(pa.int16(), pa.string()))
    assert values_of([batch]) == [texts(0, 200)]


def test_missing_values_are_missing_whatever_says_so() -> None:
    values = pa.array(["a", None, "b"])
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2], pa.int8()), values)
    empty = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int8()), values.slice(0, 0))
    schema = pa.schema([("c", column.type)])
    (batch,) = batches_of(packed(column, empty, column.slice(3)), schema)
    assert batch.column(0).to_pylist() == ["a", None, None, "b", None, None, "b"]
    assert batch.column(0).null_count == 4
    assert batch.column(0).dictionary.null_count == 0  # which pandas refuses
    assert batch.to_pandas()["c"].cat.categories.to_list() == ["a", "b"]


def test_declared_categories_are_there_though_no_row_uses_them() -> None:
    declared = pa.array(["low", "middle", "high"])
    column = pa.DictionaryArray.from_arrays(pa.array([2], pa.int8()), declared)
    schema = pa.schema([("c", column.type)])
    (batch,) = batches_of([*packed(column), *packed(column)], schema)
    assert batch.column(0).dictionary.equals(declared)


def test_values_that_are_equal_to_the_bit_are_one_category() -> None:
    one, other = [0.0, -0.0, float("nan")], [-0.0, float("nan"), 1.0, 0.0]
    columns = [categories(one), categories(other)]
    schema = pa.schema([("c", columns[0].type)])
    for blocks in ([*packed(columns[0]), *packed(columns[1])], packed(*columns)):
        (batch,) = batches_of(blocks, schema)
        assert len(batch.column(0).dictionary) == 4
        assert values_of([batch]) == logical(pa.array([*one, *other]))


# --- ordered dictionaries -----------------------------------------------------------------


def order_of(array: Any) -> list[Any]:
    return list(array.dictionary.to_pylist())


def test_parts_of_one_long_ordered_dictionary_come_in_its_order() -> None:
    values = [f"{number * 7919 % 100_003:06}" * 20 for number in range(10_000)]
    column = categories(values, pa.int32(), ordered=True)
    schema = pa.schema([("c", column.type)])
    picked = pa.array([9000, 5, 7000], pa.int32()), pa.array([6000, 8000], pa.int32())
    first, second = (
        pa.DictionaryArray.from_arrays(one, column.dictionary, ordered=True) for one in picked
    )
    blocks = [*packed(first), *packed(second)]
    assert sum(len(block.content) for block in blocks) < 10_000
    (batch,) = batches_of(blocks, schema)
    assert batch.column(0).type.ordered
    assert order_of(batch.column(0)) == [values[i] for i in (5, 6000, 7000, 8000, 9000)]
    table = table_of(packed(column), schema)
    assert order_of(table.column("c").chunk(0)) == values


def test_ordered_dictionaries_that_agree_are_joined() -> None:
    one, other = (categories(list(text), ordered=True) for text in ("adx", "bdfz"))
    (batch,) = batches_of([*packed(one), *packed(other)], pa.schema([("c", one.type)]))
    order = "".join(order_of(batch.column(0)))
    assert sorted(order) == list("abdfxz")
    assert all(
        order.index(low) < order.index(high)
        for text in ("adx", "bdfz")
        for low, high in pairwise(text)
    )


def test_ordered_dictionaries_that_contradict_each_other_stay_apart() -> None:
    one, other = (categories(list(text), ordered=True) for text in ("abc", "cba"))
    schema = pa.schema([("c", one.type)])
    together = [*packed(one, other), *packed(one)]
    for batches in (batches_of(together, schema), table_of(together, schema).to_batches()):
        assert values_of(batches) == list("abccbaabc")
        assert len(batches) > 1
    apart = batches_of([*packed(one), *packed(other)], schema, max_bytes=1)
    for batch in apart:
        assert order_of(batch.column(0)) in (list("abc"), list("cba"))


def test_many_rows_of_two_mappers_whose_orders_contradict_come_in_few_batches() -> None:
    codes = pa.array(np.arange(10_000, dtype=np.int8) % 2)
    one, other = (
        pa.DictionaryArray.from_arrays(codes, pa.array(list(text)), ordered=True)
        for text in ("ab", "ba")
    )
    batches = batches_of([*packed(one), *packed(other)], pa.schema([("c", one.type)]))
    assert values_of(batches) == [*one.to_pylist(), *other.to_pylist()]
    assert [order_of(batch.column(0)) for batch in batches] == [list("ab"), list("ba")]


# --- list views and runs ------------------------------------------------------------------


def test_list_views_that_share_values_take_a_bounded_buffer() -> None:
    values = pa.array([bytes(1000)] * 1000)
    count = 2000  # rows of 1 MB that lie in 1 MB
    starts = pa.py_buffer(np.zeros(count, "i4"))
    sizes = pa.py_buffer(np.full(count, 1000, "i4"))
    column = pa.Array.from_buffers(
        pa.list_view(pa.binary()), count, [None, starts, sizes], children=[values]
    )
    batch = pa.record_batch([column], ["c"])
    packer = arrow_packer(batch.schema, 1, buffer_bytes=4 * MIB)
    before = pa.total_allocated_bytes()
    frames = packer.collect_batch(np.zeros(count, int), batch)
    for _ in range(20):
        next(frames)
        assert pa.total_allocated_bytes() - before < 32 * MIB
        assert packer.buffered_bytes < 16 * MIB


def test_a_long_run_inside_a_row_takes_a_bounded_buffer() -> None:
    runs = pa.Array.from_buffers(
        pa.run_end_encoded(pa.int32(), pa.int8()),
        100_000_000,
        [None],
        children=[pa.array([100_000_000], pa.int32()), pa.array([7], pa.int8())],
    )
    ends = pa.py_buffer(np.arange(0, 100_000_001, 1_000_000, dtype="i4"))
    column = pa.Array.from_buffers(pa.list_(runs.type), 100, [None, ends], children=[runs])
    batch = pa.record_batch([column], ["c"])
    packer = arrow_packer(batch.schema, 1, buffer_bytes=4 * MIB)
    frames = packer.collect_batch(np.zeros(100, int), batch)
    for _ in range(5):
        next(frames)
        assert packer.buffered_bytes < 16 * MIB


def test_more_rows_than_runs_can_count_come_in_several_batches() -> None:
    kind = pa.run_end_encoded(pa.int16(), pa.string())
    column = pa.Array.from_buffers(
        kind, 30_000, [None], children=[pa.array([30_000], pa.int16()), pa.array(["a"])]
    )
    schema = pa.schema([("c", kind)])
    blocks = packed(column, column)
    for batches in (batches_of(blocks, schema), table_of(blocks, schema).to_batches()):
        assert sum(batch.num_rows for batch in batches) == 60_000
        assert all(batch.schema == schema for batch in batches)
        assert set(values_of(batches)) == {"a"}


def test_a_row_whose_own_dictionary_is_longer_than_a_block() -> None:
    values = [f"{number:06}" * 50 for number in range(20_000)]  # 6 MB
    inside = categories(values, pa.int32(), ordered=True)
    ends = pa.py_buffer(np.array([0, 20_000], "i4"))
    column = pa.Array.from_buffers(pa.list_(inside.type), 1, [None, ends], children=[inside])
    assert values_of(batches_of(packed(column), pa.schema([("c", column.type)]))) == [values]
