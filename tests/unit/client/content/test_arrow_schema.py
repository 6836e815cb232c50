from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.arrow_types import canonical

from cosco.client.content.arrow_schema import (
    Conversions,
    conversion,
    normalize_schema,
    schema_from_bytes,
    schema_to_bytes,
)
from cosco.errors import CapacityExceeded, DataCorrupted, InvalidRow, SchemaMismatch


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
        *(field("uuid", kind) for kind in canonical("uuid")),
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
    conversion(pa.schema([("map", odd)]), plain, strict=True)
    assert str(schema) == str(plain)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 100])
def test_bytes_that_are_no_schema_are_refused(data: bytes) -> None:
    with pytest.raises(DataCorrupted, match="no Arrow schema"):
        schema_from_bytes(data)


EXCHANGE = pa.schema([pa.field("a", pa.int8()), pa.field("b", pa.int8())])


def with_type(kind: pa.DataType, *, nullable: bool = True) -> pa.Schema:
    return pa.schema([pa.field("a", kind, nullable)])


def converted(array: pa.Array, kind: pa.DataType, *, strict: bool = True) -> pa.Array:
    """The array, and each slice of it, in an exchange whose column has this type."""
    batch = pa.record_batch([array], ["a"])
    made = conversion(batch.schema, with_type(kind), strict=strict)
    for first in range(len(array) + 1):
        found = made.apply(batch.slice(first)).column(0)
        # Of an extension of text this crashes in early versions of Arrow.
        getattr(found, "storage", found).validate(full=True)
        assert found.to_pylist() == array.slice(first).to_pylist()
    return made.apply(batch).column(0)


def test_a_batch_of_the_exchanges_schema_is_taken_as_it_is() -> None:
    batch = pa.record_batch({"a": [1], "b": ["x"]})
    assert conversion(batch.schema, batch.schema).apply(batch) is batch


def test_metadata_is_not_compared_and_comes_of_the_exchange() -> None:
    inner = pa.struct([pa.field("x", pa.int8(), metadata={"deep": "1"})])
    schema = pa.schema([pa.field("a", inner, metadata={"here": "2"})], metadata={"top": "3"})
    plain = pa.record_batch(
        [pa.array([{"x": 1}, None], normalize_schema(schema).field(0).type)], ["a"]
    )
    found = conversion(plain.schema, schema, strict=True).apply(plain)
    assert found.schema.equals(schema, check_metadata=True)
    assert found.column(0).type.field(0).metadata == {b"deep": b"1"}
    assert found.to_pylist() == plain.to_pylist()
    other = found.replace_schema_metadata({"other": "metadata"})
    back = conversion(other.schema, plain.schema, strict=True).apply(other)
    assert back.schema.equals(plain.schema, check_metadata=True)


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (["b", "a"], r"another order, 'b', 'a' instead of 'a', 'b': give batch.select\(names\)"),
        (["a"], "it has no 'b'$"),
        (["a", "b", "c"], "the exchange has no 'c'$"),
        (["a", "c"], "it has no 'b'; the exchange has no 'c'$"),
        (["a", "b", "b"], "3 columns instead of 2, of the same names"),
        (
            ["a", "b", "__index_level_0__"],
            "pandas made a column of an index: .*preserve_index=False",
        ),
    ],
)
def test_other_columns_are_refused_by_name(names: list[str], difference: str) -> None:
    found = pa.schema([pa.field(name, pa.int8()) for name in names])
    with pytest.raises(SchemaMismatch, match=difference):
        conversion(found, EXCHANGE)


TEXT = [pa.string(), pa.large_string(), pa.string_view()]
BINARY = [pa.binary(), pa.large_binary(), pa.binary_view()]
LISTS: list[Any] = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]
LONG = "longer than a view holds inline"


@pytest.mark.parametrize("expected", TEXT, ids=str)
@pytest.mark.parametrize("found", TEXT, ids=str)
def test_every_kind_of_text_is_every_other(found: pa.DataType, expected: pa.DataType) -> None:
    values = ["a", None, LONG]
    assert converted(pa.array(values, found), expected).type == expected
    nested = pa.struct([("x", pa.list_(found))])
    rows = [{"x": values}, None, {"x": None}, {"x": []}, {"x": ["b"]}]
    converted(pa.array(rows, nested), pa.struct([("x", pa.list_(expected))]))
    codes = pa.DictionaryArray.from_arrays(
        pa.array([1, 0, None], pa.int8()), pa.array(["u", "v"], found)
    )
    assert converted(codes, pa.dictionary(pa.int32(), expected)).type == pa.dictionary(
        pa.int8(), expected
    )


