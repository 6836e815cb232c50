"""Arguments that several of the public classes take, checked at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import islice, pairwise
from numbers import Real
from typing import Any, Final

import numpy as np
from pyroaring import BitMap

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import (
    MAX_MAPPER,
    MAX_NAMED_MAPPERS,
    MAX_PARTITIONS,
    check_named_count,
    check_shuffle_id,
    shown,
    shown_value,
)

#: As good as for ever, and nothing that takes a time overflows.
_MAX_SECONDS: Final = 1e9
#: Sequences of integers that are no mapper ids.
_TEXT: Final = (str, bytes, bytearray)


def shuffle_name(shuffle_id: object) -> str:
    """Return a valid shuffle id."""
    if not isinstance(shuffle_id, str):
        raise InvalidArgument(f"shuffle_id is {shown_value(shuffle_id)}, it must be a string")
    check_shuffle_id(shuffle_id)
    return str(shuffle_id)


def whole_number(
    name: str, value: object, low: int | None, high: int | None, shuffle_id: str
) -> int:
    """Return an integer within its bounds, if it has any. Numpy's count, booleans do not."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(
            f"{name} is {shown_value(value)}, it must be an integer", shuffle_id=shuffle_id
        ) from None
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        raise InvalidArgument(
            f"{name} is {shown_value(number)}, it must be {bounds}", shuffle_id=shuffle_id
        )
    return number


def finite_number(name: str, value: object, what: str, shuffle_id: str = "") -> float:
    """Return a number of any type that has an order, but no boolean, infinity or NaN."""
    try:
        if isinstance(value, bool) or not isinstance(value, Real | Decimal):
            raise TypeError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(
            f"{name} is {shown_value(value)}, it must be {what}", shuffle_id=shuffle_id
        ) from None
    return number


def seconds(name: str, value: object, low: float, shuffle_id: str) -> float:
    """Return a finite number of seconds, at least `low`."""
    number = finite_number(name, value, "a number of seconds", shuffle_id)
    if number < low:
        raise InvalidArgument(
            f"{name} is {shown_value(value)}, it must be at least {low:g}", shuffle_id=shuffle_id
        )
    return min(number, _MAX_SECONDS)


def switch(name: str, value: object, shuffle_id: str = "") -> bool:
    """Return True or False, numpy's as well: of other values it is not sure what is meant."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidArgument(
            f"{name} is {shown_value(value)}, it must be True or False", shuffle_id=shuffle_id
        )
    return bool(value)


def partition_list(partition: object, shuffle_id: str) -> Sequence[int]:
    """Return the partitions that a reader reads, one or several, ascending."""
    if isinstance(partition, range) and partition:  # which may be more than there is room for
        partition = partition if partition.step > 0 else partition[::-1]
        return partition if len(partition) <= MAX_PARTITIONS else (partition[0], partition[-1])
    try:
        if isinstance(partition, _TEXT) or not isinstance(partition, Iterable):
            raise TypeError
        if getattr(partition, "ndim", 1) != 1:
            raise TypeError
        found = sorted(_whole_id(one) for one in islice(partition, MAX_PARTITIONS + 1))
    except TypeError:
        if isinstance(partition, Iterable) and getattr(partition, "ndim", 1) != 0:
            raise InvalidArgument(
                f"partition is {shown_value(partition)}, it must be an integer, or several",
                shuffle_id=shuffle_id,
            ) from None
        return (whole_number("partition", partition, None, None, shuffle_id),)
    twice = next((one for one, other in pairwise(found) if one == other), None)
    if not found or twice is not None:
        wrong = "no partition is named" if not found else f"partition {twice} is named twice"
        raise InvalidArgument(f"{wrong}: name each that is to be read once", shuffle_id=shuffle_id)
    return found


def mapper_set(mappers: Iterable[object], shuffle_id: str) -> BitMap:
    """Return the mapper ids that a reader names."""
    try:
        if isinstance(mappers, range | BitMap):
            return _of_ordered(mappers, shuffle_id)
        if isinstance(mappers, _TEXT) or getattr(mappers, "ndim", 1) != 1:
            raise TypeError
        ids = [
            mapper if type(mapper) is int else _whole_id(mapper)
            for mapper in islice(mappers, MAX_NAMED_MAPPERS + 1)
        ]
    except TypeError:
        raise InvalidArgument(
            f"mappers is {shown_value(mappers)}, it must be an iterable of integers",
            shuffle_id=shuffle_id,
        ) from None
    check_named_count(len(ids), shuffle_id)
    for mapper in (min(ids), max(ids)) if ids else ():
        whole_number("a mapper", mapper, 0, MAX_MAPPER, shuffle_id)
    return BitMap(ids)


def check_named(named: BitMap, mappers: int, shuffle_id: str) -> None:
    """Check that an exchange of `mappers` mappers has those named: others never commit.

    mappers: 0 if nobody has said.
    """
    if mappers and named and named.max() >= mappers:
        raise InvalidArgument(
            f"mapper {named.max()} is named, and exchange {shown(shuffle_id)} has mappers 0 to "
            f"{mappers - 1}",
            shuffle_id=shuffle_id,
        )


def _whole_id(one: Any) -> int:
    """Return an id; raises TypeError for what is no integer."""
    if isinstance(one, bool | np.bool_):
        raise TypeError
    # Scalars of Arrow are no integers themselves.
    return operator.index(one.as_py() if hasattr(one, "as_py") else one)


def _of_ordered(mappers: Any, shuffle_id: str) -> BitMap:
    """Return what a range or a bitmap has, which may be more than memory has room for as a list."""
    if not mappers:
        return BitMap()
    ends = (mappers[0], mappers[-1])
    for mapper in (min(ends), max(ends)):
        whole_number("a mapper", mapper, 0, MAX_MAPPER, shuffle_id)
    check_named_count(len(mappers), shuffle_id)
    return BitMap(mappers)
