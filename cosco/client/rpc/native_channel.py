"""Calls by the native part: see "The client's transport" in docs/architecture/native.md.

Whoever calls sends by himself; one thread of the process, which is none of Python's, takes what
comes and wakes those who wait. A fork leaves the parent's calls as they are.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, TypeVar

from cosco.client.rpc.channel import Channel, Conversation, Manner, TimedCall, Transport
from cosco.client.rpc.failures import End, failure, place, refused
from cosco.client.rpc.fork_gate import ProcessWide
from cosco.client.rpc.scope import Scope
from cosco.errors import CoscoError
from cosco.protocol import wire

_T = TypeVar("_T")
#: What gRPC calls the numbers of its codes.
_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_OF_PARENT: Final = End("CANCELLED", "it is a call of the process that this was forked from", ())


class NativeTransport(ProcessWide, Transport):
    """The native part, whose thread begins with the first channel."""

    def __init__(self, native: ModuleType) -> None:
        super().__init__()
        self._native: Any = native

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._runtime: Any = None

    def channel(self, address: str) -> Channel:
        """See `Transport`."""
        with self._lock:
            if self._runtime is None:
                self._runtime = self._native.ClientRuntime()
            runtime = self._runtime
        limit = wire.MAX_METADATA_MESSAGE_BYTES
        return NativeChannel(address, runtime.connection(address, limit))

    def refusal(self) -> str:
        """See `Transport`."""
        return ""

    def install(self, *, in_child: Callable[[], None]) -> None:
        """See `Transport`."""

        def after_in_child() -> None:
            self._native.close_inherited_connections()
            self.forget_parent()
            in_child()

        os.register_at_fork(after_in_child=after_in_child)


class NativeChannel(Channel):
    """A connection of the native part."""

    def __init__(self, address: str, connection: Any) -> None:
        self._address = address
        self._connection = connection

    def unary(self, method: str, request: bytes, timeout_s: float, scope: Scope) -> bytes:
        """See `Channel`."""
        return self._call(method, request, scope, is_unary=True, timeout_s=timeout_s).result()

    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> NativeCall:
        """See `Channel`."""
        return self._call(method, request, scope)

    def conversation(self, method: str, manner: Manner[_T], scope: Scope) -> Conversation[_T]:
        """See `Channel`."""
        return NativeConversation(self._call(method, None, scope), manner)

    def close(self) -> None:
        """See `Channel`."""
        self._connection.close()

    def _call(
        self,
        method: str,
        request: bytes | None,
        scope: Scope,
        *,
        is_unary: bool = False,
        timeout_s: float | None = None,
    ) -> NativeCall:
        scope.check()
        try:
            call = self._connection.call(method, request, is_unary, timeout_s)
        except RuntimeError as error:
            raise refused(self._address, error, scope.shuffle_id) from None
        return NativeCall(call, place(method, self._address), scope)


class NativeCall(TimedCall):
    """A call of the native part."""

    def __init__(self, call: Any, where: str, scope: Scope) -> None:
        self._call = call
        self._where = where
        self._scope = scope
        self._is_over = False
        scope.add_call(self)

    def result(self) -> bytes:
        """Return the reply of a unary call."""
        try:
            return next(self)
        finally:
            self._scope.remove_call(self)

    def __next__(self) -> bytes:
        """See `Call`."""
        reply = self.receive(None)
        while not isinstance(reply, bytes):
            reply = self.receive(None)
        return reply

    def within(self, seconds: float) -> bytes | None:
        """See `TimedCall`."""
        reply = self.receive(seconds)
        return reply if isinstance(reply, bytes) else None

    def receive(self, timeout_s: float | None) -> bytes | bool | None:
        """Return the next reply; None if there is none in that time; True if `send` has room again.

        Raises: StopIteration at the end, or as `Call` says.
        """
        try:
            reply = self._call.receive(timeout_s)
            end = self._end() if reply is False else None
        except RuntimeError:
            end = _OF_PARENT
        if end is None:
            return reply  # type: ignore[no-any-return]
        self._is_over = True
        self._scope.remove_call(self)
        if end.code == _CODES[0]:
            raise StopIteration
        raise self._failure(end)

    def send(self, message: bytes) -> bool:
        """Send a message. Returns whether there is room for more; if not, `receive` says when."""
        try:
            return self._call.send(message)  # type: ignore[no-any-return]
        except RuntimeError:  # in a forked child, which is told where it looks for a reply
            return True

    def half_close(self) -> None:
        """Send nothing further."""
        try:
            self._call.half_close()
        except RuntimeError:
            return

    def cancel(self) -> None:
        """See `Call`."""
        self._scope.remove_call(self)
        if not self._is_over:
            self._call.cancel()

    def _end(self) -> End:
        code, details, trailers = self._call.status()
        name = _CODES[code] if code < len(_CODES) else f"status {code}"
        return End(name, details, trailers)

    def _failure(self, end: End) -> Exception:
        try:
            self._scope.check()
        except CoscoError as closed:
            return closed
        return failure(end, self._where, self._scope.shuffle_id)


class NativeConversation(Conversation[_T]):
    """A call whose messages are sent by whoever says something, as long as there is room.

    What is said meanwhile waits here. Whoever iterates sends it when there is room again.
    """

    def __init__(self, call: NativeCall, manner: Manner[_T]) -> None:
        self._call = call
        self._manner = manner
        self._sayings: deque[_T | None] = deque()  # None: the end
        self._said_at = time.monotonic()
        # Guards what follows, and is held while something is sent, which waits for nothing.
        self._sending = threading.Lock()
        self._has_room = True

    def say(self, saying: _T) -> None:
        """See `Conversation`."""
        self._said_at = time.monotonic()
        self._sayings.append(saying)
        self._send()

    def end(self) -> None:
        """See `Conversation`."""
        self._sayings.append(None)
        self._send()

    def __iter__(self) -> Iterator[bytes]:
        """See `Conversation`."""
        while True:
            left_s = self._said_at + self._manner.idle_s - time.monotonic()
            try:
                reply = self._call.receive(max(left_s, 0.0))
            except StopIteration:
                return
            if isinstance(reply, bytes):
                yield reply
            elif reply:
                with self._sending:  # whoever was told that there is none has noted that by now
                    self._has_room = True
                self._send()
            elif self._said_at + self._manner.idle_s <= time.monotonic():
                self._rest()

    def cancel(self) -> None:
        """See `Conversation`."""
        self._call.cancel()

    def _rest(self) -> None:
        """Note that nothing was said for a while."""
        if not self._sayings and self._manner.is_over():
            self.end()
        self._said_at = time.monotonic()

    def _send(self) -> None:
        # Whoever finds another one sending leaves it to that one, which looks again at the end.
        while self._sayings and self._has_room and self._sending.acquire(blocking=False):
            try:
                self._send_some()
            finally:
                self._sending.release()

    def _send_some(self) -> None:
        while self._sayings and self._has_room:
            batch: list[_T] = []
            is_end = False
            while self._sayings and not is_end and len(batch) < self._manner.batch:
                saying = self._sayings.popleft()
                if saying is None:
                    is_end = True
                else:
                    batch.append(saying)
            if batch:
                self._has_room = self._call.send(self._manner.encoded(batch))
            if is_end:
                self._call.half_close()
