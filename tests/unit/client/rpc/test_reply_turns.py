"""Replies are taken once and in order, by the thread or by who waits, whoever is quicker."""

from __future__ import annotations

import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cosco.client.rpc.channel import Conversation, TimedConversation
from cosco.client.rpc.reply_turns import ReplyTurns
from cosco.client.rpc.scope import Unreachable
from cosco.errors import CoscoError

BOUND_S = 20.0


class Talk(TimedConversation[bytes]):
    """A conversation whose replies a test gives."""

    def __init__(self, idle_s: float = BOUND_S) -> None:
        self._changed = threading.Condition()
        self._replies: deque[bytes | BaseException] = deque()
        self._is_woken = False
        self.idle_s = idle_s
        self.is_over = False
        self.is_cancelled = False
        self.receiving: set[str] = set()  # names of threads

    def reply(self, *replies: bytes | BaseException) -> None:
        with self._changed:
            self._replies.extend(replies)
            self._changed.notify_all()

    def receive(self, timeout_s: float) -> bytes | None:
        me = threading.current_thread().name
        with self._changed:
            assert not self.receiving, "one thread at a time"
            self.receiving.add(me)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._replies or self._is_woken, timeout_s)
            self.receiving.discard(me)
            if not self._replies:
                self._is_woken = False
                return None
            reply = self._replies.popleft()
        if isinstance(reply, bytes):
            return reply
        raise reply

    def until_receiving(self, name: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.receiving, BOUND_S)

    def wake(self) -> None:
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def idle_left_s(self) -> float:
        return BOUND_S if self.is_over else self.idle_s

    def end_if_idle(self) -> bool:
        return self.is_over

    def cancel(self) -> None:
        self.is_cancelled = True
        self.reply(Unreachable("cancelled"))

    def say(self, saying: bytes) -> None:
        raise AssertionError

    def end(self) -> None:
        raise AssertionError

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError


class Stream:
    """A thread, and what it and others have taken."""

    def __init__(self) -> None:
        self.talk = Talk()
        self.wants_thread = False
        self.taken: list[tuple[bytes, str]] = []
        self.changed = threading.Condition()
        self.on_taken: Callable[[bytes], None] = lambda reply: None
        self.on_rest: Callable[[], bool | None] = lambda: None
        self.turns = ReplyTurns(self._on_reply, self._wants_thread)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="stream")
        self.read = self.pool.submit(self.turns.read, self.talk)
        self.talk.until_receiving("stream_0")

    def _on_reply(self, reply: bytes) -> bool:
        with self.changed:
            self.taken.append((reply, threading.current_thread().name))
            self.on_taken(reply)
            self.changed.notify_all()
        return reply != b"enough"

    def _wants_thread(self) -> bool:
        return self.on_rest() or self.wants_thread

    def until_taken(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.taken) >= count, BOUND_S)

    def take(self, count: int = 1, timeout_s: float = BOUND_S) -> int | None:
        """As `ReplyTurns.take`, which is tried until the thread rests."""
        until = len(self.taken) + count
        for _ in range(10_000):
            took = self.turns.take(lambda: len(self.taken) >= until, timeout_s)
            if took is not None:
                return took
        return None

    def rest(self) -> None:
        """Have the thread rest."""
        self.talk.reply(b"first")
        self.until_taken(1)
        assert self.take(0) == 0


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.talk.reply(StopIteration())
    made.turns.call_thread()
    made.pool.shutdown()


def test_the_thread_takes_replies_until_it_may_rest(stream: Stream) -> None:
    stream.wants_thread = True
    stream.talk.reply(b"a", b"b")
    stream.until_taken(2)
    assert stream.turns.take(lambda: False, 0.0) is None, "it is the thread's turn"
    stream.wants_thread = False
    stream.talk.reply(b"c")
    stream.until_taken(3)
    stream.talk.reply(b"d")
    assert stream.take() == 1
    me = threading.current_thread().name
    assert stream.taken == [*((one, "stream_0") for one in (b"a", b"b", b"c")), (b"d", me)]


