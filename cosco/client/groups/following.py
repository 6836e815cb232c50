"""Readers of groups that wait at daemons: all those of a process share one stream to each.

A reader asks a daemon to be told when all mappers of its exchange are done; the answer carries
its rows, if they are few. So that a process that has many readers waiting holds little, one answer
may carry ANSWER_BYTES, and all together PUSHED_BYTES.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cosco.client.rpc.channel import Conversation, Manner
from cosco.client.rpc.fork_gate import ProcessWide, process_wide
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
from cosco.errors import ClientClosed, CoscoError, InvalidArgument
from cosco.protocol import wire
from cosco.protocol.group_records import Follow, Followed
from cosco.protocol.records import Assignment, DaemonRef

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


def follow_question(number: int, one: Assignment, ref: DaemonRef, partition: int) -> Follow:
    """Return the question to a daemon of an assignment about an exchange and a partition."""
    return Follow(
        id=0,
        incarnation=ref.incarnation,
        number=number,
        range_index=one.range_index,
        epoch=one.epoch,
        partition=partition,
    )


class Waiter:
    """One question to a daemon, and in time its answer; used by one reader."""

    def __init__(self, follow: Follow) -> None:
        self.follow = follow
        self._is_over = threading.Event()
        #: None: there will be none, as the daemon is out of reach.
        self.answer: Followed | None = None

    def wait(self, timeout_s: float) -> bool:
        """Whether there is an answer, or will be none, waiting for that."""
        return self._is_over.wait(timeout_s)

    def end(self, answer: Followed | None) -> None:
        """Wake the reader with an answer, or None. Only the first call counts."""
        if not self._is_over.is_set():
            self.answer = answer
            self._is_over.set()

    def cancel(self) -> None:
        """Its reader was closed."""
        self.end(None)


class FollowStream:
    """A stream to one daemon: a thread that connects, and hands answers out."""

    def __init__(self, ref: DaemonRef, on_end: Callable[[FollowStream], None]) -> None:
        self.ref: Final = ref
        self._on_end = on_end
        self._scope = Scope("a follow stream", "")
        self._lock = threading.Lock()  # of what follows
        self._waiters: dict[int, Waiter] = {}
        self._outbox: _Outbox | None = None  # of the present call
        self._ids = itertools.count(1)
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
            follow = waiter.follow = replace(waiter.follow, id=next(self._ids))
            self._waiters[follow.id] = waiter
            if self._is_ending:
                del self._waiters[follow.id]
                return False
            if self._outbox is not None:
                self._outbox.say(follow)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter that wants no answer any more; harmless if it has one."""
        with self._lock:
            follow = waiter.follow
            if self._waiters.get(follow.id) is not waiter:  # it may be of an earlier stream
                return
            del self._waiters[follow.id]
            if self._outbox is not None:
                self._outbox.say(replace(follow, leave=True))

    def close(self) -> None:
        """End the stream."""
        self._scope.close()

    def join(self) -> bool:
        """Whether the thread has ended, waiting a little for it."""
        self._thread.join(_JOIN_S)
        return not self._thread.is_alive()

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with Endpoint(self.ref.address) as endpoint:
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

        Returns: whether another one is to follow, as this one was cancelled for a fork.
        """
        manner = Manner(
            wire.follows_to_bytes, batch=wire.MAX_FOLLOWS, idle_s=LINGER_S, is_over=self._is_over
        )
        call = endpoint.conversation(_PATH, manner, self._scope)
        try:
            with self._lock:
                self._outbox = call
                for waiter in self._waiters.values():
                    call.say(waiter.follow)
            self._hand_out(call)
        except Unreachable as error:
            if not error.for_fork:
                _LOG.info("following %s: %s", self.ref.address, error)
            return error.for_fork
        except InvalidArgument as error:
            _LOG.warning("the daemon at %s sent nonsense: %s", self.ref.address, error)
        finally:
            with self._lock:
                self._outbox = None
            call.cancel()
        return False

    def _hand_out(self, call: _Outbox) -> None:
        for message in call:
            for answer in wire.followed_from_bytes(message):
                waiter = self._waiters.pop(answer.id, None)
                if waiter is not None:
                    waiter.end(answer)

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
        self._streams: dict[DaemonRef, FollowStream] = {}
        self._left_bytes = PUSHED_BYTES
        #: Waiters of readers that were garbage-collected: a finalizer may not take locks.
        self.abandoned: deque[tuple[DaemonRef, Waiter]] = deque()

    def ask(self, ref: DaemonRef, follow: Follow) -> Waiter:
        """Ask a daemon. `leave` must follow."""
        while self.abandoned:
            self.leave(*self.abandoned.popleft())
        with self._lock:
            granted = 0 if follow.now else min(ANSWER_BYTES, self._left_bytes)
            self._left_bytes -= granted
        waiter = Waiter(replace(follow, max_bytes=granted))
        try:
            for _ in range(_STREAMS_MAX):
                stream = self._stream(ref)
                if stream.ask(waiter):
                    return waiter
                self._ended(stream)
        except BaseException:  # if no thread can begin, say
            self.leave(ref, waiter)
            raise
        waiter.end(None)
        return waiter

    def ask_now(self, ref: DaemonRef, follow: Follow, scope: Scope) -> Followed | None:
        """Ask a daemon how far the mappers are.

        It answers in order: what was to be said to earlier questions it has said by then.

        Returns: None if the daemon does not answer soon.
        Raises: ClientClosed.
        """
        waiter = self.ask(ref, replace(follow, now=True))
        scope.add_call(waiter)
        try:
            waiter.wait(_NOW_S)
            scope.check()
            return waiter.answer
        finally:
            scope.remove_call(waiter)
            self.leave(ref, waiter)

    def leave(self, ref: DaemonRef, waiter: Waiter) -> None:
        """Forget a question whose reader wants no answer any more, or has used the rows of it."""
        stream = self._streams.get(ref)
        if stream is not None:  # also for a reader that was woken because it is closed
            stream.leave(waiter)
        waiter.end(None)
        with self._lock:
            self._left_bytes += waiter.follow.max_bytes
            waiter.follow = replace(waiter.follow, max_bytes=0)

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
            if self._streams.get(stream.ref) is stream:
                del self._streams[stream.ref]

    def _stream(self, ref: DaemonRef) -> FollowStream:
        with self._lock:
            stream = self._streams.get(ref)
            if stream is None:
                stream = FollowStream(ref, self._ended)
                stream.start()  # if no thread can begin, there is no stream to wait on
                self._streams[ref] = stream
            return stream


FOLLOWING: Final = process_wide(Following(), at_exit=Following.close)
