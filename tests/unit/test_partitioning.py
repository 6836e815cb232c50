from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosco.errors import InvalidArgument
from cosco.partitioning import hash_partitions

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), st.one_of(st.none(), st.text())
    ),
    max_size=50,
)


def batch(rows: list[tuple[int | None, str | None]]) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "i": pa.array([i for i, _ in rows], pa.int64()),
            "s": pa.array([s for _, s in rows], pa.string()),
        }
    )


@given(ROWS, ROWS, st.integers(1, 1000))
def test_a_key_has_one_partition_whatever_it_stands_beside(
    rows: list[tuple[int | None, str | None]],
    others: list[tuple[int | None, str | None]],
    partitions: int,
) -> None:
    whole = hash_partitions(batch(others + rows), ["i", "s"], partitions)
    alone = hash_partitions(batch(rows), ["i", "s"], partitions)
    sliced = hash_partitions(batch(others + rows).slice(len(others)), ["i", "s"], partitions)
    assert whole[len(others) :].tolist() == alone.tolist() == sliced.tolist()
    assert all(0 <= p < partitions for p in alone)


def test_partitions_never_change() -> None:
    """Processes of different versions must agree, so the function is fixed for good."""
    rows = batch([(0, ""), (1, "a"), (-1, "ö"), (None, None), (2**63 - 1, "A")])
    assert hash_partitions(rows, ["i", "s"], 1000).tolist() == [402, 289, 677, 167, 569]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("integer", [pa.int8(), pa.uint32(), pa.int64()])
def test_the_type_that_carries_a_key_does_not_matter(
    kind: pa.DataType, integer: pa.DataType
) -> None:
    rows = batch([(0, ""), (1, "a"), (7, "ö"), (None, None)])
    columns = [rows.column("i").cast(integer), pa.array(rows.column("s").to_pylist(), kind)]
    other = pa.record_batch(columns, names=["i", "s"])
    wanted = hash_partitions(rows, ["i", "s"], 1000).tolist()
    assert hash_partitions(other, ["i", "s"], 1000).tolist() == wanted


def test_keys_spread_evenly() -> None:
    rows = pa.record_batch({"i": np.arange(100_000)})
    counts = np.bincount(hash_partitions(rows, ["i"], 100), minlength=100)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_null_is_not_the_empty_key() -> None:
    rows = batch([(None, None), (0, "")])
    assert len(set(hash_partitions(rows, ["i"], 10**9).tolist())) == 2
    assert len(set(hash_partitions(rows, ["s"], 10**9).tolist())) == 2


# --- any type that can be hashed --------------------------------------------------------------

#: So many partitions that two different hashes hardly ever share one.
MANY = 2**62
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def one_key(column: pa.Array | pa.ChunkedArray, partitions: int = MANY) -> list[int]:
    return hash_partitions(pa.table({"k": column}), "k", partitions).tolist()


