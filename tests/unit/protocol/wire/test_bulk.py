"""Requests and replies of a push stream, as bytes and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frame_making import block, frame

from cosco.errors import InvalidArgument
from cosco.format.frame import FRAME_HEADER_BYTES, parse_frame_header
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.wire import (
    push_reply_from_bytes,
    push_reply_to_bytes,
    push_request_from_bytes,
    push_request_to_bytes,
)

HELLO = Hello(7, 1, 2, 11)
SHOWN = HELLO._replace(capability="cosco1.x")
FRAME = frame([block(0, 0), block(1, 0)])
OUT = OutFrame(
    parse_frame_header(memoryview(FRAME)),
    (FRAME[FRAME_HEADER_BYTES:-9], FRAME[-9:]),
)


@pytest.mark.parametrize("has_frame", [False, True])
@given(
    hello=st.sampled_from([None, HELLO, HELLO._replace(primary=3, mapper=0), SHOWN]),
    released=st.lists(st.integers(0, 2**64 - 1), max_size=3),
    announce=st.lists(st.integers(0, 2**32 - 1), max_size=3),
    withdrawn=st.booleans(),
    eager=st.booleans(),
)
def test_all_that_one_request_says_arrives(
    has_frame: bool,
    hello: Hello | None,
    released: list[int],
    announce: list[int],
    withdrawn: bool,
    eager: bool,
) -> None:
    eager = eager and has_frame
    said = PushRequest(hello, released, announce, withdrawn, eager, OUT if has_frame else None)
    heard = push_request_from_bytes(push_request_to_bytes(said))
    assert (heard.hello, list(heard.released), list(heard.announce)) == (hello, released, announce)
    assert (heard.withdrawn, heard.eager) == (withdrawn, eager)
    assert (None if heard.frame is None else bytes(heard.frame)) == (FRAME if has_frame else None)


@pytest.mark.parametrize("length", range(1, 60))
def test_a_message_that_was_cut_short_is_refused(length: int) -> None:
    message = push_request_to_bytes(PushRequest(hello=HELLO, eager=True, frame=OUT))
    with pytest.raises(InvalidArgument):
        push_request_from_bytes(message[:-length])


def test_a_frame_that_is_not_the_last_field_is_refused() -> None:
    alone = push_request_to_bytes(PushRequest(frame=OUT))
    with pytest.raises(InvalidArgument, match="cut short"):
        push_request_from_bytes(alone + push_request_to_bytes(PushRequest(hello=HELLO)))


def test_a_reply_arrives_and_a_code_of_a_later_version_ends_the_stream() -> None:
    refusals = [Refusal(code, code, code.name) for code in RefusalCode]
    reply = PushReply([1, 2], 3, refusals, 4, 5)
    heard = push_reply_from_bytes(push_reply_to_bytes(reply))
    assert (list(heard.acknowledged), heard.granted, list(heard.refused)) == ([1, 2], 3, refusals)
    assert (heard.copies_max_bytes, heard.eager_bytes) == (4, 5)
    unknown = bytes([0x1A, 4, 0x08, 1, 0x10, 99])  # refused: sequence 1, code 99
    assert push_reply_from_bytes(unknown).refused == [Refusal(1, RefusalCode.PROTOCOL, "")]
    with pytest.raises(InvalidArgument):
        push_reply_from_bytes(b"\xff")
