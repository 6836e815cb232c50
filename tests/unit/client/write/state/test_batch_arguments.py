"""Partitions and rows of a batch, as arrays and as anything else."""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.client.write.state.batch_arguments import (
    BatchRows,
    batch_partitions,
    byte_view,
    check_batch,
    check_row,
)
from cosco.errors import InvalidArgument, InvalidRow, PartitionOutOfRange, SchemaMismatch


@given(st.lists(st.integers(0, 299)), st.sampled_from([list, tuple, deque, np.array, pa.array]))
def test_partitions_in_the_narrowest_type(values: list[int], make: Any) -> None:
    found = batch_partitions(make(values), rows=len(values), partitions=300)
    assert not isinstance(found, int)
    assert found.dtype == np.uint16
    assert found.tolist() == values


@pytest.mark.parametrize("value", [0, 8, np.int8(8), np.uint64(0)])
def test_one_partition_for_all_rows_stays_one(value: Any) -> None:
    for rows in (0, 1, 1000):
        found = batch_partitions(value, rows=rows, partitions=9)
        assert type(found) is int
        assert found == value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, PartitionOutOfRange),
        (9, PartitionOutOfRange),
        (2**70, PartitionOutOfRange),
        (np.int64(9), PartitionOutOfRange),
        (True, InvalidRow),
        (np.False_, InvalidRow),
        (1.0, InvalidRow),
        (np.float64(1), InvalidRow),
        (np.array(1), InvalidRow),
        (int, InvalidRow),
    ],
)
def test_what_is_no_partition_for_all_rows(value: Any, error: type[Exception]) -> None:
    for rows in (0, 2):
        with pytest.raises(error) as caught:
            batch_partitions(value, rows=rows, partitions=9)
        assert type(caught.value) is error


def test_partitions_are_copied() -> None:
    for values in (np.zeros(2, np.uint8), array("B", [0, 0]), memoryview(bytearray(2))):
        found = batch_partitions(values, rows=2, partitions=4)
        values[0] = 3  # type: ignore[index]
        assert not isinstance(found, int)
        assert found.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.ma.array([0, 1], mask=[0, 1]), InvalidRow),
        (np.ma.array([0, 1], mask=[0, 0]), None),
        (np.ma.array([0, 1]), None),
        (np.array([0, 1], "M8[s]"), InvalidRow),
        (np.array([True, False]), InvalidRow),
        (np.array([0, None], object), InvalidRow),
        (np.array([0, 2**70], object), PartitionOutOfRange),
        (np.array([0, 2**64 - 1], np.uint64), PartitionOutOfRange),
        (np.array([0, -1]), PartitionOutOfRange),
        (range(-1, 1), PartitionOutOfRange),
        (range(2**70, 2**70 + 2), PartitionOutOfRange),
        (range(2**40), InvalidArgument),
        (range(2**70), InvalidArgument),
        (memoryview(b"\0\1"), None),
        (memoryview(b"ab").cast("c"), InvalidRow),
        (memoryview(np.zeros(2)), InvalidRow),
        (pa.array([0.0, 1.0]), InvalidRow),
        (pa.nulls(2), InvalidRow),
        (iter([0, 1]), InvalidRow),
    ],
    ids=range(19),
)
def test_partitions_of_two_rows(values: Any, error: type[Exception] | None) -> None:
    if error is None:
        found = batch_partitions(values, rows=2, partitions=9)
        assert np.array_equal(found, [0, 1])
        return
    with pytest.raises(error) as caught:
        batch_partitions(values, rows=2, partitions=9)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "empty", [[], np.array([]), np.array([], "M8[s]"), pa.nulls(0)], ids=range(4)
)
def test_no_partitions_have_any_type(empty: Any) -> None:
    assert np.array_equal(batch_partitions(empty, rows=0, partitions=9), [])
    with pytest.raises(InvalidArgument, match="0 partitions for 1 rows"):
        batch_partitions(empty, rows=1, partitions=9)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (np.arange(4, dtype=">i2").reshape(2, 2).T, b"\0\0\0\2\0\1\0\3"),
        (memoryview(b"abcd")[::-2], b"db"),
        (np.zeros((0, 3)), b""),
        (np.zeros(1, [("O", "u1"), ("x", "u1")]), b"\0\0"),
        (pa.scalar(b"ab", pa.binary(2)), b"ab"),
        (pa.scalar(b"", pa.large_binary()), b""),
    ],
    ids=range(6),
)
def test_rows_that_are_buffers(row: Any, found: bytes) -> None:
    assert bytes(byte_view(row)) == found


@pytest.mark.parametrize(
    "row",
    ["x", None, 1, np.float64(1), np.array(1), np.array(["2024"], "M8[s]"), np.array([{}], object),
     np.zeros(1, [("x", "O")]), pa.scalar("x"), pa.scalar(None, pa.binary()), pa.scalar(1)],
    ids=range(11),
)  # fmt: skip
def test_rows_that_are_none(row: Any) -> None:
    with pytest.raises(InvalidRow, match="a row is bytes-like, not"):
        byte_view(row)
    with pytest.raises(InvalidRow, match="row 1 of the batch: a row is bytes-like, not"):
        BatchRows([b"x", row])
    with pytest.raises(InvalidRow):
        check_row(0, row, partitions=1)


def test_rows_of_a_sequence_are_counted_once_and_as_a_list() -> None:
    rows = BatchRows(deque([b"a", b"bc"]))
    assert len(rows) == 2
    (run,) = rows.runs(lambda: 1000)
    assert bytes(run.data) == b"abc"
    assert run.offsets.tolist() == [0, 1, 3]


def test_no_rows_have_any_type() -> None:
    for empty in (pa.nulls(0), np.array([]), [], pa.chunked_array([], pa.null())):
        check_batch([], empty, partitions=1)
    with pytest.raises(InvalidRow, match="not double"):
        BatchRows(pa.array([], pa.float64()))


def test_a_table_is_no_batch_of_bytes() -> None:
    with pytest.raises(SchemaMismatch):
        BatchRows(pa.table({"a": [b"x"]}))


def test_rows_that_change_while_they_are_taken_are_refused() -> None:
    rows: list[Any] = [b"ab", b"c"]
    batch = BatchRows(rows)
    [run] = batch.runs(lambda: 1 << 20)
    assert (run.offsets.tolist(), bytes(run.data)) == ([0, 2, 3], b"abc")
    rows[1] = array("I", [1, 2])  # of two items, and eight bytes
    with pytest.raises(InvalidRow, match="changed"):
        list(batch.runs(lambda: 1 << 20))
