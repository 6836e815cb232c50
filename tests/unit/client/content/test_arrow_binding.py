from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from support.arrow_types import canonical

from cosco.client.content.arrow_binding import binding_schema, refined, unbound_columns
from cosco.client.content.arrow_schema import conversion, schema_from_bytes, schema_to_bytes
from cosco.errors import InvalidArgument, SchemaMismatch
from cosco.protocol.api_limits import MAX_SCHEMA_BYTES


def with_type(kind: pa.DataType, *, nullable: bool = True) -> pa.Schema:
    return pa.schema([pa.field("a", kind, nullable)])


def finer(kind: pa.DataType, found: pa.DataType) -> pa.DataType | None:
    message = refined(with_type(kind), with_type(found))
    if message is None:
        return None
    schema = schema_from_bytes(message)
    # All that went into the exchange before goes on to fit.
    conversion(with_type(kind), schema, strict=True)
    conversion(with_type(found), schema, strict=True)
    return schema.field(0).type


NULL = pa.null()
NULL_CODES = pa.dictionary(pa.int8(), NULL)


@pytest.mark.parametrize(
    ("kind", "found", "expected"),
    [
        (NULL, pa.int8(), pa.int8()),
        (NULL_CODES, pa.int8(), pa.int8()),
        (
            NULL_CODES,
            pa.dictionary(pa.int16(), pa.string()),
            pa.dictionary(pa.int16(), pa.string()),
        ),
        (NULL, pa.list_(NULL), pa.list_(NULL)),
        *((NULL, kind, kind) for kind in canonical("uuid")),
        (pa.list_(NULL), pa.large_list(pa.int8()), pa.list_(pa.int8())),
        (pa.list_(NULL, 2), pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 2)),
        (
            pa.map_(pa.string(), NULL),
            pa.map_(pa.string(), pa.int8()),
            pa.map_(pa.string(), pa.int8()),
        ),
        (
            pa.struct([("x", NULL), ("y", pa.list_(NULL)), ("z", pa.string())]),
            pa.struct([("x", pa.int8()), ("y", NULL), ("z", NULL)]),
            pa.struct([("x", pa.int8()), ("y", pa.list_(NULL)), ("z", pa.string())]),
        ),
        (
            pa.dictionary(pa.int8(), pa.list_(NULL)),
            pa.dictionary(pa.int16(), pa.list_(pa.int8())),
            pa.dictionary(pa.int8(), pa.list_(pa.int8())),
        ),
    ],
    ids=str,
)
def test_a_column_without_a_type_takes_the_first_one(
    kind: pa.DataType, found: pa.DataType, expected: pa.DataType
) -> None:
    assert finer(kind, found) == expected
    assert finer(expected, found) is None
    assert finer(expected, kind) is None


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (NULL, NULL),
        (NULL, NULL_CODES),
        (NULL_CODES, NULL),
        (pa.int8(), pa.string()),
        (pa.list_(NULL), pa.string()),
        (pa.struct([("x", NULL)]), pa.struct([("y", pa.int8())])),
        (pa.list_(NULL), pa.list_(pa.int8(), 2)),
        (pa.dense_union([pa.field("x", NULL)]), pa.dense_union([pa.field("x", pa.int8())])),
    ],
    ids=str,
)
def test_nothing_is_added_otherwise(kind: pa.DataType, found: pa.DataType) -> None:
    assert refined(with_type(kind), with_type(found)) is None


def test_nothing_is_added_by_other_columns() -> None:
    assert refined(with_type(NULL), pa.schema([("b", pa.int8())])) is None


def test_nulls_may_be_where_there_were_some_already() -> None:
    tight = pa.field("item", pa.int8(), nullable=False)
    message = refined(with_type(pa.list_(NULL)), with_type(pa.list_(tight), nullable=False))
    assert message
    [field] = schema_from_bytes(message)
    assert (field.nullable, field.type.value_field.nullable) == (True, True)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (pa.int8(), 0),
        (NULL, 1),
        (NULL_CODES, 1),
        (pa.list_(pa.struct([("x", NULL), ("y", NULL)])), 2),
        (pa.dictionary(pa.int8(), pa.list_(NULL)), 1),
    ],
    ids=str,
)
def test_columns_without_a_type_are_found_at_every_level(kind: pa.DataType, count: int) -> None:
    assert unbound_columns(with_type(kind)) == count


def test_the_metadata_of_a_column_comes_with_its_type() -> None:
    first = pa.schema(
        [pa.field("a", NULL), pa.field("b", NULL, metadata={"x": "mine"})], {"top": "1"}
    )
    found = pa.schema(
        [pa.field(name, pa.int8(), metadata={"x": "theirs"}) for name in "ab"], {"top": "2"}
    )
    message = refined(first, found)
    assert message
    schema = schema_from_bytes(message)
    assert schema.metadata == {b"top": b"1"}
    assert [field.metadata for field in schema] == [{b"x": b"theirs"}, {b"x": b"mine"}]


