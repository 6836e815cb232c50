"""The receiver's half of a push stream, driven by tables; then a sender against it, at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    CoscoError,
    DataCorrupted,
    ExchangeClosed,
    IncompatibleVersion,
    InvalidArgument,
)
from cosco.format.frame import FRAME_HEADER_BYTES, MAX_FRAME_BYTES, FrameHeader, encode_frame_header
from cosco.protocol.push.answers import Answer, NotAssigned
from cosco.protocol.push.credits import EAGER_BYTES, GRANT_PATIENCE_S, FrameBudgets
from cosco.protocol.push.messages import (
    Hello,
    PushReply,
    PushRequest,
    Refusal,
    RefusalCode,
)
from cosco.protocol.push.receiver import MAX_UNTOLD, PushReceiver
from cosco.protocol.push.sender import OutFrame, PushSender

SELF = 11
WRITER = Hello(7, 1, 1, SELF)
OTHER_WRITER = Hello(7, 2, 1, SELF)
PRIMARY = Hello(0, 0, 0, SELF, primary=12)


def header(sequence: int, body_bytes: int) -> FrameHeader:
    return FrameHeader(7, SELF, sequence, 0, 1, body_bytes, 1)


def frame(sequence: int, length: int = 100) -> memoryview:
    body_bytes = length - FRAME_HEADER_BYTES
    return memoryview(encode_frame_header(header(sequence, body_bytes)) + bytes(body_bytes))


@dataclass
class Sink:
    """An intake that answers when the test says so, or at once with `verdict`."""

    hello: Hello
    tenant: int = 0
    takes_at_once: bool = True
    answers: list[Answer] = field(default_factory=list)
    verdict: CoscoError | None = None
    keeps: bool = False  # unanswered
    frames: list[bytes] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    ended: int = 0
    settled: int = 0

    def take_in(self, data: memoryview, answer: Answer, now: float) -> bool:
        self.frames.append(bytes(data))
        if self.keeps:
            self.answers.append(answer)
        else:
            answer(self.verdict)
        return self.takes_at_once

    def settle(self, now: float) -> None:
        self.settled += 1

    def released(self, sequences: Sequence[int], now: float) -> None:
        if not self.hello.primary:
            raise InvalidArgument("a writer's stream that releases frames")
        self.gone += sequences

    def max_bytes(self) -> int:
        return 1000 if self.hello.primary else 0

    def hung_up(self, now: float) -> None:
        self.ended += 1


class Rig:
    """A receiver, and what its streams' frames went to."""

    def __init__(self, *, budget_bytes: int = 8 << 20, **sink: object) -> None:
        self.budgets = FrameBudgets(budget_bytes)
        self.sinks: list[Sink] = []
        self.denies = False
        self._sink = sink
        self.receiver = self.stream()
        self.woken = 0
        self.now = 1.0

    def stream(self) -> PushReceiver:
        receiver = PushReceiver(SELF, self.budgets, self._open)
        receiver.wake = self._wake
        return receiver

    def _wake(self) -> None:
        self.woken += 1

    def _open(self, hello: Hello, stream: PushReceiver, now: float) -> Sink:
        if self.denies:
            raise AccessDenied("not you")
        self.sinks.append(Sink(hello, **self._sink))  # type: ignore[arg-type]
        return self.sinks[-1]

    def ask(self, *requests: PushRequest[memoryview]) -> PushReply | None:
        for request in requests:
            self.receiver.on_requests([request], self.now)
        return self.receiver.next_reply()


def hello(record: Hello = WRITER) -> PushRequest[memoryview]:
    return PushRequest(hello=record)


def granted(sequence: int, length: int = 100) -> PushRequest[memoryview]:
    return PushRequest(frame=frame(sequence, length))


def eager(sequence: int, length: int = 100) -> PushRequest[memoryview]:
    return PushRequest(eager=True, frame=frame(sequence, length))


