from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cosco.client.content import Decoded
from cosco.client.content.arrow import (
    batch_from_content,
    check_schema,
    decode_batch,
    encode_batch,
    normalize_schema,
    schema_from_bytes,
    schema_to_bytes,
    to_transport,
    transport,
)
from cosco.errors import DataCorrupted, SchemaMismatch


def tagged(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"tag": name})


def nested(field: Any) -> list[pa.Field]:
    """Fields of every nested type, their children made by `field`."""
    child = field("child", pa.int8())
    return [
        field("struct", pa.struct([child, field("deep", pa.list_(child))])),
        field("list", pa.list_(child)),
        field("large", pa.large_list(child)),
        field("fixed", pa.list_(child, 3)),
        field("list_view", pa.list_view(child)),
        field("large_list_view", pa.large_list_view(child)),
        field(
            "map", pa.map_(field("key", pa.string()), field("value", pa.int8()), keys_sorted=True)
        ),
        field("sparse", pa.sparse_union([child, field("b", pa.string())])),
        field("dense", pa.dense_union([child], [5])),
        field("dictionary", pa.dictionary(pa.int8(), pa.list_(child), ordered=True)),
        field("uuid", pa.uuid()),
    ]


def has_metadata(kind: Any) -> bool:
    children = [kind.field(i) for i in range(kind.num_fields)] if kind.num_fields else []
    if pa.types.is_dictionary(kind):
        return has_metadata(kind.value_type)
    return any(child.metadata or has_metadata(child.type) for child in children)


def test_schemas_lose_metadata_at_every_level_and_nothing_else() -> None:
    schema = pa.schema(nested(tagged), metadata={"pandas": "{}"})
    plain = normalize_schema(schema)
    assert plain.metadata is None
    assert not any(field.metadata or has_metadata(field.type) for field in plain)
    assert plain.equals(schema)
    bare = pa.schema(nested(lambda name, kind: pa.field(name, kind, nullable=False)))
    assert plain.equals(bare, check_metadata=True)
    assert normalize_schema(plain).equals(plain, check_metadata=True)


def test_schemas_travel_as_bytes() -> None:
    schema = normalize_schema(pa.schema(nested(tagged)))
    assert schema_from_bytes(schema_to_bytes(schema)).equals(schema, check_metadata=True)
    assert schema_from_bytes(schema_to_bytes(pa.schema([]))) == pa.schema([])


def test_names_inside_a_map_do_not_matter() -> None:
    odd = pa.map_(pa.field("k", pa.string(), nullable=False), pa.field("v", pa.int8()))
    schema = normalize_schema(pa.schema([("map", odd)]))
    plain = pa.schema([("map", pa.map_(pa.string(), pa.int8()))])
    assert schema_from_bytes(schema_to_bytes(schema)).equals(schema, check_metadata=True)
    check_schema(pa.schema([("map", odd)]), plain)
    assert str(schema) == str(plain)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 100])
def test_bytes_that_are_no_schema_are_refused(data: bytes) -> None:
    with pytest.raises(DataCorrupted, match="no Arrow schema"):
        schema_from_bytes(data)


def test_nullability_and_order_are_part_of_a_schema() -> None:
    one = pa.schema([pa.field("a", pa.int8()), pa.field("b", pa.int8())])
    check_schema(one.with_metadata({"any": "thing"}), one)
    with pytest.raises(SchemaMismatch, match="column 0 is 'b': int8 instead of 'a': int8"):
        check_schema(pa.schema([one.field(1), one.field(0)]), one)
    strict = pa.schema([pa.field("a", pa.int8(), nullable=False), one.field(1)])
    with pytest.raises(SchemaMismatch, match="column 0 is 'a': int8 not null instead of"):
        check_schema(strict, one)


LONG = "longer than a view holds inline"

