"""Which frame may be sent, which must be sent again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.protocol.push.window import MAX_RESENDS, OutFrame, ProtocolBroken, PushWindow


def frame(sequence: int) -> OutFrame:
    return OutFrame(sequence, range_index=0, epoch=1, frame_bytes=100 + sequence, message=b"")


def window_of(count: int) -> PushWindow:
    window = PushWindow()
    for sequence in range(1, count + 1):
        window.add(frame(sequence))
    return window


def sequences(frames: list[OutFrame]) -> list[int]:
    return [frame.sequence for frame in frames]


def test_frames_are_announced_once_and_sent_in_order_as_granted() -> None:
    window = window_of(3)
    assert window.announce() == [101, 102, 103]
    assert window.announce() == []
    assert sequences(window.granted(2)) == [1, 2]
    window.add(frame(4))
    assert window.announce() == [104]
    assert sequences(window.granted(2)) == [3, 4]
    assert sequences(window.acknowledged([2, 1])) == [2, 1]
    assert len(window) == 2


def test_a_new_stream_begins_with_all_that_is_not_acknowledged() -> None:
    window = window_of(4)
    window.announce()
    window.granted(3)
    window.acknowledged([2])
    window.restart()
    assert window.announce() == [101, 103, 104]
    assert sequences(window.granted(3)) == [1, 3, 4]
    window.acknowledged([1, 3, 4])
    assert not len(window)


def test_a_refused_frame_is_kept_and_sent_again_a_few_times() -> None:
    window = window_of(2)
    for _ in range(MAX_RESENDS):
        window.announce()
        window.granted(1 if len(window) == 1 else 2)
        if len(window) == 2:
            window.acknowledged([2])
        refused = window.refused(1)
        assert refused is not None
        assert window.resend(refused)
    assert window.announce() == [101]
    window.granted(1)
    refused = window.refused(1)
    assert refused is not None
    assert not window.resend(refused)
    assert len(window) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda window: window.granted(3),
        lambda window: window.acknowledged([3]),  # not sent yet
        lambda window: window.acknowledged([99]),
        lambda window: window.acknowledged([1, 1]),
        lambda window: window.refused(2) and window.acknowledged([2]),
    ],
)
def test_nonsense_from_a_daemon_is_told(nonsense: Callable[[PushWindow], object]) -> None:
    window = window_of(4)
    window.announce()
    window.granted(2)
    with pytest.raises(ProtocolBroken):
        nonsense(window)


@given(st.data())
def test_every_frame_is_acknowledged_once_whatever_breaks(data: st.DataObject) -> None:
    window, added, acknowledged = PushWindow(), 0, []
    announced: list[int] = []
    sent: list[int] = []
    limit = 0
    eager: dict[int, int] = {}
    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(["add", "grant", "acknowledge", "break", "allow"])):
            case "add":
                added += 1
                window.add(frame(added))
            case "grant" if announced:
                count = data.draw(st.integers(1, len(announced)))
                frames = window.granted(count)
                assert [f.frame_bytes for f in frames] == announced[:count]
                del announced[:count]
                sent += sequences(frames)
            case "acknowledge" if sent:
                chosen = data.draw(st.sampled_from(sent))
                sent.remove(chosen)
                acknowledged += sequences(window.acknowledged([chosen]))
                eager.pop(chosen, None)
            case "allow":
                limit = data.draw(st.integers(0, 500))
                window.allow_eager(limit)
            case "break":
                window.restart()
                announced.clear()
                sent.clear()
                eager.clear()
                limit = 0
        frames = window.send_eagerly()
        eager |= {f.sequence: f.frame_bytes for f in frames}
        sent += sequences(frames)
        assert not frames or sum(eager.values()) <= limit
        announced += window.announce()
    window.restart()
    lengths = window.announce()
    frames = window.granted(len(lengths))
    acknowledged += sequences(window.acknowledged(sequences(frames)))
    assert sorted(acknowledged) == list(range(1, added + 1))


def mixed_window() -> PushWindow:
    """Frames 1 to 6, of epochs 1 and 2 in turn: 1 and 2 sent, 3 and 4 announced, 5 and 6 new."""
    window = PushWindow()
    for sequence in range(1, 7):
        window.add(OutFrame(sequence, 0, 2 - sequence % 2, 100 + sequence, b""))
        if sequence == 4:
            window.announce()
            window.granted(2)
    return window


def test_taken_frames_of_every_stage_are_gone_and_their_answers_are_ignored() -> None:
    window = mixed_window()
    assert window.pairs() == {(0, 1), (0, 2)}
    assert sequences(window.take(0, 1)) == [1, 3, 5]
    assert window.take(0, 1) == window.take(1, 2) == []
    assert window.pairs() == {(0, 2)}
    assert sequences(window.acknowledged([1, 2])) == [2]
    with pytest.raises(ProtocolBroken):  # once only
        window.acknowledged([1])
    assert len(window) == 2


def test_a_refusal_of_a_taken_frame_is_ignored() -> None:
    window = mixed_window()
    window.take(0, 1)
    assert window.refused(1) is None
    refused = window.refused(2)
    assert refused is not None
    assert len(window) == 3


def test_nothing_goes_out_when_announced_frames_are_missing_until_a_new_stream() -> None:
    window = mixed_window()
    assert not window.has_gap
    window.take(0, 1)
    assert window.has_gap
    assert window.announce() == window.granted(2) == []
    window.restart()
    assert not window.has_gap
    assert window.announce() == [102, 104, 106]
    assert sequences(window.granted(3)) == [2, 4, 6]
    with pytest.raises(ProtocolBroken):
        window.acknowledged([1])  # was of the stream before


def test_taking_what_the_daemon_does_not_wait_for_leaves_no_gap() -> None:
    window = window_of(2)
    window.announce()
    window.granted(2)
    window.add(OutFrame(3, 0, 2, 103, b""))
    window.take(0, 1)
    assert not window.has_gap
    assert window.is_under_way  # two answers are to come
    assert window.announce() == [103]
    window.acknowledged([1])
    window.refused(2)
    assert sequences(window.granted(1)) == [3]


def test_a_frame_is_under_way_from_its_announcement_to_its_answer() -> None:
    window = PushWindow()
    assert not window.is_under_way
    window.add(OutFrame(1, 0, 1, 100, b""))
    assert not window.is_under_way  # nothing was said of it, so no reply will come
    window.announce()
    assert window.is_under_way
    window.granted(1)
    assert window.is_under_way
    window.acknowledged([1])
    assert not window.is_under_way


def test_frames_are_sent_eagerly_as_far_as_is_allowed_and_others_announced() -> None:
    window = window_of(4)  # of 101 to 104 bytes
    assert window.send_eagerly() == []
    window.allow_eager(204)
    assert sequences(window.send_eagerly()) == [1, 2]  # 203 bytes
    assert window.is_under_way
    assert window.send_eagerly() == []
    window.acknowledged([1])
    assert sequences(window.send_eagerly()) == []  # 102 are under way
    window.allow_eager(205)
    assert sequences(window.send_eagerly()) == [3]
    assert window.announce() == [104]
    window.take(0, 1)  # all; what was sent is answered all the same
    assert window.acknowledged([2]) == window.acknowledged([3]) == []
    window.add(OutFrame(5, 0, 2, 205, b""))
    assert window.has_gap
    assert window.send_eagerly() == []
    window.restart()
    assert window.send_eagerly() == []  # the next stream has to allow it anew
    window.allow_eager(205)
    assert sequences(window.send_eagerly()) == [5]
