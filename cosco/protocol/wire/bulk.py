"""The messages that carry rows in bulk, encoded and decoded by hand.

What is on the wire are PushRequest.frame, PushRequest.eager_frame and FetchReply.data of
protos/cosco/v1/shuffle.proto; a message class would copy their bytes once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from cosco.errors import InvalidArgument
from cosco.protocol.pb import shuffle_pb2 as spb

_Message = TypeVar("_Message", bound=Message)

_FRAME_TAG: Final = 3 << 3 | 2  # PushRequest.frame, length-delimited
_EAGER_FRAME_TAG: Final = 5 << 3 | 2  # PushRequest.eager_frame
_EAGER_PREFIX: Final = bytes((_EAGER_FRAME_TAG,))
_OPENING_TAG: Final = 6 << 3 | 2  # PushRequest.opening
_HELLO_TAG: Final = 1 << 3 | 2  # Opening.hello
_OPENING_FRAME_PREFIX: Final = bytes((2 << 3 | 2,))  # Opening.frame
_DATA_TAG: Final = 2 << 3 | 2  # FetchReply.data


def _bulk_prefix(tag: int, length: int) -> bytes:
    out = bytearray((tag,))
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _bulk_body(message: bytes, tag: int) -> memoryview | None:
    """The bytes field of a message that has that field alone; None for another message."""
    if not message or message[0] != tag:
        return None
    length = shift = 0
    offset = 1
    while True:
        if offset >= len(message) or shift > 28:
            raise InvalidArgument("a message whose length field is broken")
        byte = message[offset]
        length |= (byte & 0x7F) << shift
        offset += 1
        shift += 7
        if byte < 0x80:
            break
    if len(message) - offset != length:
        raise InvalidArgument(
            f"a message names {length} bytes and has {len(message) - offset}: it was cut short"
        )
    return memoryview(message)[offset:]


def push_frame(parts: Sequence[bytes | memoryview], *, eager: bool = False) -> bytes:
    """PushRequest(frame=b"".join(parts)), or eager_frame=, serialized with one copy."""
    tag = _EAGER_FRAME_TAG if eager else _FRAME_TAG
    return b"".join((_bulk_prefix(tag, sum(map(len, parts))), *parts))


def eager_frame(message: bytes) -> bytes:
    """What `push_frame` made, as PushRequest.eager_frame."""
    return b"".join((_EAGER_PREFIX, memoryview(message)[1:]))


def opening(hello: spb.Hello, message: bytes) -> bytes:
    """PushRequest.opening, of a hello and what `push_frame` made."""
    said = hello.SerializeToString()
    parts = (
        _bulk_prefix(_HELLO_TAG, len(said)), said,
        _OPENING_FRAME_PREFIX, memoryview(message)[1:],
    )  # fmt: skip
    return b"".join((_bulk_prefix(_OPENING_TAG, sum(map(len, parts))), *parts))


class PushedFrame(NamedTuple):
    """A frame of a sender; `eager`: it was not announced."""

    data: memoryview
    eager: bool


def push_request(message: bytes) -> PushedFrame | spb.PushRequest:
    """A frame, or the other message a sender sent; raises InvalidArgument."""
    if (data := _bulk_body(message, _FRAME_TAG)) is not None:
        return PushedFrame(data, eager=False)
    if (data := _bulk_body(message, _EAGER_FRAME_TAG)) is not None:
        return PushedFrame(data, eager=True)
    return _parsed(spb.PushRequest, message)


def fetch_request(message: bytes) -> spb.FetchRequest:
    """What a reader asks for; raises InvalidArgument."""
    return _parsed(spb.FetchRequest, message)


def _parsed(kind: type[_Message], message: bytes) -> _Message:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidArgument(f"a message that is no {kind.__name__}: {error}") from None


def fetch_data(parts: list[memoryview]) -> bytes:
    """FetchReply(data=b"".join(parts)), serialized with one copy."""
    return b"".join((_bulk_prefix(_DATA_TAG, sum(map(len, parts))), *parts))


def fetch_reply(message: bytes) -> memoryview | spb.Section:
    """A piece of data, or the section that the next pieces belong to."""
    data = _bulk_body(message, _DATA_TAG)
    return spb.FetchReply.FromString(message).section if data is None else data
