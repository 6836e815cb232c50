"""Many readers wait over one stream: each has its own answer, or learns that there is none."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

from cosco import ClientClosed
from cosco.client.groups import following
from cosco.client.groups.following import (
    ANSWER_BYTES,
    PUSHED_BYTES,
    Following,
    FollowStream,
    Question,
    Waiter,
)
from cosco.client.groups.handle import GroupHandle
from cosco.client.rpc.native_channel import NativeConversation
from cosco.client.rpc.scope import Scope
from cosco.errors import AccessDenied
from cosco.mechanics import NATIVE
from cosco.protocol import wire
from cosco.protocol.group_records import Follow, Followed, FollowOutcome, GroupPart
from cosco.protocol.records import (
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    PartitionRange,
    RowKind,
)

BOUND_S = 20.0
NONE = np.empty(0, dtype=np.uint64)
#: What a daemon does with each message, and what it sends then.
Script = Callable[[Follow], list[bytes]]


class Daemon:
    """Whatever a daemon may send on a stream of Follow, as a script has it."""

    def __init__(self) -> None:
        self.script: Script = echo
        self.asked: SimpleQueue[Follow] = SimpleQueue()
        self.streams = 0
        self._contexts: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(16))
        handler = grpc.stream_stream_rpc_method_handler(self._follow)
        service = grpc.method_handlers_generic_handler(wire.SHUFFLE_SERVICE, {"Follow": handler})
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.ref = DaemonRef(7, f"127.0.0.1:{port}")

    def _follow(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.streams += 1
        self._contexts.append(context)
        for message in requests:
            if not message:
                return  # in peace
            for ask in wire.follows_from_bytes(message):
                self.asked.put(ask)
                yield from self.script(ask)

    def next(self) -> Follow:
        return self.asked.get(timeout=BOUND_S)

    def cut(self) -> None:
        """Break all streams that are there."""
        while self._contexts:
            self._contexts.pop().cancel()

    def close(self) -> None:
        self._server.stop(None).wait()


def reply(ask: Follow, rows: int | None = None) -> bytes:
    """The rows say whose answer it is."""
    rows = ask.partition if rows is None else rows
    return wire.followed_to_bytes([Followed(ask.id, FollowOutcome.READY, NONE, rows=rows)])


def echo(ask: Follow) -> list[bytes]:
    return [] if ask.leave else [reply(ask)]


def silence(_ask: Follow) -> list[bytes]:
    return []


def question(partition: int = 0) -> Question:
    return Question(1, 0, 1, 7, partition)


def rows_of(waiter: Waiter) -> int | None:
    assert waiter.wait(BOUND_S)
    return None if waiter.answer is None else waiter.answer.rows


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    started = Daemon()
    yield started
    started.close()


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Following]:
    made = Following()
    yield made
    made.close()
    threads = [t for t in threading.enumerate() if t.name.startswith("cosco-follow")]
    for thread in threads:  # one that has ended by itself may still be on its way out
        thread.join(BOUND_S)
    assert not [thread for thread in threads if thread.is_alive()]


def test_each_has_its_own_answer_whatever_their_order(daemon: Daemon, readers: Following) -> None:
    asked: list[Follow] = []

    def in_the_end(ask: Follow) -> list[bytes]:
        asked.append(ask)
        shuffled = random.Random(1).sample(asked, len(asked))
        return [reply(one) for one in shuffled] if len(asked) == 50 else []

    daemon.script = in_the_end
    waiters = [readers.ask(daemon.ref, question(p)) for p in range(50)]
    assert [rows_of(waiter) for waiter in waiters] == list(range(50))
    assert daemon.streams == 1
    assert len({ask.id for ask in asked}) == 50


def test_who_leaves_is_not_waited_for_and_others_are(daemon: Daemon, readers: Following) -> None:
    daemon.script = silence
    one, two = readers.ask(daemon.ref, question()), readers.ask(daemon.ref, question())
    first, second = daemon.next(), daemon.next()
    one.cancel()  # as the end of its reader does first
    readers.leave(one)
    left = daemon.next()
    assert (left.id, left.leave) == (first.id, True)
    daemon.script = lambda _ask: [reply(first, 1), reply(second, 2), reply(second, 3)]
    readers.ask(daemon.ref, question())  # so that the daemon says something
    assert rows_of(two) == 2
    assert rows_of(one) is None
    readers.leave(one)
    readers.leave(two)


def many(asked: int) -> bytes:
    """Answers to the first questions, and then something else."""
    good = [Followed(n, FollowOutcome.READY, NONE) for n in range(1, asked)]
    return wire.followed_to_bytes(good) + b"\x0a\x02\x10\x63"  # of an outcome 99


@pytest.mark.parametrize("sent", [b"\xff\xff\xff", many(3)[:-2], many(3)])
def test_after_nonsense_nobody_waits(daemon: Daemon, readers: Following, sent: bytes) -> None:
    daemon.script = lambda ask: [b"", sent] if ask.partition else []
    waiters = [readers.ask(daemon.ref, question(p)) for p in (0, 0, 1)]
    assert [rows_of(waiter) for waiter in waiters] == [None] * 3
    daemon.script = echo
    assert rows_of(readers.ask(daemon.ref, question(5))) == 5


def test_answers_that_nobody_asked_for_are_dropped(daemon: Daemon, readers: Following) -> None:
    daemon.script = lambda ask: [
        reply(Follow(99, 7, 1, 0, 1, 3)),
        reply(ask, 1),
        reply(ask, 2),
    ]
    assert rows_of(readers.ask(daemon.ref, question())) == 1
    daemon.script = echo
    assert rows_of(readers.ask(daemon.ref, question(4))) == 4


def test_a_daemon_out_of_reach_wakes_all_and_leaving_late_harms_nobody(
    daemon: Daemon, readers: Following
) -> None:
    daemon.script = silence
    old = [readers.ask(daemon.ref, question()) for _ in range(3)]
    for _ in old:
        daemon.next()

    def broken(_ask: Follow) -> list[bytes]:
        raise ZeroDivisionError

    daemon.script = broken
    last = readers.ask(daemon.ref, question())
    assert [rows_of(waiter) for waiter in (*old, last)] == [None] * 4
    held = threading.Event()
    daemon.script = lambda ask: [] if ask.leave or not held.wait(BOUND_S) else [reply(ask)]
    new = [readers.ask(daemon.ref, question(p)) for p in (1, 2, 3)]
    for n, waiter in enumerate(old):
        waiter.id = n + 1  # as one of the next stream has it, too
        readers.leave(waiter)
    held.set()
    assert [rows_of(waiter) for waiter in new] == [1, 2, 3]


def test_who_waits_alone_takes_answers_and_hands_out_those_of_others(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: list[str] = []
    end = Waiter.end

    def noted(waiter: Waiter, answer: Followed | None) -> None:
        by.append(threading.current_thread().name)
        end(waiter, answer)

    assert rows_of(readers.ask(daemon.ref, question(1))) == 1
    monkeypatch.setattr(Waiter, "end", noted)
    waiters = [readers.ask(daemon.ref, question(p)) for p in range(2, 6)]
    assert rows_of(waiters[-1]) == 5
    assert all(waiter.is_over() for waiter in waiters)
    own = threading.current_thread().name
    assert by == [f"cosco-follow-{daemon.ref.address}" if NATIVE is None else own] * 4


def test_all_who_wait_at_one_time_have_their_answers(daemon: Daemon, readers: Following) -> None:
    """One takes the answers, then the thread those of the others."""
    seed = random.randrange(1 << 32)
    print("seed", seed)

    def read(partition: int) -> bool:
        waiter = readers.ask(daemon.ref, question(partition))
        mine = rows_of(waiter) == partition
        readers.leave(waiter)
        return mine

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, random.Random(seed).sample(range(600), 600)))
    assert daemon.streams == 1


@pytest.mark.skipif(NATIVE is None, reason="only the native transport can be waited on by anybody")
def test_who_waits_is_not_forgotten_when_who_took_answers_has_his(
    daemon: Daemon, readers: Following
) -> None:
    assert rows_of(readers.ask(daemon.ref, question(1))) == 1
    answers: dict[int, int] = {}  # at which question → which is answered
    asked: list[Follow] = []

    def as_told(ask: Follow) -> list[bytes]:
        asked.append(ask)
        answered = answers.get(ask.partition)
        return [reply(one) for one in asked if one.partition == answered]

    daemon.script, answers = as_told, {4: 2, 5: 3}
    first, second = (readers.ask(daemon.ref, question(p)) for p in (2, 3))
    stream = first.stream
    assert stream is not None
    with ThreadPoolExecutor() as pool:
        takes = pool.submit(first.wait, BOUND_S)
        while "owner=0 " in repr(stream._turns._turn):
            time.sleep(0.001)
        waits = pool.submit(second.wait, BOUND_S)
        while second not in stream._waiting:
            time.sleep(0.001)
        readers.ask(daemon.ref, question(4))
        assert takes.result(BOUND_S)
        readers.ask(daemon.ref, question(5))
        assert waits.result(BOUND_S / 2)


def test_nobody_asks_on_a_stream_that_is_about_to_end(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    late: list[bool] = []
    stream_once = FollowStream._stream

    def then_asked(stream: FollowStream, endpoint: Any) -> bool:
        again = stream_once(stream, endpoint)
        if not again and not asked.is_set():
            late.append(stream.ask(Waiter(question(), 0)))
            asked.set()
        return again

    monkeypatch.setattr(FollowStream, "_stream", then_asked)
    waiter = readers.ask(daemon.ref, question(1))
    assert rows_of(waiter) == 1
    readers.leave(waiter)
    daemon.cut()
    assert waiter.stream is not None
    waiter.stream._turns.call_thread()
    assert asked.wait(BOUND_S)
    assert late == [False]


@pytest.mark.skipif(NATIVE is None, reason="grpcio ends a stream by itself")
def test_a_stream_that_is_closed_as_its_thread_goes_to_rest_ends(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LINGER_S", 10 * BOUND_S)
    daemon.script = silence
    receive = NativeConversation.receive
    raced: list[bytes] = []

    def then_closed(conversation: NativeConversation[Follow], timeout_s: float) -> bytes | None:
        message = receive(conversation, timeout_s)
        if message is not None:
            raced.append(message)
            stream.close()  # before this thread goes on
        return message

    monkeypatch.setattr(NativeConversation, "receive", then_closed)
    one, two = (readers.ask(daemon.ref, question(p)) for p in (1, 2))
    first = daemon.next()
    assert one.stream is not None
    stream = one.stream
    daemon.script = lambda _ask: [reply(first, 1)]
    readers.ask(daemon.ref, question(3))
    stream._thread.join(BOUND_S)
    assert not stream._thread.is_alive()
    assert len(raced) == 1
    assert two.is_over()


def test_an_answer_to_a_reader_that_was_dropped_does_not_keep_its_stream(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LINGER_S", 0.05)
    assert rows_of(readers.ask(daemon.ref, question(1))) == 1
    dropped = readers.ask(daemon.ref, question(2))
    readers.abandoned.append((daemon.ref, dropped))  # as the finalizer of a reader does
    assert dropped.stream is not None
    dropped.stream._thread.join(BOUND_S)
    assert not dropped.stream._thread.is_alive()


def test_a_wait_that_goes_on_after_a_take_has_the_rest_of_its_time(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.script = silence
    waiter = readers.ask(daemon.ref, question(1))
    assert waiter.stream is not None
    now = [100.0]

    def take(_is_enough: object, timeout_s: float) -> None:
        now[0] += 0.75 * timeout_s

    monkeypatch.setattr(waiter.stream._turns, "take", take)
    monkeypatch.setattr(following.time, "monotonic", lambda: now[0])
    waits: list[float] = []
    monkeypatch.setattr(waiter, "wait_for_thread", waits.append)
    assert not waiter.wait(8.0)
    assert waits == [2.0]


def test_a_reader_that_is_closed_takes_no_more_answers(daemon: Daemon, readers: Following) -> None:
    assert rows_of(readers.ask(daemon.ref, question(1))) == 1
    daemon.script = silence
    closed = readers.ask(daemon.ref, question(2))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(closed.wait, BOUND_S)
        daemon.next(), daemon.next()
        closed.cancel()
        assert waiting.result(BOUND_S / 2)
    assert closed.answer is None
    daemon.script = echo
    assert rows_of(readers.ask(daemon.ref, question(3))) == 3
    assert daemon.streams == 1


def test_a_stream_that_broke_while_nobody_waited_is_made_anew(
    daemon: Daemon, readers: Following
) -> None:
    for n in range(20):
        waiter = readers.ask(daemon.ref, question(n))
        if n % 3 == 0:
            daemon.next()
            daemon.cut()  # when there is an answer to be heard, or none
        assert rows_of(waiter) in {n, None}
        daemon.cut()  # which is noticed now, or by who waits
        assert rows_of(readers.ask(daemon.ref, question(100 + n))) == 100 + n
        while not daemon.asked.empty():
            daemon.next()


def test_nobody_is_there(readers: Following) -> None:
    nobody = DaemonRef(1, "127.0.0.1:1")
    waiters = [readers.ask(nobody, question()) for _ in range(20)]
    assert [rows_of(waiter) for waiter in waiters] == [None] * 20
    assert readers.ask_now(nobody, question(), Scope("a test", "x")) is None
    for waiter in waiters:
        readers.leave(waiter)


def test_what_may_be_pushed_to_a_process_is_bounded(daemon: Daemon, readers: Following) -> None:
    daemon.script = silence
    waiters = [readers.ask(daemon.ref, question()) for _ in range(2 * PUSHED_BYTES // ANSWER_BYTES)]
    granted = [daemon.next().max_bytes for _ in waiters]
    assert sum(granted) == PUSHED_BYTES
    assert max(granted) == ANSWER_BYTES
    assert granted[-1] == 0
    for waiter in waiters[:2]:
        readers.leave(waiter)
        readers.leave(waiter)  # gives nothing back again
    assert [daemon.next().leave for _ in range(2)] == [True, True]
    again = [readers.ask(daemon.ref, question()) for _ in range(3)]
    assert [daemon.next().max_bytes for _ in again] == [ANSWER_BYTES, ANSWER_BYTES, 0]


def test_a_question_at_once_is_granted_nothing_and_gives_up(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = Scope("a test", "x")
    answer = readers.ask_now(daemon.ref, question(3), scope)
    assert answer is not None
    assert answer.rows == 3
    asked = daemon.next()
    assert (asked.now, asked.same_build, asked.max_bytes) == (True, False, 0)
    assert readers.ask_now(daemon.ref, question(3)._replace(same_build=True), scope) is not None
    assert daemon.next().same_build
    daemon.script = silence
    monkeypatch.setattr(following, "_NOW_S", 0.05)
    assert readers.ask_now(daemon.ref, question(), scope) is None
    monkeypatch.setattr(following, "_NOW_S", BOUND_S)
    threading.Timer(0.05, scope.close).start()
    with pytest.raises(ClientClosed):
        readers.ask_now(daemon.ref, question(), scope)


def test_a_stream_begins_with_its_first_question(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its thread, which may be long in coming back to who asks, ends what nobody waits on."""
    waited: list[int] = []
    start = FollowStream.start

    def noted(stream: FollowStream) -> None:
        waited.append(len(stream._waiters))
        start(stream)

    monkeypatch.setattr(FollowStream, "start", noted)
    assert rows_of(readers.ask(daemon.ref, question(3))) == 3
    assert waited == [1]


