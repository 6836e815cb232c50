from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.arrow_arrays import Tagged, is_missing, logical, random_array, random_type

from cosco.client.content.array_parts import DoesNotFit, in_use, null_array, nulls_of


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    pa.register_extension_type(Tagged(pa.int8()))
    yield
    pa.unregister_extension_type("cosco.tests.tagged")


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), count=st.sampled_from([0, 1, 9]))
def test_nulls_of_every_type_are_well_formed(seed: int, count: int) -> None:
    kind = random_type(random.Random(seed), 3)
    array = null_array(count, kind)
    array.validate(full=True)
    assert array.type == kind
    assert len(array) == count
    assert all(map(is_missing, logical(array)))


def test_more_nulls_than_runs_can_count() -> None:
    kind = pa.run_end_encoded(pa.int16(), pa.string())
    assert null_array(2**15 - 1, kind).to_pylist() == [None] * (2**15 - 1)
    with pytest.raises(DoesNotFit):
        null_array(2**15, kind)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
@example(seed=30269)  # structs of an integer and a null
def test_nulls_are_found_wherever_they_are_said(seed: int) -> None:
    rng = random.Random(seed)
    array = random_array(rng, random_type(rng, 3), rng.choice([0, 1, 7]))
    found = nulls_of(array)
    wanted = [is_missing(one) for one in logical(array)]
    assert (found.tolist() if found is not None else [False] * len(array)) == wanted


@pytest.mark.parametrize("used", [None, [True, True, False, True]], ids=str)
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
def test_what_lists_refer_to_is_in_use(kind: Any, used: list[bool] | None) -> None:
    values = pa.array(range(10))
    valid = pa.py_buffer(np.packbits([True, True, True, True, False], bitorder="little"))
    made = kind(pa.int64())
    dtype = np.int64 if kind in (pa.large_list, pa.large_list_view) else np.int32
    if kind in (pa.list_view, pa.large_list_view):
        parts = [np.array([9, 0, 4, 2, 1], dtype), np.array([1, 2, 2, 0, 9], dtype)]
        wanted = [0, 1, 9] if used else [0, 1, 4, 5, 9]
        wanted_of_slice = [0, 1, 4, 5]
    else:
        parts = [np.array([1, 2, 4, 5, 5, 9], dtype)]
        wanted = [1, 2, 3] if used else [1, 2, 3, 4]
        wanted_of_slice = [2, 3, 4]
    array = pa.Array.from_buffers(made, 5, [valid, *map(pa.py_buffer, parts)], children=[values])
    mask = None if used is None else np.array([*used, True])
    assert usable(array, mask) == wanted
    assert usable(array.slice(1), None) == wanted_of_slice


def usable(array: Any, used: Any) -> list[int]:
    ((values, mask),) = in_use(array, used)
    every = values.to_pylist()
    return every if mask is None else [one for one, yes in zip(every, mask, strict=True) if yes]
