"""A writer's streams, against daemons and a metadata service that behave as told."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from cosco.client.access.service_connection import Connection
from cosco.client.rpc.scope import Scope
from cosco.client.write import push_streams
from cosco.client.write import pusher as pusher_module
from cosco.client.write.pusher import Pusher
from cosco.client.write.state.framing import PackedFrame
from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    ClientClosed,
    CoscoError,
    ExchangeClosed,
    GenerationChanged,
    IncompatibleVersion,
    InvalidArgument,
    ServiceUnavailable,
)
from cosco.format.block import CODECS, encode_block
from cosco.format.frame import FRAME_HEADER_BYTES, parse_frame_header
from cosco.mechanics import NATIVE
from cosco.protocol import wire
from cosco.protocol.push.messages import Hello
from cosco.protocol.records import (
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    RenewedAssignments,
    RowKind,
)
from cosco.protocol.wire import spb

import grpc  # isort: skip  (after cosco, which turns its fork support on)

WAIT_S = 20.0
NUMBER = 7
Answer = Callable[[int, int], Any]  # (range, epoch) → refusal code, or None to acknowledge


class FakeDaemon:
    """Grants and takes frames as `refuse` says; a closed one refuses connections."""

    def __init__(self, incarnation: int) -> None:
        self.changed = threading.Condition()
        self.taken: list[tuple[int, int, bytes]] = []  # range, epoch, blocks
        self.refuse: Answer = lambda _range, _epoch: None
        self.grants = True
        self.eager_bytes = 0
        self.eager: list[bool] = []  # of the frames that came
        self.cut_after: int | None = None  # end streams after so many frames, all in all
        self.streams = self.open_streams = 0
        self.hellos: list[int] = []  # mappers
        self.denied: set[int] = set()  # of these, who may not write
        self.denial = spb.REFUSAL_CODE_ACCESS_DENIED
        self.opened = 0  # of these, with a frame
        self.withdrawn = 0  # granted frames that were not sent any more
        self._calls: list[Any] = []
        self._messages: list[SimpleQueue[bytes | None]] = []  # of each stream
        self._server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.stream_stream_rpc_method_handler(self._push)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SHUFFLE_SERVICE, {"Push": handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.ref = DaemonRef(incarnation, f"127.0.0.1:{port}")
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()

    def cut(self) -> None:
        """Break all streams."""
        for call in self._calls:
            call.cancel()
        self.wait(lambda: self.open_streams == 0)

    def wait(self, reached: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(reached, WAIT_S)

    def grant(self) -> None:
        """Grant what was announced and not granted yet, and all that is to come."""
        with self.changed:
            self.grants = True
        for messages in self._messages:
            messages.put(b"")

    def _push(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        messages: SimpleQueue[bytes | None] = SimpleQueue()
        with self.changed:
            self.streams += 1
            self.open_streams += 1
            self._calls.append(context)
            self._messages.append(messages)
            self.changed.notify_all()
        threading.Thread(target=_forward, args=(requests, messages), daemon=True).start()
        try:
            yield from self._answer(iter(messages.get, None))
        finally:
            with self.changed:
                self.open_streams -= 1
                self.changed.notify_all()

    def _answer(self, messages: Iterator[bytes]) -> Iterator[bytes]:
        announced = 0
        for message in messages:
            request = wire.push_request_from_bytes(message)
            reply = spb.PushReply()
            with self.changed:
                if request.hello is not None:
                    self._hear(request.hello, reply)
                    self.opened += request.frame is not None
                announced += len(request.announce)
                if self.grants:
                    reply.granted, announced = announced, 0
                self.withdrawn += request.withdrawn
                if request.frame is not None and not reply.refused:
                    self.eager.append(request.eager)
                    if self.cut_after is not None and len(self.taken) >= self.cut_after:
                        self.cut_after = None
                        return
                    self._take(request.frame, reply)
                self.changed.notify_all()
            if reply.ByteSize():
                yield reply.SerializeToString()
            if any(one.code == self.denial for one in reply.refused):
                return

    def _hear(self, hello: Hello, reply: spb.PushReply) -> None:
        self.hellos.append(hello.mapper)
        if len(self.hellos) == self.streams:  # the first one of its stream
            reply.eager_bytes = self.eager_bytes
        if hello.mapper in self.denied:
            code = self.denial
            reply.refused.append(spb.Refusal(sequence=0, code=code, reason="not\nyou"))
        if hello.incarnation != self.ref.incarnation:
            code = spb.REFUSAL_CODE_WRONG_INCARNATION
            reply.refused.append(spb.Refusal(sequence=0, code=code, reason="new"))

    def _take(self, frame: memoryview, reply: spb.PushReply) -> None:
        header = parse_frame_header(frame)
        code = self.refuse(header.range_index, header.epoch)
        if code is None:
            body = bytes(frame[FRAME_HEADER_BYTES:])
            self.taken.append((header.range_index, header.epoch, body))
            reply.acknowledged.append(header.sequence)
        else:
            reply.refused.append(spb.Refusal(sequence=header.sequence, code=code, reason="no"))


def _forward(requests: Iterator[bytes], messages: SimpleQueue[bytes | None]) -> None:
    """Put what comes where others may put something as well."""
    try:
        for message in requests:
            messages.put(message)
    except grpc.RpcError:  # the stream broke
        pass
    finally:
        messages.put(None)


class FakeMetadata:
    """Answers `renew_assignments` by a function of what was asked, and keeps the questions."""

    def __init__(self) -> None:
        self.connection = Connection("127.0.0.1:1")
        self.asked: list[tuple[tuple[tuple[int, int], ...], DaemonRef | None, bool]] = []
        self.answer: Callable[[], RenewedAssignments] = RenewedAssignments

    def renew_assignments(
        self,
        number: int,
        generation: int,
        stale: Sequence[tuple[int, int]],
        suspect: DaemonRef | None,
        *,
        insist: bool,
        wait_s: float,
        outage_s: float,
    ) -> RenewedAssignments:
        assert (number, generation) == (NUMBER, 3)
        self.asked.append((tuple(stale), suspect, insist))
        return self.answer()


class Parts:
    """What a test makes, to be ended with it."""

    def __init__(self, *, is_ending: bool) -> None:
        self.is_ending = is_ending
        self.daemons: list[FakeDaemon] = []
        self.metadata = FakeMetadata()
        self.scope = Scope("a test", "orders")
        self.failures: list[CoscoError] = []
        self.pushers: list[Pusher] = []

    def daemon(self) -> FakeDaemon:
        self.daemons.append(FakeDaemon(100 + len(self.daemons)))
        return self.daemons[-1]

    def pusher(
        self, *primaries: DaemonRef, service_timeout_s: float = WAIT_S, mapper: int = 1
    ) -> Pusher:
        info = ExchangeInfo(
            number=NUMBER,
            spec=ExchangeSpec("orders", len(primaries)),
            generation=3,
            kind=RowKind.BYTES,
            schema=b"",
            ranges=tuple(PartitionRange(i, i, 1) for i in range(len(primaries))),
            assignments=tuple(Assignment(i, 1, 1, ref) for i, ref in enumerate(primaries)),
        )
        metadata: Any = self.metadata
        opened = OpenedAttempt(info, mapper=mapper, attempt=1)
        pusher = Pusher(opened, metadata, self.scope, service_timeout_s, self.fail)
        if self.is_ending:
            pusher.begin_end()
        self.pushers.append(pusher)
        return pusher

    def fail(self, error: CoscoError) -> None:
        self.failures.append(error)
        self.scope.close()


@pytest.fixture(params=["threads", "waits"])
def parts(request: pytest.FixtureRequest) -> Iterator[Parts]:
    """Replies are taken by the threads of streams, or by waits wherever that may be."""
    parts = Parts(is_ending=request.param == "waits")
    yield parts
    parts.scope.close()
    for pusher in parts.pushers:
        pusher.close()
    push_streams.STREAMS.close()
    for daemon in parts.daemons:
        daemon.close()


def packed(range_index: int, content: bytes) -> PackedFrame:
    header, stored, _ = encode_block(
        exchange=NUMBER, partition=range_index, mapper=1, attempt=1, first_row=0, rows=1,
        content=content, codec=CODECS["none"],
    )  # fmt: skip
    return PackedFrame(range_index, 1, [header, stored], len(header) + len(stored))


FRAMES = [packed(0, b"%d" % i) for i in range(20)]
BODIES = {b"".join(frame.parts) for frame in FRAMES}


def test_frames_of_a_sealed_epoch_go_to_the_next_one(parts: Parts) -> None:
    old, new = parts.daemon(), parts.daemon()
    old.refuse = lambda _range, _epoch: (
        spb.REFUSAL_CODE_NOT_ASSIGNED if len(old.taken) >= 5 else None
    )
    parts.metadata.answer = lambda: RenewedAssignments((Assignment(0, 2, 1, new.ref),))
    pusher = parts.pusher(old.ref)
    for frame in FRAMES:
        pusher.push(frame)
    assert pusher.flush() == ((0, 1), (0, 2))
    assert {epoch for _, epoch, _ in new.taken} == {2}
    taken = [body for _, _, body in (*old.taken, *new.taken)]
    assert len(taken) == len(FRAMES)
    assert set(taken) == BODIES
    assert parts.metadata.asked == [(((0, 1),), None, False)]
    old.wait(lambda: old.open_streams == 0)  # nothing leads there any more
    with pusher.changed:
        assert [lane.ref for lane in pusher.routes.lanes()] == [new.ref]


def test_a_daemon_that_is_dead_at_first_contact_is_suspected_and_replaced(parts: Parts) -> None:
    dead, new = parts.daemon(), parts.daemon()
    dead.close()
    answers = iter(
        [
            RenewedAssignments(waiting_for="a host"),
            RenewedAssignments((Assignment(0, 2, 1, new.ref), Assignment(1, 2, 1, new.ref))),
        ]
    )
    parts.metadata.answer = lambda: next(answers)
    pusher = parts.pusher(dead.ref, dead.ref)
    for frame in FRAMES:
        pusher.push(frame)
    assert pusher.flush() == ((0, 2),)
    assert parts.metadata.asked == [(((0, 1), (1, 1)), dead.ref, False)] * 2
    assert {body for _, _, body in new.taken} == BODIES


def test_an_address_that_is_none_fails_its_writer(parts: Parts) -> None:
    """Whatever a metadata service says: nobody waits for a thread that could not begin."""
    pusher = parts.pusher(DaemonRef(5, "host\0:7"))
    pusher.push(FRAMES[0])
    with pytest.raises((ClientClosed, InvalidArgument)):
        pusher.flush()
    assert [type(error) for error in parts.failures] == [InvalidArgument]


def test_a_stream_that_breaks_goes_on_with_the_same_daemon_if_it_lives(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.cut_after = 7
    parts.metadata.answer = lambda: RenewedAssignments(alive=True)
    pusher = parts.pusher(daemon.ref)
    for frame in FRAMES:
        pusher.push(frame)
    assert pusher.flush() == ((0, 1),)
    assert {body for _, _, body in daemon.taken} == BODIES
    assert daemon.streams == 2
    assert parts.metadata.asked == [(((0, 1),), daemon.ref, False)]


def test_another_start_at_the_address_is_reported_and_left(parts: Parts) -> None:
    daemon = parts.daemon()
    before = DaemonRef(55, daemon.ref.address)
    parts.metadata.answer = lambda: RenewedAssignments((Assignment(0, 2, 1, daemon.ref),))
    pusher = parts.pusher(before)
    pusher.push(FRAMES[0])
    assert pusher.flush() == ((0, 2),)
    assert parts.metadata.asked == [(((0, 1),), before, False)]


def test_frames_move_twice_and_only_the_last_epoch_counts(parts: Parts) -> None:
    first, second, third = parts.daemon(), parts.daemon(), parts.daemon()
    for daemon in (first, second):
        daemon.refuse = lambda _range, _epoch: spb.REFUSAL_CODE_NOT_ASSIGNED
    answers = iter(
        [
            RenewedAssignments((Assignment(0, 2, 1, second.ref),)),
            RenewedAssignments((Assignment(0, 3, 1, third.ref),)),
        ]
    )
    parts.metadata.answer = lambda: next(answers)
    pusher = parts.pusher(first.ref)
    for frame in FRAMES:
        pusher.push(frame)
    assert pusher.flush() == ((0, 3),)
    assert len(third.taken) == len(FRAMES)


def test_several_daemons_fail_at_once(parts: Parts) -> None:
    dead = [parts.daemon() for _ in range(3)]
    new = parts.daemon()
    for daemon in dead:
        daemon.close()
    parts.metadata.answer = lambda: RenewedAssignments(
        tuple(Assignment(i, 2, 1, new.ref) for i in range(3))
    )
    pusher = parts.pusher(*(daemon.ref for daemon in dead))
    for index in range(30):
        pusher.push(packed(index % 3, b"%d" % index))
    assert pusher.flush() == ((0, 2), (1, 2), (2, 2))
    assert len(new.taken) == 30


def test_a_live_stream_goes_on_when_announced_frames_are_withdrawn_from_it(parts: Parts) -> None:
    slow, new = parts.daemon(), parts.daemon()
    slow.grants = False
    pusher = parts.pusher(slow.ref, slow.ref)
    pusher.push(packed(0, b"moves"))
    pusher.push(packed(1, b"stays"))
    slow.wait(lambda: slow.streams == 1)
    lane = pusher.routes.lanes()[0]
    deadline = time.monotonic() + WAIT_S
    while not lane.sender.is_under_way:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert pusher.renewed([Assignment(0, 2, 1, new.ref)])
    slow.grant()
    assert pusher.flush() == ((0, 2), (1, 1))
    assert [index for index, _, _ in slow.taken] == [1]
    assert (slow.streams, slow.withdrawn) == (1, 1)
    assert parts.metadata.asked == []  # nobody failed


def test_the_stream_to_a_daemon_that_nothing_leads_to_ends(parts: Parts) -> None:
    left, new = parts.daemon(), parts.daemon()
    pusher = parts.pusher(left.ref)
    pusher.push(FRAMES[0])
    assert pusher.flush() == ((0, 1),)
    (link,) = pusher._links.values()
    assert pusher.renewed([Assignment(0, 2, 1, new.ref)])
    left.wait(lambda: left.open_streams == 0)
    assert link.join()
    assert not pusher._links
    assert not pusher._retired
    pusher.push(FRAMES[1])
    assert pusher.flush() == ((0, 1), (0, 2))
    assert not pusher.renewed([Assignment(0, 2, 1, left.ref)])  # is not newer
    assert pusher.renewed([Assignment(0, 3, 1, left.ref)])  # and back
    pusher.push(FRAMES[2])
    assert pusher.flush() == ((0, 1), (0, 2), (0, 3))
    assert left.streams == 2


def test_waiting_for_a_host_ends_with_its_reason(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.close()
    parts.metadata.answer = lambda: RenewedAssignments(waiting_for="no host is left")
    pusher = parts.pusher(daemon.ref, service_timeout_s=0.3)
    pusher.push(FRAMES[0])
    with pytest.raises(CapacityExceeded, match="no host is left"):
        pusher.flush()
    assert len(parts.failures) == 1


def test_a_metadata_service_that_is_away_too_long_ends_the_writer(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.close()

    def away() -> RenewedAssignments:
        raise ServiceUnavailable("no answer from the metadata service")

    parts.metadata.answer = away
    pusher = parts.pusher(daemon.ref, service_timeout_s=0.3)
    pusher.push(FRAMES[0])
    with pytest.raises(ServiceUnavailable, match="no answer from the metadata service"):
        pusher.flush()


def test_a_daemon_goes_on_while_the_metadata_service_is_away(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.cut_after = 7

    def away() -> RenewedAssignments:
        raise ServiceUnavailable("no answer from the metadata service")

    parts.metadata.answer = away
    pusher = parts.pusher(daemon.ref)
    for frame in FRAMES:
        pusher.push(frame)
    assert pusher.flush() == ((0, 1),)


@pytest.mark.parametrize("error", [GenerationChanged("generation 2"), ExchangeClosed("closed")])
def test_what_the_metadata_service_refuses_ends_the_writer(parts: Parts, error: CoscoError) -> None:
    daemon = parts.daemon()
    daemon.refuse = lambda _range, _epoch: spb.REFUSAL_CODE_NOT_ASSIGNED

    def refuse() -> RenewedAssignments:
        raise error

    parts.metadata.answer = refuse
    pusher = parts.pusher(daemon.ref)
    pusher.push(FRAMES[0])
    with pytest.raises(type(error)):
        pusher.flush()


def test_a_full_daemon_is_left_for_the_next_one(parts: Parts) -> None:
    full, new = parts.daemon(), parts.daemon()
    full.refuse = lambda _range, _epoch: spb.REFUSAL_CODE_NO_CAPACITY
    answers = iter([RenewedAssignments(), RenewedAssignments((Assignment(0, 2, 1, new.ref),))])
    parts.metadata.answer = lambda: next(answers)
    pusher = parts.pusher(full.ref)
    pusher.push(FRAMES[0])
    assert pusher.flush() == ((0, 2),)
    assert parts.metadata.asked == [(((0, 1),), None, False)] * 2


def test_closing_wakes_a_link_that_waits_for_a_host(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.close()
    asked = threading.Event()

    def never() -> RenewedAssignments:
        asked.set()
        return RenewedAssignments(waiting_for="a host")

    parts.metadata.answer = never
    pusher = parts.pusher(daemon.ref)
    pusher.push(FRAMES[0])
    assert asked.wait(WAIT_S)
    started = time.monotonic()
    parts.scope.close()
    pusher.close()
    assert time.monotonic() - started < 4  # the threads were joined, and not waited out
    with pytest.raises(ClientClosed):
        pusher.flush()
    assert parts.failures == []


def test_a_daemon_that_says_nothing_while_the_metadata_service_is_away_too_long(
    parts: Parts,
) -> None:
    daemon = parts.daemon()
    daemon.grants = False  # as it waits for the service itself

    def away() -> RenewedAssignments:
        raise ServiceUnavailable("no answer from the metadata service")

    parts.metadata.answer = away
    pusher = parts.pusher(daemon.ref, service_timeout_s=0.1)
    pusher.push(FRAMES[0])
    with pytest.raises(ServiceUnavailable, match="no answer from the metadata service"):
        pusher.flush()


def test_a_slow_daemon_is_waited_for_while_the_metadata_service_is_there(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.grants = False
    answers = itertools.count()

    def answer() -> RenewedAssignments:
        if next(answers) == 1:
            daemon.grant()
        return RenewedAssignments()

    parts.metadata.answer = answer
    pusher = parts.pusher(daemon.ref, service_timeout_s=0.1)
    pusher.push(FRAMES[0])
    assert pusher.flush() == ((0, 1),)
    assert parts.metadata.asked[:2] == [((), None, False)] * 2


def test_a_short_outage_of_the_metadata_service_while_nothing_moves(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pusher_module, "_QUIET_S", 0.05)
    daemon = parts.daemon()
    daemon.grants = False
    answers = itertools.count()

    def answer() -> RenewedAssignments:
        asked = next(answers)
        if asked == 0:
            raise ServiceUnavailable("no answer from the metadata service")
        daemon.grant()
        return RenewedAssignments()

    parts.metadata.answer = answer
    pusher = parts.pusher(daemon.ref)
    pusher.push(FRAMES[0])
    assert pusher.flush() == ((0, 1),)


def test_an_exchange_that_is_closed_while_nothing_moves(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.grants = False

    def closed() -> RenewedAssignments:
        raise ExchangeClosed("closed")

    parts.metadata.answer = closed
    pusher = parts.pusher(daemon.ref, service_timeout_s=0.1)
    pusher.push(FRAMES[0])
    with pytest.raises(ExchangeClosed):
        pusher.flush()


def write(parts: Parts, daemon: FakeDaemon, mapper: int) -> None:
    pusher = parts.pusher(daemon.ref, mapper=mapper)
    pusher.push(FRAMES[mapper])
    assert pusher.flush() == ((0, 1),)
    pusher.close()


def held_up(parts: Parts) -> tuple[FakeDaemon, Pusher]:
    """A writer on a kept stream, with a frame under way that its daemon does not grant."""
    daemon = parts.daemon()
    write(parts, daemon, 1)
    daemon.grants = False
    pusher = parts.pusher(daemon.ref, mapper=2)
    pusher.push(FRAMES[2])
    return daemon, pusher


@pytest.mark.parametrize(
    ("denial", "kind"),
    [
        (spb.REFUSAL_CODE_ACCESS_DENIED, AccessDenied),
        (spb.REFUSAL_CODE_INCOMPATIBLE, IncompatibleVersion),
    ],
)
@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_who_may_not_write_is_told_so_and_harms_nobody_after_him(
    parts: Parts, eager_bytes: int, denial: spb.RefusalCode, kind: type[CoscoError]
) -> None:
    daemon = parts.daemon()
    daemon.denial = denial
    daemon.eager_bytes = eager_bytes  # so that his first frame goes with his hello
    write(parts, daemon, 1)
    daemon.denied.add(2)
    pusher = parts.pusher(daemon.ref, mapper=2)
    with pytest.raises(kind, match="refused: not you") as caught:
        pusher.push(FRAMES[2])
        pusher.flush()
    assert caught.value.shuffle_id == "orders"
    assert not caught.value.retriable
    assert parts.failures == [caught.value]
    assert daemon.hellos == [1, 2]  # once
    assert not parts.metadata.asked
    pusher.close()
    parts.scope = Scope("a test", "orders")  # his ended with him
    write(parts, daemon, 3)
    assert daemon.hellos == [1, 2, 3]


def push_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("cosco-push-")]


def test_writers_one_after_another_share_a_stream(parts: Parts) -> None:
    daemon = parts.daemon()
    for mapper in range(5):
        write(parts, daemon, mapper)
    assert daemon.hellos == list(range(5))
    assert daemon.streams == 1
    assert len(daemon.taken) == 5
    push_streams.STREAMS.close()
    daemon.wait(lambda: daemon.open_streams == 0)
    assert not push_threads()
    write(parts, daemon, 5)
    assert daemon.streams == 2


@pytest.mark.skipif(NATIVE is None, reason="only the native transport can be waited on by anybody")
def test_a_writer_that_ends_takes_the_replies_of_one_daemon_itself(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: list[str] = []
    on_reply = pusher_module._DaemonLink.on_reply

    def noted(link: pusher_module._DaemonLink, message: bytes) -> bool:
        by.append(threading.current_thread().name)
        return on_reply(link, message)

    monkeypatch.setattr(pusher_module._DaemonLink, "on_reply", noted)
    daemon, other = parts.daemon(), parts.daemon()
    write(parts, daemon, 1)  # the stream is made, and its thread rests afterwards
    by.clear()
    write(parts, daemon, 2)
    own = threading.current_thread().name
    assert set(by) == ({own} if parts.is_ending else {f"cosco-push-{daemon.ref.address}"})
    # Who waits for one does not hear another.
    write(parts, other, 3)
    pusher = parts.pusher(daemon.ref, other.ref, mapper=4)
    daemon.grants = other.grants = False
    pusher.push(packed(0, b"a"))
    pusher.push(packed(1, b"b"))
    by.clear()
    daemon.grant()
    other.grant()
    assert pusher.flush() == ((0, 1), (1, 1))
    assert f"cosco-push-{other.ref.address}" in by or not parts.is_ending
    assert daemon.streams == other.streams == 1


def test_a_kept_stream_serves_a_writer_that_does_not_wait(parts: Parts) -> None:
    daemon = parts.daemon()
    write(parts, daemon, 1)
    pusher = parts.pusher(daemon.ref, mapper=2)
    pusher.is_ending = False
    pusher.push(FRAMES[2])
    daemon.wait(lambda: len(daemon.taken) == 2)
    pusher.begin_end()
    assert pusher.flush() == ((0, 1),)
    assert daemon.streams == 1


def test_a_writer_that_ends_takes_what_has_come_with_each_frame(parts: Parts) -> None:
    daemon = parts.daemon()
    write(parts, daemon, 1)
    pusher = parts.pusher(daemon.ref, mapper=2)
    for frame in FRAMES * 10:
        pusher.push(frame)
        with daemon.changed:  # as long as it takes until the grant is there
            if daemon.changed.wait_for(lambda: len(daemon.taken) > 1, 0.01):
                break
    assert len(daemon.taken) > 1
    pusher.flush()


def test_a_writer_that_ends_hears_all_daemons_before_it_waits(parts: Parts) -> None:
    daemons = parts.daemon(), parts.daemon()
    for daemon in daemons:
        write(parts, daemon, 1)
    pusher = parts.pusher(daemons[0].ref, daemons[1].ref, mapper=2)
    for i in range(6):
        pusher.push(packed(i % 2, b"%d" % i))
    for daemon in daemons:
        daemon.wait(lambda daemon=daemon: len(daemon.taken) == 4)
    assert pusher.flush() == ((0, 1), (1, 1))


class SoftLimit(Exception):
    """As a framework's handler of signals raises."""