def made(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An array of values, which for types with a unit are whole seconds."""
    if pa.types.is_float16(kind):
        mask = np.array([value is None for value in values], bool)
        halves = np.array([0 if value is None else value for value in values], np.float16)
        return pa.array(halves, kind, mask=mask)
    if unit := getattr(kind, "unit", None):
        values = [None if value is None else value * _UNITS[unit] for value in values]
    return pa.array(values, kind)


def some(*names: str) -> list[Callable[..., pa.DataType]]:
    """Types that only later versions of Arrow have."""
    return [getattr(pa, name) for name in names if hasattr(pa, name)]


DAY_S = 86_400
#: What each kind of value may be, and the types that carry it.
KINDS: dict[str, tuple[st.SearchStrategy[Any], list[pa.DataType]]] = {
    "whole numbers": (
        st.integers(0, 127),
        [
            pa.int64(), pa.int8(), pa.int16(), pa.int32(),
            pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
        ],
    ),
    "integers": (st.integers(-128, 127), [pa.int64(), pa.int8(), pa.int16(), pa.int32()]),
    "text": (st.text(max_size=20), [pa.string(), pa.large_string(), pa.string_view()]),
    "binary": (
        st.binary(min_size=3, max_size=3),
        [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)],
    ),
    "floats": (st.floats(width=16), [pa.float64(), pa.float32(), pa.float16()]),
    "booleans": (st.booleans(), [pa.bool_()]),
    "decimals": (
        st.decimals(-99999, 99999, places=2),
        [pa.decimal128(7, 2), pa.decimal128(38, 30), pa.decimal256(9, 4), pa.decimal256(76, 60)]
        + [kind(9, 2) for kind in some("decimal32")]
        + [kind(18, 9) for kind in some("decimal64")],
    ),
    "dates": (st.dates(), [pa.date32(), pa.date64()]),
    "points in time": (
        st.integers(-(2**33), 2**33),
        [pa.timestamp(unit, zone) for unit in _UNITS for zone in ("UTC", "Asia/Kolkata", None)],
    ),
    "times of a day": (
        st.integers(0, DAY_S - 1),
        [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")],
    ),
    "lengths of time": (st.integers(-(2**33), 2**33), [pa.duration(unit) for unit in _UNITS]),
    "intervals": (
        st.builds(
            lambda *parts: pa.MonthDayNano(parts),
            st.integers(-5, 5), st.integers(-5, 5), st.integers(-(2**40), 2**40),
        ),
        [pa.month_day_nano_interval()],
    ),
}  # fmt: skip


def spelled(value: Any) -> tuple[Any, ...]:
    """What is equal to the same of another value only if the two are one key."""
    is_nan = value != value
    return (value is None, is_nan, None if is_nan else value)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_equal_values_go_together_and_others_apart(kind: str, data: st.DataObject) -> None:
    strategy, types = KINDS[kind]
    values = data.draw(st.lists(st.one_of(st.none(), strategy), max_size=12))
    wanted = one_key(made(values, types[0]))
    assert len(set(wanted)) == len(set(map(spelled, values)))
    other = data.draw(st.sampled_from(types))
    column = made(values, other)
    assert one_key(column) == wanted
    # Cut out of others, in two parts, with what is missing in another place.
    longer = made([None, *values, *values], other)
    assert one_key(longer.slice(1)) == wanted * 2
    assert one_key(pa.chunked_array([longer.slice(1, len(values)), column], other)) == wanted * 2
    assert one_key(longer.slice(len(values) + 1)) == wanted


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_a_dictionary_goes_with_its_plain_values(kind: str, data: st.DataObject) -> None:
    strategy, types = KINDS[kind]
    entries = data.draw(st.lists(st.one_of(st.none(), strategy), max_size=8))
    places = st.integers(0, len(entries) - 1) if entries else st.nothing()
    indices = data.draw(st.lists(st.one_of(st.none(), places), max_size=12))
    index_type = data.draw(st.sampled_from([pa.int8(), pa.uint8(), pa.int64(), pa.uint64()]))
    values = made(entries, data.draw(st.sampled_from(types)))
    column = pa.DictionaryArray.from_arrays(pa.array(indices, index_type), values)
    longer = pa.DictionaryArray.from_arrays(pa.array([None, *indices], index_type), values)
    wanted = one_key(made([None if i is None else entries[i] for i in indices], types[0]))
    assert one_key(column) == wanted
    assert one_key(longer.slice(1)) == wanted


@given(st.lists(st.tuples(st.integers(1, 5), st.one_of(st.none(), st.text())), min_size=1))
def test_runs_go_with_their_plain_values(runs: list[tuple[int, str | None]]) -> None:
    plain = [value for length, value in runs for _ in range(length)]
    column = pc.run_end_encode(pa.array(plain, pa.string()))
    assert one_key(column) == one_key(pa.array(plain, pa.string()))
    skipped = len(plain) // 2
    rest = pa.array(plain[skipped:], pa.string())
    assert one_key(column.slice(skipped)) == one_key(rest)


#: Integers and text as the first version hashed them. Types with a unit have it as it is stored.
GOLDEN: list[tuple[list[Any], pa.DataType, list[int]]] = [
    ([0, 1, -1, -(2**63), None], pa.int64(), [947055, 424158, 971767, 266976, 732430]),
    ([2**63, 2**64 - 1], pa.uint64(), [266976, 971767]),
    (["", "a", "ö", "a\0", None], pa.string(), [963950, 751680, 427680, 797355, 995675]),
    ([b"", b"\xff\0", None], pa.binary(), [963950, 88777, 995675]),
    (
        [0.0, 1.0, -2.5, math.nan, math.inf, None],
        pa.float64(),
        [947055, 912478, 433948, 646463, 788993, 995675],
    ),
    ([False, True, None], pa.bool_(), [947055, 424158, 995675]),
    (
        [Decimal(0), Decimal(1), Decimal("-12.34"), None],
        pa.decimal128(9, 2),
        [947055, 283264, 473837, 995675],
    ),
    ([0, -1, 19782, None], pa.date32(), [252433, 80486, 522207, 995675]),
    ([0, 45296, None], pa.time64("us"), [252433, 876414, 995675]),
    ([-1, 0, 2**33, None], pa.timestamp("us"), [158027, 252433, 978789, 995675]),
    ([-1, 400, None], pa.duration("us"), [158027, 420444, 995675]),
    ([pa.MonthDayNano([1, 2, 3]), None], pa.month_day_nano_interval(), [85230, 995675]),
    ([None], pa.null(), [995675]),
]


@pytest.mark.parametrize(("values", "kind", "wanted"), GOLDEN, ids=str)
def test_no_hash_ever_changes(values: list[Any], kind: pa.DataType, wanted: list[int]) -> None:
    assert one_key(pa.array(values, kind), 10**6) == wanted


class Celsius(pa.ExtensionType):
    """As in Arrow's documentation: without a hash of its own."""

    def __init__(self) -> None:
        super().__init__(pa.float64(), "test.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: Any) -> Celsius:
        return cls()


def test_an_extension_type_goes_with_its_storage() -> None:
    plain = pa.array([1.5, None, -0.0, 1.5])
    column = pa.ExtensionArray.from_storage(Celsius(), plain)
    assert one_key(column) == one_key(plain)
    assert one_key(column.slice(1)) == one_key(plain.slice(1))


def test_every_nan_and_both_zeros() -> None:
    bits = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001, 0x7FF8000000000123]
    nans = pa.array(np.array(bits, np.uint64).view(np.float64))
    halves = pa.array(np.array([0x7E00, 0xFE01, 0x7D55], np.uint16).view(np.float16))
    assert len(set(one_key(nans) + one_key(halves))) == 1
    assert len(set(one_key(pa.array([0.0, -0.0])))) == 1


def test_fractions_of_a_second_count_also_before_the_year_1970() -> None:
    millis = pa.array([-1, 1, 999, 1000, -1500], pa.timestamp("ms"))
    nanos = pa.array([v * 10**6 for v in (-1, 1, 999, 1000, -1500)], pa.timestamp("ns", "UTC"))
    assert one_key(millis) == one_key(nanos)
    assert len(set(one_key(nanos))) == 5
    assert one_key(pa.array([2**62], pa.timestamp("s"))) != one_key(
        pa.array([2**62], pa.duration("ms"))
    )


def test_decimals_of_full_width_and_of_negative_scale() -> None:
    wide = [Decimal(10**38 - 1), Decimal(-(10**38) + 1), Decimal(10**37), None]
    narrow, other = pa.array(wide, pa.decimal128(38, 0)), pa.array(wide, pa.decimal256(76, 20))
    assert one_key(narrow) == one_key(other)
    assert len(set(one_key(narrow))) == 4
    thousands = pa.array([Decimal(12000), Decimal(-7000)], pa.decimal128(5, -3))
    assert one_key(thousands) == one_key(pa.array([Decimal(12000), Decimal(-7000)]))


def test_what_is_missing_goes_together_in_all_but_integers() -> None:
    """A column of which one mapper has no value at all has no type there."""
    missing = one_key(pa.nulls(1))
    for _, types in KINDS.values():
        for kind in types:
            is_other = one_key(pa.nulls(1, kind)) != missing
            assert is_other == pa.types.is_integer(kind), kind


def test_a_table_is_hashed_as_its_rows() -> None:
    rows = batch([(0, ""), (1, "a"), (-1, "ö"), (None, None), (2**63 - 1, "A")])
    table = pa.Table.from_batches([rows.slice(0, 2), rows.slice(2)])
    assert hash_partitions(table, ["i", "s"], 1000).tolist() == [402, 289, 677, 167, 569]
    assert hash_partitions(table.slice(1, 2), ("i", "s"), 1000).tolist() == [289, 677]
    assert hash_partitions(table.slice(0, 0), ["s"], 7).dtype == np.int64
    assert hash_partitions(rows.schema.empty_table(), ["s"], 7).tolist() == []


def test_chunks_with_dictionaries_of_their_own() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()]
    assert one_key(pa.chunked_array(chunks)) == one_key(pa.array(["a", "b", "b", "c"]))


