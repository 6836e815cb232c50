"""Readers of groups that wait at daemons: all those of a process share one stream to each.

A reader asks a daemon to be told when all mappers of its exchange are done; the answer carries
its rows, if they are few. So that a process that has many readers waiting holds little, one answer
may carry ANSWER_BYTES, and all together PUSHED_BYTES. Where one reader waits, it takes the answers
of all from the stream, until its own is there; see `rpc.reply_turns`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from cosco.client.rpc.channel import Conversation, Manner
from cosco.client.rpc.fork_gate import ProcessWide, process_wide
from cosco.client.rpc.reply_turns import ReplyTurns
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
from cosco.errors import AccessDenied, ClientClosed, CoscoError, InvalidArgument
from cosco.process.tls.tls_files import BY_ENVIRONMENT, TlsNames
from cosco.protocol import wire
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.records import Assignment, DaemonRef, ExchangeInfo

#: How many bytes of rows one answer may carry, and all answers together that wait for a reader.
ANSWER_BYTES: Final = 256 << 10
PUSHED_BYTES: Final = 64 << 20
#: How soon a daemon that serves answers a question that is to be answered at once.
_NOW_S: Final = 2.0
#: A stream that nobody waits on ends after about this time.
LINGER_S: Final = 5.0
#: How many streams may end under a question before the daemon counts as out of reach.
_STREAMS_MAX: Final = 3
_JOIN_S: Final = 5.0
_PATH: Final = f"/{wire.SHUFFLE_SERVICE}/Follow"
_LOG = logging.getLogger("cosco")

#: Where to ask.
_Outbox = Conversation[Follow]


class Question(NamedTuple):
    """What is asked of a daemon: whether all mappers have marked at a range of an exchange."""

    number: int
    range_index: int
    epoch: int
    incarnation: int
    #: Whose rows and sums are wanted.
    partition: int
    #: Whether it is to be answered at once, by how far the mappers are.
    now: bool = False
    #: Whether, at once, only mappers count that have marked in the build of this epoch.
    same_build: bool = False
    #: What the daemon is shown.
    capability: str = ""

    def __repr__(self) -> str:
        shown = self._asdict()
        del shown["capability"]  # who reads a log may not read rows
        return f"Question({', '.join(f'{name}={value}' for name, value in shown.items())})"


def follow_question(
    info: ExchangeInfo, one: Assignment, ref: DaemonRef, partition: int
) -> Question:
    """Return the question to a daemon of an assignment about an exchange and a partition."""
    return Question(
        info.number,
        one.range_index,
        one.epoch,
        ref.incarnation,
        partition,
        capability=info.capability,
    )


def check_allowed(answer: Followed | None, ref: DaemonRef, shuffle_id: str) -> None:
    """Raise AccessDenied if that is what a daemon has answered."""
    if answer is not None and answer.outcome is FollowOutcome.DENIED:
        reason = (
            f"the shuffle daemon at {ref.address} refused: {' '.join(answer.reason.split())[:300]}"
        )
        raise AccessDenied(reason).place(shuffle_id)


class Waiter:
    """One question to a daemon, and in time its answer; used by one reader."""

    def __init__(self, question: Question, granted_bytes: int) -> None:
        """Begin without an answer. granted_bytes: how many bytes of rows that may carry."""
        self._question = question
        #: What is to be given back when the reader has let go of the rows.
        self.granted_bytes = granted_bytes
        #: On its present stream.
        self.id = 0
        self.stream: FollowStream | None = None
        self._is_over = threading.Event()
        #: None: there will be none, as the daemon is out of reach.
        self.answer: Followed | None = None

    def wait(self, timeout_s: float) -> bool:
        """Whether there is an answer, or will be none, waiting for that."""
        if self.stream is not None and not self._is_over.is_set():
            self.stream.wait(self, timeout_s)
        return self._is_over.is_set()

    def wait_for_thread(self, timeout_s: float) -> None:
        """Wait until another thread ends it."""
        self._is_over.wait(timeout_s)

    def is_over(self) -> bool:
        """Whether there is an answer, or will be none."""
        return self._is_over.is_set()

    def end(self, answer: Followed | None) -> None:
        """Wake the reader with an answer, or None. Only the first call counts."""
        if not self._is_over.is_set():
            self.answer = answer
            self._is_over.set()

    def follow(self, *, leave: bool = False) -> Follow:
        """Return the question as it is said on the present stream, or that it is void."""
        number, range_index, epoch, incarnation, partition, now, same_build, capability = (
            self._question
        )
        return Follow(
            self.id, incarnation, number, range_index, epoch, partition, self.granted_bytes, now,
            leave, same_build, capability,
        )  # fmt: skip

    def cancel(self) -> None:
        """Its reader was closed."""
        self.end(None)
        if (stream := self.stream) is not None:
            stream.wake()


class FollowStream:
    """A stream to one daemon: a thread that connects, and hands answers out."""

    def __init__(
        self,
        ref: DaemonRef,
        on_end: Callable[[FollowStream], None],
        tls: TlsNames = BY_ENVIRONMENT,
    ) -> None:
        """Begin without a call. tls: by which files the daemon is reached."""
        self.ref: Final = ref
        self.tls: Final = tls
        self._on_end = on_end
        self._scope = Scope("a follow stream", "")
        self._lock = threading.Lock()  # of what follows
        self._waiters: dict[int, Waiter] = {}
        self._outbox: _Outbox | None = None  # of the present call
        self._ids = itertools.count(1)
        self._turns = ReplyTurns(self._on_reply, self._wants_thread)
        self._has_answered = False  # on the present call
        #: Who waits for the thread to take his answer.
        self._waiting: set[Waiter] = set()
        # Set without the lock, as `_is_over` may be called while the process is about to fork.
        self._is_ending = False
        self._thread = threading.Thread(
            target=self._run, name=f"cosco-follow-{ref.address}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def ask(self, waiter: Waiter) -> bool:
        """Ask a question.

        Returns: False if the stream has ended, or is about to.
        """
        with self._lock:
            waiter.id, waiter.stream = next(self._ids), self
            self._waiters[waiter.id] = waiter
            if self._is_ending:
                del self._waiters[waiter.id]
                return False
            if self._outbox is not None:
                self._outbox.say(waiter.follow())
        return True

    def wait(self, waiter: Waiter, timeout_s: float) -> None:
        """Wait for the answer of a waiter, and take those of others as they come, unless another
        thread does."""
        until = time.monotonic() + timeout_s
        if self._turns.take(waiter.is_over, timeout_s) is not None:
            return
        self._waiting.add(waiter)
        try:
            self._turns.call_thread()
            waiter.wait_for_thread(max(until - time.monotonic(), 0.0))
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        """Have who takes answers look whether he is still to."""
        self._turns.wake()

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter that wants no answer any more; harmless if it has one."""
        if self._waiters.get(waiter.id) is not waiter:  # answered, or of an earlier stream
            return
        with self._lock:
            if self._waiters.pop(waiter.id, None) is not None and self._outbox is not None:
                self._outbox.say(waiter.follow(leave=True))

    def close(self) -> None:
        """End the stream."""
        self._scope.close()
        self._turns.call_thread()

    def join(self) -> bool:
        """Whether the thread has ended, waiting a little for it."""
        self._thread.join(_JOIN_S)
        return not self._thread.is_alive()

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with Endpoint(self.ref.address, self.tls) as endpoint:
                while self._stream(endpoint):
                    pass
        except ClientClosed:
            pass
        except CoscoError as error:
            _LOG.info("following %s: %s", self.ref.address, error)
        finally:
            with self._lock:
                self._is_ending = True
                waiters, self._waiters = self._waiters, {}
            for waiter in waiters.values():
                waiter.end(None)
            self._on_end(self)

    def _stream(self, endpoint: Endpoint) -> bool:
        """Make one call.

        Returns: whether another one is to follow: this one was cancelled for a fork, or has broken
        after answers came, so that the daemon may well be there.
        """
        manner = Manner(
            wire.follows_to_bytes, batch=wire.MAX_FOLLOWS, idle_s=LINGER_S, is_over=self._is_over
        )
        call = endpoint.conversation(_PATH, manner, self._scope)
        self._has_answered = False
        try:
            with self._lock:
                self._outbox = call
                for waiter in self._waiters.values():
                    call.say(waiter.follow())
            self._turns.read(call)
        except Unreachable as error:
            if error.for_fork:
                return True
            _LOG.info("following %s: %s", self.ref.address, error)
        except InvalidArgument as error:
            _LOG.warning("the daemon at %s sent nonsense: %s", self.ref.address, error)
        finally:
            with self._lock:
                self._outbox = None
            call.cancel()
        with self._lock:
            again = self._has_answered and bool(self._waiters)
            self._is_ending = not again  # whoever asks from here on asks on another stream
            return again

    def _on_reply(self, message: bytes) -> bool:
        for answer in wire.followed_from_bytes(message):
            waiter = self._waiters.get(answer.id)
            if waiter is not None:
                self._has_answered = True
                self._waiting.discard(waiter)
                waiter.end(answer)
                self._waiters.pop(answer.id, None)  # only now: this may be interrupted
        return True

    def _wants_thread(self) -> bool:
        return self._scope.is_closed or bool(self._waiting)

    def _is_over(self) -> bool:
        """Whether nobody waits; then nobody will."""
        # Whoever asks adds its waiter before it looks at this flag.
        self._is_ending = not self._waiters
        if self._waiters:
            self._is_ending = False
        return self._is_ending


