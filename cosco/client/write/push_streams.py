"""Push streams of this process: each serves one writer at a time, and is kept for the next.

Opening a stream costs a thread or two here, a task in the daemon and a call of HTTP/2: more than
the rows of a small writer. So a stream whose writer has nothing under way any more waits for
another writer to the same daemon, for a while. What is said on it is up to its user.

A writer that only waits takes the replies himself where he can, see `rpc.reply_turns`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cosco.client.rpc.channel import Conversation, Manner
from cosco.client.rpc.fork_gate import ProcessWide, process_wide
from cosco.client.rpc.reply_turns import ReplyTurns
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
from cosco.errors import ClientClosed, CoscoError
from cosco.process.tls.tls_files import BY_ENVIRONMENT, TlsNames
from cosco.protocol import wire
from cosco.protocol.push.messages import PushRequest
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.records import DaemonRef

#: A stream without a user ends after about this time.
LINGER_S: Final = 5.0
#: Streams without a user that a process keeps, the last used ones.
MAX_IDLE_STREAMS: Final = 64
_JOIN_S: Final = 5.0
_PATH: Final = f"/{wire.SHUFFLE_SERVICE}/Push"
_LOG = logging.getLogger("cosco")

#: Where to say what; ending it has the daemon end the stream.
Outbox = Conversation[PushRequest[OutFrame]]


class User(Protocol):
    """Who uses a stream, from `Streams.borrow` until `Stream.give_back` succeeds, or for ever.

    All but `begin` is called by the stream's thread, holding no lock; `on_reply` by whoever takes
    a reply.
    """

    @property
    def scope(self) -> Scope:
        """Whose end ends the stream."""
        ...

    def begin(self, stream: Stream, outbox: Outbox, *, used: bool) -> None:
        """`stream` is there: whatever was said on the last one is void. `used` by others
        before; it may have broken unnoticed since."""
        ...

    def on_reply(self, message: bytes) -> bool:
        """The daemon said something; False: nothing more is wanted of this stream."""
        ...

    def wants_thread(self) -> bool:
        """Whether the stream's thread is to take the replies to come: `take_replies` does not."""
        ...

    def wait_for_work(self) -> bool:
        """Wait until a stream is needed; False: none ever will be."""
        ...

    def on_end(self, error: Unreachable | None) -> None:
        """The stream has ended, by an error or in peace; raises what ends the user."""
        ...

    def failed(self, error: BaseException) -> None:
        """A method of it has raised this, or the call failed for good: there will be no other
        stream."""
        ...

    def over(self) -> None:
        """The thread ends."""
        ...


