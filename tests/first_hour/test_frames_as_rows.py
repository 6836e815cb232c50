"""Data frames are given to `collect_batch` as they are."""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cosco import (
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    InvalidArgument,
    InvalidRow,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.partitioning import hash_partitions


class Stream:
    """A library of which nobody here has heard, that gives its rows to Arrow."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._rows.__arrow_c_stream__(requested_schema)


class Batch:
    """The same, with one batch."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows = rows

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self._rows.__arrow_c_array__(requested_schema)


@pytest.fixture
def exchange(name: str, metadata: str) -> Iterator[CoscoExchange]:
    with CoscoExchange(name, 2, metadata=metadata) as exchange:
        yield exchange


def sent(name: str, metadata: str, *parts: Any) -> None:
    """Each part by a mapper of its own, all of it to partition 1."""
    for mapper, part in enumerate(parts):
        with CoscoWriter(name, mapper, metadata=metadata) as writer:
            writer.collect_batch(np.ones(len(part), int), part)


def received(name: str, metadata: str, mappers: int = 1) -> pa.Table:
    with CoscoReader(name, range(mappers), 1, metadata=metadata) as reader:
        return reader.read_table()


def test_a_frame_of_pandas(exchange: CoscoExchange, name: str, metadata: str) -> None:
    frame = pd.DataFrame(
        {
            "i": [1, 2, 3],
            "f": [0.5, None, 1.5],
            "s": ["x", None, "z"],
            "t": pd.to_datetime(["2024-02-29", None, "2000-01-01"]),
            "c": pd.Categorical(["a", "b", "a"]),
            "n": pd.array([1, None, 3], dtype="Int64"),
            "o": [[1], None, [2, 3]],
        }
    )
    sent(name, metadata, frame)
    assert received(name, metadata).to_pydict() == pa.Table.from_pandas(frame).to_pydict()


def test_a_frame_with_an_index_of_names(exchange: CoscoExchange, name: str, metadata: str) -> None:
    first = pd.DataFrame({"v": [1, 2]}, index=pd.Index(["x", "y"], name="who"))
    second = pd.DataFrame({"v": [3]}, index=pd.Index(["z"], name="who"))
    sent(name, metadata, first, second)
    found = received(name, metadata, 2).to_pandas().sort_index()
    pd.testing.assert_frame_equal(found, pd.concat([first, second]))


def test_a_frame_of_polars(exchange: CoscoExchange, name: str, metadata: str) -> None:
    frame = pl.DataFrame(
        {"i": [1, None], "s": ["x", None], "d": [date(2024, 2, 29), None], "l": [[1.5], []]}
    )
    sent(name, metadata, frame)
    assert received(name, metadata).to_pylist() == frame.to_dicts()


def test_frames_of_any_library_that_arrow_knows(
    exchange: CoscoExchange, name: str, metadata: str
) -> None:
    table = pa.Table.from_arrays([pa.chunked_array([[1], [2, 3]])], ["a"])
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        writer.collect_batch([1, 1, 1], Stream(table))
        writer.collect_batch([1, 1, 1], Batch(table.combine_chunks().to_batches()[0]))
    assert received(name, metadata).to_pydict() == {"a": [1, 2, 3] * 2}


def test_frames_of_two_libraries_in_one_exchange(
    exchange: CoscoExchange, name: str, metadata: str
) -> None:
    pandas = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    sent(
        name,
        metadata,
        pandas,
        pl.DataFrame({"a": [3], "b": [2.5]}),
        pa.table({"a": [4], "b": [1.0]}),
    )
    rows = received(name, metadata, 3).to_pydict()
    assert sorted(zip(*rows.values(), strict=True)) == [(1, 0.5), (2, 1.5), (3, 2.5), (4, 1.0)]


def test_a_frame_is_parted_and_sent(exchange: CoscoExchange, name: str, metadata: str) -> None:
    frame = pd.DataFrame({"k": ["a", "b", "c", "d"] * 5, "v": range(20)})
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        writer.collect_batch(hash_partitions(frame, "k", 2), frame)
    rows = []
    for partition in range(2):
        with CoscoReader(name, [0], partition, metadata=metadata) as reader:
            table = reader.read_table()
        assert set(hash_partitions(table, "k", 2)) <= {partition}
        rows += table.to_pylist()
    assert sorted(row["v"] for row in rows) == list(range(20))


def test_decimals_and_nested_objects_become_what_was_declared(name: str, metadata: str) -> None:
    """Alone, each part's values would make another type of them."""
    schema = pa.schema(
        [
            ("d", pa.decimal128(12, 4)),
            ("l", pa.list_(pa.int32())),
            ("s", pa.struct([("x", pa.int64()), ("y", pa.string())])),
        ]
    )
    parts = [
        pd.DataFrame({"d": [Decimal("1.5")], "l": [[1, 2]], "s": [{"x": 1, "y": "a"}]}),
        pd.DataFrame({"d": [Decimal("12345.6789")], "l": [[]], "s": [{"x": 2}]}),
    ]
    with CoscoExchange(name, 2, schema=schema, metadata=metadata):
        sent(name, metadata, *parts)
        table = received(name, metadata, 2)
    assert table.schema.equals(schema)
    assert sorted(table.to_pylist(), key=lambda row: row["d"]) == [
        {"d": Decimal("1.5000"), "l": [1, 2], "s": {"x": 1, "y": "a"}},
        {"d": Decimal("12345.6789"), "l": [], "s": {"x": 2, "y": None}},
    ]


def test_decimals_become_what_the_first_mapper_had(
    exchange: CoscoExchange, name: str, metadata: str
) -> None:
    first, second = (pd.DataFrame({"d": [Decimal(text)]}) for text in ("12.345", "-1.5"))
    with (
        CoscoWriter(name, 1, metadata=metadata) as early,
        CoscoWriter(name, 0, metadata=metadata) as late,
    ):
        late.collect_batch([1], first)  # which `early` has not heard of
        early.collect_batch([1], second)
        early.collect_batch([1], second)
    rows = received(name, metadata, 2)["d"].to_pylist()
    assert sorted(rows) == [Decimal("-1.500")] * 2 + [Decimal("12.345")]


def test_lists_become_what_the_first_mapper_with_any_had(
    exchange: CoscoExchange, name: str, metadata: str
) -> None:
    parts = [pd.DataFrame({"l": values}) for values in ([[], []], [[1]], [[2], []])]
    sent(name, metadata, *parts)
    rows = received(name, metadata, 3)["l"].to_pylist()
    assert sorted(rows) == [[], [], [], [1], [2]]


def test_objects_that_are_not_what_was_declared(name: str, metadata: str) -> None:
    schema = pa.schema([("d", pa.decimal128(5, 2))])
    with (
        CoscoExchange(name, 2, schema=schema, metadata=metadata),
        CoscoWriter(name, 0, metadata=metadata) as writer,
    ):
        with pytest.raises(SchemaMismatch, match=r"column 'd' are not all decimal128\(5, 2\)"):
            writer.collect_batch([1], pd.DataFrame({"d": [Decimal("1.005")]}))
        writer.collect_batch([1], pd.DataFrame({"d": [Decimal("1.5")]}))
        writer.close()
        assert received(name, metadata).to_pydict() == {"d": [Decimal("1.50")]}


REFUSED: list[tuple[Any, str]] = [
    (pd.DataFrame({"a": [1, "x"]}, dtype=object), "Arrow does not take this DataFrame"),
    (pd.DataFrame({"a": [object()]}), "Arrow does not take this DataFrame"),
    (pd.DataFrame({"a": [1j]}), "Arrow does not take this DataFrame"),
    (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
    (pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}), "columns of Object"),
    (pa.table({"a": [1]}).to_reader(), "RecordBatchReader can be read only once"),
    (pl.DataFrame({"a": [1]}).lazy(), "not LazyFrame"),
    (pl.Series("a", [1]), "binary, not int64"),
    ({"a": [1]}, "not dict"),
    ([{"a": 1}], "row 0 .* not dict"),
    (np.rec.array([(1,)], dtype=[("a", "i8")]), "numpy array"),
    (pa.array([{"a": 1}]), "not struct"),
]