@pytest.mark.parametrize("expected", BINARY, ids=str)
@pytest.mark.parametrize("found", BINARY, ids=str)
def test_every_kind_of_binary_is_every_other(found: pa.DataType, expected: pa.DataType) -> None:
    assert converted(pa.array([b"a", None, LONG.encode()], found), expected).type == expected


@pytest.mark.parametrize("expected", LISTS)
@pytest.mark.parametrize("found", LISTS)
def test_every_kind_of_list_is_every_other(found: Any, expected: Any) -> None:
    rows = [[1, 2], None, [], [None, 3], [4]]
    assert converted(pa.array(rows, found(pa.int8())), expected(pa.int8())).type == expected(
        pa.int8()
    )
    rows_of_rows = [[[1], None], None, [], [[2, 3], []]]
    converted(pa.array(rows_of_rows, found(found(pa.int8()))), expected(expected(pa.int8())))


def test_list_views_may_lie_in_any_order() -> None:
    views = pa.ListViewArray.from_arrays(
        pa.array([3, 0, 1], pa.int32()), pa.array([2, 2, 0], pa.int32()), pa.array(range(5))
    )
    assert converted(views, pa.list_(pa.int64())).to_pylist() == [[3, 4], [0, 1], []]


def test_a_null_list_view_refers_to_nothing_whatever_it_says() -> None:
    ends = [pa.py_buffer(np.array(numbers, np.int32)) for numbers in ([0, 1, 3], [1, 2, 1])]
    views = pa.Array.from_buffers(
        pa.list_view(pa.int8()),
        3,
        [pa.py_buffer(b"\x05"), *ends],
        1,
        0,
        [pa.array([1, 2, 3, 4], pa.int8())],
    )
    assert views.to_pylist() == [[1], None, [4]]
    found = converted(views, pa.list_(pa.int8()))
    assert found.values.to_pylist() == [1, 4]


def test_maps_whose_keys_are_sorted_are_maps() -> None:
    rows = [[("a", "b")], None, [("c", None), ("d", LONG)], []]
    ordered = pa.map_(pa.large_string(), pa.string_view(), keys_sorted=True)
    converted(pa.array(rows, ordered), pa.map_(pa.string(), pa.string()))
    with pytest.raises(SchemaMismatch, match="keys_sorted"):
        converted(pa.array(rows, pa.map_(pa.string(), pa.string())), ordered)


def test_decimals_of_another_width_are_the_same() -> None:
    values = [Decimal("1.50"), None]
    converted(pa.array(values, pa.decimal128(5, 2)), pa.decimal256(5, 2))
    converted(pa.array(values, pa.decimal256(5, 2)), pa.decimal128(5, 2))


VALUELESS = [
    pa.nulls(3),
    pa.DictionaryArray.from_arrays(pa.array([None, None, None], pa.int8()), pa.nulls(0)),
    pa.DictionaryArray.from_arrays(pa.array([0, None, 0], pa.int8()), pa.nulls(1), ordered=True),
    pa.RunEndEncodedArray.from_arrays(
        [1, 3], pa.nulls(2), pa.run_end_encoded(pa.int32(), pa.null())
    ),
]

