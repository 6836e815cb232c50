"""Who takes the replies of a conversation: a thread of its own, or whoever waits for one.

A reply that the thread takes wakes the thread, and then the one who waits: two switches, and each
wants the interpreter's lock. Who waits takes replies himself where he can, and the thread rests.
It is wanted where nobody waits, where several do, and for all that is not a reply. (The pattern is
that of leaders and followers: Schmidt and others, Pattern-Oriented Software Architecture 2, 2000.)
Where the transport has no such waits, the thread takes all replies.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from cosco.client.rpc.channel import Conversation, TimedConversation
from cosco.client.rpc.scope import Unreachable
from cosco.errors import CoscoError


class ReplyTurns:
    """The conversations of one stream, one after another. All but `read` is for any thread."""

    def __init__(self, on_reply: Callable[[bytes], bool], wants_thread: Callable[[], bool]) -> None:
        """Begin without a conversation.

        on_reply: takes a reply, one at a time; False: nothing more is wanted of the conversation.
        What it raises is raised by `read`. wants_thread: whether the thread is to go on taking
        replies, after one that it took, with no lock held; it must be as long as somebody waits who
        does not take them.
        """
        self._on_reply = on_reply
        self._wants_thread = wants_thread
        #: Who takes replies has it; the thread, for as long as it does not rest. One that knows its
        #: owner: an interrupt may come before anything else could note that it is held.
        self._turn: Any = threading.RLock()
        self._call: TimedConversation[Any] | None = None
        #: Whether the thread takes replies, or will as soon as it can.
        self._is_called = False
        #: A call of the thread that it has not heard. A queue, as finalizers may put it there.
        self._calls: SimpleQueue[None] = SimpleQueue()
        #: How a conversation ended for somebody who is not the thread.
        self._left: BaseException | None = None

    # --- the thread -------------------------------------------------------------------------

    def read(self, call: Conversation[Any]) -> None:
        """Have the replies of a conversation taken, until it ends or no more are wanted.

        Raises: what the conversation fails with, and what `on_reply` raises.
        """
        if not isinstance(call, TimedConversation):
            for reply in call:
                if not self._on_reply(reply):
                    return
            return
        with self._turn:
            self._call, self._left, self._is_called = call, None, True
            try:
                self._read(call)
            except StopIteration:
                return
            finally:
                self._call = None

    def _read(self, call: TimedConversation[Any]) -> None:
        is_called = True
        while True:
            reply = call.receive(call.idle_left_s() if is_called else 0.0)
            while not self._calls.empty():  # before what it stands for is looked at
                self._calls.get()
            if reply is None:
                call.end_if_idle()
            elif not self._on_reply(reply):
                return
            is_called = self._wants_thread() or self._rest(call)

    def _rest(self, call: TimedConversation[Any]) -> bool:
        """Wait until the thread is called, or has been idle for long.

        Returns: whether it is to wait for replies, else only to take what has come.
        """
        self._is_called = False
        self._turn.release()
        try:
            is_called = call.end_if_idle()
            if not is_called:
                with suppress(Empty):
                    self._calls.get(timeout=call.idle_left_s())
                    is_called = True
        finally:
            self._is_called = True
            self._turn.acquire()  # after who takes replies now, if somebody does
        left, self._left = self._left, None
        if left is not None:
            raise left.with_traceback(None)  # not with all that who left it has
        return is_called or call.end_if_idle()

    # --- whoever waits ----------------------------------------------------------------------

    def call_thread(self) -> None:
        """Have the thread take replies, or notice that the conversation has ended. Takes no
        lock."""
        if self._call is not None:
            self._is_called = True
            if self._calls.empty():  # one that is there is heard before anything is looked at
                self._calls.put(None)

    def take(self, is_enough: Callable[[], bool], timeout_s: float) -> int | None:
        """Take replies in the place of the thread, until that is enough or for a time.

        Returns: how many. None if the thread takes them, or another one, or if there is no
        conversation any more, of which the thread then knows.
        """
        if self.is_taker():
            return None  # a handler of signals, amid this
        try:
            if self._is_called or not self._turn.acquire(blocking=False):
                return None
            if (call := self._call) is None:
                return None
            return self._take(call, is_enough, time.monotonic() + timeout_s)
        finally:
            # At once, and without a note of whether it was taken, which an interrupt may forestall.
            try:  # noqa: SIM105  nothing may be called before
                self._turn.release()
            except RuntimeError:  # it is not this thread's
                pass

    def is_taker(self) -> bool:
        """Whether the calling thread takes replies, and so whether the stream's waits for it."""
        return self._turn._is_owned()  # type: ignore[no-any-return]

    def wake(self) -> None:
        """Have whoever is in `take` look whether it is enough."""
        if (call := self._call) is not None:
            call.wake()

    def _take(
        self, call: TimedConversation[Any], is_enough: Callable[[], bool], until: float
    ) -> int | None:
        count = 0
        try:
            while not is_enough():
                left_s = until - time.monotonic()
                reply = call.receive(max(left_s, 0.0))
                if reply is not None:
                    count += 1
                    if not self._on_reply(reply):
                        raise StopIteration  # as if it had ended
                if left_s <= 0:
                    break
        except (StopIteration, Unreachable, CoscoError) as ended:
            self._leave(ended)
            return None
        except BaseException:
            # Interrupted, as by a handler of signals, maybe between a reply and what was to be
            # made of it. Nothing is wrong with the service.
            why = "whoever took its replies was interrupted"
            self._leave(Unreachable(why, for_fork=True))
            call.cancel()
            raise
        return count

    def _leave(self, ended: BaseException) -> None:
        self._left = ended
        self.call_thread()
