"""Calls by grpcio, which is everywhere.

The only module of the client that imports grpc. All use of gRPC goes through the process's fork
gate, see `cosco.client.rpc.fork_gate`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # no notices of forks on stderr

import grpc

from cosco.client.rpc.channel import Call, Channel, Conversation, Manner, Transport
from cosco.client.rpc.failures import End, failure, place, refused
from cosco.client.rpc.fork_gate import ForkGate
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.errors import CoscoError
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.process import fork_support
from cosco.process.grpc_settings import CHANNEL_OPTIONS, keepalive
from cosco.process.tls.grpc_credentials import new_channel_of
from cosco.process.tls.tls_files import TlsFiles
from cosco.protocol import wire
from cosco.protocol.peer import CREDENTIAL_HEADER, credential_header

_T = TypeVar("_T")
_LOG: Final = logging.getLogger("cosco")
_FORK_WARNING: Final = "a child that is forked now will not be able to use cosco: %s"
_gate = ForkGate()

_OPTIONS: Final = (
    *CHANNEL_OPTIONS,
    ("grpc.max_send_message_length", max(wire.MAX_METADATA_MESSAGE_BYTES, 2 * MAX_FRAME_BYTES)),
    *keepalive(3_000, 5_000),
    # A channel without calls goes on connecting to an address where nothing listens: until this.
    ("grpc.client_idle_timeout_ms", 10_000),
)


class GrpcTransport(Transport):
    """grpcio."""

    def channel(self, address: str, files: TlsFiles | None) -> Channel:
        """See `Transport`."""
        with _gate:
            return GrpcChannel(address, files)

    def refusal(self) -> str:
        """See `Transport`."""
        why = fork_support.complaint()
        # A call would wait for ever, for threads of the parent.
        return why and f"this process was forked from one that uses cosco and cannot use it: {why}"

    def install(self, *, in_child: Callable[[], None]) -> None:
        """See `Transport`."""
        # After the first channel, as that has gRPC register its own handlers: what is registered
        # last comes first, and cancelled calls end only while gRPC still runs.
        _gate.install(in_child=in_child)
        os.register_at_fork(before=_warn_of_fork)


class GrpcChannel(Channel):
    """A channel of gRPC's."""

    def __init__(self, address: str, files: TlsFiles | None) -> None:
        """Begin without a connection. files: of TLS; None: without."""
        self._address = address
        self._files = files
        self._changing = threading.Lock()  # what follows
        self._content = None if files is None else files.current()
        self._channel = self._connect()
        #: What connects by the files before, for the calls that are under way.
        self._retired: Any = None

    def unary(
        self, method: str, request: bytes, timeout_s: float, scope: Scope, credential: str = ""
    ) -> bytes:
        """See `Channel`."""
        options: dict[str, Any] = {"timeout": timeout_s}
        if credential:
            options["metadata"] = ((CREDENTIAL_HEADER, credential_header(credential)),)
        call = self._call(
            lambda: self._present().unary_unary(method).future(request, **options), method, scope
        )
        return call.result()

    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> Call:
        """See `Channel`."""
        return self._call(lambda: self._present().unary_stream(method)(request), method, scope)

    def conversation(self, method: str, manner: Manner[_T], scope: Scope) -> Conversation[_T]:
        """See `Channel`."""
        outbox: SimpleQueue[_T | None] = SimpleQueue()
        messages = _messages(outbox, manner)
        call = self._call(lambda: self._present().stream_stream(method)(messages), method, scope)
        call.on_end(lambda: outbox.put(None))
        return GrpcConversation(call, outbox)

    def close(self) -> None:
        """See `Channel`."""
        with _gate:
            if self._retired is not None:
                self._retired.close()
            self._channel.close()

    def _connect(self) -> Any:
        return new_channel_of(grpc, self._address, self._content, _OPTIONS)

    def _present(self) -> Any:
        """Return gRPC's channel by what the files have now. Called within the gate."""
        if self._files is None or self._files.current() is self._content:
            return self._channel
        with self._changing:
            content = self._files.current()
            if content is not self._content:
                if self._retired is not None:
                    self._retired.close()
                self._content, self._retired = content, self._channel
                self._channel = self._connect()
            return self._channel

    def _call(self, start: Callable[[], Any], method: str, scope: Scope) -> GrpcCall:
        scope.check()
        with _gate:
            try:
                call = start()
            except RuntimeError as error:  # gRPC has no thread for it, and may have none later
                fork_support.note_refused_thread()
                raise refused(self._address, error, scope.shuffle_id) from None
            return GrpcCall(call, place(method, self._address), scope)