@contextmanager
def in_a_handler(handle: Callable[[], None]) -> Iterator[None]:
    """The main thread waits in here, and a handler of signals runs meanwhile."""
    before = signal.signal(signal.SIGALRM, lambda *_: handle())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_a_handler_of_signals_raises_is_its_caller_s(parts: Parts) -> None:
    def handle() -> None:
        raise SoftLimit

    daemon, pusher = held_up(parts)
    with in_a_handler(handle), pytest.raises(SoftLimit):
        pusher.flush()
    daemon.grants = True
    daemon.grant()
    assert pusher.flush() == ((0, 1),), "and the writer could go on"
    assert parts.failures == []
    assert parts.metadata.asked == []


def test_a_writer_that_a_handler_of_signals_aborts_does_not_wait_for_itself(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_streams, "_JOIN_S", 100 * WAIT_S)
    _, pusher = held_up(parts)

    def handle() -> None:
        parts.scope.close()
        pusher.close()

    with in_a_handler(handle), pytest.raises(ClientClosed):
        pusher.flush()
    until_threads(0)


def test_writers_at_one_time_have_a_stream_each(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.grants = False
    pushers = [parts.pusher(daemon.ref, mapper=mapper) for mapper in range(3)]
    for pusher in pushers:
        pusher.push(FRAMES[0])
    daemon.wait(lambda: sorted(daemon.hellos) == [0, 1, 2])
    assert daemon.streams == 3


def test_a_writer_that_is_aborted_takes_its_stream_with_it(parts: Parts) -> None:
    daemon, aborted = held_up(parts)
    daemon.wait(lambda: daemon.hellos == [1, 2])
    parts.scope.close()
    aborted.close()
    daemon.wait(lambda: daemon.open_streams == 0)
    assert not push_threads()
    daemon.grants = True
    parts.scope = Scope("another", "orders")
    write(parts, daemon, 3)
    assert daemon.streams == 2
    assert [body for _, _, body in daemon.taken] == [b"".join(FRAMES[i].parts) for i in (1, 3)]


def test_a_kept_stream_that_broke_is_nobodys_failure(parts: Parts) -> None:
    daemon = parts.daemon()
    for mapper in range(20):
        write(parts, daemon, mapper)
        daemon.cut()  # which the client may notice now, or when the next writer has begun
    assert len(daemon.taken) == 20
    assert parts.metadata.asked == []
    assert parts.failures == []


def test_a_kept_stream_ends_after_a_while(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_streams, "LINGER_S", 0.05)
    daemon = parts.daemon()
    write(parts, daemon, 1)
    daemon.wait(lambda: daemon.open_streams == 0)
    write(parts, daemon, 2)
    assert daemon.streams == 2


def test_the_end_of_a_writer_ends_the_thread_of_its_stream(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_streams, "LINGER_S", 10 * WAIT_S)
    held_up(parts)
    parts.scope.close()
    until_threads(0)


def until_threads(count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(push_threads()) != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_few_streams_are_kept(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_streams, "MAX_IDLE_STREAMS", 2)
    monkeypatch.setattr(push_streams, "LINGER_S", 10 * WAIT_S)
    daemons = [parts.daemon() for _ in range(4)]
    for daemon in daemons:
        write(parts, daemon, 1)
    for daemon in daemons[:2]:
        daemon.wait(lambda daemon=daemon: daemon.open_streams == 0)
    assert [daemon.open_streams for daemon in daemons[2:]] == [1, 1]
    until_threads(2)


def hold_up(daemon: FakeDaemon) -> threading.Event:
    """Have a daemon answer no frame before that."""
    answer = threading.Event()

    def late(_range: int, _epoch: int) -> None:
        daemon.changed.release()
        try:
            assert answer.wait(WAIT_S)
        finally:
            daemon.changed.acquire()

    daemon.refuse = late
    return answer


def push_and_move(pusher: Pusher, old: FakeDaemon, new: FakeDaemon) -> None:
    """Have a frame sent to one daemon, which does not answer, and then to another one."""
    pusher.push(FRAMES[0])
    lane = pusher.routes.lanes()[0]
    deadline = time.monotonic() + WAIT_S
    while not lane.sender._sent:
        if pusher.is_ending:
            pusher.push(FRAMES[1])  # which looks for the grant
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert pusher.renewed([Assignment(0, 2, 1, new.ref)])


def test_a_used_stream_is_left_to_nobody_while_frames_are_owed(parts: Parts) -> None:
    """Frames that were sent and moved elsewhere will still be answered on it."""
    slow, new = parts.daemon(), parts.daemon()
    answer = hold_up(slow)
    pusher = parts.pusher(slow.ref)
    push_and_move(pusher, slow, new)
    assert not push_streams.STREAMS._idle
    assert pusher.flush() == ((0, 2),)
    slow.refuse = lambda _range, _epoch: None
    write(parts, slow, 3)
    assert slow.streams == 2  # one of its own
    answer.set()
    pusher.close()
    slow.wait(lambda: slow.open_streams == 1)


def test_a_stream_that_is_owed_answers_ends_with_them(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_streams, "LINGER_S", 10 * WAIT_S)
    slow, new = parts.daemon(), parts.daemon()
    write(parts, slow, 3)  # its thread rests
    answer = hold_up(slow)
    pusher = parts.pusher(slow.ref)
    push_and_move(pusher, slow, new)
    assert pusher.flush() == ((0, 2),)
    answer.set()
    slow.wait(lambda: slow.open_streams == 0)
    until_threads(1)  # that of the other one


def test_a_writer_on_a_used_stream_sends_small_frames_at_once(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.eager_bytes = FRAMES[0].body_bytes + FRAME_HEADER_BYTES + 10
    write(parts, daemon, 1)
    assert daemon.eager == [False]  # it did not know yet
    daemon.grants = False
    for mapper in range(2, 5):
        write(parts, daemon, mapper)
    assert daemon.eager == [False, True, True, True]
    daemon.grants = True
    pusher = parts.pusher(daemon.ref)
    for frame in FRAMES:
        pusher.push(frame)
    assert pusher.flush() == ((0, 1),)
    assert any(daemon.eager[4:])
    assert {body for _, _, body in daemon.taken} == BODIES


@pytest.mark.parametrize(("length", "opened"), [(10, 1), (64 << 10, 0)])
def test_a_short_first_frame_travels_with_the_hello(parts: Parts, length: int, opened: int) -> None:
    daemon = parts.daemon()
    daemon.eager_bytes = 1 << 20
    write(parts, daemon, 1)
    assert daemon.opened == 0
    pusher = parts.pusher(daemon.ref, mapper=2)
    frames = [packed(0, bytes(length)), packed(0, b"more")]
    for frame in frames:
        pusher.push(frame)
    pusher.flush()
    pusher.close()
    assert (daemon.streams, daemon.hellos, daemon.opened) == (1, [1, 2], opened)
    bodies = [body for _, _, body in daemon.taken]
    assert bodies[-2:] == [b"".join(frame.parts) for frame in frames]


def test_what_was_sent_eagerly_is_announced_on_the_next_stream(parts: Parts) -> None:
    daemon = parts.daemon()
    daemon.eager_bytes = 1 << 20
    write(parts, daemon, 1)
    daemon.eager_bytes = 0
    daemon.cut_after = 1
    parts.metadata.answer = lambda: RenewedAssignments(alive=True)
    write(parts, daemon, 2)
    assert daemon.eager == [False, True, False]
    assert daemon.streams == 2


def test_a_frame_with_a_mark_goes_when_all_before_it_to_its_range_is_safe(parts: Parts) -> None:
    daemon = parts.daemon()
    answers = iter([spb.REFUSAL_CODE_BAD_FRAME])  # so that it is sent again
    daemon.refuse = lambda *_: next(answers, None)
    pusher = parts.pusher(daemon.ref, daemon.ref)
    marked = replace(FRAMES[1], has_mark=True)
    for frame in (FRAMES[0], marked):
        pusher.push(frame)
    pusher.flush()
    bodies = [body for _, _, body in daemon.taken]
    assert bodies == [b"".join(frame.parts) for frame in (FRAMES[0], marked)]