def test_a_thread_that_is_called_takes_replies_again(stream: Stream) -> None:
    stream.rest()
    stream.turns.call_thread()
    stream.talk.until_receiving("stream_0")
    assert stream.turns.take(lambda: False, 0.0) is None
    stream.talk.reply(b"b")
    stream.until_taken(2)
    assert stream.taken[1] == (b"b", "stream_0")


def test_a_call_while_the_thread_is_about_to_rest_is_heard(stream: Stream) -> None:
    stream.on_rest = stream.turns.call_thread
    stream.talk.reply(b"a")
    stream.until_taken(1)
    stream.on_rest = lambda: None
    stream.talk.reply(b"b")
    stream.until_taken(2)
    assert stream.taken == [(b"a", "stream_0"), (b"b", "stream_0")]


def test_a_call_while_the_thread_takes_a_reply_is_heard(stream: Stream) -> None:
    stream.on_taken = lambda _reply: stream.turns.call_thread()
    stream.talk.reply(b"a")
    stream.until_taken(1)
    stream.talk.reply(b"b")
    stream.until_taken(2)
    assert stream.taken == [(b"a", "stream_0"), (b"b", "stream_0")]


def test_a_thread_that_is_called_waits_for_who_takes_replies(stream: Stream) -> None:
    stream.rest()
    with ThreadPoolExecutor(1, thread_name_prefix="taker") as pool:
        taking = pool.submit(stream.take, 2)
        stream.talk.until_receiving("taker_0")
        stream.turns.call_thread()
        assert stream.turns.take(lambda: False, 0.0) is None, "it is another one's turn"
        stream.talk.reply(b"a", b"b")
        assert taking.result(BOUND_S) == 2
        stream.talk.until_receiving("stream_0")
        stream.talk.reply(b"c")
        stream.until_taken(4)
    assert [who for _, who in stream.taken] == ["stream_0", "taker_0", "taker_0", "stream_0"]


def test_what_ends_a_conversation_for_who_takes_replies_is_raised_by_the_thread(
    stream: Stream,
) -> None:
    stream.rest()
    stream.talk.reply(b"a", Unreachable("gone"))
    assert stream.turns.take(lambda: False, BOUND_S) is None
    with pytest.raises(Unreachable, match="gone"):
        stream.read.result(BOUND_S)
    assert stream.turns.take(lambda: False, 0.0) is None, "there is no conversation"


@pytest.mark.parametrize("error", [CoscoError("no"), Unreachable("gone")])
def test_what_the_user_means_is_raised_by_the_thread(stream: Stream, error: Exception) -> None:
    def meant(_reply: bytes) -> None:
        raise error

    stream.rest()
    stream.on_taken = meant
    stream.talk.reply(b"a")
    assert stream.turns.take(lambda: False, BOUND_S) is None
    with pytest.raises(type(error)):
        stream.read.result(BOUND_S)


@pytest.mark.parametrize("end", [b"enough", StopIteration()], ids=["unwanted", "ended"])
def test_an_end_that_is_no_failure_ends_the_thread(
    stream: Stream, end: bytes | BaseException
) -> None:
    stream.rest()
    stream.talk.reply(end)
    assert stream.turns.take(lambda: False, BOUND_S) is None
    assert stream.read.result(BOUND_S) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a handler's")])
def test_who_is_interrupted_leaves_a_conversation_that_is_void(
    stream: Stream, error: BaseException
) -> None:
    """A reply may have been lost with him. What interrupts him is his, and no service is blamed."""
    stream.rest()
    stream.talk.reply(error)
    with pytest.raises(type(error)):
        stream.turns.take(lambda: False, BOUND_S)
    with pytest.raises(Unreachable, match="interrupted") as told:
        stream.read.result(BOUND_S)
    assert told.value.for_fork
    assert stream.talk.is_cancelled
    assert stream.turns._turn.acquire(blocking=False), "nobody has it any more"


def test_a_handler_of_signals_amid_a_take_takes_nothing(stream: Stream) -> None:
    stream.rest()
    stream.on_taken = lambda _reply: handled.append(stream.turns.take(lambda: False, 0.0))
    handled: list[int | None] = []
    stream.talk.reply(b"a", b"b")
    assert stream.take(2) == 2
    assert handled == [None, None]