def test_a_dictionary_longer_than_its_rows() -> None:
    entries = pa.array([f"{i}" for i in range(1000)])
    column = pa.DictionaryArray.from_arrays(pa.array([999, None, 3], pa.int16()), entries)
    assert one_key(column) == one_key(pa.array(["999", None, "3"]))


# --- arguments --------------------------------------------------------------------------------

ROWS_AB = pa.record_batch({"a": [1, 2], "b": ["x", "y"], "ab": [3, 4]})


def test_one_key_is_the_column_of_that_name() -> None:
    wanted = hash_partitions(ROWS_AB, ["ab"], MANY).tolist()
    assert hash_partitions(ROWS_AB, "ab", MANY).tolist() == wanted
    assert hash_partitions(ROWS_AB, ["a", "b"], MANY).tolist() != wanted


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "there are no keys"),
        ("", r"no column ''.*\['a', 'b', 'ab'\]"),
        (["a", "c"], "no column 'c'"),
        ([0], "not int"),
        (0, "not int"),
        (None, "not NoneType"),
        (b"ab", "not bytes"),
        ([["a"]], "not list"),
    ],
)
def test_keys_that_are_no_columns(keys: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        hash_partitions(ROWS_AB, keys, 8)


def test_a_key_that_a_frame_has_not() -> None:
    for frame in (pd.DataFrame({"a": [1], "b": [2]}), pa.table({"a": [1], "b": [2]})):
        with pytest.raises(InvalidArgument, match=r"no column 'c', the columns are \['a', 'b'\]"):
            hash_partitions(frame, ["a", "c"], 8)


def test_a_key_that_two_columns_are_named() -> None:
    rows = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["a", "a", "b"])
    with pytest.raises(InvalidArgument, match="2 columns are named 'a'"):
        hash_partitions(rows, "a", 8)
    assert hash_partitions(rows, "b", 1).tolist() == [0]


