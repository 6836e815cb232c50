from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cosco import (
    ClientClosed,
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    InvalidRow,
)


def names(first: int, count: int) -> list[str]:
    return [f"{number:05}" for number in range(first, first + count)]


def frame(values: list[Any], **options: Any) -> pa.Table:
    """A categorical column, as pandas makes it."""
    column = pd.Categorical(values, **options)
    return pa.Table.from_pandas(pd.DataFrame({"c": column}), preserve_index=False)


@pytest.fixture
def shuffle(metadata: str, name: str) -> Any:
    """Has mappers 0, 1, … write tables, one or several each, and reads the only partition."""

    def run(*mappers: list[pa.Table], max_bytes: int = 4 << 20) -> tuple[pa.Table, list[Any]]:
        with CoscoExchange(name, 1, replicas=1, metadata=metadata):
            for mapper, tables in enumerate(mappers):
                with CoscoWriter(name, mapper, metadata=metadata) as writer:
                    for table in tables:
                        writer.collect_batch(np.zeros(len(table), np.int64), table)
            with CoscoReader(name, range(len(mappers)), 0, metadata=metadata) as reader:
                table = reader.read_table()
            with CoscoReader(name, range(len(mappers)), 0, metadata=metadata) as reader:
                batches = list(reader.read_batches(max_bytes=max_bytes))
            return table, batches

    return run


def values_of(batches: list[pa.RecordBatch]) -> list[Any]:
    return sorted(value for batch in batches for value in batch.column("c").to_pylist())


@pytest.mark.parametrize("max_bytes", [1, 1000, 4 << 20])
@pytest.mark.parametrize(("left", "right"), [(64, 63), (64, 64), (64, 65), (100, 200)], ids=str)
def test_two_mappers_with_different_categories(
    shuffle: Any, left: int, right: int, max_bytes: int
) -> None:
    wanted = [*names(0, left), *names(1000, right)]
    parts = frame(names(0, left)), frame(names(1000, right))
    table, batches = shuffle([parts[0]], [parts[1]], max_bytes=max_bytes)
    assert values_of(batches) == wanted
    assert all(batch.schema.equals(parts[0].schema) for batch in batches)
    assert sorted(table.combine_chunks().column("c").to_pylist()) == wanted
    assert sorted(table.to_pandas()["c"]) == wanted
    assert sorted(table.to_pandas()["c"].cat.categories) == wanted


def test_one_mapper_with_other_categories_in_each_batch(shuffle: Any) -> None:
    wanted = names(0, 500)
    table, batches = shuffle([frame(names(first, 100)) for first in range(0, 500, 100)])
    assert values_of(batches) == wanted
    assert sorted(table.combine_chunks().column("c").to_pylist()) == wanted


def test_categories_inside_of_lists_and_structs(shuffle: Any) -> None:
    def nested(first: int, count: int) -> pa.Table:
        column = (
            pa.array(names(first, count))
            .dictionary_encode()
            .cast(pa.dictionary(pa.int8(), pa.string()))
        )
        lists = pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), column)
        return pa.table({"c": column, "n": pa.StructArray.from_arrays([lists, column], ["l", "x"])})

    table, batches = shuffle([nested(0, 64)], [nested(1000, 65)])
    wanted = [*names(0, 64), *names(1000, 65)]
    assert values_of(batches) == wanted
    rows = [row for batch in batches for row in batch.column("n").to_pylist()]
    assert sorted(row["x"] for row in rows) == wanted
    assert sorted(row["l"][0] for row in rows) == wanted
    joined = table.combine_chunks().column("n").to_pylist()
    assert sorted(map(str, joined)) == sorted(map(str, rows))


def test_ordered_categories_keep_their_order(shuffle: Any) -> None:
    sizes = ["small", "medium", "large", "huge"]
    parts = [frame(part, categories=sizes, ordered=True) for part in (["huge"], ["small", "large"])]
    table, batches = shuffle([parts[0]], [parts[1]])
    back = table.to_pandas()["c"]
    assert back.cat.ordered
    assert back.cat.categories.to_list() == sizes
    assert back.sort_values().to_list() == ["small", "large", "huge"]
    assert values_of(batches) == ["huge", "large", "small"]