ANNOUNCE: PushRequest[memoryview] = PushRequest(announce=(100, 100))

Requests = tuple[PushRequest[memoryview], ...]


@pytest.mark.parametrize(
    ("requests", "reply"),
    [
        ((hello(),), PushReply([], eager_bytes=EAGER_BYTES, refused=[])),
        ((hello(), ANNOUNCE), PushReply([], 2, [], 0, EAGER_BYTES)),
        ((hello(), ANNOUNCE, granted(4), granted(5)), PushReply([4, 5], 2, [], 0, EAGER_BYTES)),
        ((hello(), eager(4)), PushReply([4], 0, [], 0, EAGER_BYTES)),
        (
            (PushRequest(hello=WRITER, announce=(100,), eager=True, frame=frame(4)), granted(5)),
            PushReply([4, 5], 1, [], 0, EAGER_BYTES),
        ),
        ((hello(PRIMARY), eager(4)), PushReply([4], 0, [], 1000, EAGER_BYTES)),
        (
            (PushRequest(hello=PRIMARY, released=(1, 2), eager=True, frame=frame(3)),),
            PushReply([3], 0, [], 1000, EAGER_BYTES),
        ),
        (
            (hello(), ANNOUNCE, PushRequest(withdrawn=True), granted(5)),
            PushReply([5], 2, [], 0, EAGER_BYTES),
        ),
        (
            (hello(), eager(4), hello(OTHER_WRITER), eager(5)),
            PushReply([4, 5], 0, [], 0, EAGER_BYTES),
        ),
    ],
)
def test_what_was_said_is_answered_in_one_reply(requests: Requests, reply: PushReply) -> None:
    rig = Rig()
    assert rig.ask(*requests) == reply
    assert rig.receiver.next_reply() is None
    assert not rig.receiver.is_under_way
    rig.receiver.close(rig.now)
    assert rig.budgets.in_flight_bytes == 0


@pytest.mark.parametrize(
    ("requests", "what"),
    [
        ((PushRequest(),), "does not begin with hello"),
        ((eager(1),), "does not begin with hello"),
        ((hello(), PushRequest()), "says nothing"),
        ((hello(), granted(1)), "not granted"),
        ((hello(), ANNOUNCE, granted(1, 101)), "announced"),
        ((hello(), PushRequest(announce=(MAX_FRAME_BYTES + 1,))), "limit"),
        ((hello(), PushRequest(withdrawn=True)), "not granted"),
        ((hello(), eager(1, EAGER_BYTES + 1)), "neither announced nor granted"),
        ((hello(), PushRequest(released=(1,))), "releases frames"),
        ((hello(), ANNOUNCE, hello(OTHER_WRITER)), "under way"),
        ((hello(PRIMARY), hello(PRIMARY)), "second hello"),
        ((hello(), hello(PRIMARY)), "second hello"),
        ((hello(PRIMARY), hello()), "second hello"),
    ],
)
def test_a_sender_that_breaks_the_rules_is_told_so_at_the_end(
    requests: Requests, what: str
) -> None:
    rig = Rig()
    with pytest.raises(InvalidArgument, match=what):
        rig.ask(*requests)
    rig.receiver.close(rig.now, why=InvalidArgument("why"))
    reply = rig.receiver.next_reply()
    assert reply is not None
    assert reply.refused == [Refusal(0, RefusalCode.PROTOCOL, "why")]
    assert rig.budgets.in_flight_bytes == 0
    assert all(sink.ended for sink in rig.sinks)


@pytest.mark.parametrize(("who", "name"), [(WRITER, "a writer"), (PRIMARY, "a primary")])
def test_a_protocol_that_is_not_understood_is_refused_by_name(who: Hello, name: str) -> None:
    rig = Rig()
    with pytest.raises(IncompatibleVersion, match=f"{name} speaks protocol 9") as caught:
        rig.ask(hello(who._replace(protocol=9)))
    rig.receiver.close(rig.now, why=caught.value)
    reply = rig.receiver.next_reply()
    assert reply is not None
    assert reply.refused == [Refusal(0, RefusalCode.INCOMPATIBLE, str(caught.value))]
    assert not rig.sinks


