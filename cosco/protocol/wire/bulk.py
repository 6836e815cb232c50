"""The messages of a push stream, which carry rows in bulk, encoded and decoded by hand.

What is on the wire are PushRequest and PushReply of protos/cosco/v1/shuffle.proto. A message
class would copy the bytes of a request's last field, `frame`, once more; what stands before
it is small and left to the message class.
"""

from __future__ import annotations

from typing import Final

from cosco.errors import InvalidArgument
from cosco.format.frame import encode_frame_header
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.wire.fields import DELIMITED, VARINT, last_body, parsed, prefix, varint

_FRAME_TAG: Final = 6 << 3 | DELIMITED  # PushRequest.frame
_FRAME_PREFIX: Final = bytes((_FRAME_TAG,))
_EAGER: Final = bytes((5 << 3, 1))  # PushRequest.eager, true
#: Wire type → bytes of a field's value; of varints and length-delimited ones it varies.
_FIXED_BYTES: Final = {1: 8, 5: 4}


# --- requests of a push stream --------------------------------------------------------------


def push_request_to_bytes(request: PushRequest[OutFrame]) -> bytes:
    """Serialize what a sender says. The pieces of its frame are copied once, into the result."""
    frame = request.frame
    is_more_said = request.hello or request.released or request.announce or request.withdrawn
    said = _said_to_bytes(request) if is_more_said else b""
    if frame is None:
        return said
    parts = (encode_frame_header(frame.header), *frame.payload)
    eager = _EAGER if request.eager else b""
    return b"".join((said, eager, prefix(_FRAME_TAG, frame.frame_bytes), *parts))


def _said_to_bytes(request: PushRequest[OutFrame]) -> bytes:
    hello = None if request.hello is None else spb.Hello(**request.hello._asdict())
    said = spb.PushRequest(
        hello=hello,
        released=request.released,
        announce=request.announce,
        withdrawn=request.withdrawn,
    )
    return said.SerializeToString()


def push_request_from_bytes(message: bytes) -> PushRequest[memoryview]:
    """Return what a sender said; its frame is a view of `message`. Raises InvalidArgument."""
    offset = len(_EAGER) if message.startswith(_EAGER) else 0
    if message.startswith(_FRAME_PREFIX, offset):  # nearly always: a frame alone
        return PushRequest(eager=bool(offset), frame=last_body(message, offset + 1))
    offset, frame = _find_frame(message)
    said = parsed(spb.PushRequest, message[:offset])
    hello = None
    if said.HasField("hello"):
        pb = said.hello
        hello = Hello(
            pb.number,
            pb.mapper,
            pb.attempt,
            pb.incarnation,
            pb.primary,
            protocol=pb.protocol,
            capability=pb.capability,
        )
    return PushRequest(
        hello, tuple(said.released), tuple(said.announce), said.withdrawn, said.eager, frame
    )


def _find_frame(message: bytes) -> tuple[int, memoryview | None]:
    """Return where the frame's field begins, and the frame; the end and None if there is none."""
    offset = 0
    while offset < len(message):
        tag, start = varint(message, offset)
        if tag == _FRAME_TAG:
            return offset, last_body(message, start)
        kind = tag & 7
        if kind == VARINT:
            _, offset = varint(message, start)
        elif kind == DELIMITED:
            length, start = varint(message, start)
            offset = start + length
        elif kind in _FIXED_BYTES:
            offset = start + _FIXED_BYTES[kind]
        else:
            raise InvalidArgument(f"a push message with a field of wire type {kind}")
    return len(message), None


# --- replies of a push stream ---------------------------------------------------------------


def push_reply_to_bytes(reply: PushReply) -> bytes:
    """Serialize what a receiver says."""
    pb = spb.PushReply(
        acknowledged=reply.acknowledged,
        granted=reply.granted,
        copies_max_bytes=reply.copies_max_bytes,
        eager_bytes=reply.eager_bytes,
    )
    for sequence, code, reason in reply.refused:
        pb.refused.add(sequence=sequence, code=spb.RefusalCode.ValueType(code), reason=reason)
    return pb.SerializeToString()


def push_reply_from_bytes(message: bytes) -> PushReply:
    """Return what a receiver said; raises InvalidArgument."""
    pb = parsed(spb.PushReply, message)
    return PushReply(
        pb.acknowledged,
        pb.granted,
        [Refusal(one.sequence, _refusal_code(one.code), one.reason) for one in pb.refused],
        pb.copies_max_bytes,
        pb.eager_bytes,
    )


def _refusal_code(code: int) -> RefusalCode:
    try:
        return RefusalCode(code)
    except ValueError:  # of a later version: whatever it is, the stream cannot go on
        return RefusalCode.PROTOCOL