ANY_TYPE: list[pa.DataType] = [
    pa.int8(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    *canonical("uuid"),
    pa.fixed_shape_tensor(pa.int8(), [2]),
    pa.month_day_nano_interval(),
    pa.run_end_encoded(pa.int32(), pa.int8()),
    pa.null(),
    *(field.type for field in nested(tagged)),
]


@pytest.mark.parametrize("kind", ANY_TYPE, ids=str)
@pytest.mark.parametrize("array", VALUELESS, ids=lambda array: str(array.type))
def test_a_column_without_values_goes_with_every_type(array: pa.Array, kind: pa.DataType) -> None:
    batch = pa.record_batch([array], ["a"])
    found = conversion(batch.schema, with_type(kind), strict=True).apply(batch)
    assert found.schema == with_type(kind)
    assert found.column(0).type == kind
    assert found.column(0).to_pylist() == [None, None, None]


def test_missing_values_inside_of_others_go_with_every_type() -> None:
    converted(pa.array([[], [None], None]), pa.list_(pa.string()))
    converted(pa.array([[], [None], None]), pa.large_list(pa.list_(pa.int8())))
    converted(
        pa.array([{"x": None, "y": 1}, None]), pa.struct([("x", pa.string()), ("y", pa.int64())])
    )
    converted(pa.array([[None, None], None], pa.list_(pa.null(), 2)), pa.list_(pa.int8(), 2))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pa.int64(), pa.int32()),
        (pa.int32(), pa.int64()),
        (pa.int64(), pa.float64()),
        (pa.int64(), pa.null()),
        (pa.string(), pa.binary()),
        (pa.binary(4), pa.binary()),
        (pa.timestamp("us"), pa.timestamp("ns")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.date64()),
        (pa.decimal128(5, 2), pa.decimal128(6, 2)),
        (pa.list_(pa.int8()), pa.list_(pa.int8(), 2)),
        (pa.list_(pa.int8(), 3), pa.list_(pa.int8(), 2)),
        (pa.list_(pa.int8()), pa.int8()),
        (pa.struct([("x", pa.int8())]), pa.struct([("y", pa.int8())])),
        (pa.struct([("x", pa.int8())]), pa.struct([])),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.string(), pa.dictionary(pa.int8(), pa.string())),
        (
            pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.int8(), pa.string(), ordered=True),
        ),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.int8())),
        *((kind, pa.bool_()) for kind in canonical("bool8")),
        *((kind, pa.binary(16)) for kind in canonical("uuid")),
        *zip(
            canonical("opaque", pa.int8(), "a", "b"),
            canonical("opaque", pa.int8(), "a", "c"),
            strict=True,
        ),
        (pa.dense_union([pa.field("a", pa.string())]), pa.dense_union([pa.field("a", pa.int8())])),
    ],
)
def test_other_types_are_refused(found: pa.DataType, expected: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match=r"column 'a' is .* instead of .*: cast it, or create"):
        conversion(with_type(found), with_type(expected), strict=True)


def test_a_type_inside_of_another_is_named_by_where_it_is() -> None:
    found, expected = (
        with_type(pa.struct([("x", pa.list_(kind)), ("y", pa.int8())]))
        for kind in (pa.int8(), pa.string())
    )
    with pytest.raises(SchemaMismatch, match=r"column 'a'\.x\[\] is int8 instead of string"):
        conversion(found, expected)


# --- not null -----------------------------------------------------------------------------


def test_what_is_not_null_goes_where_nulls_may_be() -> None:
    array = pa.array([1, 2])
    batch = pa.record_batch([array], with_type(array.type, nullable=False))
    found = conversion(batch.schema, with_type(array.type), strict=True).apply(batch)
    assert found.schema.field(0).nullable
    assert found.column(0) == array


RUNS = pa.run_end_encoded(pa.int32(), pa.int64())
NULLS: list[tuple[pa.Array, pa.DataType]] = [
    (pa.array([1, None]), pa.int64()),
    (pa.nulls(1), pa.int64()),
    (pa.RunEndEncodedArray.from_arrays([1, 2], pa.array([1, None]), RUNS), RUNS),
    (
        pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", None])),
        pa.dictionary(pa.int64(), pa.string()),
    ),
]


@pytest.mark.parametrize(("array", "kind"), NULLS, ids=lambda one: str(getattr(one, "type", one)))
def test_nulls_are_refused_where_none_may_be(array: pa.Array, kind: pa.DataType) -> None:
    batch = pa.record_batch([array], ["a"])
    made = conversion(batch.schema, with_type(kind, nullable=False), strict=True)
    for check in (made.check, made.apply):
        with pytest.raises(InvalidRow, match=r"column 'a' has 1 missing values, and .* not null"):
            check(batch)
    made.check(pa.Table.from_batches([batch]).slice(0, 0))
    with pytest.raises(InvalidRow):  # it says of itself that there are none
        tight = pa.record_batch([array.cast(kind)], with_type(kind, nullable=False))
        conversion(tight.schema, tight.schema, strict=True).check(tight)
    if len(array) > 1:
        found = made.apply(batch.slice(0, 1))
        assert not found.schema.field(0).nullable
        assert found.to_pylist() == batch.slice(0, 1).to_pylist()


