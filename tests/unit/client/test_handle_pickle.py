"""Handles are for processes of one build."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest

from cosco.client.access.service_connection import Connection
from cosco.client.driver.exchange_handle import ExchangeHandle
from cosco.client.groups.handle import GroupHandle
from cosco.client.handle_pickle import shape_of, values_of
from cosco.errors import IncompatibleVersion


def exchange() -> Any:
    return ExchangeHandle(Connection("host:7070"), "a handle's", 3, 4, None, 60.0, None)


def group() -> Any:
    return GroupHandle(Connection("host:7070"), "a handle's", 2, 60.0, ())


@dataclass
class One:
    a: int
    b: int


def test_a_shape_is_another_one_where_a_field_is() -> None:
    others: list[Any] = [
        make_dataclass("One", [("a", int)]),
        make_dataclass("One", [("a", int), ("c", int)]),
        make_dataclass("One", [("b", int), ("a", int)]),
        make_dataclass("Two", [("a", int), ("b", int)]),
    ]
    assert len({shape_of(one) for one in (One, *others)}) == 5
    assert shape_of(One) == shape_of(make_dataclass("One", [("a", int), ("b", int)]))


@pytest.mark.parametrize("make", [exchange, group])
def test_a_handle_of_this_build_is_taken(make: Callable[[], Any]) -> None:
    handle = make()
    assert pickle.loads(pickle.dumps(handle)) == handle


@pytest.mark.parametrize("make", [exchange, group])
def test_one_of_another_build_is_refused_by_its_name(make: Callable[[], Any]) -> None:
    handle = make()
    shape, *values = handle.__getstate__()
    for state in ([shape + 1, *values], values, [True, *values], []):
        other = type(handle).__new__(type(handle))
        with pytest.raises(IncompatibleVersion, match="with one"):
            other.__setstate__(state)


def test_what_follows_the_shape_is_given() -> None:
    assert list(values_of([7, "a", "b"], 7)) == ["a", "b"]