def test_an_interrupt_leaves_the_turn_with_nobody(stream: Stream) -> None:
    """It may come between any two steps of the interpreter."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    is_free: list[bool] = []
    turn = stream.turns._turn

    def look() -> None:
        is_free.append(turn.acquire(timeout=BOUND_S))
        turn.release()

    def until_interrupted() -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(20e-6, 100e-6))
            while True:
                stream.turns.take(lambda: True, 0.0)
        except KeyboardInterrupt:
            pass

    stream.rest()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(2_000):
            until_interrupted()
            stream.turns._is_called = False
            other = threading.Thread(target=look)
            other.start()
            other.join()
            if not is_free[-1]:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert is_free == [True] * 2_000


def test_what_comes_for_nobody_is_taken_after_a_while(stream: Stream) -> None:
    stream.talk.idle_s = 0.001
    stream.rest()
    stream.talk.reply(b"a")
    stream.until_taken(2)
    assert stream.taken[1] == (b"a", "stream_0")


def test_taking_ends_when_its_time_is_over_and_takes_first_what_is_there(stream: Stream) -> None:
    stream.rest()
    assert stream.take(1, 0.0) == 0
    stream.talk.reply(b"a")
    assert stream.take(2, 0.0) == 1
    assert stream.turns.take(lambda: True, BOUND_S) == 0


def test_who_takes_replies_can_be_woken(stream: Stream) -> None:
    stream.rest()
    is_enough = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="taker") as pool:
        taking = pool.submit(stream.turns.take, is_enough.is_set, BOUND_S)
        stream.talk.until_receiving("taker_0")
        is_enough.set()
        stream.turns.wake()
        assert taking.result(BOUND_S) == 0


def test_a_conversation_that_has_been_idle_for_long_is_read_to_its_end(stream: Stream) -> None:
    stream.talk.idle_s = 0.005
    stream.rest()
    assert not stream.read.done()
    stream.talk.is_over = True
    stream.talk.until_receiving("stream_0")


def test_a_conversation_without_timed_waits_is_the_thread_s_alone() -> None:
    taken: list[bytes] = []

    class Plain(Conversation[bytes]):
        def say(self, saying: bytes) -> None: ...

        def end(self) -> None: ...

        def cancel(self) -> None: ...

        def __iter__(self) -> Iterator[bytes]:
            assert turns.take(lambda: False, 0.0) is None
            turns.call_thread()
            yield from (b"a", b"b", b"c")

    def on_reply(reply: bytes) -> bool:
        taken.append(reply)
        return reply != b"b"

    turns = ReplyTurns(on_reply, lambda: False)
    turns.read(Plain())
    assert taken == [b"a", b"b"]
    assert turns.take(lambda: False, 0.0) is None


def test_every_reply_is_taken_once_and_in_order_whoever_takes_it(stream: Stream) -> None:
    """Threads take or call the thread by chance, and none waits in vain."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    count, takers = 600, 3
    sent = iter(range(count))
    waiting: set[bytes] = set()
    for_thread: set[bytes] = set()

    def on_taken(reply: bytes) -> None:
        waiting.discard(reply)
        for_thread.discard(reply)

    stream.on_taken, stream.on_rest = on_taken, lambda: bool(for_thread)

    def work(number: int) -> None:
        chance = random.Random(seed + number)
        while (mine := next(sent, None)) is not None:
            name = b"%d" % mine

            def is_there(name: bytes = name) -> bool:
                return name not in waiting

            waiting.add(name)
            stream.talk.reply(name)
            if chance.random() < 0.5 and stream.turns.take(is_there, BOUND_S) is not None:
                assert is_there()
                continue
            for_thread.add(name)
            stream.turns.call_thread()
            with stream.changed:
                assert stream.changed.wait_for(is_there, BOUND_S)
            for_thread.discard(name)

    with ThreadPoolExecutor(takers) as pool:
        for done in [pool.submit(work, number) for number in range(takers)]:
            done.result(4 * BOUND_S)
    numbers = [int(reply) for reply, _ in stream.taken]
    assert sorted(numbers) == list(range(count))
    assert len({who for _, who in stream.taken}) > 1
