"""Parts whose column is all missing, so that Arrow has no type for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from support.arrow_parts import read, shuffled, write

from cosco import (
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    LocalCluster,
    PartitionOutOfRange,
    SchemaMismatch,
)

MISSING = pa.table({"a": pa.nulls(2)})
NUMBERS = pa.table({"a": [1, 2]})
FOUR = [1, 2, None, None]
NO_CATEGORY = pa.table({"a": pa.DictionaryArray.from_arrays(pa.nulls(2, pa.int8()), pa.nulls(0))})
CATEGORIES = pa.table({"a": pa.array(["u", "v"]).dictionary_encode()})


def values(table: pa.Table) -> list[Any]:
    return sorted(table.column("a").to_pylist(), key=lambda one: (one is None, one))


@pytest.mark.parametrize(
    "parts",
    [
        (MISSING, NUMBERS),
        (NUMBERS, MISSING),
        ([MISSING, NUMBERS],),
        ([NUMBERS, MISSING],),
        (MISSING.slice(0, 1), [NUMBERS, MISSING.slice(0, 1)]),
        (NO_CATEGORY, NUMBERS),
        (NUMBERS, NO_CATEGORY),
    ],
)
@pytest.mark.parametrize("declared", [None, NUMBERS, MISSING, NO_CATEGORY])
def test_a_column_of_numbers_is_all_missing_in_one_part(
    name: str, metadata: str, parts: Any, declared: pa.Table | None
) -> None:
    schema = None if declared is None else declared.schema
    table = shuffled(name, metadata, *parts, schema=schema)
    assert table.schema == NUMBERS.schema
    assert values(table) == FOUR


@pytest.mark.parametrize("parts", [(MISSING, MISSING), (MISSING, NO_CATEGORY)])
def test_a_column_is_all_missing_in_every_part(name: str, metadata: str, parts: Any) -> None:
    table = shuffled(name, metadata, *parts)
    assert table.schema == MISSING.schema
    assert values(table) == [None] * 4


def test_pandas_makes_a_category_column_without_any_category(name: str, metadata: str) -> None:
    frames = [
        pd.DataFrame({"a": pd.Series(items, dtype=object).astype("category")})
        for items in ([None, None], ["u", None], ["v"])
    ]
    parts = [pa.Table.from_pandas(frame) for frame in frames]
    assert pa.types.is_null(parts[0].schema.field("a").type.value_type)
    table = shuffled(name, metadata, *parts)
    assert isinstance(table.schema.field("a").type, pa.DictionaryType)
    assert values(table) == ["u", "v", None, None, None]
    assert isinstance(table.to_pandas()["a"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("parts", [(NO_CATEGORY, CATEGORIES), (CATEGORIES, NO_CATEGORY)])
def test_one_part_has_categories_and_another_none(name: str, metadata: str, parts: Any) -> None:
    assert values(shuffled(name, metadata, *parts)) == ["u", "v", None, None]


@pytest.mark.parametrize(
    ("none", "some"),
    [
        ([[], [None], None], [["x"], None]),
        ([{"x": None, "y": [None]}, None], [{"x": "u", "y": [1.5, None]}]),
        ([[{"x": None}], []], [[{"x": [1]}]]),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_lists_and_structs_hold_is_all_missing_in_one_part(
    name: str, metadata: str, none: list[Any], some: list[Any], is_first: bool
) -> None:
    parts = [pa.table({"a": none}), pa.table({"a": some})]
    table = shuffled(name, metadata, *(parts if is_first else parts[::-1]))
    assert table.schema == parts[1].schema
    assert sorted(map(repr, table["a"].to_pylist())) == sorted(map(repr, none + some))


def test_a_part_without_rows_has_no_types(name: str, metadata: str) -> None:
    empty = pa.Table.from_pandas(pd.DataFrame({"a": pd.Series([], dtype=object)}))
    assert values(shuffled(name, metadata, empty, NUMBERS, empty)) == [1, 2]


def test_the_types_come_one_by_one_from_different_parts(name: str, metadata: str) -> None:
    parts = [pa.table({"a": [a], "b": [b], "c": [None]}) for a, b in [(None, 1), (2, None)]]
    table = shuffled(name, metadata, *parts)
    assert table.schema.types == [pa.int64(), pa.int64(), pa.null()]
    assert sorted(map(repr, table.to_pylist())) == [
        "{'a': 2, 'b': None, 'c': None}",
        "{'a': None, 'b': 1, 'c': None}",
    ]


def test_many_mappers_at_once_each_bring_the_type_of_another_column(
    name: str, metadata: str
) -> None:
    mappers = 8
    everyone_is_there = threading.Barrier(mappers)

    def work(mapper: int) -> None:
        columns = {f"c{i}": [mapper if i == mapper else None] for i in range(mappers)}
        with CoscoWriter(name, mapper, metadata=metadata) as writer:
            everyone_is_there.wait(30)
            writer.collect_batch([0], pa.table(columns))

    with CoscoExchange(name, 1, metadata=metadata), ThreadPoolExecutor(mappers) as pool:
        list(pool.map(work, range(mappers)))
        table = read(name, metadata, mappers)
        assert table.schema.types == [pa.int64()] * mappers
        for i in range(mappers):
            assert [one for one in table.column(f"c{i}").to_pylist() if one is not None] == [i]


def test_two_parts_bring_different_types(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, MISSING)
        write(name, metadata, 1, NUMBERS)
        with CoscoWriter(name, 2, metadata=metadata) as writer:
            with pytest.raises(SchemaMismatch, match="column 'a' is string instead of int64"):
                writer.collect_batch([0], pa.table({"a": ["x"]}))
            writer.collect_batch([0], pa.table({"a": [3]}))
        assert values(read(name, metadata, 3)) == [1, 2, 3, None, None]


def test_a_batch_that_is_refused_binds_nothing(name: str, metadata: str) -> None:
    with (
        CoscoExchange(name, 1, metadata=metadata),
        CoscoWriter(name, 0, metadata=metadata) as writer,
    ):
        with pytest.raises(PartitionOutOfRange):
            writer.collect_batch([7, 7], pa.table({"a": ["x", "y"]}))
        writer.collect_batch([0, 0], MISSING)
        with pytest.raises(PartitionOutOfRange):
            writer.collect_batch([7, 7], pa.table({"a": ["x", "y"]}))
        writer.collect_batch([0, 0], NUMBERS)
        writer.close()
        assert values(read(name, metadata, 1)) == FOUR


def test_a_reader_waits_while_the_column_has_no_type_yet(name: str, metadata: str) -> None:
    """It has learnt a schema when it was made, and the rows are of a later one."""
    with CoscoExchange(name, 1, metadata=metadata):
        write(name, metadata, 0, MISSING)
        with CoscoReader(name, [0, 1], 0, metadata=metadata) as reader:
            write(name, metadata, 1, NUMBERS)
            table = reader.read_table()
        assert table.schema == NUMBERS.schema
        assert values(table) == FOUR


def test_a_writer_goes_on_while_another_one_gives_the_type(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as first:
            first.collect_batch([0, 0], MISSING)
            with CoscoWriter(name, 1, metadata=metadata) as second:
                second.collect_batch([0, 0], NUMBERS)
            first.collect_batch([0, 0], MISSING)
            with pytest.raises(SchemaMismatch, match="string instead of int64"):
                first.collect_batch([0], pa.table({"a": ["x"]}))
            first.collect_batch([0], NUMBERS.slice(0, 1))
        assert values(read(name, metadata, 2)) == [1, 1, 2, None, None, None, None]


def test_the_service_starts_again_between_the_parts(name: str, cluster: LocalCluster) -> None:
    with CoscoExchange(name, 1, metadata=cluster.metadata):
        write(name, cluster.metadata, 0, MISSING)
        write(name, cluster.metadata, 1, NUMBERS)
        cluster.metadata_service.kill()
        cluster.metadata_service.restart()
        table = read(name, cluster.metadata, 2)
        assert table.schema == NUMBERS.schema
        assert CoscoExchange.attach(name, metadata=cluster.metadata).schema == NUMBERS.schema
        assert values(table) == FOUR


def test_a_group_takes_missing_columns_for_its_types(name: str, metadata: str) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.null())])
    with CoscoExchangeGroup(name, 1, 1, 2, schema=schema, metadata=metadata) as group:
        handle = group.handle()
        with handle.writer(0, 0) as writer:
            writer.collect_batch([0, 0], pa.table({"a": [1, 2], "b": pa.nulls(2)}))
        with handle.writer(0, 1) as writer:
            with pytest.raises(SchemaMismatch, match="'b' is int64 instead of null"):
                writer.collect_batch([0], pa.table({"a": [3], "b": [1]}))
            writer.collect_batch([0, 0], pa.table({"a": pa.nulls(2), "b": pa.nulls(2)}))
        with handle.reader(0, 0) as reader:
            table = reader.read_table()
        handle.flush()
        assert table.schema == schema
        assert values(table) == FOUR


def test_a_writer_without_the_handle_cannot_change_a_group(name: str, metadata: str) -> None:
    with CoscoExchangeGroup(name, 1, 1, 1, schema=MISSING.schema, metadata=metadata):
        with CoscoWriter(f"{name}/0", 0, metadata=metadata) as writer:
            with pytest.raises(SchemaMismatch, match="another schema; write all its rows with"):
                writer.collect_batch([0, 0], NUMBERS)
            writer.collect_batch([0, 0], MISSING)
