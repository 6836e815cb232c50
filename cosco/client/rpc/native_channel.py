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

from cosco.client.rpc.channel import Channel, Manner, TimedCall, TimedConversation, Transport
from cosco.client.rpc.failures import End, failure, place, refused
from cosco.client.rpc.fork_gate import ProcessWide
from cosco.client.rpc.scope import Scope
from cosco.errors import CoscoError
from cosco.process.service_calls.status_codes import code_name
from cosco.process.tls.native_tls import Tls, native_client, without_tls
from cosco.process.tls.tls_files import TlsFiles
from cosco.protocol import wire
from cosco.protocol.peer import credential_header

_T = TypeVar("_T")
_OF_PARENT: Final = End("CANCELLED", "it is a call of the process that this was forked from", ())


class NativeTransport(ProcessWide, Transport):
    """The native part, whose thread begins with the first channel.

    tls: for channels without files. It is asked at each call, so that certificates may change
    meanwhile; it must not raise.
    """

    def __init__(self, native: ModuleType, tls: Tls = without_tls) -> None:
        super().__init__()
        self._native: Any = native
        self._tls = tls

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._runtime: Any = None

    def channel(self, address: str, files: TlsFiles | None) -> Channel:
        """See `Transport`."""
        tls = self._tls
        if files is not None:
            tls = native_client(self._native, files, looks=True)
        with self._lock:
            if self._runtime is None:
                self._runtime = self._native.ClientRuntime()
            runtime = self._runtime
        limit = wire.MAX_METADATA_MESSAGE_BYTES
        return NativeChannel(address, runtime.connection(address, limit), tls)

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

    def __init__(self, address: str, connection: Any, tls: Tls) -> None:
        self._address = address
        self._connection = connection
        self._tls = tls
        self._last_tls: Any = None
        self._setting = threading.Lock()  # never waited for: a forked child may find it taken
        if (first := tls()) is not None:  # before any call, which would connect without
            self._set_tls(first)

    def unary(
        self, method: str, request: bytes, timeout_s: float, scope: Scope, credential: str = ""
    ) -> bytes:
        """See `Channel`."""
        header = credential_header(credential) if credential else None
        return self._call(
            method, request, scope, is_unary=True, timeout_s=timeout_s, authorization=header
        ).result()

    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> NativeCall:
        """See `Channel`."""
        return self._call(method, request, scope)

    def conversation(self, method: str, manner: Manner[_T], scope: Scope) -> NativeConversation[_T]:
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
        authorization: str | None = None,
    ) -> NativeCall:
        scope.check()
        try:
            self._take_tls()
            call = self._connection.call(method, request, is_unary, timeout_s, authorization)
        except RuntimeError as error:
            raise refused(self._address, error, scope.shuffle_id) from None
        return NativeCall(call, place(method, self._address), scope)

    def _take_tls(self) -> None:
        """Have the next connection made by what there is now, unless another thread does so."""
        tls = self._tls()
        if tls is self._last_tls or not self._setting.acquire(blocking=False):
            return
        try:
            self._set_tls(tls)
        finally:
            self._setting.release()

    def _set_tls(self, tls: Any) -> None:
        try:
            self._connection.set_tls(tls)
        except ValueError as error:  # a host that no certificate can be of
            raise RuntimeError(str(error)) from None
        self._last_tls = tls


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
        if end.code == "OK":
            raise StopIteration
        raise self._failure(end)

    def send(self, message: bytes) -> bool:
        """Send a message. Returns whether there is room for more; if not, `receive` says when."""
        try:
            return self._call.send(message)  # type: ignore[no-any-return]
        except RuntimeError:  # in a forked child, which is told where it looks for a reply
            return True

    def wake(self) -> None:
        """Have whoever is in `receive`, or comes next, return at once, with None."""
        self._call.wake()

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
        return End(code_name(code), details, trailers)

    def _failure(self, end: End) -> Exception:
        try:
            self._scope.check()
        except CoscoError as closed:
            return closed
        return failure(end, self._where, self._scope.shuffle_id)


class NativeConversation(TimedConversation[_T]):
    """A call whose messages are sent by whoever says something, as long as there is room.

    What is said meanwhile waits here. Whoever receives sends it when there is room again.
    """

    def __init__(self, call: NativeCall, manner: Manner[_T]) -> None:
        self._call = call
        self._manner = manner
        self._sayings: deque[_T | None] = deque()  # None: the end
        self._said_at = time.monotonic()
        self._has_ended = False
        # Guards what follows, and is taken while something is sent, which waits for nothing.
        # As the turn in `reply_turns`, for interrupts.
        self._sending: Any = threading.RLock()
        self._has_room = True

    def say(self, saying: _T) -> None:
        """See `Conversation`."""
        self._said_at = time.monotonic()
        self._sayings.append(saying)
        self._send()

    def end(self) -> None:
        """See `Conversation`."""
        self._has_ended = True
        self._sayings.append(None)
        self._send()

    def __iter__(self) -> Iterator[bytes]:
        """See `Conversation`."""
        while True:
            try:
                reply = self.receive(self.idle_left_s())
            except StopIteration:
                return
            if reply is None:
                self.end_if_idle()
            else:
                yield reply

    def receive(self, timeout_s: float) -> bytes | None:
        """See `TimedConversation`."""
        until = time.monotonic() + timeout_s
        while (reply := self._call.receive(timeout_s)) is True:
            with self._sending:  # whoever was told that there is no room has noted that by now
                self._has_room = True
            self._send()
            timeout_s = max(until - time.monotonic(), 0.0)
        return reply  # type: ignore[return-value]  # not False, which is the end

    def wake(self) -> None:
        """See `TimedConversation`."""
        self._call.wake()

    def idle_left_s(self) -> float:
        """See `TimedConversation`."""
        return max(self._said_at + self._manner.idle_s - time.monotonic(), 0.0)

    def end_if_idle(self) -> bool:
        """See `TimedConversation`."""
        if self._said_at + self._manner.idle_s <= time.monotonic():
            if not (self._sayings or self._has_ended) and self._manner.is_over():
                self.end()
            self._said_at = time.monotonic()
        return self._has_ended

    def cancel(self) -> None:
        """See `Conversation`."""
        self._call.cancel()

    def _send(self) -> None:
        # Whoever finds another one sending leaves it to that one, which looks again at the end.
        while self._sayings and self._has_room and not self._sending._is_owned():
            try:
                if not self._sending.acquire(blocking=False):
                    return
                self._send_some()
            finally:
                try:  # noqa: SIM105  nothing may be called before
                    self._sending.release()
                except RuntimeError:  # it is not this thread's
                    pass

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