@pytest.mark.parametrize(
    ("rows", "make", "path"),
    [
        ([{"x": 1}, {"x": None}], lambda field: pa.struct([field]), r"'a'\.x"),
        ([[1], [None]], pa.list_, r"'a'\[\]"),
        ([[1], [None]], pa.list_view, r"'a'\[\]"),
        ([[1, 2], [3, None]], lambda field: pa.list_(field, 2), r"'a'\[\]"),
        ([[("k", 1)], [("k", None)]], lambda field: pa.map_(pa.string(), field), r"'a'\.value"),
    ],
)
def test_nulls_inside_of_others_are_refused_where_none_may_be(
    rows: Any, make: Any, path: str
) -> None:
    loose, tight = (make(pa.field("x", pa.int64(), nullable)) for nullable in (True, False))
    array = pa.array([None, *rows], loose)
    made = conversion(with_type(loose), with_type(tight), strict=True)
    good = pa.record_batch([array.slice(0, 2)], ["a"])
    assert made.apply(good).to_pylist() == good.to_pylist()
    with pytest.raises(InvalidRow, match=f"column {path} has 1 missing values"):
        made.apply(pa.record_batch([array.slice(1)], ["a"]))


def test_the_entries_of_a_map_are_of_its_own_fields() -> None:
    """With others, Arrow 19 ends the process of whoever looks at an item."""
    loose, tight = (
        pa.map_(pa.string(), pa.field("x", pa.int64(), nullable)) for nullable in (True, False)
    )
    batch = pa.record_batch([pa.array([[("k", 1)]], loose)], ["a"])
    found = conversion(with_type(loose), with_type(tight), strict=True).apply(batch).column(0)
    assert found.values.type == pa.struct([found.type.key_field, found.type.item_field])
    assert found.to_pylist() == [[("k", 1)]]


VIEWS = pa.array([["a"], None, ["b", None]], pa.list_(pa.string_view()))
CODES = pa.array(["a", None]).dictionary_encode()
RUNS_OF_CODES = pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int32()), CODES)


@pytest.mark.parametrize(
    ("array", "kind", "missing"),
    [
        (VIEWS, pa.list_(pa.field("x", pa.string_view(), nullable=False)), 1),
        (VIEWS.slice(0, 2), pa.list_(pa.field("x", pa.string_view(), nullable=False)), 0),
        (
            pa.StructArray.from_arrays(
                [RUNS_OF_CODES, pa.array([1, 2, None])],
                ["runs", "x"],
                mask=pa.array([False, False, True]),
            ),
            pa.struct([("runs", RUNS_OF_CODES.type), pa.field("x", pa.int64(), nullable=False)]),
            0,
        ),
        (
            pa.StructArray.from_arrays([RUNS_OF_CODES], ["x"]),
            pa.struct([pa.field("x", RUNS_OF_CODES.type, nullable=False)]),
            2,
        ),
        (
            pa.DictionaryArray.from_arrays([0, 0], pa.array([{"x": 1}, {"x": None}])),
            pa.dictionary(pa.int64(), pa.struct([pa.field("x", pa.int64(), nullable=False)])),
            0,
        ),
    ],
    ids=["views", "no views", "beside runs", "runs of codes", "values of a dictionary"],
)
def test_nulls_count_where_they_are_in_use_of_types_that_arrow_does_not_filter(
    array: pa.Array, kind: pa.DataType, missing: int
) -> None:
    made = conversion(with_type(array.type), with_type(kind), strict=True)
    batch = pa.record_batch([array], ["a"])
    if missing:
        with pytest.raises(InvalidRow, match=f" has {missing} missing values"):
            made.check(batch)
    else:
        assert made.apply(batch).to_pylist() == batch.to_pylist()


# --- extension types ----------------------------------------------------------------------


class Rational(pa.ExtensionType):  # noqa: PLW1641 (that is what is tried)
    """As in Arrow's documentation: it has `__eq__` of its own, so that it cannot be hashed."""

    def __init__(self, storage: pa.DataType, unit: str = "m") -> None:
        self.unit = unit
        super().__init__(storage, "cosco.test.rational")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.unit.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Rational:
        return cls(storage, serialized.decode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rational) and self.storage_type == other.storage_type


@pytest.fixture
def registered() -> Iterator[None]:
    pa.register_extension_type(Rational(pa.int64()))
    yield
    pa.unregister_extension_type("cosco.test.rational")


def rational(kind: pa.DataType | None = None, unit: str = "m") -> Any:
    kind = kind or pa.int64()
    values = pa.array([1, None]).cast(kind)
    return pa.ExtensionArray.from_storage(Rational(kind, unit), values)


def carried(schema: pa.Schema) -> pa.Schema:
    return schema_from_bytes(schema_to_bytes(schema))