@pytest.mark.parametrize("bad", [0, -4, 4.5, True, "8", None, 10**400, 2**63, math.nan, np.inf])
def test_partitions_that_are_no_count(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="partitions is"):
        hash_partitions(ROWS_AB, "a", bad)


@pytest.mark.parametrize("good", [1, 2**63 - 1, np.int16(5), np.uint64(7)])
def test_partitions_of_any_integer_type(good: Any) -> None:
    assert all(0 <= p < good for p in hash_partitions(ROWS_AB, "a", good).tolist())


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.struct([("x", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.list_(pa.int8(), 3),
        pa.dictionary(pa.int8(), pa.list_(pa.int64())),
        pa.sparse_union([pa.field("x", pa.int64())]),
    ],
    ids=str,
)
def test_nested_keys_are_refused(kind: pa.DataType) -> None:
    rows = pa.Table.from_arrays([pa.nulls(2, kind)], ["x"])
    with pytest.raises(InvalidArgument, match=r"column 'x' is .*, which cannot be a key"):
        hash_partitions(rows, ["x"], 3)


@pytest.mark.parametrize("bad", [None, {"a": [1]}, [[1]], pa.array([1]), np.ones(3), "rows"])
def test_rows_that_are_no_frame(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="not "):
        hash_partitions(bad, "a", 8)


def test_a_frame_of_pandas() -> None:
    frame = pd.DataFrame({"a": [1, 2], "c": pd.Categorical(["x", None]), "no": [{1}, object()]})
    plain = pa.table({"a": [1, 2], "c": ["x", None]})
    wanted = hash_partitions(plain, ["a", "c"], MANY).tolist()
    assert hash_partitions(frame, ["a", "c"], MANY).tolist() == wanted
    with pytest.raises(InvalidArgument, match="Arrow does not take this DataFrame"):
        hash_partitions(frame, "no", 8)
    with pytest.raises(InvalidArgument, match="no column 'z'"):
        hash_partitions(frame, "z", 8)


def test_a_frame_of_polars() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1, 2], "s": ["x", None]})
    plain = pa.table({"a": [1, 2], "s": ["x", None]})
    wanted = hash_partitions(plain, ["a", "s"], MANY).tolist()
    assert hash_partitions(frame, ["a", "s"], MANY).tolist() == wanted