def test_an_ordered_dictionary_longer_than_half_a_block(shuffle: Any) -> None:
    cities = [f"{number * 7919 % 100_003:06}" * 30 for number in range(10_000)]  # 1.8 MB
    parts = [
        frame([cities[i] for i in picked], categories=cities, ordered=True)
        for picked in ([9000, 5, 7000], [6000, 8000])
    ]
    table, _ = shuffle([parts[0]], [parts[1]])
    wanted = [cities[i] for i in (5, 6000, 7000, 8000, 9000)]
    assert table.to_pandas()["c"].sort_values().to_list() == wanted


def test_missing_categories(shuffle: Any) -> None:
    table, batches = shuffle([frame(["a", None, "b"])], [frame([None], categories=["z"])])
    assert sorted(table.column("c").to_pylist(), key=str) == [None, None, "a", "b"]
    assert table.to_pandas()["c"].isna().sum() == 2
    assert sum(batch.column("c").null_count for batch in batches) == 2


def test_declared_categories_that_no_row_has(shuffle: Any) -> None:
    declared = ["a", "b", "c"]
    table, _ = shuffle([frame(["c"], categories=declared)], [frame(["a"], categories=declared)])
    assert table.to_pandas()["c"].cat.categories.to_list() == declared


def test_a_table_whose_second_chunk_has_codes_without_a_value_and_is_given_again(
    metadata: str, name: str
) -> None:
    good, bad = (
        pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(["a", "b"]), safe=False)
        for codes in ([0, 1], [0, 7])
    )
    with CoscoExchange(name, 1, replicas=1, metadata=metadata):
        with CoscoWriter(name, 0, metadata=metadata) as writer:
            with pytest.raises(InvalidRow, match="beyond its 2 values"):
                writer.collect_batch([0] * 4, pa.table({"c": pa.chunked_array([good, bad])}))
            writer.collect_batch([0] * 4, pa.table({"c": pa.chunked_array([good, good])}))
        with CoscoReader(name, [0], 0, metadata=metadata) as reader:
            assert values_of(reader.read_table().to_batches()) == ["a", "a", "b", "b"]


def test_a_table_whose_second_chunk_has_a_key_that_is_missing(metadata: str, name: str) -> None:
    """What is seen only after rows before it were taken ends the writer."""

    def mapped(keys: list[str | None]) -> pa.Array:
        codes = pa.DictionaryArray.from_arrays(
            pa.array([0], pa.int8()), pa.array(keys, pa.string())
        )
        return pa.MapArray.from_arrays(pa.array([0, 1], pa.int32()), codes, pa.array([1]))

    chunks = [mapped(["a"]), mapped([None])]
    with CoscoExchange(name, 1, replicas=1, metadata=metadata):
        writer = CoscoWriter(name, 0, metadata=metadata)
        with pytest.raises(InvalidRow, match="the key of a map is null"):
            writer.collect_batch([0, 0], pa.table({"c": pa.chunked_array(chunks)}))
        with pytest.raises(ClientClosed):
            writer.close()


def test_two_mappers_of_a_group_with_different_categories(metadata: str, name: str) -> None:
    parts = frame(names(0, 64)), frame(names(1000, 65))
    group = CoscoExchangeGroup(
        name, 1, 1, 2, lambda *_: None, schema=parts[0].schema, replicas=1, metadata=metadata
    )
    with group:
        handle = group.handle()
        for mapper, part in enumerate(parts):
            with handle.writer(0, mapper) as writer:
                writer.collect_batch(np.zeros(len(part), np.int64), part)
        handle.flush()
        with handle.reader(0, 0) as reader:
            table = reader.read_table()
    assert sorted(table.combine_chunks().column("c").to_pylist()) == [
        *names(0, 64),
        *names(1000, 65),
    ]
