"""What a sender says: which frame may go, which must go again, what of answers counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.format.frame import FRAME_HEADER_BYTES, FrameHeader
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import (
    MAX_OPENING_BYTES,
    MAX_RELEASED,
    MAX_RESENDS,
    MAX_UNDER_WAY,
    Answered,
    OutFrame,
    ProtocolBroken,
    PushSender,
)

HELLO = Hello(number=7, mapper=1, attempt=2, incarnation=11)
BAD = RefusalCode.BAD_FRAME


def frame(sequence: int, *, epoch: int = 1, frame_bytes: int | None = None) -> OutFrame:
    """A frame of 100 bytes and its sequence, or of `frame_bytes`."""
    body_bytes = (frame_bytes or 100 + sequence) - FRAME_HEADER_BYTES
    return OutFrame(FrameHeader(7, 11, sequence, 0, epoch, body_bytes, 1), (b"",))


class Rig:
    """A sender, and what it said last: lengths announced, sequences sent, others."""

    def __init__(self, count: int = 0, *, hello: bool = True) -> None:
        self.sender = PushSender(HELLO)
        for sequence in range(1, count + 1):
            self.sender.add(frame(sequence))
        if hello:
            assert self.sender.next_request() == PushRequest(hello=HELLO)

    def say(self) -> tuple[list[int], list[int]]:
        """Return the lengths announced and the sequences sent, until nothing is to be said."""
        announced: list[int] = []
        sent: list[int] = []
        for request in self.sender.requests():
            announced += request.announce
            if request.frame is not None:
                sent.append(request.frame.sequence)
            assert not request.withdrawn
        return announced, sent

    def reply(self, *acknowledged: int, granted: int = 0, eager: int = 0) -> list[int]:
        """Return the sequences that are kept no more."""
        told = self.sender.on_reply(PushReply(acknowledged, granted, eager_bytes=eager))
        assert not told.refused
        return [one.sequence for one in told.acknowledged]

    def refuse(self, sequence: int, code: RefusalCode = RefusalCode.NOT_ASSIGNED) -> Answered:
        return self.sender.on_reply(PushReply(refused=[Refusal(sequence, code, "no")]))

    def withdraw(self, epoch: int) -> list[int]:
        frames = self.sender.stamped_for(RangeEpoch(0, epoch))
        self.sender.withdraw(frames)
        return [one.sequence for one in frames]

    def restart(self, eager: int = 0) -> None:
        self.sender.begin_stream(eager)
        request = self.sender.next_request()
        assert request is not None and request.hello == HELLO and request.frame is None


def test_frames_are_announced_once_and_sent_in_order_as_granted() -> None:
    rig = Rig(3)
    assert rig.say() == ([101, 102, 103], [])
    assert rig.say() == ([], [])
    rig.reply(granted=2)
    rig.sender.add(frame(4))
    assert rig.say() == ([104], [1, 2])
    rig.reply(granted=2)
    assert rig.say() == ([], [3, 4])
    assert rig.reply(2, 1) == [2, 1]
    assert len(rig.sender) == 2


def test_what_waits_is_announced_with_others_once_a_reply_has_come() -> None:
    """Messages cost by their number."""
    rig = Rig(1)
    assert rig.say() == ([101], [])
    for sequence in (2, 3):
        rig.sender.add(frame(sequence))
        assert rig.say() == ([], [])
    rig.reply(granted=1)
    assert rig.say() == ([102, 103], [1])
    rig.sender.add(frame(4))
    assert rig.say() == ([], [])


def test_a_new_stream_begins_with_all_that_is_not_acknowledged() -> None:
    rig = Rig(4)
    rig.say()
    rig.reply(granted=3)
    rig.say()
    rig.reply(2)
    rig.restart()
    assert rig.say() == ([101, 103, 104], [])
    rig.reply(granted=3)
    assert rig.say() == ([], [1, 3, 4])
    rig.reply(1, 3, 4)
    assert not len(rig.sender)


def test_a_broken_frame_is_sent_again_a_few_times_and_then_told() -> None:
    rig = Rig(2)
    rig.say()
    rig.reply(granted=2)
    rig.say()
    rig.reply(2)
    for _ in range(MAX_RESENDS):
        assert rig.refuse(1, BAD) == Answered([], [])
        assert rig.say() == ([101], [])
        rig.reply(granted=1)
        assert rig.say() == ([], [1])
    [(refused, why)] = rig.refuse(1, BAD).refused
    assert refused is not None and (refused.sequence, why.code) == (1, BAD)
    assert len(rig.sender) == 1  # whoever keeps it decides


def test_a_refused_frame_is_kept_and_goes_to_the_next_stream() -> None:
    rig = Rig(1)
    rig.say()
    rig.reply(granted=1)
    rig.say()
    [(refused, _)] = rig.refuse(1).refused
    assert refused is rig.sender.oldest
    assert rig.say() == ([], [])
    rig.restart()
    assert rig.say() == ([101], [])


def test_a_refusal_of_the_stream_names_no_frame() -> None:
    told = Rig(1).refuse(0, RefusalCode.WRONG_INCARNATION)
    assert told.refused == [(None, Refusal(0, RefusalCode.WRONG_INCARNATION, "no"))]


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda rig: rig.reply(granted=3),
        lambda rig: rig.reply(3),  # not sent yet
        lambda rig: rig.reply(99),
        lambda rig: rig.reply(1, 1),
        lambda rig: (rig.refuse(2), rig.reply(2)),
    ],
)
def test_nonsense_from_a_daemon_is_told(nonsense: Callable[[Rig], object]) -> None:
    rig = Rig(4)
    rig.say()
    rig.reply(granted=2)
    rig.say()
    with pytest.raises(ProtocolBroken):
        nonsense(rig)


def mixed() -> Rig:
    """Frames 1 to 6, of epochs 1 and 2 in turn: 1 and 2 sent, 3 and 4 announced, 5 and 6 new."""
    rig = Rig()
    for sequence in range(1, 7):
        rig.sender.add(frame(sequence, epoch=2 - sequence % 2))
        if sequence == 4:
            rig.say()
            rig.reply(granted=2)
            rig.say()
    return rig


def test_withdrawn_frames_of_every_stage_are_gone_and_their_answers_are_ignored() -> None:
    rig = mixed()
    assert rig.sender.range_epochs() == {(0, 1), (0, 2)}
    assert rig.withdraw(1) == [1, 3, 5]
    assert rig.withdraw(1) == []
    assert rig.sender.range_epochs() == {(0, 2)}
    assert rig.reply(1, 2) == [2]
    with pytest.raises(ProtocolBroken):  # once only
        rig.reply(1)
    assert len(rig.sender) == 2


def test_a_refusal_of_a_withdrawn_frame_is_ignored() -> None:
    rig = mixed()
    rig.withdraw(1)
    assert not rig.refuse(1).refused
    [(refused, _)] = rig.refuse(2).refused
    assert refused is not None and refused.sequence == 2
    assert len(rig.sender) == 3


def test_a_withdrawn_frame_that_was_announced_has_its_turn() -> None:
    rig = mixed()
    rig.withdraw(1)
    assert rig.sender.is_under_way
    told = rig.sender.on_reply(PushReply([2], granted=2))
    assert [one.sequence for one in told.acknowledged] == [2]
    said = list(rig.sender.requests())
    assert [request.announce for request in said] == [[106], (), ()]  # 5 was never announced
    assert [request.withdrawn for request in said] == [False, True, False]
    assert said[2].frame is not None and said[2].frame.sequence == 4
    rig.restart()
    assert rig.say() == ([104, 106], [])
    with pytest.raises(ProtocolBroken):
        rig.reply(1)  # was of the stream before


def test_a_frame_is_under_way_from_its_announcement_to_its_answer() -> None:
    rig = Rig()
    rig.sender.add(frame(1))
    assert not rig.sender.is_under_way  # nothing was said of it, so no reply will come
    rig.say()
    assert rig.sender.is_under_way
    rig.reply(granted=1)
    assert rig.sender.is_under_way
    rig.say()
    assert rig.sender.is_under_way
    rig.reply(1)
    assert not rig.sender.is_under_way


def test_frames_are_sent_eagerly_as_far_as_the_loan_reaches_and_others_announced() -> None:
    rig = Rig(4)  # of 101 to 104 bytes
    rig.reply(eager=204)
    assert rig.say() == ([103, 104], [1, 2])  # 203 bytes
    rig.sender.add(frame(5))
    rig.reply(1)
    assert rig.say() == ([105], [])  # 102 are under way
    rig.sender.add(frame(6, epoch=2))  # of 106
    rig.reply(eager=208)
    assert rig.say() == ([], [6])
    rig.withdraw(1)  # what was sent is answered all the same
    assert rig.reply(2) == []
    rig.restart()
    assert rig.say() == ([106], [])  # the next stream has to lend anew
    rig.sender.begin_stream(106)
    assert rig.say() == ([], [6])


def test_a_withdrawn_frame_that_was_to_go_eagerly_gives_its_loan_back() -> None:
    rig = Rig(2)
    rig.reply(eager=210)  # both of 101 and 102 bytes are ready when the first one is asked for
    first = rig.sender.next_request()
    assert first is not None and first.eager and first.frame is not None
    assert rig.withdraw(1) == [1, 2]
    rig.sender.add(frame(3, epoch=2))  # of 103, and 101 are still to be answered
    assert rig.say() == ([], [3])
    assert rig.reply(1, 3) == [3]


def test_a_short_first_frame_travels_with_the_hello() -> None:
    for frame_bytes, eager, together in [
        (100, 100, True),
        (101, 100, False),
        (MAX_OPENING_BYTES, 1 << 20, True),
        (MAX_OPENING_BYTES + 1, 1 << 20, False),
    ]:
        rig = Rig(hello=False)
        rig.sender.add(frame(1, frame_bytes=frame_bytes))
        rig.sender.begin_stream(eager)
        request = rig.sender.next_request()
        assert request is not None and request.hello == HELLO
        assert (request.frame is not None) == request.eager == together
        assert rig.sender.is_under_way == together


def test_what_is_released_is_told_first_until_a_later_frame_is_answered() -> None:
    rig = Rig(3)
    rig.say()
    rig.reply(granted=3)
    rig.say()
    rig.sender.release(1)
    assert list(rig.sender.requests()) == [PushRequest(released=[1])]
    rig.reply(2)  # sent before the release was
    rig.restart()
    assert rig.sender.next_request() == PushRequest(released=[1])
    rig.say()
    rig.reply(granted=2)
    rig.say()
    rig.reply(3)  # sent after it
    rig.restart()
    assert rig.say() == ([101], [])
    rig.sender.release(2)
    rig.say()
    rig.sender.end_stream()  # the receiver has read everything, and said so
    rig.restart()
    assert rig.say() == ([101], [])
    assert not rig.sender.is_idle


def test_what_is_under_way_and_what_one_message_says_are_bounded() -> None:
    rig = Rig(MAX_UNDER_WAY + 1)
    announced, _ = rig.say()
    assert len(announced) == MAX_UNDER_WAY
    rig.reply(granted=1)
    assert rig.say() == ([], [1])
    rig.reply(1)
    assert len(rig.say()[0]) == 1
    for sequence in range(MAX_RELEASED + 1):
        rig.sender.release(sequence)
    assert [len(request.released) for request in rig.sender.requests()] == [MAX_RELEASED, 1]


def test_a_receiver_that_is_gone_for_ever_is_told_nothing() -> None:
    rig = Rig(2)
    rig.say()
    rig.sender.release(9)
    rig.sender.forget_all()
    assert rig.sender.is_idle and not rig.sender.is_under_way and rig.sender.oldest is None


@pytest.mark.parametrize(
    "broken",
    [PushReply([1], granted=9), PushReply([1], refused=[Refusal(99, BAD, "of none")])],
)
def test_a_reply_that_breaks_the_rules_takes_nothing(broken: PushReply) -> None:
    """What it acknowledged goes out again, or nobody would ever hear of it."""
    rig = Rig(1)
    rig.say()
    rig.reply(granted=1)
    rig.say()
    with pytest.raises(ProtocolBroken):
        rig.sender.on_reply(broken)
    rig.restart()
    assert rig.say() == ([101], [])
    rig.reply(granted=1)
    rig.say()
    assert rig.reply(1) == [1]


def test_frames_withdrawn_while_nobody_asks_what_to_say_are_not_kept() -> None:
    rig = Rig(100)
    rig.withdraw(1)
    assert not rig.sender._waiting


class Receiver:
    """The other end, as random as it may be: grants, answers and breaks whenever it likes."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.rig = Rig(hello=False)
        self.added = 0
        self.announced: list[int] = []
        self.sent: list[int] = []
        self.eager: dict[int, int] = {}
        self.limit = 0
        self.done: list[int] = []
        self.withdrawn: set[int] = set()

    def add(self) -> None:
        self.added += 1
        self.rig.sender.add(frame(self.added, epoch=self.data.draw(st.integers(1, 2))))

    def withdraw(self) -> None:
        self.withdrawn |= set(self.rig.withdraw(self.data.draw(st.integers(1, 2))))

    def grant(self) -> None:
        granted = self.data.draw(st.integers(0, len(self.announced)))
        self._reply(PushReply(granted=granted))
        expected = self.announced[:granted]
        del self.announced[:granted]
        for request in self.rig.sender.requests():
            self._note(request, expected)
        assert not expected

    def answer(self) -> None:
        if not self.sent:
            return
        sequence = self.data.draw(st.sampled_from(self.sent))
        self.sent.remove(sequence)
        self.eager.pop(sequence, None)
        if self.data.draw(st.booleans()):
            self._reply(PushReply([sequence]))
        else:
            self._reply(PushReply(refused=[Refusal(sequence, BAD, "torn")]))

    def lend(self) -> None:
        self.limit = self.data.draw(st.integers(1, 500))
        self._reply(PushReply(eager_bytes=self.limit))

    def cut(self) -> None:
        self.rig.sender.begin_stream()
        self.announced.clear()
        self.sent.clear()
        self.eager.clear()
        self.limit = 0

    def listen(self) -> None:
        for request in self.rig.sender.requests():
            self._note(request, [])

    def _reply(self, reply: PushReply) -> None:
        told = self.rig.sender.on_reply(reply)
        self.done += [one.sequence for one in told.acknowledged]

    def _note(self, request: PushRequest[OutFrame], granted: list[int]) -> None:
        self.announced += request.announce
        if request.withdrawn:
            granted.pop(0)
        if request.frame is None:
            return
        sent = request.frame
        assert sent.sequence not in self.withdrawn | set(self.done) | set(self.sent)
        self.sent.append(sent.sequence)
        if request.eager:
            self.eager[sent.sequence] = sent.frame_bytes
            assert sum(self.eager.values()) <= self.limit
        else:
            assert granted.pop(0) == sent.frame_bytes


@given(st.data())
def test_every_frame_is_acknowledged_once_or_withdrawn_whatever_breaks(
    data: st.DataObject,
) -> None:
    receiver = Receiver(data)
    steps: Sequence[str] = ["add", "add", "grant", "answer", "lend", "listen", "cut", "withdraw"]
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=60)):
        getattr(receiver, step)()
    rig = receiver.rig
    rig.restart()
    lengths, _ = rig.say()
    rig.reply(granted=len(lengths))
    _, sent = rig.say()
    receiver.done += rig.reply(*sent)
    assert len(receiver.done) == len(set(receiver.done))
    assert set(receiver.done) | receiver.withdrawn == set(range(1, receiver.added + 1))
    assert not set(receiver.done) & receiver.withdrawn
    assert rig.sender.is_idle