def test_a_stream_ends_when_nobody_waits_and_a_question_then_is_not_forgotten(
    daemon: Daemon, readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    monkeypatch.setattr(following, "LINGER_S", 0.01)
    for n in range(150):
        assert rows_of(readers.ask(daemon.ref, question(n))) == n
        time.sleep(chance.choice([0.0, 0.005, 0.0095, 0.01, 0.0105, 0.011]))
    assert daemon.streams > 1


def group_at(daemon: Daemon) -> GroupHandle:
    """A group of one exchange of two mappers."""
    info = ExchangeInfo(
        number=1,
        spec=ExchangeSpec(shuffle_id="g/0", partitions=1),
        generation=1,
        kind=RowKind.BYTES,
        schema=b"",
        ranges=(PartitionRange(0, 0, 1),),
        assignments=(Assignment(0, 1, 1, daemon.ref, ()),),
    )
    return GroupHandle("127.0.0.1:1", "g", 2, 1.0, (GroupPart("g", 0, 1, 2, info),))


@pytest.mark.parametrize("is_told_at_once", [True, False])
def test_who_may_not_read_is_told_so_and_others_on_the_stream_go_on(
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    readers: Following,
    is_told_at_once: bool,
) -> None:
    """With the answer that he waits for, or when he asks beside it who is missing."""
    monkeypatch.setattr("cosco.client.groups.mark_watch.FOLLOWING", readers)

    def deny(ask: Follow) -> list[bytes]:
        if ask.leave or not (ask.now or is_told_at_once):
            return []
        denied = FollowOutcome.DENIED
        return [wire.followed_to_bytes([Followed(ask.id, denied, NONE, reason="not\nyou")])]

    daemon.script = silence
    other = readers.ask(daemon.ref, question(5))
    waits = daemon.next()
    daemon.script = deny
    with group_at(daemon).reader(0, 0, timeout_s=0.1) as reader:
        with pytest.raises(AccessDenied, match="refused: not you") as caught:
            list(reader)
        assert caught.value.shuffle_id == "g/0"
        assert str(daemon.ref.address) in str(caught.value)
    daemon.script = lambda _: [reply(waits)]
    readers.ask(daemon.ref, question(6))
    assert rows_of(other) == 5
    assert daemon.streams == 1


def test_a_reader_that_was_forgotten_holds_nothing(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, readers: Following
) -> None:
    monkeypatch.setattr("cosco.client.groups.mark_watch.FOLLOWING", readers)
    daemon.script = silence
    handle = group_at(daemon)
    reader = handle.reader(0, 0)
    asked = daemon.next()
    assert (asked.number, asked.max_bytes, asked.incarnation) == (1, ANSWER_BYTES, 7)
    gone = weakref.ref(reader)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del reader
    gc.collect()
    assert gone() is None
    with handle.reader(0, 0):
        following_messages = [daemon.next() for _ in range(2)]
    # A thread ends what was forgotten, while the next one asks.
    assert sorted(message.leave for message in following_messages) == [False, True]


def test_a_stream_without_a_thread_is_not_there(
    readers: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = DaemonRef(1, "127.0.0.1:1")

    def fail(_: FollowStream) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(FollowStream, "start", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                readers.ask(nowhere, question())
    assert readers._left_bytes == PUSHED_BYTES
    waiter = readers.ask(nowhere, question())
    assert waiter.wait(10)
    assert waiter.answer is None
    readers.leave(waiter)
    assert readers._left_bytes == PUSHED_BYTES
