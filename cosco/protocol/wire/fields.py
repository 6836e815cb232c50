"""Fields of messages that are written and read by hand, as protobuf has them on the wire."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from cosco.errors import InvalidArgument

_Message = TypeVar("_Message", bound=Message)

#: Wire types: of numbers, and of bytes, text and messages, whose length comes first.
VARINT: Final = 0
DELIMITED: Final = 2
_MAX_VARINT_BYTES: Final = 10


def prefix(tag: int, length: int) -> bytes:
    """Return what comes before the `length` bytes of a field whose tag is one byte."""
    out = bytearray((tag,))
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def field(tag: int, *parts: bytes) -> bytes:
    """Return a field whose bytes are `parts`, one behind the other."""
    return b"".join((prefix(tag, sum(map(len, parts))), *parts))


def varint(message: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Return the number at `offset`, and where it ends; raises InvalidArgument."""
    value = shift = 0
    try:
        for end in range(offset + 1, offset + 1 + _MAX_VARINT_BYTES):
            byte = message[end - 1]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, end
            shift += 7
    except IndexError:  # it is cut short
        pass
    raise InvalidArgument("a message whose length field is broken")


def last_body(message: bytes | memoryview, offset: int) -> memoryview:
    """Return the bytes of the field whose length is at `offset`: the last of its message.

    Raises: InvalidArgument.
    """
    length, offset = varint(message, offset)
    if len(message) - offset != length:
        raise InvalidArgument(
            f"a message names {length} bytes and has {len(message) - offset}: it was cut short"
        )
    return memoryview(message)[offset:]


def parsed(kind: type[_Message], message: bytes) -> _Message:
    """Return a message that came as bytes; raises InvalidArgument."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidArgument(f"a message that is no {kind.__name__}: {error}") from None