@pytest.mark.usefixtures("registered")
def test_an_extension_type_is_itself_and_nothing_else() -> None:
    kind = rational().type
    assert converted(rational(), kind).type == kind
    for found, expected in [(pa.int64(), kind), (kind, pa.int64())]:
        with pytest.raises(SchemaMismatch, match="rational"):
            conversion(with_type(found), with_type(expected), strict=True)
    with pytest.raises(SchemaMismatch, match="of other parameters instead of"):
        conversion(with_type(rational(unit="cm").type), with_type(kind), strict=True)


@pytest.mark.usefixtures("registered")
def test_each_batch_is_compared_however_much_it_is_like_the_one_before() -> None:
    kind = rational().type
    conversions = Conversions(with_type(kind), strict=True)
    conversions.of(with_type(kind))
    other = rational(unit="cm").type
    assert other == kind  # as it says of itself
    with pytest.raises(SchemaMismatch):
        conversions.of(with_type(other))
    conversions = Conversions(with_type(pa.int8()), strict=True)
    first = conversions.of(with_type(pa.int8()))
    assert conversions.of(with_type(pa.int8())) is first
    assert conversions.of(with_type(pa.null())) is not first
    for _ in range(2):
        with pytest.raises(SchemaMismatch):
            conversions.of(with_type(pa.string()))
    assert conversions.of(with_type(pa.int8())).schema == with_type(pa.int8())


@pytest.mark.usefixtures("registered")
def test_in_a_block_an_extension_type_may_be_its_storage() -> None:
    storage = pa.array([1, None])
    found = converted(storage, rational().type, strict=False)
    assert found.type.extension_name == "cosco.test.rational"
    assert converted(rational(), pa.int64(), strict=False).type == pa.int64()


def test_a_process_that_has_not_registered_a_type_takes_it_and_its_storage() -> None:
    exchange = carried(with_type(rational().type))
    assert exchange.field(0).type == pa.int64()
    for array in (rational(), pa.array([1, None])):
        batch = pa.record_batch([array], ["a"])
        found = conversion(batch.schema, exchange, strict=True).apply(batch)
        assert found.schema.equals(exchange, check_metadata=True)
        assert found.to_pylist() == [{"a": 1}, {"a": None}]
    with pytest.raises(SchemaMismatch, match="of other parameters"):
        conversion(carried(with_type(rational(unit="cm").type)), exchange, strict=True)


def test_a_type_that_is_registered_late_is_known_from_then_on(
    request: pytest.FixtureRequest,
) -> None:
    data = schema_to_bytes(with_type(rational().type))
    early = schema_from_bytes(data)
    conversion(early, early)
    request.getfixturevalue("registered")
    late = schema_from_bytes(data)
    assert isinstance(late.field(0).type, Rational)
    batch = pa.record_batch([pa.array([1, None])], early)
    found = conversion(early, late, strict=True).apply(batch)
    assert isinstance(found.column(0), pa.ExtensionArray)
    assert conversion(late, early, strict=True).apply(found).column(0).type == late.field(0).type


@pytest.mark.usefixtures("registered")
def test_extension_types_lie_inside_of_others() -> None:
    kind = rational().type
    array = pa.StructArray.from_arrays([rational()], fields=[pa.field("x", kind)])
    rows = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), array)
    assert converted(rows, pa.large_list(pa.struct([("x", kind)]))).to_pylist() == rows.to_pylist()
    none = pa.array([[{"x": None}], None])
    assert converted(none, rows.type).type == rows.type


@pytest.mark.usefixtures("registered")
def test_the_storage_of_an_extension_type_is_cast() -> None:
    found = converted(rational(pa.large_string()), Rational(pa.string()))
    assert found.type.storage_type == pa.string()
    with pytest.raises(SchemaMismatch, match="'a'"):
        conversion(with_type(Rational(pa.int8())), with_type(Rational(pa.int64())))
    for long, short in zip(canonical("json_", pa.large_string()), canonical("json_"), strict=True):
        converted(pa.array(["{}"], long), short)


def test_more_values_than_an_array_holds_are_refused() -> None:
    """Not by values that big: by lists of a type without bytes."""
    array = pa.LargeListArray.from_arrays(pa.array([0, 2**31]), pa.nulls(2**31))
    batch = pa.record_batch([array], ["a"])
    made = conversion(batch.schema, with_type(pa.list_(pa.null())))
    with pytest.raises(CapacityExceeded, match=r"1 rows do not fit .*large_string"):
        made.apply(batch)