VALUES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [1, None, 3]),
    (pa.null(), [None, None, None]),
    (pa.bool_(), [True, None, False]),
    (pa.decimal128(10, 2), [None, None, None]),
    (pa.string(), ["a", None, LONG]),
    (pa.large_binary(), [b"a", None, b""]),
    (pa.string_view(), ["a", None, LONG]),
    (pa.binary_view(), [b"a", None, LONG.encode()]),
    (pa.list_(pa.string_view()), [["a", LONG], None, []]),
    (pa.struct([("x", pa.binary_view()), ("y", pa.int8())]), [{"x": b"1", "y": 2}, None, None]),
    (pa.map_(pa.string(), pa.string_view()), [[("k", LONG)], None, []]),
    (pa.list_(pa.int8(), 2), [[1, 2], None, [3, 4]]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "b"]),
    (pa.dictionary(pa.int8(), pa.string(), ordered=True), ["a", None, "b"]),
    (pa.list_(pa.dictionary(pa.int16(), pa.string())), [["a", "b"], None, ["a"]]),
    (pa.uuid(), [bytes(16), None, b"x" * 16]),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=[str(kind) for kind, _ in VALUES])
def test_every_type_that_can_be_sorted_travels(kind: pa.DataType, values: list[Any]) -> None:
    column = pa.array([*values, *values], kind)
    batch = pa.record_batch([column], ["c"]).slice(2, 3)
    schema = batch.schema
    sent, dictionaries = transport(schema)
    content = encode_batch(to_transport(batch, sent), dictionaries=dictionaries)
    found = batch_from_content(Decoded(1, 3, content.to_pybytes(), lengths=False), schema)
    found.validate(full=True)
    assert found.schema.equals(schema, check_metadata=True)
    assert found.to_pylist() == batch.to_pylist()


@pytest.mark.parametrize(
    "kind",
    [
        pa.run_end_encoded(pa.int32(), pa.int8()),
        pa.list_(pa.run_end_encoded(pa.int32(), pa.int8())),
        pa.list_view(pa.int8()),
        pa.struct([("x", pa.large_list_view(pa.int8()))]),
    ],
    ids=str,
)
def test_types_that_cannot_be_sorted_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match="cannot be shuffled"):
        transport(pa.schema([("c", kind)]))


def test_a_slice_of_views_takes_only_its_own_values_along() -> None:
    batch = pa.record_batch([pa.array([LONG] * 10_000, pa.string_view())], ["c"])
    sent = transport(batch.schema).schema
    assert encode_batch(to_transport(batch.slice(5, 1), sent), dictionaries=False).size < 1000


def test_a_batch_is_read_where_it_lies() -> None:
    batch = pa.record_batch({"a": np.arange(1000)})
    content = encode_batch(batch, dictionaries=False)
    found = decode_batch(content, batch.schema, dictionaries=False)
    address = found.column(0).buffers()[1].address
    assert content.address <= address < content.address + content.size


@pytest.mark.parametrize("kind", [pa.int64(), pa.dictionary(pa.int8(), pa.int64())])
def test_content_that_does_not_parse_is_corruption(kind: pa.DataType) -> None:
    batch = pa.record_batch([pa.array([1, 2, 1], kind)], ["c"])
    schema = batch.schema
    content = encode_batch(batch, dictionaries=transport(schema).dictionaries).to_pybytes()
    assert batch_from_content(Decoded(1, 3, content, lengths=False), schema) == batch
    for bad in (b"", b"garbage" * 20, content[: len(content) // 2], content[8:]):
        with pytest.raises(DataCorrupted, match="mapper 1"):
            batch_from_content(Decoded(1, 3, bad, lengths=False), schema)
    for rows, lengths in [(2, False), (4, False), (3, True)]:
        with pytest.raises(DataCorrupted, match="mapper 1"):
            batch_from_content(Decoded(1, rows, content, lengths=lengths), schema)


def test_a_stream_of_another_schema_is_corruption() -> None:
    batch = pa.record_batch([pa.array(["a"]).dictionary_encode()], ["c"])
    content = encode_batch(batch, dictionaries=True).to_pybytes()
    other = pa.schema([("d", batch.schema.field(0).type)])
    with pytest.raises(DataCorrupted, match="column 0"):
        batch_from_content(Decoded(1, 1, content, lengths=False), other)


def test_offsets_that_leave_the_message_are_corruption() -> None:
    batch = pa.record_batch({"text": ["a", "bc"]})
    content = encode_batch(batch, dictionaries=False).to_pybytes()
    offsets = np.array([0, 1, 3], np.int32).tobytes()
    assert content.count(offsets) == 1
    bad = content.replace(offsets, np.array([0, 1, 3000], np.int32).tobytes())
    with pytest.raises(DataCorrupted, match="does not parse"):
        batch_from_content(Decoded(1, 2, bad, lengths=False), batch.schema)