@pytest.mark.parametrize("before", [(), (hello(), eager(4))])
def test_who_may_not_send_is_told_so_and_holds_nothing(before: Requests) -> None:
    rig = Rig()
    rig.ask(*before)
    rig.denies = True
    with pytest.raises(AccessDenied, match="not you"):
        rig.ask(PushRequest(hello=OTHER_WRITER, announce=(100,), eager=True, frame=frame(5)))
    rig.receiver.close(rig.now, why=AccessDenied("not you"))
    reply = rig.receiver.next_reply()
    assert reply is not None
    assert reply.refused == [Refusal(0, RefusalCode.ACCESS_DENIED, "not you")]
    assert (reply.acknowledged, reply.granted) == ([], 0)
    assert (rig.budgets.in_flight_bytes, rig.receiver.lent_bytes) == (0, 0)
    assert [len(sink.frames) for sink in rig.sinks] == [1] * bool(before)
    assert all(sink.ended for sink in rig.sinks)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataCorrupted("why"), RefusalCode.BAD_FRAME),
        (NotAssigned("why"), RefusalCode.NOT_ASSIGNED),
        (ExchangeClosed("why"), RefusalCode.EXCHANGE_CLOSED),
        (CapacityExceeded("why"), RefusalCode.NO_CAPACITY),
    ],
)
def test_a_refused_frame_gives_back_what_it_held(error: CoscoError, code: RefusalCode) -> None:
    rig = Rig(verdict=error)
    reply = rig.ask(hello(), ANNOUNCE, granted(4), eager(5), PushRequest(withdrawn=True))
    assert reply is not None
    assert reply.refused == [Refusal(4, code, "why"), Refusal(5, code, "why")]
    assert rig.budgets.in_flight_bytes == 0


def test_who_means_another_start_of_the_daemon_is_told_so() -> None:
    rig = Rig()
    reply = rig.ask(hello(WRITER._replace(incarnation=SELF + 1)))
    assert reply is not None
    assert [(one.sequence, one.code) for one in reply.refused] == [
        (0, RefusalCode.WRONG_INCARNATION)
    ]


def test_nothing_is_read_while_a_frame_is_being_taken_in() -> None:
    rig = Rig(takes_at_once=False, keeps=True)
    rig.ask(hello(), ANNOUNCE, granted(4))
    assert not rig.receiver.may_read
    assert rig.receiver.is_under_way
    before = rig.woken
    rig.receiver.resume(2.0)
    assert rig.receiver.may_read
    assert rig.woken > before
    assert rig.receiver.is_under_way  # in, and not safe yet
    rig.sinks[0].answers[0](None)
    assert rig.receiver.next_reply() == PushReply([4], 0, [], 0, 0)
    assert not rig.receiver.is_under_way


@pytest.mark.parametrize("verdict", [None, DataCorrupted("why")])
def test_a_sender_that_is_not_told_is_not_read_from(verdict: CoscoError | None) -> None:
    rig = Rig(verdict=verdict)
    rig.receiver.on_requests([hello()], 1.0)
    for sequence in range(1, MAX_UNTOLD + 1):
        assert rig.receiver.may_read
        rig.receiver.on_requests([eager(sequence)], 1.0)
    assert not rig.receiver.may_read
    before = rig.woken
    assert rig.receiver.next_reply() is not None
    assert rig.receiver.may_read
    assert rig.woken > before