class GrpcCall(Call):
    """A call of gRPC's."""

    def __init__(self, call: Any, where: str, scope: Scope) -> None:
        self._call = call
        self._where = where
        self._scope = scope
        self._for_fork = False
        self._pid = os.getpid()
        _gate.add(self)
        if not call.add_callback(self._ended):
            _gate.discard(self)
        scope.add_call(self)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the call ends, or now. It may not take any lock."""
        with _gate:
            pending = self._call.add_callback(callback)
        if not pending:
            callback()

    def result(self) -> bytes:
        """Return the reply of a unary call."""
        try:
            with _gate:
                return self._call.result()  # type: ignore[no-any-return]
        except (grpc.RpcError, grpc.FutureCancelledError):
            pass  # what is raised in here would carry it along, and it cannot be pickled
        finally:
            self._scope.remove_call(self)
        raise self._failure()

    def __next__(self) -> bytes:
        """See `Call`."""
        try:
            with _gate:
                return next(self._call)  # type: ignore[no-any-return]
        except StopIteration:
            self._scope.remove_call(self)
            raise
        except grpc.RpcError:
            self._scope.remove_call(self)  # as in `result`
        raise self._failure()

    def cancel(self) -> None:
        """See `Call`."""
        self._scope.remove_call(self)
        if os.getpid() == self._pid:  # not the parent's call, which this would reach
            with _gate:
                self._call.cancel()

    def cancel_for_fork(self) -> None:
        """End the call as this process is about to fork."""
        self._for_fork = True
        self._call.cancel()

    def _ended(self) -> None:
        _gate.discard(self)

    def _failure(self) -> Exception:
        """Return the exception to raise for one of gRPC's."""
        try:
            self._scope.check()
        except CoscoError as closed:
            return closed
        if self._for_fork:
            return Unreachable(f"{self._where} was cancelled for a fork", for_fork=True)
        with _gate:
            call = self._call
            end = End(call.code().name, str(call.details()), call.trailing_metadata() or ())
        return failure(end, self._where, self._scope.shuffle_id)


class GrpcConversation(Conversation[_T]):
    """A call whose messages are made by the thread of gRPC's that sends them.

    That one may run while the process is about to fork, and must not meet a lock of ours.
    """

    def __init__(self, call: GrpcCall, outbox: SimpleQueue[_T | None]) -> None:
        self._call = call
        self._outbox = outbox

    def say(self, saying: _T) -> None:
        """See `Conversation`."""
        self._outbox.put(saying)

    def end(self) -> None:
        """See `Conversation`."""
        self._outbox.put(None)

    def __iter__(self) -> Iterator[bytes]:
        """See `Conversation`."""
        return self._call

    def cancel(self) -> None:
        """See `Conversation`."""
        self._call.cancel()


def _messages(outbox: SimpleQueue[_T | None], manner: Manner[_T]) -> Iterator[bytes]:
    """Yield the messages to send, up to the None that ends them."""
    while True:
        try:
            saying = outbox.get(timeout=manner.idle_s)
        except Empty:
            if manner.is_over():
                return
            continue
        # What gathered meanwhile goes out as one.
        sayings: list[_T] = []
        while saying is not None:
            sayings.append(saying)
            if len(sayings) == manner.batch or outbox.empty():
                break
            saying = outbox.get()
        if sayings:
            yield manner.encoded(sayings)
        if saying is None:
            return


def _warn_of_fork() -> None:
    if why := fork_support.complaint():
        _LOG.warning(_FORK_WARNING, why)
