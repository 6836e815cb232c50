"""Arrays of numbers and sets of mappers, as fields of bytes; both checked when they come in."""

from __future__ import annotations

from typing import Final

import numpy as np
from pyroaring import BitMap

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER, MAX_PARTITIONS
from cosco.protocol.records import U32, U64

#: Bytes of a number in a narrow array → how numpy calls it.
_WIDTHS: Final = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def u64(data: bytes, what: str) -> U64:
    """Return what `bytes64` was given; raises InvalidArgument."""
    if len(data) % 8:
        raise InvalidArgument(f"{what}: {len(data)} bytes are no array of uint64")
    return np.frombuffer(data, dtype="<u8")


def narrow_u64(data: bytes, count: int, what: str) -> U64:
    """Return what `narrow_bytes` made of `count` numbers; raises InvalidArgument."""
    if not data:
        return np.zeros(count, dtype=np.uint64)
    width, left = divmod(len(data), count) if count else (0, 0)
    if left or width not in _WIDTHS:
        raise InvalidArgument(f"{what}: {len(data)} bytes are no array of {count} numbers")
    return np.frombuffer(data, dtype=_WIDTHS[width]).astype(np.uint64)


def narrow_bytes(array: U64) -> bytes:
    """Return the numbers, little-endian, in as many bytes each as the largest needs.

    Nothing if all are 0.
    """
    largest = int(array.max(initial=0))
    if not largest:
        return b""
    width = next(width for width in _WIDTHS if largest < 1 << 8 * width)
    return array.astype(_WIDTHS[width]).tobytes()


def ascending_u32(gaps: bytes, count: int, limit: int, what: str) -> U32:
    """Return the `count` numbers that `gaps_bytes` was given; InvalidArgument from `limit` on."""
    if len(gaps) > 4 * count:
        raise InvalidArgument(f"{what}: {len(gaps)} bytes of gaps for {count} numbers")
    if not gaps and count <= limit:
        return np.arange(count, dtype=np.uint32)
    array = np.cumsum(narrow_u64(gaps, count, what) + np.uint64(1)) - np.uint64(1)
    if count and int(array[-1]) >= limit:
        raise InvalidArgument(f"{what}: {array[-1]} is too large, it must be below {limit}")
    return array.astype(np.uint32)


def gaps_bytes(array: U32) -> bytes:
    """Return ascending numbers as how many are left out before each, made by `narrow_bytes`."""
    gaps = np.diff(array.astype(np.int64), prepend=np.int64(-1)) - 1
    return narrow_bytes(gaps.astype(np.uint64))


def bytes64(array: U64) -> bytes:
    """Return the numbers as eight bytes each, little-endian."""
    return np.ascontiguousarray(array, dtype="<u8").tobytes()


def bitmap_bytes(bitmap: BitMap) -> bytes:
    """Return the set as a roaring bitmap; nothing for an empty one."""
    return bitmap.serialize() if bitmap else b""


def bitmap_from_bytes(data: bytes, what: str) -> BitMap:
    """Return a roaring bitmap of mapper ids; raises InvalidArgument."""
    bitmap = _bitmap(data, what)
    if bitmap and bitmap.max() > MAX_MAPPER:
        raise InvalidArgument(f"{what}: mapper {bitmap.max()} is beyond {MAX_MAPPER}")
    return bitmap


def partitions_from_bytes(data: bytes, what: str) -> BitMap:
    """Return a roaring bitmap of partitions; raises InvalidArgument."""
    bitmap = _bitmap(data, what)
    if bitmap and bitmap.max() >= MAX_PARTITIONS:
        raise InvalidArgument(
            f"{what}: {bitmap.max()} is too large, it must be below {MAX_PARTITIONS}"
        )
    return bitmap


def bitmap_array(bitmap: BitMap) -> U32:
    """Return the members of a set, ascending."""
    return np.array(bitmap.to_array(), dtype=np.uint32)


def _bitmap(data: bytes, what: str) -> BitMap:
    if not data:
        return BitMap()
    try:
        return BitMap.deserialize(data)
    except Exception as error:  # the library raises plain and various errors
        raise InvalidArgument(f"{what}: no roaring bitmap") from error
