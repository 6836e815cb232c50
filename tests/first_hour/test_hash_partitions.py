"""People part their rows by a key before they know what a hash of Arrow types may be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cosco import CoscoError, CoscoExchange, CoscoReader, CoscoWriter, InvalidArgument
from cosco.partitioning import hash_partitions

PARTITIONS = 8
KEYS = [1, 2, 3, 5, 8, 13, 21, 34]


def parts(values: Any, kind: pa.DataType | None = None, partitions: int = 10**9) -> list[int]:
    return hash_partitions(pa.table({"k": pa.array(values, kind)}), "k", partitions).tolist()


def test_the_key_is_one_name() -> None:
    rows = pa.table({"a": [1, 1], "b": [1, 2], "ab": [7, 7]})
    first, second = hash_partitions(rows, "ab", 10**9).tolist()
    assert first == second == hash_partitions(rows, ["ab"], 10**9)[0]


def test_a_table_read_in_several_pieces_with_a_text_key() -> None:
    rows = pa.Table.from_arrays([pa.chunked_array([["x", "y"], ["x", None]])], ["k"])
    assert hash_partitions(rows, "k", 10**9).tolist() == parts(["x", "y", "x", None])


@pytest.mark.parametrize("partitions", [0, 4.5, -4, True, "8", None, 10**400])
def test_partitions_that_are_no_count(partitions: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^partitions is .*, it must be"):
        parts([1], partitions=partitions)


@pytest.mark.parametrize("keys", ["user", ["user"], [], ["k", "user"], [0], "k k"])
def test_a_key_that_is_no_column(keys: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"column|key"):
        hash_partitions(pa.table({"k": [1]}), keys, 8)


@pytest.mark.parametrize("kind", [set, frozenset])
def test_keys_that_are_a_set(kind: Callable[[list[str]], Any]) -> None:
    """Its order is another one in every process, and so would be the partitions."""
    with pytest.raises(InvalidArgument, match="keys are a set, which has another order"):
        hash_partitions(pa.table({"a": [1], "b": [2]}), kind(["a", "b"]), 8)


def test_a_key_that_stands_twice_after_a_join() -> None:
    joined = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"])
    with pytest.raises(InvalidArgument, match="2 columns are named 'id'"):
        hash_partitions(joined, "id", 8)


def test_a_key_of_lists() -> None:
    with pytest.raises(InvalidArgument, match=r"'k' is list<item: int64>, which cannot be a key"):
        parts([[1], [2]])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([7, 2**31 - 1], pa.int32()), pa.array([7, 2**31 - 1], pa.uint64())),
        (pa.array([0.5, 0.25], pa.float32()), pa.array([0.5, 0.25], pa.float64())),
        (pa.array([-0.0, np.nan]), pa.array([0.0, -np.nan])),
        (pa.array(["a", "b"]), pa.array(["a", "b"], pa.string_view())),
        (pa.array([b"a", b"b"]), pa.array([b"a", b"b"], pa.binary(1))),
        (pa.array([Decimal("1.0"), Decimal("2.5")]), pa.array([Decimal("1.00"), Decimal("2.50")])),
        (pa.array([Decimal(1), None]), pa.array([Decimal(1), None], pa.decimal256(40, 3))),
        (pa.array([1, -3], pa.timestamp("s")), pa.array([1000, -3000], pa.timestamp("ms"))),
        (pa.array([1], pa.timestamp("s", "UTC")), pa.array([1], pa.timestamp("s", "Asia/Tokyo"))),
        (pa.array([date(2024, 2, 29)]), pa.array([date(2024, 2, 29)], pa.date64())),
        (pa.array([3, 4], pa.duration("s")), pa.array([3000, 4000], pa.duration("ms"))),
        (pa.array([3, 4], pa.time32("s")), pa.array([3 * 10**9, 4 * 10**9], pa.time64("ns"))),
        (pa.array([True, None]), pa.array([True, None]).dictionary_encode()),
        (pa.array(["a", None]), pa.array(["a", None]).dictionary_encode()),
        (pa.array([1.5, None]), pa.array([1.5, None]).dictionary_encode()),
        (pa.nulls(2), pa.nulls(2, pa.string())),
    ],
    ids=lambda column: str(column.type),
)
def test_two_sides_of_a_join_spell_their_keys_differently(one: pa.Array, other: pa.Array) -> None:
    assert parts(one) == parts(other)


def test_rows_of_two_mappers_are_joined_by_an_instant(name: str, metadata: str) -> None:
    """One has its times as pandas makes them, the other as Arrow does, in another zone."""
    instants = [datetime(2024, 2, 29, 12, minute, tzinfo=UTC) for minute in KEYS]
    local = pd.Series(instants).dt.tz_convert("America/New_York")
    kind = pa.timestamp("us", "UTC")
    sides = [
        (0, pa.array(local)),
        (1, pa.array(instants, kind)),
    ]
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        for mapper, keys in sides:
            with CoscoWriter(name, mapper, metadata=metadata) as writer:
                rows = pa.table({"at": keys})
                sent = pa.table({"at": keys.cast(kind), "mapper": [mapper] * len(keys)})
                writer.collect_batch(hash_partitions(rows, "at", PARTITIONS), sent)
        found = 0
        for partition in range(PARTITIONS):
            with CoscoReader(name, range(2), partition, metadata=metadata) as reader:
                table = reader.read_table()
            pairs = set(zip(*table.to_pydict().values(), strict=True))
            assert pairs == {(at, mapper) for at, _ in pairs for mapper in (0, 1)}
            found += len(pairs)
        assert found == 2 * len(KEYS)


def test_every_refusal_is_one_of_ours() -> None:
    """Nothing raw leaks out, whatever stands where rows, keys or a count belong."""
    hostile: list[Any] = [
        None, True, -1, 1.5, 10**400, 10**5000, np.nan, "k", "\ud800", b"k", [], [None],
        np.zeros((2, 2)), pa.array([1]), pa.table({"k": [1]}), pd.Series([1]), range(3),
        {}, object(),
    ]  # fmt: skip
    rows = pa.table({"k": [1]})
    for thing in hostile:
        for arguments in ((thing, "k", 8), (rows, thing, 8), (rows, "k", thing)):
            try:
                taken = hash_partitions(*arguments)
            except CoscoError as error:
                assert isinstance(error, InvalidArgument), arguments
            else:
                assert taken.tolist() == [0] or 0 <= taken[0] < 8, arguments
