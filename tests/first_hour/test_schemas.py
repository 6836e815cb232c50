"""Parts whose schemas are not quite the same."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from support.arrow_parts import read, shuffled, write

from cosco import (
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    InvalidArgument,
    InvalidRow,
    SchemaMismatch,
)
from cosco.protocol.api_limits import MAX_SCHEMA_BYTES

TIGHT = pa.schema([pa.field("a", pa.int64(), nullable=False)])
LOOSE = pa.schema([("a", pa.int64())])


def values(table: pa.Table) -> list[Any]:
    return sorted(table.column("a").to_pylist(), key=lambda one: (one is None, one))


@pytest.mark.parametrize(("first", "then"), [(TIGHT, LOOSE), (LOOSE, TIGHT)])
def test_a_column_is_not_null_in_one_part_only(
    name: str, metadata: str, first: pa.Schema, then: pa.Schema
) -> None:
    table = shuffled(name, metadata, pa.table({"a": [1]}, first), pa.table({"a": [2]}, then))
    assert table.schema == first
    assert values(table) == [1, 2]


@pytest.mark.parametrize(
    "part",
    [
        pa.table({"a": [3, None]}),
        pa.table({"a": pa.nulls(2)}),
        pa.table({"a": [3, None]}, TIGHT),  # Arrow makes it without a word
    ],
)
def test_nulls_are_written_where_there_are_to_be_none(
    name: str, metadata: str, part: pa.Table
) -> None:
    with CoscoExchange(name, 1, schema=TIGHT, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            with pytest.raises(
                InvalidRow, match=r"column 'a' has . missing values.* not null: fill"
            ):
                writer.collect_batch([0, 0], part)
            writer.collect_batch([0], pa.table({"a": [1]}))
            with pytest.raises(InvalidRow, match=r"column 'a' has . missing values"):
                writer.collect_batch([0, 0], part)
        assert values(read(name, metadata, 1)) == [1]


TEXT = [pa.string(), pa.large_string(), pa.string_view()]


@pytest.mark.parametrize("first", TEXT, ids=str)
def test_each_part_has_another_kind_of_text(name: str, metadata: str, first: pa.DataType) -> None:
    parts = [
        pa.table({"a": pa.array([str(i), None, "longer than a view holds inline"], kind)})
        for i, kind in enumerate([first, *TEXT])
    ]
    table = shuffled(name, metadata, *parts)
    assert table.schema == parts[0].schema
    assert values(table)[:4] == ["0", "1", "2", "3"]
    assert table["a"].null_count == 4


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (pa.list_(pa.string()), pa.large_list(pa.large_string())),
        (pa.large_binary(), pa.binary()),
        (pa.decimal128(9, 2), pa.decimal256(9, 2)),
        (pa.struct([("x", pa.string())]), pa.struct([("x", pa.string_view())])),
        (pa.map_(pa.string(), pa.string()), pa.map_(pa.large_string(), pa.string(), True)),
        (pa.list_(pa.int8()), pa.list_view(pa.int8())),
    ],
    ids=str,
)
def test_parts_mean_the_same_and_lie_otherwise(
    name: str, metadata: str, first: pa.DataType, then: pa.DataType
) -> None:
    rows: dict[str, list[Any]] = {
        "list": [[], None],
        "struct": [{"x": "u"}, {"x": None}, None],
        "map": [[("k", "v"), ("l", None)], None],
    }
    items = next((many for key, many in rows.items() if str(first).startswith(key)), [None, None])
    table = shuffled(
        name,
        metadata,
        pa.table({"a": pa.array(items, first)}),
        pa.table({"a": pa.array(items, then)}),
    )
    assert table.schema.types == [first]
    assert sorted(map(repr, table["a"].to_pylist())) == sorted(map(repr, items * 2))


@pytest.mark.parametrize(
    ("part", "difference"),
    [
        (pa.table({"a": ["x"], "b": ["y"]}), "column 'a' is string instead of int64: cast it"),
        (pa.table({"a": [1.5], "b": ["y"]}), "column 'a' is double instead of int64"),
        (pa.table({"b": ["y"], "a": [1]}), r"in another order, 'b', 'a' instead of 'a', 'b'"),
        (pa.table({"a": [1]}), "it has no 'b'$"),
        (pa.table({"a": [1], "b": ["y"], "c": [1]}), "the exchange has no 'c'$"),
        (pa.table({"a": [1], "B": ["y"]}), "it has no 'b'; the exchange has no 'B'$"),
    ],
)
def test_a_part_has_other_columns(
    name: str, metadata: str, part: pa.Table, difference: str
) -> None:
    good = pa.table({"a": [1], "b": ["y"]})
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, good)
        with CoscoWriter(name, 1, metadata=metadata) as writer:
            with pytest.raises(SchemaMismatch, match=difference) as raised:
                writer.collect_batch([0], part)
            assert raised.value.shuffle_id == name
            writer.collect_batch([0], good)
        assert read(name, metadata, 2).to_pylist() == [{"a": 1, "b": "y"}] * 2


METADATA = pa.schema(
    [
        pa.field("a", pa.int64(), metadata={"unit": "m"}),
        pa.field("s", pa.struct([pa.field("x", pa.int8(), metadata={"deep": "1"})])),
    ],
    metadata={"made": "here"},
)


def rows_of(schema: pa.Schema, value: int) -> pa.Table:
    return pa.Table.from_pylist([{"a": value, "s": {"x": value}}], schema=schema)


@pytest.mark.parametrize("is_declared", [True, False])
def test_the_metadata_of_the_first_schema_comes_back(
    name: str, metadata: str, is_declared: bool
) -> None:
    plain = pa.schema([("a", pa.int64()), ("s", pa.struct([("x", pa.int8())]))])
    other = METADATA.with_metadata({"made": "there"})
    declared = METADATA if is_declared else None
    first = plain if is_declared else METADATA
    with CoscoExchange(name, 2, schema=declared, metadata=metadata) as exchange:
        for mapper, schema in enumerate((first, other, plain)):
            write(name, metadata, mapper, rows_of(schema, mapper))
        for partition, rows in ((0, 3), (1, 0)):
            table = read(name, metadata, 3, partition)
            assert table.num_rows == rows
            assert table.schema.equals(METADATA, check_metadata=True)
            with CoscoReader(name, range(3), partition, metadata=metadata) as reader:
                for batch in reader.read_batches():
                    assert batch.schema.equals(METADATA, check_metadata=True)
        if is_declared:
            assert exchange.schema is not None
            assert exchange.schema.equals(METADATA, check_metadata=True)
        with_it = CoscoExchange.attach(name, metadata=metadata).schema
        assert with_it is not None
        assert with_it.equals(METADATA, check_metadata=True)


def test_the_metadata_of_a_group_comes_back(name: str, metadata: str) -> None:
    with CoscoExchangeGroup(name, 1, 1, 1, schema=METADATA, metadata=metadata) as group:
        handle = group.handle()
        with handle.writer(0, 0) as writer:
            writer.collect_batch([0], rows_of(METADATA, 1))
        with handle.reader(0, 0) as reader:
            table = reader.read_table()
        handle.flush()
        assert table.schema.equals(METADATA, check_metadata=True)
        assert table.to_pylist() == [{"a": 1, "s": {"x": 1}}]


def test_a_schema_has_more_metadata_than_fits(name: str, metadata: str) -> None:
    long = LOOSE.with_metadata({"x": "y" * MAX_SCHEMA_BYTES})
    with pytest.raises(InvalidArgument, match="of it metadata; it must be at most 8388608: drop"):
        CoscoExchange(name, 1, schema=long, metadata=metadata)
    with pytest.raises(InvalidArgument, match="drop metadata"):
        CoscoExchangeGroup(name, 1, 1, 1, schema=long, metadata=metadata)
    with CoscoExchange(name, 1, metadata=metadata):  # the id was not taken
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            with pytest.raises(InvalidArgument, match="drop metadata"):
                writer.collect_batch([0], pa.table({"a": [1]}, long))
            writer.collect_batch([0], pa.table({"a": [1]}))
        assert values(read(name, metadata, 1)) == [1]


@pytest.mark.parametrize("depth", [60, 61, 500])
def test_lists_in_lists_in_lists(name: str, metadata: str, depth: int) -> None:
    kind = pa.int8()
    for _ in range(depth):
        kind = pa.list_(kind)
    part = pa.table({"a": pa.nulls(1, kind)})
    if depth == 60:
        assert shuffled(name, metadata, part, part).schema == part.schema
    else:
        with pytest.raises(SchemaMismatch, match="nested in more than 60 others"):
            shuffled(name, metadata, part)
        with pytest.raises(SchemaMismatch, match="nested in more than 60 others"):
            shuffled(f"{name}-declared", metadata, part, schema=part.schema)


def test_a_schema_of_polars_is_declared(name: str, metadata: str) -> None:
    schema = pl.Schema({"a": pl.Int64, "t": pl.String})
    part = pl.DataFrame({"a": [1], "t": ["x"]}, schema).to_arrow()
    assert shuffled(name, metadata, part, schema=schema).to_pylist() == [{"a": 1, "t": "x"}]


@pytest.mark.parametrize(
    "schema", ["a: int64", {"a": "int64"}, pa.int64(), pa.field("a", pa.int8()), 5]
)
def test_something_else_is_declared(name: str, metadata: str, schema: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"schema is a \w+, it must be a pyarrow.Schema or"):
        CoscoExchange(name, 1, schema=schema, metadata=metadata)