class Following(ProcessWide):
    """The streams of this process, and what answers may carry."""

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[tuple[DaemonRef, TlsNames], FollowStream] = {}
        self._left_bytes = PUSHED_BYTES
        #: Waiters of readers that were garbage-collected: a finalizer may not take locks.
        self.abandoned: deque[Waiter] = deque()

    def ask(self, ref: DaemonRef, question: Question, tls: TlsNames = BY_ENVIRONMENT) -> Waiter:
        """Ask a daemon, which is reached by these files of TLS. `leave` must follow."""
        while self.abandoned:
            self.leave(self.abandoned.popleft())
        with self._lock:
            granted = 0 if question.now else min(ANSWER_BYTES, self._left_bytes)
            self._left_bytes -= granted
        waiter = Waiter(question, granted)
        try:
            if any(self._ask(ref, waiter, tls) for _ in range(_STREAMS_MAX)):
                return waiter
        except BaseException:  # if no thread can begin, say
            self.leave(waiter)
            raise
        waiter.end(None)
        return waiter

    def ask_now(
        self, ref: DaemonRef, question: Question, scope: Scope, tls: TlsNames = BY_ENVIRONMENT
    ) -> Followed | None:
        """Ask a daemon how far the mappers are.

        It answers in order: what was to be said to earlier questions it has said by then.

        Returns: None if the daemon does not answer soon.
        Raises: ClientClosed; AccessDenied, if the daemon does not tell this reader.
        """
        waiter = self.ask(ref, question._replace(now=True), tls)
        scope.add_call(waiter)
        try:
            waiter.wait(_NOW_S)
            scope.check()
            check_allowed(waiter.answer, ref, scope.shuffle_id)
            return waiter.answer
        finally:
            scope.remove_call(waiter)
            self.leave(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Forget a question whose reader wants no answer any more, or has used the rows of it."""
        stream = waiter.stream
        if stream is not None:  # also for a reader that was woken because it is closed
            stream.leave(waiter)
        waiter.end(None)
        with self._lock:
            self._left_bytes += waiter.granted_bytes
            waiter.granted_bytes = 0

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            streams = list(self._streams.values())
            self._streams.clear()
        for stream in streams:
            stream.close()
        for stream in streams:
            if not stream.join():
                _LOG.warning("the stream that follows %s did not end", stream.ref.address)

    def _ended(self, stream: FollowStream) -> None:
        with self._lock:
            key = stream.ref, stream.tls
            if self._streams.get(key) is stream:
                del self._streams[key]

    def _ask(self, ref: DaemonRef, waiter: Waiter, tls: TlsNames) -> bool:
        """Ask on the stream to a daemon, or on a new one.

        Returns: False if there was one that has ended, or is about to.
        """
        with self._lock:
            stream = self._streams.get((ref, tls))
            if stream is None:
                stream = FollowStream(ref, self._ended, tls)
                stream.ask(waiter)  # before it begins: a stream that nobody waits on ends
                stream.start()  # if no thread can begin, there is no stream to wait on
                self._streams[ref, tls] = stream
                return True
        if stream.ask(waiter):
            return True
        self._ended(stream)
        return False


FOLLOWING: Final = process_wide(Following(), at_exit=Following.close)
