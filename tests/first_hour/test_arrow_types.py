from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.errors import SchemaMismatch


class Celsius(pa.ExtensionType):  # type: ignore[misc]  # noqa: PLW1641
    """As Arrow's documentation has it: with `__eq__`, and so without `__hash__`."""

    def __init__(self) -> None:
        super().__init__(pa.float64(), "first_hour.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Celsius:
        return cls()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius)


@pytest.fixture
def round_trip(metadata: str, name: str) -> Any:
    """Has two mappers write one column each to two partitions, and reads both."""

    def run(*columns: Any) -> pa.Table:
        schema = pa.schema([("c", columns[0].type)])
        with CoscoExchange(name, 2, schema=schema, replicas=1, metadata=metadata):
            for mapper, column in enumerate(columns):
                with CoscoWriter(name, mapper, metadata=metadata) as writer:
                    batch = pa.RecordBatch.from_arrays([column], schema=schema)
                    writer.collect_batch(np.arange(len(column)) % 2, batch)
            tables = []
            for partition in (0, 1):
                mappers = range(len(columns))
                with CoscoReader(name, mappers, partition, metadata=metadata) as reader:
                    tables.append(reader.read_table())
                with CoscoReader(name, mappers, partition, metadata=metadata) as reader:
                    batches = list(reader.read_batches(max_bytes=100))
                assert all(batch.schema.equals(schema) for batch in batches)
                assert sum(batch.num_rows for batch in batches) == tables[-1].num_rows
            for table in tables:
                table.validate(full=True)
            return pa.concat_tables(tables)

    return run


DAY = dt.date(2026, 1, 2)
VALUES: list[tuple[str, Any, pa.DataType]] = [
    ("dates", DAY, pa.date32()),
    ("long dates", DAY, pa.date64()),
    ("timestamps", dt.datetime.fromisoformat("2026-01-02T03"), pa.timestamp("us")),
    ("zones", dt.datetime(2026, 1, 2, tzinfo=dt.UTC), pa.timestamp("s", "UTC")),
    ("times", dt.time(1, 2, 3), pa.time32("s")),
    ("long times", dt.time(1, 2, 3), pa.time64("us")),
    ("durations", dt.timedelta(seconds=5), pa.duration("ms")),
    ("decimals", decimal.Decimal("1.50"), pa.decimal128(10, 2)),
    ("long decimals", decimal.Decimal("1.50"), pa.decimal256(50, 2)),
    ("views of text", "longer than a view holds inline", pa.string_view()),
    ("views of bytes", b"longer than a view holds inline", pa.binary_view()),
    ("lists", [1, 2], pa.list_(pa.int64())),
    ("list views", [1, 2], pa.list_view(pa.int64())),
    ("structs", {"x": 1, "y": ["a"]}, pa.struct([("x", pa.int8()), ("y", pa.list_(pa.string()))])),
    ("booleans", True, pa.bool_()),
    ("half floats", np.float16(1.5), pa.float16()),
    ("bytes of one length", b"abcd", pa.binary(4)),
]


@pytest.mark.parametrize(("value", "kind"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_dictionaries_of(round_trip: Any, value: Any, kind: pa.DataType) -> None:
    codes = pa.array([0, 1, None, 0], pa.int8())
    column = pa.DictionaryArray.from_arrays(codes, pa.array([value, None], kind))
    table = round_trip(column, column.slice(2))
    assert table.schema.field("c").type == column.type
    found = table.column("c").to_pylist()
    plain = pa.array([value], kind).to_pylist()[0]
    assert found.count(plain) == 3
    assert found.count(None) == 3


def test_tensors_from_numpy(round_trip: Any) -> None:
    tensors = np.arange(48, dtype=np.float32).reshape(4, 3, 4)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(tensors)
    table = round_trip(column)
    assert table.schema.field("c").type == column.type
    found = [chunk.to_numpy_ndarray() for chunk in table.column("c").chunks]
    assert np.array_equal(np.sort(np.concatenate(found), axis=0), tensors)


@pytest.fixture
def celsius() -> Iterator[Celsius]:
    kind = Celsius()
    pa.register_extension_type(kind)
    yield kind
    pa.unregister_extension_type(kind.extension_name)


def test_an_extension_type_without_hash(round_trip: Any, celsius: Celsius) -> None:
    column = celsius.wrap_array(pa.array([1.5, None, 3.5]))
    table = round_trip(column)
    assert table.schema.field("c").type == celsius
    assert table.column("c").to_pylist() == [1.5, 3.5, None]


def test_an_extension_type_inside_of_others(round_trip: Any, celsius: Celsius) -> None:
    values = celsius.wrap_array(pa.array([1.5, 2.5, 3.5]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), values)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), lists)
    table = round_trip(dictionary)
    assert table.schema.field("c").type == dictionary.type
    assert sorted(table.column("c").to_pylist()) == [[1.5], [2.5, 3.5]]


def test_a_dictionary_of_extensions_is_refused_when_it_is_declared(
    metadata: str, name: str, celsius: Celsius
) -> None:
    schema = pa.schema([("c", pa.dictionary(pa.int8(), celsius))])
    with pytest.raises(SchemaMismatch, match="as Arrow's messages"):
        CoscoExchange(name, 1, schema=schema, metadata=metadata)


@pytest.mark.parametrize("maker", [pa.list_view, pa.large_list_view], ids=["short", "large"])
def test_list_views_that_share_their_values(round_trip: Any, maker: Any) -> None:
    dtype = np.int32 if maker is pa.list_view else np.int64
    starts, sizes = np.array([4, 0, 2, 0], dtype), np.array([2, 6, 3, 0], dtype)
    column = pa.Array.from_buffers(
        maker(pa.string_view()),
        4,
        [None, pa.py_buffer(starts), pa.py_buffer(sizes)],
        children=[pa.array(list("abcdef"), pa.string_view())],
    )
    table = round_trip(column, column.slice(1))
    assert table.schema.field("c").type == column.type
    wanted = [list("ef"), list("abcdef"), list("cde"), [], list("abcdef"), list("cde"), []]
    assert sorted(table.column("c").to_pylist()) == sorted(wanted)


@pytest.mark.parametrize("ends", [pa.int16(), pa.int32(), pa.int64()], ids=str)
def test_runs(round_trip: Any, ends: pa.DataType) -> None:
    values = pa.array([{"x": 1}, None, {"x": 3}])
    column = pa.RunEndEncodedArray.from_arrays(pa.array([3, 4, 9], ends), values)
    table = round_trip(column, column.slice(2, 3))
    assert table.schema.field("c").type == column.type
    found = table.column("c").to_pylist()
    assert [found.count(value) for value in values.to_pylist()] == [4, 2, 6]


def test_runs_inside_of_lists(round_trip: Any) -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3, 4], pa.int32()), pa.array(["a", "b"]))
    column = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), runs)
    table = round_trip(column)
    assert table.schema.field("c").type == column.type
    found = [row.values.to_pylist() if row.is_valid else None for row in table.column("c")]
    assert sorted(found) == [["a", "a"], ["a", "b"]]