def test_frames_that_arrow_does_not_take(exchange: CoscoExchange, name: str, metadata: str) -> None:
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        for rows, message in REFUSED:
            with pytest.raises(InvalidRow, match=message) as caught:
                writer.collect_batch([1], rows)
            assert caught.value.shuffle_id == name
        writer.collect_batch([1], pd.DataFrame({"a": [7]}))
    assert received(name, metadata).to_pydict() == {"a": [7]}


class Breaking(UserList[int]):
    """A sequence that breaks off."""

    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("broken off")


def test_a_frame_with_partitions_that_do_not_fit(
    exchange: CoscoExchange, name: str, metadata: str
) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        with pytest.raises(InvalidArgument, match="1 partitions for 2 rows"):
            writer.collect_batch([1], frame)
        with pytest.raises(PartitionOutOfRange):
            writer.collect_batch([1, 2], frame)
        with pytest.raises(InvalidRow, match=r"null|float64"):
            writer.collect_batch(pd.Series([1, None]), frame)
        writer.collect_batch(frame["a"] - 1, frame)
        with pytest.raises(RuntimeError, match="broken off"):
            writer.collect_batch(Breaking([0, 0]), frame)
    assert received(name, metadata).to_pydict() == {"a": [2]}


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [b"x"]}), pa.table({"a": [b"x"]})],
    ids=["pandas", "polars", "Arrow"],
)  # fmt: skip
def test_a_frame_for_an_exchange_of_bytes(
    exchange: CoscoExchange, name: str, metadata: str, frame: Any
) -> None:
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        writer.collect(1, b"x")
        with pytest.raises(SchemaMismatch, match=r"BYTES rows, not ARROW rows: give .* bytes"):
            writer.collect_batch([1], frame)
        writer.collect(1, b"y")
    assert sorted(received(name, metadata)["row"].to_pylist()) == [b"x", b"y"]


def test_bytes_for_an_exchange_of_frames(exchange: CoscoExchange, name: str, metadata: str) -> None:
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        writer.collect_batch([1], pd.DataFrame({"a": [1]}))
        for rows in ([b"x"], pl.Series([b"x"]), pd.Series([b"x"])):
            with pytest.raises(SchemaMismatch, match="ARROW rows, not BYTES rows"):
                writer.collect_batch([1], rows)
    assert received(name, metadata).num_rows == 1


def test_a_frame_without_rows(exchange: CoscoExchange, name: str, metadata: str) -> None:
    frame = pd.DataFrame({"a": np.zeros(0, int)})
    with CoscoWriter(name, 0, metadata=metadata) as writer:
        writer.collect_batch(pd.Series([]), frame)
        writer.collect_batch(frame["a"], frame)
    table = received(name, metadata)
    assert (table.num_rows, table.schema.names) == (0, ["a"])
