"""Values that no honest client would send, for each type of a field."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from pyroaring import BitMap

_U32: Final = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    65535,
    65536,
    2**20,
    2**20 + 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
_U64: Final = (*_U32, 2**32, 2**48, 2**53, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
_FLOATS: Final = (
    math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 5e-324, 1e-9, 0.999, 604_801.0, 1e18, 1.7e308,
    -1.7e308,
)  # fmt: skip
_TEXTS: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "line\nline\r\nline\x0b\x0c\x85\u2028end",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J",
    "../../../../etc/passwd",
    "/",
    "//",
    "a/b/../c",
    "fuzz-/0",
    "e\u0301 \u00e9 \ufb01 \u212b",
    "\u202egnirts\u202c\u200b\ufeff",
    "\U0001f600" * 50,
    "%s%n%d{0}{}${x}",
    "'; DROP TABLE exchanges; --",
    "x" * 256,
    "x" * 257,
    "x" * 1024,
    "\u00e9" * 1024,
    "x" * 70_000,
)
_LENGTHS: Final = (0, 1, 3, 7, 8, 9, 15, 16, 17, 64, 255, 4096, 70_000)
#: Of repeated fields.
COUNTS: Final = (0, 1, 2, 100, 1025, 5000)


def odd_value(field: Any, rng: random.Random) -> Any:
    """Return a value that a field may have on the wire, and should not. No messages."""
    if field.type in {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}:
        return rng.choice(_FLOATS)
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return odd_bytes(rng)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 4, 99, 2**31 - 1, -1))
    if field.type in {FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32}:
        return rng.choice(_U32)
    return rng.choice(_U64)


def odd_bytes(rng: random.Random) -> bytes:
    """Return bytes for a field that may be a bitmap, an array, an owner or a schema."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(_bitmaps())
    if kind == 1:  # one that is broken
        whole = bytearray(rng.choice(_bitmaps()[:4]))
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        return bytes(whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.3 else whole)
    if kind == 2:
        return b"\xff" * rng.choice(_LENGTHS)
    if kind == 3:
        return bytes(rng.choice(_LENGTHS))
    return rng.randbytes(rng.choice(_LENGTHS))


@cache
def _bitmaps() -> tuple[bytes, ...]:
    """Sets that are valid: small ones, edges, and very many members in few bytes."""
    found = [BitMap(), BitMap((0,)), BitMap(range(0, 3000, 3)), BitMap((0, 2**20, 2**31 - 1)),
             BitMap((2**32 - 1,))]  # fmt: skip
    for low, high in ((0, 2**20), (0, 2**22 + 1), (0, 2**31), (0, 2**32)):
        runs = BitMap()
        runs.add_range(low, high)
        runs.run_optimize()
        found.append(runs)
    return tuple(bitmap.serialize() for bitmap in found)