def test_dictionaries_of_an_extension_type_are_refused() -> None:
    """Their message reads as an extension of the dictionary."""
    codes = pa.dictionary(pa.int8(), pa.fixed_shape_tensor(pa.int8(), [2]))
    for kind in (codes, pa.list_(codes)):
        with pytest.raises(SchemaMismatch, match=r"cannot be shuffled.*: send the values"):
            binding_schema(with_type(kind))
        with pytest.raises(SchemaMismatch, match=r"cannot be shuffled.*: send the values"):
            refined(with_type(NULL), with_type(kind))


def nested(depth: int, kind: pa.DataType) -> pa.DataType:
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


@pytest.mark.parametrize("depth", [61, 64, 200, 2000])
def test_types_in_too_many_others_are_refused(depth: int) -> None:
    schema = with_type(nested(depth, pa.int8()))
    with pytest.raises(SchemaMismatch, match="nested in more than 60 others"):
        binding_schema(schema)
    with pytest.raises(SchemaMismatch, match="nested in more than 60 others"):
        refined(with_type(NULL), schema)
    with pytest.raises(SchemaMismatch, match="nested in more than 60 others"):
        conversion(schema, with_type(pa.int8()))


def test_a_schema_that_is_too_long_is_refused_before_it_is_sent() -> None:
    long = with_type(pa.int8()).with_metadata({"x": "y" * MAX_SCHEMA_BYTES})
    with pytest.raises(InvalidArgument, match="of it metadata; it must be at most 8388608: drop"):
        binding_schema(long)
    with pytest.raises(InvalidArgument, match="drop metadata, or send fewer columns"):
        refined(long.set(0, pa.field("a", NULL)), long)


# --- pandas -------------------------------------------------------------------------------


def bound(schema: pa.Schema) -> Any:
    """What pandas is told of an exchange that was bound to this schema."""
    metadata = schema_from_bytes(binding_schema(schema)).metadata or {}
    return json.loads(metadata[b"pandas"]) if b"pandas" in metadata else None


def test_a_range_index_is_of_its_frame_alone() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(7, 11, 2, name="n"))
    schema = pa.Schema.from_pandas(frame)
    assert schema.pandas_metadata["index_columns"][0]["kind"] == "range"
    assert bound(schema)["index_columns"] == []
    assert bound(schema)["columns"] == schema.pandas_metadata["columns"]


def test_an_index_that_is_no_column_any_more_is_none() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2], "c": [3]}).set_index(["b", "c"])
    table = pa.Table.from_pandas(frame)
    assert bound(table.schema)["index_columns"] == ["b", "c"]
    assert bound(table.select(["a", "c"]).schema)["index_columns"] == ["c"]


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", b"{}", b'{"index_columns": 1}', b"\xff", b"[" * 10**5]
)
def test_what_pandas_never_said_is_dropped(said: bytes) -> None:
    schema = with_type(pa.int8()).with_metadata({b"pandas": said, b"other": b"kept"})
    assert schema_from_bytes(binding_schema(schema)).metadata == {b"other": b"kept"}


def test_other_metadata_stays_at_every_level() -> None:
    inner = pa.field("x", pa.int8(), metadata={"deep": "1"})
    schema = pa.schema([pa.field("a", pa.list_(inner), metadata={"b": "2"})], {"top": "3"})
    message = binding_schema(schema)
    assert schema_from_bytes(message).equals(schema, check_metadata=True)
    assert binding_schema(schema_from_bytes(message)) == message == schema_to_bytes(schema)


def test_pandas_is_told_of_a_column_by_the_frame_that_gave_its_type() -> None:
    none = pa.Table.from_pandas(pd.DataFrame({"a": [None], "b": [1]}))
    some = pa.Table.from_pandas(
        pd.DataFrame({"a": pd.array([1], "Int64"), "b": pd.array([1], "int8")})
    )
    message = refined(schema_from_bytes(binding_schema(none.schema)), some.schema)
    assert message
    found = schema_from_bytes(message).pandas_metadata
    assert [one["numpy_type"] for one in found["columns"]] == ["Int64", "int64"]


@pytest.mark.parametrize("columns", [None, 3, [3], [{}], [{"field_name": []}]])
def test_a_column_takes_a_type_whatever_is_said_of_it(columns: object) -> None:
    said = json.dumps({"index_columns": [], "columns": columns}).encode()
    none, some = (with_type(kind).with_metadata({b"pandas": said}) for kind in (NULL, pa.int8()))
    message = refined(none, some)
    assert message
    assert schema_from_bytes(message).field(0).type == pa.int8()
