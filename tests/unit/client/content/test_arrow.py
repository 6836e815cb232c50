"""What blocks contain, as a faulty or hostile writer would make it too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.arrow_arrays import Tagged, logical, random_array, random_type
from support.arrow_types import TAKES_VIEWS, canonical, needs_views

from cosco.client.content import Decoded
from cosco.client.content.arrow import (
    ContentDecoder,
    ContentEncoder,
    decode_plain,
    encode_plain,
    join_plain,
)
from cosco.client.content.arrow_restore import Restorer
from cosco.client.content.arrow_transport import transport
from cosco.client.content.row_costs import batch_bytes
from cosco.errors import CoscoError, DataCorrupted, SchemaMismatch

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
    (pa.list_view(pa.string()), [["a", LONG], None, []]),
    (pa.struct([("x", pa.binary_view()), ("y", pa.int8())]), [{"x": b"1", "y": 2}, None, None]),
    (pa.map_(pa.string(), pa.string_view()), [[("k", LONG)], None, []]),
    (pa.list_(pa.int8(), 2), [[1, 2], None, [3, 4]]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "b"]),
    (pa.dictionary(pa.int8(), pa.string(), ordered=True), ["a", None, "b"]),
    (pa.list_(pa.dictionary(pa.int16(), pa.string())), [["a", "b"], None, ["a"]]),
    *((kind, [bytes(16), None, b"x" * 16]) for kind in canonical("uuid")),
]
if not TAKES_VIEWS:
    VALUES = [one for one in VALUES if "view" not in str(one[0])]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    pa.register_extension_type(Tagged(pa.int8()))
    yield
    pa.unregister_extension_type("cosco.tests.tagged")


def encode(batch: pa.RecordBatch) -> bytes:
    way = transport(batch.schema)
    pools = way.new_pools()
    return bytes(ContentEncoder(way).encode(way.to_plain(batch, pools), pools))


def decode(
    content: bytes, schema: pa.Schema, rows: int, *, lengths: bool = False
) -> list[pa.RecordBatch]:
    decoder = ContentDecoder(schema)
    pools = decoder.way.new_pools()
    plain = decoder.plain(Decoded(1, rows, content, lengths), pools)
    return list(Restorer(decoder.way, pools).batches(plain))


def refused(content: bytes, schema: pa.Schema, rows: int, match: str = "") -> None:
    with pytest.raises(DataCorrupted, match=f"of mapper 1 .*{match}"):
        decode(content, schema, rows)


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=[str(kind) for kind, _ in VALUES])
def test_a_slice_of_every_type_travels(kind: pa.DataType, values: list[Any]) -> None:
    column = pa.array([*values, *values], kind)
    batch = pa.record_batch([column], ["c"]).slice(2, 3)
    (found,) = decode(encode(batch), batch.schema, 3)
    found.validate(full=True)
    assert found.schema.equals(batch.schema, check_metadata=True)
    assert logical(found.column(0)) == logical(batch.column(0))


@pytest.mark.parametrize(
    "kind",
    [
        pa.dictionary(pa.int8(), pa.dictionary(pa.int8(), pa.string())),
        pa.list_(pa.dictionary(pa.int8(), Tagged(pa.int8()))),
        Tagged(Tagged(pa.int8())),
    ],
    ids=["dictionary of dictionary", "dictionary of extension", "extension of extension"],
)
def test_types_that_messages_cannot_tell_apart_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match="cannot be shuffled"):
        transport(pa.schema([("c", kind)]))


@needs_views
def test_a_slice_of_views_takes_only_its_own_values_along() -> None:
    batch = pa.record_batch([pa.array([LONG] * 10_000, pa.string_view())], ["c"])
    assert len(encode(batch.slice(5, 1))) < 1000


def test_a_batch_is_read_where_it_lies() -> None:
    batch = pa.record_batch({"a": np.arange(1000)})
    content = encode_plain(batch)
    found = decode_plain(content, batch.schema)
    address = found.column(0).buffers()[1].address
    assert content.address <= address < content.address + content.size


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.dictionary(pa.int8(), pa.int64()), pa.null()], ids=str
)
def test_content_that_does_not_parse_is_corruption(kind: pa.DataType) -> None:
    values = [None] * 3 if pa.types.is_null(kind) else [1, 2, 1]
    batch = pa.record_batch([pa.array(values, kind)], ["c"])
    schema = batch.schema
    content = encode(batch)
    assert decode(content, schema, 3) == [batch]
    bad_contents = [
        b"",
        b"garbage" * 20,
        content[: len(content) // 2],
        content[8:],
        content + b"\0" * 8,  # the end of a stream
        content + content,
        schema.serialize().to_pybytes(),
        schema.serialize().to_pybytes() * 2 + content,
    ]
    for bad in bad_contents:
        refused(bad, schema, 3)
    for rows, lengths in [(2, False), (4, False), (3, True)]:
        with pytest.raises(DataCorrupted, match="mapper 1 has 3 rows"):
            decode(content, schema, rows, lengths=lengths)


def test_a_block_with_another_schema_is_corruption() -> None:
    batch = pa.record_batch([pa.array(["a"])], ["c"])
    other = pa.schema([("d", pa.string())])
    refused(batch.schema.serialize().to_pybytes() + encode(batch), other, 1, "it has no 'd'")


@pytest.mark.parametrize("rows", [0, 2])
def test_a_block_with_its_own_schema_and_other_rows_is_corruption(rows: int) -> None:
    batch = pa.record_batch([pa.nulls(rows)], ["c"])
    wanted = pa.schema([("c", pa.dictionary(pa.int8(), pa.string()))])
    content = encode(batch)
    if rows:
        (found,) = decode(content, wanted, rows)
        assert found.schema == wanted
        assert found.column(0).to_pylist() == [None] * rows
    with pytest.raises(DataCorrupted, match=f"has {rows} rows, its block names 1"):
        decode(content, wanted, 1)


def test_a_stream_with_dictionary_messages_is_corruption() -> None:
    batch = pa.record_batch([pa.array(["a"]).dictionary_encode()], ["c"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    refused(sink.getvalue().to_pybytes(), batch.schema, 1)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_body_is_not_inflated(codec: str) -> None:
    batch = pa.record_batch({"a": np.zeros(100_000)})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as stream:
        stream.write_batch(batch)
    messages = list(pa.ipc.MessageReader.open_stream(sink.getvalue()))
    refused(messages[1].serialize().to_pybytes(), batch.schema, 100_000, "compressed")


# --- layouts ------------------------------------------------------------------------------


def sent(content: bytes, schema: pa.Schema, rows: int) -> None:
    """The content is one that a reader takes, so that what is changed is what is refused."""
    assert sum(batch.num_rows for batch in decode(content, schema, rows)) == rows


def changed(content: bytes, old: Any, new: Any) -> bytes:
    old, new = old.tobytes(), new.tobytes()
    assert content.count(old) == 1
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("kind", "value", "dtype"),
    [
        (pa.string(), "abcde", np.int32),
        (pa.large_binary(), b"abcde", np.int64),
        *([(pa.string_view(), "abcde", np.int64)] if TAKES_VIEWS else []),
        (pa.list_(pa.int8()), [1, 2, 3, 4, 5], np.int32),
        (pa.large_list(pa.int8()), [1, 2, 3, 4, 5], np.int64),
        (pa.list_view(pa.int8()), [1, 2, 3, 4, 5], np.int64),
        (pa.map_(pa.int8(), pa.int8()), [(i, i) for i in range(5)], np.int32),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "ends", [(0, 5, 3000), (0, 30_000_000, 10), (0, -5, 10), (-8, 5, 10), (0, 7, 5)], ids=str
)
def test_offsets_that_leave_their_values_are_corruption(
    kind: pa.DataType, value: Any, dtype: Any, ends: tuple[int, ...]
) -> None:
    batch = pa.record_batch([pa.array([value, value], kind)], ["c"])
    content = encode(batch)
    sent(content, batch.schema, 2)
    bad = changed(content, np.array([0, 5, 10], dtype), np.array(ends, dtype))
    refused(bad, batch.schema, 2)


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_members_that_a_union_does_not_have_are_corruption(mode: str) -> None:
    codes = np.array([9, 7, 9, 7, 9, 7, 9, 7], np.int8)
    children = [pa.array(range(8)), pa.array(range(8))]
    if mode == "sparse":
        column = pa.UnionArray.from_sparse(pa.array(codes), children, type_codes=[9, 7])
    else:
        offsets = pa.array([0, 0, 1, 1, 2, 2, 3, 3], pa.int32())
        column = pa.UnionArray.from_dense(pa.array(codes), offsets, children, type_codes=[9, 7])
    batch = pa.record_batch([column], ["c"])
    content = encode(batch)
    sent(content, batch.schema, 8)
    for code in (0, 8, 127, -1):
        wrong = codes.copy()
        wrong[3] = code
        refused(changed(content, codes, wrong), batch.schema, 8)
    if mode == "dense":
        places = np.array([0, 0, 1, 1, 2, 2, 3, 3], np.int32)
        for place in (4, 1 << 30, -1):
            wrong = places.copy()
            wrong[7] = place
            refused(changed(content, places, wrong), batch.schema, 8)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("index", [3, 127, -1, -128])
def test_codes_beyond_their_dictionary_are_corruption(index: int, ordered: bool) -> None:
    codes = np.array([2, 1, 0, 2, 1, 0, 1, 2], np.int8)
    values = pa.array(["red", "green", "blue"])
    column = pa.DictionaryArray.from_arrays(pa.array(codes), values, ordered=ordered)
    batch = pa.record_batch([column], ["c"])
    content = encode(batch)
    sent(content, batch.schema, 8)
    wrong = codes.copy()
    wrong[5] = index
    refused(changed(content, codes, wrong), batch.schema, 8, "beyond the 3")


def test_a_count_of_nulls_that_is_wrong_is_corruption() -> None:
    column = pa.array([7, None, 7, None, 7, None, 7, None])
    batch = pa.record_batch([column], ["c"])
    content = encode(batch)
    sent(content, batch.schema, 8)
    for count in (1, 5, 8, 1 << 40):
        bad = changed(content, np.array([8, 4], np.int64), np.array([8, count], np.int64))
        refused(bad, batch.schema, 8)


def test_a_map_with_a_key_that_is_null_is_corruption() -> None:
    keys = pa.array([1, None], pa.int8())
    entries = pa.StructArray.from_arrays([keys, keys], ["key", "value"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), entries)
    content = pa.record_batch([lists], ["c"]).serialize().to_pybytes()
    for kind in (pa.map_(pa.int8(), pa.int8()), pa.list_(pa.map_(pa.int8(), pa.int8()))):
        schema = pa.schema([("c", kind)])
        if pa.types.is_map(kind):
            refused(content, schema, 2, "key of a map is null")
            continue
        outer = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), lists)
        nested = pa.record_batch([outer], ["c"]).serialize().to_pybytes()
        refused(nested, schema, 1, "key of a map is null")


def test_text_that_is_no_text_comes_back_as_it_was_given() -> None:
    """As some Parquet files have it: no reader reads beyond its memory for it."""
    data = pa.py_buffer(b"M\xfcller")
    offsets = pa.py_buffer(np.array([0, 6], np.int32))
    column = pa.Array.from_buffers(pa.string(), 1, [None, offsets, data])
    batch = pa.record_batch([column], ["c"])
    (found,) = decode(encode(batch), batch.schema, 1)
    assert found.column(0).cast(pa.binary()).to_pylist() == [b"M\xfcller"]


def test_values_that_mean_nothing_come_back_as_they_were_given() -> None:
    """A time of 24:00, more digits than a decimal has: other libraries write them."""
    time = pa.Array.from_buffers(
        pa.time32("s"), 1, [None, pa.py_buffer(np.array([86_400], np.int32))]
    )
    decimal = pa.Array.from_buffers(
        pa.decimal128(2, 0), 1, [None, pa.py_buffer(b"\xff" * 15 + b"\0")]
    )
    date = pa.Array.from_buffers(pa.date64(), 1, [None, pa.py_buffer(np.array([1], np.int64))])
    batch = pa.record_batch([time, decimal, date], ["t", "d", "e"])
    (found,) = decode(encode(batch), batch.schema, 1)
    assert [logical(column) for column in found.columns] == [
        logical(column) for column in batch.columns
    ]


def look_at(batch: pa.RecordBatch) -> None:
    """Do with a batch what reads all of it, and would read beyond it.

    Not by Python's objects: lists of nulls may have any length.
    """
    assert batch_bytes(batch) >= 0
    with suppress(pa.ArrowInvalid):  # text that is none, and such
        batch.validate(full=True)
    with suppress(pa.ArrowNotImplementedError):
        join_plain([batch, batch.slice(1)])


@settings(max_examples=40)
@example(seed=21031)  # a schema with a type that is in Arrow, and not in its Python
@given(seed=st.integers(0, 2**32))
def test_changed_bytes_are_corruption_or_rows_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    schema = pa.schema([("c", random_type(rng, 2))])
    rows = rng.choice([1, 7, 40])
    batch = pa.RecordBatch.from_arrays(
        [random_array(rng, schema.field(0).type, rows)], schema=schema
    )
    content = encode(batch)
    for _ in range(25):
        bad = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(bad))
            bad[at] = rng.choice([0, 1, 127, 128, 255, bad[at] ^ 1 << rng.randrange(8)])
        try:
            for found in decode(bytes(bad), schema, rows):
                look_at(found)
        except CoscoError:
            continue