def test_what_is_given_back_on_one_stream_is_granted_on_another() -> None:
    rig = Rig(budget_bytes=150, keeps=True)
    other = rig.stream()
    assert rig.ask(hello(), ANNOUNCE) == PushReply([], 1, [], 0, 0)
    rig.receiver.on_requests([granted(4)], 1.0)
    other.on_requests([hello(OTHER_WRITER)], 1.0)
    other.on_requests([PushRequest(announce=(100,))], 1.0)
    assert other.next_reply() is None
    rig.sinks[0].answers[0](None)
    assert rig.receiver.next_reply() == PushReply([4], 1, [], 0, 0)  # its turn came first
    rig.receiver.close(1.0)
    assert other.next_reply() == PushReply([], 1, [], 0, 0)


def test_an_answer_after_the_end_is_told_to_nobody() -> None:
    rig = Rig(keeps=True)
    rig.ask(hello(), ANNOUNCE, granted(4))
    rig.receiver.close(1.0)
    assert rig.budgets.in_flight_bytes == 0
    rig.sinks[0].answers[0](None)
    assert rig.receiver.next_reply() is None
    assert rig.budgets.in_flight_bytes == 0


def test_who_sits_on_a_grant_is_cut_off_and_who_waits_for_its_frame_is_not() -> None:
    rig = Rig(budget_bytes=150, takes_at_once=False, keeps=True)
    cut: list[str] = []
    busy, other = rig.receiver, rig.stream()
    busy.cut_off, other.cut_off = (lambda: cut.append("busy")), (lambda: cut.append("other"))
    for stream, record in ((busy, WRITER), (other, OTHER_WRITER)):
        stream.on_requests([hello(record)], 0.0)
        stream.on_requests([PushRequest(announce=(100,))], 0.0)
    busy.on_requests([granted(4)], 0.0)
    rig.budgets.tick(2 * GRANT_PATIENCE_S)
    assert cut == []
    rig.sinks[0].answers[0](None)
    busy.resume(2 * GRANT_PATIENCE_S)
    busy.on_requests([PushRequest(announce=(100,))], 2 * GRANT_PATIENCE_S)
    rig.budgets.tick(4 * GRANT_PATIENCE_S)
    assert cut == ["other"]


# --- a sender against it ------------------------------------------------------------------


@dataclass
class Peer:
    """A sender and its streams to one receiver's side, in one memory, with a way in between."""

    sender: PushSender
    rig: Rig
    rng: random.Random
    records: Hello
    receiver: PushReceiver | None = None
    to_receiver: list[PushRequest[OutFrame]] = field(default_factory=list)
    to_sender: list[PushReply] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    withdrawn: set[int] = field(default_factory=set)

    def connect(self) -> None:
        if self.receiver is not None:
            self.receiver.close(0.0)
        self.receiver = self.rig.stream()
        self.to_receiver.clear()
        self.to_sender.clear()
        self.sender.begin_stream()

    def say(self) -> None:
        if (request := self.sender.next_request()) is not None:
            self.to_receiver.append(request)

    def deliver(self) -> None:
        receiver = self.receiver
        if self.to_receiver and receiver is not None and receiver.may_read:
            receiver.on_requests([as_it_comes(self.to_receiver.pop(0))], 0.0)

    def reply(self) -> None:
        if self.receiver is not None and (reply := self.receiver.next_reply()) is not None:
            self.to_sender.append(reply)

    def hear(self) -> None:
        if not self.to_sender:
            return
        answered = self.sender.on_reply(self.to_sender.pop(0))
        for out in answered.acknowledged:
            assert out.sequence not in self.acknowledged, "acknowledged twice"
            self.acknowledged.add(out.sequence)
        for out, refusal in answered.refused:
            assert out is not None
            assert refusal.code in {RefusalCode.NOT_ASSIGNED, RefusalCode.BAD_FRAME}
            out.resends = 0
            self.sender.withdraw([out])  # stamped anew for another assignment
            self.sender.add(OutFrame(out.header, out.payload))

    def withdraw_one(self) -> None:
        out = self.sender.oldest
        if out is not None:
            self.withdrawn.add(out.sequence)
            self.sender.withdraw([out])


