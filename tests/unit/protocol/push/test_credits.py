"""Grants: bounded, in turn, and never worth less than a frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.protocol.push.credits import EAGER_BYTES, MAX_ANNOUNCED_FRAMES, FrameCredits

MIB = 1 << 20


def test_what_is_granted_stays_within_the_budget_and_comes_back():
    board = FrameCredits(4 * MIB + 2 * EAGER_BYTES)  # a loan to each
    stream, other = board.open(), board.open()
    board.announce(stream, [MIB] * 8)
    board.announce(other, [MIB] * 8)
    assert dict(board.grant(0.0)) == {stream: 2, other: 2}
    assert board.grant(0.0) == []
    accounted = board.received(stream, MIB)
    assert board.grant(0.0) == []  # in hand is not settled
    board.settled(stream, accounted)
    # The streams take turns, and it is the turn of the one announced first.
    assert dict(board.grant(0.0)) == {stream: 1}
    board.close(other)
    assert dict(board.grant(0.0)) == {}  # at its share, a quarter, or one frame at least
    board.settled(stream, board.received(stream, MIB))
    board.taken(stream, 0.0)
    assert dict(board.grant(0.0)) == {stream: 1}


def test_a_large_frame_is_not_overtaken_for_ever_by_small_ones():
    board = FrameCredits(2 * MIB)
    small, large = board.open(), board.open()
    board.announce(small, [MIB])
    board.announce(large, [MAX_FRAME_BYTES])
    assert dict(board.grant(0.0)) == {small: 1}
    board.announce(small, [MIB])
    assert board.grant(0.0) == []
    board.settled(small, board.received(small, MIB))
    board.taken(small, 0.0)
    assert dict(board.grant(0.0)) == {large: 1}  # larger than the budget, so alone
    board.settled(large, board.received(large, MAX_FRAME_BYTES))
    board.taken(large, 0.0)
    assert dict(board.grant(0.0)) == {small: 1}


@pytest.mark.parametrize(
    ("announced", "sent", "what"),
    [([], 1, "not granted"), ([100], 101, "announced"), ([0], 0, "limit"),
     ([MAX_FRAME_BYTES + 1], 0, "limit"), ([1] * (MAX_ANNOUNCED_FRAMES + 1), 0, "more than")],
)  # fmt: skip
def test_a_sender_that_breaks_the_rules_is_refused(announced, sent, what):
    board = FrameCredits(MIB)
    stream = board.open()

    def misbehave() -> None:
        board.announce(stream, announced)
        board.grant(0.0)
        board.received(stream, sent)

    with pytest.raises(InvalidArgument, match=what):
        misbehave()


def test_who_sits_on_a_grant_is_found_only_while_others_wait():
    board = FrameCredits(MIB)
    idle, other = [board.open() for _ in range(20)], board.open()
    for stream in reversed(idle):
        board.announce(stream, [MIB // len(idle)])
    board.grant(10.0)
    assert board.stalled(100.0, 5.0) == []
    board.announce(other, [MIB])
    board.grant(100.0)
    assert board.stalled(14.0, 5.0) == []
    assert board.stalled(16.0, 5.0) == idle  # in the order in which they came
    for stream in idle:
        board.close(stream)
    assert dict(board.grant(16.0)) == {other: 1}


def test_frames_settle_in_any_order_and_keep_the_sender_from_nothing():
    board = FrameCredits(16 * MIB)
    stream = board.open()
    board.announce(stream, [3, 2 * MIB, 5])
    assert dict(board.grant(0.0)) == {stream: 3}
    first = board.received(stream, 1)
    assert stream.waiting_since is None
    board.taken(stream, 7.0)
    assert stream.waiting_since == 7.0  # it may send the next one, whatever the first waits for
    second = board.received(stream, 2 * MIB)
    board.taken(stream, 8.0)
    board.settled(stream, second)
    assert board.unsettled_bytes == stream.unsettled_bytes == 8
    board.settled(stream, first)
    assert board.unsettled_bytes == stream.unsettled_bytes == 5
    board.close(stream)
    assert board.unsettled_bytes == 0


@given(st.data())
def test_every_announced_frame_is_granted_in_the_end(data):
    budget = data.draw(st.integers(1, 8)) * MIB
    board = FrameCredits(budget)
    frames = {
        board.open(): data.draw(st.lists(st.integers(1, MAX_FRAME_BYTES), max_size=20))
        for _ in range(data.draw(st.integers(1, 6)))
    }
    left = {stream: list(lengths) for stream, lengths in frames.items()}
    for stream, lengths in frames.items():
        board.announce(stream, lengths)
    ready = []
    while any(left.values()) or ready:
        for stream, count in board.grant(0.0):
            ready.extend((stream, left[stream].pop(0)) for _ in range(count))
        lent = sum(stream.eager_limit for stream in frames)
        assert lent <= budget // 4
        assert board.unsettled_bytes <= max(budget - lent, MAX_FRAME_BYTES)
        assert ready, "nothing is granted although frames wait"
        stream, length = ready.pop(0)
        board.settled(stream, board.received(stream, length))
        board.taken(stream, 0.0)
    assert board.unsettled_bytes == 0


def test_a_stream_sends_eagerly_within_its_loan_whatever_others_hold():
    board = FrameCredits(4 * MIB)
    first, second, third = (board.open() for _ in range(3))
    assert [stream.eager_limit for stream in (first, second, third)] == [EAGER_BYTES] * 2 + [0]
    board.announce(third, [MIB] * 4)
    board.grant(0.0)
    board.received_eagerly(first, EAGER_BYTES - 1)
    board.received_eagerly(second, EAGER_BYTES)
    for stream, length in ((first, 2), (second, 1), (third, 1)):
        with pytest.raises(InvalidArgument, match="neither announced nor granted"):
            board.received_eagerly(stream, length)
    assert board.eager_bytes == 2 * EAGER_BYTES - 1
    board.settled_eagerly(first, EAGER_BYTES - 1)
    board.received_eagerly(first, EAGER_BYTES)
    for stream in (first, second, third):
        board.close(stream)
    assert board.eager_bytes == board.unsettled_bytes == 0
    assert board.open().eager_limit == EAGER_BYTES  # what was lent has come back


def test_a_sender_whose_eager_frame_is_being_taken_does_not_sit_on_its_grant():
    board = FrameCredits(4 * MIB)
    stream, waiting = board.open(), board.open()
    board.announce(stream, [3 * MIB // 2])
    board.grant(0.0)
    board.received_eagerly(stream, 100)
    board.announce(waiting, [2 * MIB])
    assert board.grant(0.0) == []
    assert stream not in board.stalled(100.0, 10.0)
    board.taken(stream, 100.0)
    assert stream in board.stalled(111.0, 10.0)
