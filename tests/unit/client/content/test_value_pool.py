from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosco.client.content import value_pool
from cosco.client.content.value_pool import ValuePool, value_ids
from cosco.errors import CapacityExceeded

KINDS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.null(), [None, None]),
    (pa.bool_(), [True, False, None]),
    (pa.int16(), [1, 2, None]),
    (pa.float64(), [0.0, -0.0, float("nan"), None]),
    (pa.string(), ["", "a", None]),
    (pa.binary(0), [b"", None]),
    (pa.binary(3), [b"abc", b"abd", None]),
    (pa.decimal128(5, 1), [None]),
    (pa.list_(pa.string()), [[], ["a"], ["a", None], ["a", "a"], None]),
    (pa.list_(pa.int8(), 2), [[1, 2], [2, 1], [1, None], None]),
    (pa.struct([("x", pa.int8()), ("y", pa.string())]), [{"x": 1, "y": "a"}, {"x": 1}, {}, None]),
    (pa.struct([]), [{}, None]),
    (pa.map_(pa.string(), pa.int8()), [[("a", 1)], [("a", 2)], [], None]),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=[str(kind) for kind, _ in KINDS])
@settings(max_examples=20)
@given(data=st.data())
def test_equal_values_have_equal_numbers(kind: Any, values: list[Any], data: Any) -> None:
    picked = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12))
    first = data.draw(st.integers(0, len(picked)))
    array = pa.array([values[i] for i in picked], kind).slice(first)
    ids = value_ids(array).tolist()
    wanted = [0 if pa.types.is_null(kind) else i for i in picked[first:]]
    same = [[one == other for one in wanted] for other in wanted]
    assert [[one == other for one in ids] for other in ids] == same


def test_members_of_unions_have_numbers() -> None:
    codes, offsets = pa.array([0, 1, 0, 0, 1], pa.int8()), pa.array([0, 0, 1, 2, 1], pa.int32())
    children = [pa.array([1, 2, 1]), pa.array(["a", "a"])]
    ids = value_ids(pa.UnionArray.from_dense(codes, offsets, children)).tolist()
    assert ids[0] == ids[3] != ids[2]
    assert ids[1] == ids[4] not in (ids[0], ids[2])


def test_values_that_were_added_come_once() -> None:
    pool = ValuePool(pa.string())
    texts = pa.array(["a", "b"])
    assert [pool.add(texts), pool.add(pa.array(["b", "c", "b"])), pool.add(texts)] == [0, 2, 0]
    added = pool.added_bytes
    assert pool.values().to_pylist() == ["a", "b", "c"]
    assert pool.canonical().tolist() == [0, 1, 1, 2, 1]
    assert pool.add(pa.array(["d"])) == 5
    assert pool.values().to_pylist() == ["a", "b", "c", "d"]
    assert pool.canonical().tolist() == [0, 1, 1, 2, 1, 3]
    assert pool.added_bytes > added


def test_nothing_of_what_is_added_is_kept() -> None:
    data = np.array([1, 2], np.int64)
    pool = ValuePool(pa.int64())
    pool.add(pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(data)]))
    data[:] = 9
    assert pool.values().to_pylist() == [1, 2]


def test_a_pool_of_many_equal_dictionaries_stays_short() -> None:
    pool = ValuePool(pa.int64())
    for number in range(200):
        pool.add(pa.array([number, *range(1000)]))
    assert sum(map(len, pool._pending)) < 100_000
    assert len(pool.values()) == 1000


def test_a_pool_of_long_values_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its values are looked at: else one array may not hold them twice."""
    monkeypatch.setattr(value_pool, "_SLACK_BYTES", 10_000)
    joined: list[int] = []
    concat = pa.concat_arrays
    monkeypatch.setattr(
        pa,
        "concat_arrays",
        lambda arrays: (joined.append(sum(map(len, arrays))), concat(arrays))[1],
    )
    pool = ValuePool(pa.string())
    for index in range(100):
        pool.add(pa.array(["x" * 1000, f"{index:01000}"]))
    assert len(pool.values()) == 101
    assert max(joined) < 250


def test_more_values_than_references_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_pool, "_MAX_VALUES", 5)
    pool = ValuePool(pa.int8())
    assert pool.add(pa.array([1, 2, 3], pa.int8())) == 0
    with pytest.raises(CapacityExceeded, match=r"6 values .* read it by read_batches"):
        pool.add(pa.array([4, 5, 6], pa.int8()))
    assert pool.add(pa.array([1, 2, 3], pa.int8())) == 0  # these are there already


def test_more_values_than_one_array_holds() -> None:
    pool = ValuePool(pa.list_(pa.null()))
    for count in (2**30, 2**30 + 1):  # which take no memory
        pool.add(pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count)))
    with pytest.raises(CapacityExceeded, match="read it by read_batches"):
        pool.values()