class Stream:
    """One daemon: a thread that connects, reads, and connects again for the present user."""

    def __init__(self, streams: Streams, ref: DaemonRef, tls: TlsNames) -> None:
        self.ref: Final = ref
        #: By which files of TLS the daemon is reached.
        self.tls: Final = tls
        #: What the present call allows, as the user of that time was told.
        self.eager_bytes = 0
        self._streams = streams
        self._scope = Scope("a push stream", "")
        # Guards what follows. Nothing is waited for inside, nor the fork gate entered.
        self._lock = threading.Lock()
        self._user: User | None = None
        self._outbox: Outbox | None = None  # the present call, once its user may say something
        self._call: Outbox | None = None
        self._is_over = False
        self._turns = ReplyTurns(self._on_reply, self._wants_thread)
        self._thread = threading.Thread(
            target=self._run, name=f"cosco-push-{ref.address}", daemon=True
        )

    def start(self, user: User) -> None:
        """Begin, with a first user."""
        self._user = user
        user.scope.add_call(self)
        self._thread.start()

    def take_over(self, user: User) -> bool:
        """Serve another user from now on; False if the stream has ended."""
        with self._lock:
            if self._is_over or self._outbox is None:
                return False
            self._user = user
            outbox = self._outbox
        user.scope.add_call(self)
        user.begin(self, outbox, used=True)
        return True

    def give_back(self, user: User) -> bool:
        """The user has heard all there is to hear, and is done; False: the stream has ended,
        or is about to."""
        with self._lock:
            if self._is_over or self._outbox is None or user.scope.is_closed:
                return False
            self._user = None
        user.scope.remove_call(self)
        self._streams.keep(self)
        return True

    def cancel(self) -> None:
        """End the present call; as the scope of the user was closed."""
        if (call := self._call) is not None:
            call.cancel()
            self._turns.call_thread()

    def call_thread(self) -> None:
        """Have the thread take replies, as something was said, or the end of the call."""
        self._turns.call_thread()

    def take_replies(self, is_enough: Callable[[], bool], timeout_s: float) -> int | None:
        """Take replies for the present user in the place of the thread; see `ReplyTurns.take`."""
        return self._turns.take(is_enough, timeout_s)

    def close(self) -> None:
        """End a stream without user."""
        self._scope.close()
        self._turns.call_thread()

    def end(self) -> None:
        """Have the daemon end a stream without user."""
        if (outbox := self._outbox) is not None:
            outbox.end()
            self._turns.call_thread()

    def join(self) -> bool:
        """Whether the thread has ended, waiting a little for it."""
        if self._thread is not threading.current_thread() and not self._turns.is_taker():
            self._thread.join(_JOIN_S)
            return not self._thread.is_alive()
        return True

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with Endpoint(self.ref.address, self.tls) as endpoint:
                while (user := self._present_user()) is not None and self._serve(user, endpoint):
                    pass
        except CoscoError as error:  # what the service says is the daemon's address is none
            if (present := self._present_user()) is not None:
                present.failed(error)
        finally:
            with self._lock:
                self._is_over = True
                last = self._user
            self._streams.claim(self)
            if last is not None:
                last.scope.remove_call(self)
                last.over()

    def _serve(self, user: User, endpoint: Endpoint) -> bool:
        """Have a stream for `user` and those who come after it; False: it needs none."""
        try:
            if not user.wait_for_work():
                return False
            broken: Unreachable | None = None
            try:
                self._stream(user, endpoint)
            except Unreachable as error:
                broken = error
            if (present := self._present_user()) is not None:
                present.on_end(broken)
        except ClientClosed:
            return False  # whoever closed the writer knows
        except BaseException as error:  # noqa: BLE001  a thread's error must reach its user
            if (present := self._present_user()) is not None:
                present.failed(error)
            return False
        return True

    def _present_user(self) -> User | None:
        with self._lock:
            self._is_over = self._user is None
            return self._user

    def _stream(self, user: User, endpoint: Endpoint) -> None:
        manner = Manner(
            _message, batch=1, idle_s=LINGER_S, is_over=lambda: self._streams.claim(self)
        )
        call = endpoint.conversation(_PATH, manner, self._scope)
        self._call, self.eager_bytes = call, 0
        try:
            user.scope.check()  # or it was closed before there was a call to cancel
            with self._lock:
                self._outbox = call
            user.begin(self, call, used=False)
            self._turns.read(call)
        finally:
            with self._lock:
                self._outbox = self._call = None
            call.cancel()

    # --- of whoever takes replies -----------------------------------------------------------

    def _on_reply(self, message: bytes) -> bool:
        present = self._user
        return present is not None and present.on_reply(message)

    def _wants_thread(self) -> bool:
        present = self._user
        return self._scope.is_closed or (present is not None and present.wants_thread())


def _message(requests: Sequence[PushRequest[OutFrame]]) -> bytes:
    (request,) = requests
    return wire.push_request_to_bytes(request)


class Streams(ProcessWide):
    """The push streams of a process that no writer uses; those that one does are its own.

    Without locks: each operation on the queue is one that the interpreter makes atomic.
    """

    def _reset(self) -> None:
        self._idle: deque[Stream] = deque()  # the one used last is last

    def borrow(self, ref: DaemonRef, user: User, tls: TlsNames = BY_ENVIRONMENT) -> Stream:
        """A stream to a daemon for `user` alone: one that was kept, or another one.

        tls: by which files the daemon is reached.
        """
        for stream in reversed(self._idle.copy()):
            is_same = stream.ref == ref and stream.tls == tls
            if is_same and self.claim(stream) and stream.take_over(user):
                return stream
        stream = Stream(self, ref, tls)
        stream.start(user)
        return stream

    def keep(self, stream: Stream) -> None:
        """A stream has no user any more."""
        self._idle.append(stream)
        if len(self._idle) > MAX_IDLE_STREAMS:
            oldest = self._idle[0]
            if self.claim(oldest):
                oldest.end()

    def claim(self, stream: Stream) -> bool:
        """Whether a stream was kept, and is now for the caller to use or to end."""
        try:
            self._idle.remove(stream)
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """End all streams without user, and their threads."""
        ended = [stream for stream in self._idle.copy() if self.claim(stream)]
        for stream in ended:
            stream.close()
        for stream in ended:
            if not stream.join():
                _LOG.warning("the push stream to %s did not end", stream.ref.address)


STREAMS: Final = process_wide(Streams(), at_exit=Streams.close)