def as_it_comes(request: PushRequest[OutFrame]) -> PushRequest[memoryview]:
    out = request.frame
    came = None
    if out is not None:
        came = memoryview(encode_frame_header(out.header) + b"".join(out.payload))
    return PushRequest(
        request.hello, request.released, request.announce, request.withdrawn, request.eager, came
    )


@dataclass
class RandomSink(Sink):
    """Takes, refuses and answers frames as chance has it."""

    tenant: int = 0
    stream: PushReceiver | None = None
    rng: random.Random = field(default_factory=random.Random)
    taken: set[int] = field(default_factory=set)
    busy: Callable[[], None] | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def take_in(self, data: memoryview, answer: Answer, now: float) -> bool:
        sequence = int.from_bytes(data[24:32], "little")

        def finish() -> None:
            refused = self.rng.random() < 0.2
            error = self.rng.choice([NotAssigned("x"), DataCorrupted("x")]) if refused else None
            if error is None:
                self.taken.add(sequence)
            answer(error)

        match self.rng.randrange(3):
            case 0:
                finish()
            case 1:
                self.waiting.append(finish)  # in, and safe at some later time
            case 2:
                self.busy = finish
                return False
        return True

    def go_on(self) -> None:
        if self.busy is not None and self.rng.random() < 0.5:
            finish, self.busy = self.busy, None
            finish()
            assert self.stream is not None
            self.stream.resume(0.0)
        if self.waiting:
            self.waiting.pop(self.rng.randrange(len(self.waiting)))()

    def hung_up(self, now: float) -> None:
        self.busy = None
        self.waiting.clear()


class RandomRig(Rig):
    """Two senders share one budget, so that small that they wait for each other."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        super().__init__(budget_bytes=self.rng.choice([300, 5_000, 8 << 20]))
        self.taken: dict[Hello, set[int]] = {}

    def _open(self, hello: Hello, stream: PushReceiver, now: float) -> Sink:
        taken = self.taken.setdefault(hello, set())
        sink = RandomSink(hello, stream=stream, rng=self.rng, taken=taken)
        self.sinks.append(sink)
        return sink

    def go_on(self) -> None:
        for sink in self.sinks:
            assert isinstance(sink, RandomSink)
            sink.go_on()


@pytest.mark.parametrize("seed", range(60))
def test_every_frame_comes_in_or_is_withdrawn_whatever_breaks(seed: int) -> None:
    rig = RandomRig(seed)
    rng = rig.rng
    peers = [
        Peer(PushSender(record), rig, rng, record) for record in (WRITER, OTHER_WRITER, PRIMARY)
    ]
    count = rng.randrange(1, 60)
    for peer in peers:
        peer.connect()
        for sequence in range(1, count + 1):
            body = bytes(rng.randrange(1, 400))
            peer.sender.add(OutFrame(header(sequence, len(body)), (body,)))
    steps: list[Callable[[Peer], None]] = [Peer.say, Peer.deliver, Peer.reply, Peer.hear]
    for step in range(200_000):
        peer = rng.choice(peers)
        if step < 20_000 and rng.random() < 0.002:
            peer.connect()  # the stream broke
        elif step < 20_000 and rng.random() < 0.002:
            peer.withdraw_one()
        else:
            rng.choice(steps)(peer)
            rig.go_on()
        if not any(len(peer.sender) for peer in peers):
            break
    for peer in peers:
        every = set(range(1, count + 1))
        assert peer.acknowledged | peer.withdrawn == every, f"seed {seed}"
        assert peer.acknowledged <= rig.taken[peer.records], f"seed {seed}"
        while peer.to_receiver or peer.sender.is_under_way:
            peer.say()
            peer.deliver()
            rig.go_on()
            peer.reply()
            peer.hear()
    assert rig.budgets.in_flight_bytes == 0, f"seed {seed}"
