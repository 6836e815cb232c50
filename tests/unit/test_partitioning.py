from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
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
    columns = [rows.column("i").cast(integer), rows.column("s").cast(kind)]
    other = pa.record_batch(columns, names=["i", "s"])
    wanted = hash_partitions(rows, ["i", "s"], 1000).tolist()
    assert hash_partitions(other, ["i", "s"], 1000).tolist() == wanted


def test_keys_spread_evenly() -> None:
    rows = pa.record_batch({"i": np.arange(100_000)})
    counts = np.bincount(hash_partitions(rows, ["i"], 100), minlength=100)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_other_types_are_refused() -> None:
    rows = pa.record_batch({"x": [1.5]})
    with pytest.raises(InvalidArgument, match=r"column 'x' is double"):
        hash_partitions(rows, ["x"], 3)


def test_null_is_not_the_empty_key() -> None:
    rows = batch([(None, None), (0, "")])
    assert len(set(hash_partitions(rows, ["i"], 10**9).tolist())) == 2
    assert len(set(hash_partitions(rows, ["s"], 10**9).tolist())) == 2
