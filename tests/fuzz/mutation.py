"""Changes of valid messages: of their fields, which leaves them messages, and of their bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .names import is_repeated
from .values import COUNTS, odd_value

#: A message that was made longer stays below this.
MAX_BYTES: Final = 4 << 20
_MAX_DEPTH: Final = 4


def mutate_fields(message: Message, rng: random.Random) -> None:
    """Give one to three fields of a message values that are odd, or none."""
    for _ in range(rng.randint(1, 3)):
        _mutate_one(message, rng, _MAX_DEPTH)


def _mutate_one(message: Message, rng: random.Random, depth: int) -> None:
    described = message.DESCRIPTOR.fields
    if not described:
        return
    field: Any = rng.choice(described)
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        _mutate_part(message, field, rng, depth)
    elif is_repeated(message, field):
        count = rng.choice(COUNTS)
        if field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            count = min(count, 2)
        is_one = rng.random() < 0.5
        first = odd_value(field, rng)
        values = getattr(message, field.name)
        values.extend(first if is_one else odd_value(field, rng) for _ in range(count))
    else:
        setattr(message, field.name, odd_value(field, rng))


def _mutate_part(message: Message, field: Any, rng: random.Random, depth: int) -> None:
    """Change a message within a message; or, of those that are repeated, have very many."""
    part: Any = getattr(message, field.name)
    if not is_repeated(message, field):
        part.SetInParent()
        if depth:
            _mutate_one(part, rng, depth - 1)
        return
    if not part:
        part.add()
    chosen = part[rng.randrange(len(part))]
    if depth:
        _mutate_one(chosen, rng, depth - 1)
    if rng.random() < 0.4:
        count = min(rng.choice(COUNTS), MAX_BYTES // (4 * (chosen.ByteSize() + 1)))
        part.extend([chosen] * count)


def mutate_bytes(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Return the bytes with one to four places flipped, cut, put in, doubled or spliced.

    others: messages that pieces are taken from.
    """
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[at : at + rng.choice((1, 2, 8, len(found)))]
        elif kind == 2:
            found[at:at] = rng.randbytes(rng.choice((1, 2, 10, 100)))
        elif kind == 3:
            found[at:at] = found[at : at + rng.choice((1, 8, 64, len(found)))]
        elif kind == 4:
            other = rng.choice(others) if others else b""
            start = rng.randrange(len(other) + 1)
            found[at:] = other[start:]
        elif at < len(found):
            found[at] = rng.choice((0, 0x7F, 0x80, 0xFF))
    return bytes(found[:MAX_BYTES])
