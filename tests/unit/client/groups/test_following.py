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
    Waiter,
)
from cosco.client.groups.handle import GroupHandle
from cosco.client.rpc.scope import Scope
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
        self._server = grpc.server(ThreadPoolExecutor(16))
        handler = grpc.stream_stream_rpc_method_handler(self._follow)
        service = grpc.method_handlers_generic_handler(wire.SHUFFLE_SERVICE, {"Follow": handler})
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.ref = DaemonRef(7, f"127.0.0.1:{port}")

    def _follow(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.streams += 1
        for message in requests:
            for ask in wire.follows_from_bytes(message):
                self.asked.put(ask)
                yield from self.script(ask)

    def next(self) -> Follow:
        return self.asked.get(timeout=BOUND_S)

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


def question(partition: int = 0) -> Follow:
    return Follow(0, 7, 1, 0, 1, partition)


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
    assert not [t for t in threading.enumerate() if t.name.startswith("cosco-follow")]


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
    readers.leave(daemon.ref, one)
    left = daemon.next()
    assert (left.id, left.leave) == (first.id, True)
    daemon.script = lambda _ask: [reply(first, 1), reply(second, 2), reply(second, 3)]
    readers.ask(daemon.ref, question())  # so that the daemon says something
    assert rows_of(two) == 2
    assert rows_of(one) is None
    readers.leave(daemon.ref, one)
    readers.leave(daemon.ref, two)


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
        waiter._is_over.clear()  # as if it had not been told yet
        waiter.follow = Follow(n + 1, 7, 1, 0, 1, 0)
        readers.leave(daemon.ref, waiter)
    held.set()
    assert [rows_of(waiter) for waiter in new] == [1, 2, 3]


def test_nobody_is_there(readers: Following) -> None:
    nobody = DaemonRef(1, "127.0.0.1:1")
    waiters = [readers.ask(nobody, question()) for _ in range(20)]
    assert [rows_of(waiter) for waiter in waiters] == [None] * 20
    assert readers.ask_now(nobody, question(), Scope("a test", "x")) is None
    for waiter in waiters:
        readers.leave(nobody, waiter)


def test_what_may_be_pushed_to_a_process_is_bounded(daemon: Daemon, readers: Following) -> None:
    daemon.script = silence
    waiters = [readers.ask(daemon.ref, question()) for _ in range(2 * PUSHED_BYTES // ANSWER_BYTES)]
    granted = [daemon.next().max_bytes for _ in waiters]
    assert sum(granted) == PUSHED_BYTES
    assert max(granted) == ANSWER_BYTES
    assert granted[-1] == 0
    for waiter in waiters[:2]:
        readers.leave(daemon.ref, waiter)
        readers.leave(daemon.ref, waiter)  # gives nothing back again
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
    assert (asked.now, asked.max_bytes) == (True, 0)
    daemon.script = silence
    monkeypatch.setattr(following, "_NOW_S", 0.05)
    assert readers.ask_now(daemon.ref, question(), scope) is None
    monkeypatch.setattr(following, "_NOW_S", BOUND_S)
    threading.Timer(0.05, scope.close).start()
    with pytest.raises(ClientClosed):
        readers.ask_now(daemon.ref, question(), scope)


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


def test_a_reader_that_was_forgotten_holds_nothing(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, readers: Following
) -> None:
    monkeypatch.setattr("cosco.client.groups.mark_watch.FOLLOWING", readers)
    daemon.script = silence
    info = ExchangeInfo(
        number=1,
        spec=ExchangeSpec(shuffle_id="g/0", partitions=1),
        generation=1,
        kind=RowKind.BYTES,
        schema=b"",
        ranges=(PartitionRange(0, 0, 1),),
        assignments=(Assignment(0, 1, 1, daemon.ref, ()),),
    )
    handle = GroupHandle("127.0.0.1:1", "g", 2, 1.0, (GroupPart("g", 0, 1, 2, info),))
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
    readers.leave(nowhere, waiter)
    assert readers._left_bytes == PUSHED_BYTES
