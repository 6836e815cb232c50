"""Arguments that several of the public classes take, checked at once."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable

from pyroaring import BitMap

from cosco.config import DEFAULT_METADATA, METADATA_VARIABLE, parse_address
from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER, check_shuffle_id


def metadata_address(metadata: str | None) -> str:
    """Return the address given, else that of the environment, else the default."""
    address = metadata or os.environ.get(METADATA_VARIABLE) or DEFAULT_METADATA
    if not isinstance(address, str):
        raise InvalidArgument(f"metadata is {address!r}, it must be host:port")
    parse_address(address)
    return address


def shuffle_name(shuffle_id: object) -> str:
    """Return a valid shuffle id."""
    if not isinstance(shuffle_id, str):
        raise InvalidArgument(f"shuffle_id is {shuffle_id!r}, it must be a string")
    check_shuffle_id(shuffle_id)
    return shuffle_id


def whole_number(
    name: str, value: object, low: int | None, high: int | None, shuffle_id: str
) -> int:
    """Return an integer within its bounds, if it has any. Numpy's count, booleans do not."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(
            f"{name} is {value!r}, it must be an integer", shuffle_id=shuffle_id
        ) from None
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        raise InvalidArgument(f"{name} is {number}, it must be {bounds}", shuffle_id=shuffle_id)
    return number


def seconds(name: str, value: object, low: float, shuffle_id: str) -> float:
    """Return a finite number of seconds, at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgument(
            f"{name} is {value!r}, it must be a number of seconds", shuffle_id=shuffle_id
        )
    if value < low:
        raise InvalidArgument(
            f"{name} is {value}, it must be at least {low:g}", shuffle_id=shuffle_id
        )
    return float(value)


def mapper_set(mappers: Iterable[object], shuffle_id: str) -> BitMap:
    """Return the mapper ids that a reader names."""
    try:
        named = list(mappers)
        ids = [operator.index(mapper) for mapper in named]  # type: ignore[arg-type]
        if bool in set(map(type, named)):
            raise TypeError
    except TypeError:
        raise InvalidArgument(
            f"mappers is {mappers!r}, it must be an iterable of integers", shuffle_id=shuffle_id
        ) from None
    for mapper in (min(ids), max(ids)) if ids else ():
        whole_number("a mapper", mapper, 0, MAX_MAPPER, shuffle_id)
    return BitMap(ids)
