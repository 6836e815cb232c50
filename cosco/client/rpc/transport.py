"""gRPC as the client uses it: shared channels, calls that can be cancelled, named errors.

The only module of the client that imports grpc. Messages are bytes here. All use of gRPC goes
through the process's fork gate, see `cosco.client.rpc.fork_gate`.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # no notices of forks on stderr

import grpc

from cosco.client.rpc.fork_gate import ForkGate, ProcessWide
from cosco.client.rpc.scope import Scope, Unreachable, inherit_scopes
from cosco.config import parse_address
from cosco.errors import CoscoError, ServiceUnavailable
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.process import fork_support
from cosco.process.allocator import keep_large_blocks
from cosco.process.grpc_settings import CHANNEL_OPTIONS, keepalive
from cosco.process.wrong_address import guess
from cosco.protocol import wire

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
#: Channels kept open without a user, the last used ones: connecting again for each of many
#: short readers costs more than what they read.
MAX_IDLE_CHANNELS: Final = 16
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)


class _Shared:
    """A channel and how many endpoints use it."""

    __slots__ = ("channel", "users")

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.users = 0


class _Channels(ProcessWide):
    """The channels of this process, one for each address; the gate has forked children forget them.

    The lock guards the table alone: channels are made and closed outside of it, in the gate.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_set_up = False  # what is set up then stays in forked children

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._table: dict[str, _Shared] = {}
        self._idle: OrderedDict[str, _Shared] = OrderedDict()  # the one used last is last
        #: Addresses that collected endpoints leave: a finalizer must not touch gRPC.
        self.abandoned: deque[str] = deque()
        #: Why this process must not use gRPC at all; empty if it may.
        self.refusal = ""

    def acquire(self, address: str) -> grpc.Channel:
        """Return the channel to an address, which is to be released.

        Raises: ServiceUnavailable in a process that must not use gRPC.
        """
        if self.refusal:
            raise ServiceUnavailable(self.refusal, retriable=False)
        while self.abandoned:
            self.release(self.abandoned.popleft())
        with self._lock:
            shared = self._table.get(address) or self._idle.pop(address, None)
            if shared is not None:
                self._table[address] = shared
                shared.users += 1
                return shared.channel
        with _gate:
            channel = grpc.insecure_channel(address, _OPTIONS)
        with self._lock:
            if not self._is_set_up:
                # Now, as gRPC's first channel registers its own handlers: what is registered
                # last comes first, and cancelled calls end only while gRPC still runs.
                self._is_set_up = True
                _gate.install(in_child=_in_child)
                keep_large_blocks()
                os.register_at_fork(before=_warn_of_fork)
            shared = self._table.setdefault(address, _Shared(channel))
            shared.users += 1
        if shared.channel is not channel:  # another thread was faster
            with _gate:
                channel.close()
        return shared.channel

    def release(self, address: str) -> None:
        with self._lock:
            shared = self._table.get(address)
            if shared is None:  # of the parent process
                return
            shared.users -= 1
            if shared.users:
                return
            del self._table[address]
            self._idle[address] = shared
            is_full = len(self._idle) > MAX_IDLE_CHANNELS
            oldest = self._idle.popitem(last=False)[1] if is_full else None
        if oldest is not None:
            with _gate:
                oldest.channel.close()


_channels = _Channels()


class Endpoint:
    """One address, reached over a channel that the process shares.

    `close()` gives it back; a few channels without users are kept for the next one.
    """

    def __init__(self, address: str) -> None:
        """Prepare a connection, which is made at the first call.

        Raises: InvalidArgument for what is no host:port.
        """
        parse_address(address)
        self.address: Final = address
        self._channel: Any = _channels.acquire(address)
        self._finalizer = weakref.finalize(self, _channels.abandoned.append, address)
        self._finalizer.atexit = False

    def unary(self, method: str, request: bytes, timeout_s: float, scope: Scope) -> bytes:
        """Make a unary call, and return its reply.

        Raises: the CoscoError that the service meant, Unreachable where another try may
        help, ServiceUnavailable for other failures, ClientClosed when `scope` is closed.
        """
        call = self._call(
            lambda: self._channel.unary_unary(method).future(request, timeout=timeout_s),
            method,
            scope,
        )
        return call.result()

    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> Call:
        """Start a call with one request. Iterate over it for the replies."""
        return self._call(lambda: self._channel.unary_stream(method)(request), method, scope)

    def duplex_stream(self, method: str, requests: Iterator[bytes], scope: Scope) -> Call:
        """Start a call that sends what `requests` yields. Iterate over it for the replies.

        A thread of gRPC's takes from `requests`; see `Call.on_end` for how to wake it.
        """
        return self._call(lambda: self._channel.stream_stream(method)(requests), method, scope)

    def _call(self, start: Callable[[], Any], method: str, scope: Scope) -> Call:
        scope.check()
        with _gate:
            try:
                call = start()
            except RuntimeError as error:  # gRPC has no thread for it, and may have none later
                fork_support.note_refused_thread()
                raise ServiceUnavailable(
                    f"{self.address} cannot be called: {error}",
                    shuffle_id=scope.shuffle_id,
                    retriable=False,
                ) from None
            return Call(call, self.address, method, scope)

    def close(self) -> None:
        """Give the channel back; harmless to repeat, and in a forked child."""
        if self._finalizer.detach() is not None:
            _channels.release(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Call:
    """A call under way: an iterator over its replies, failing with named errors only."""

    def __init__(self, call: Any, address: str, method: str, scope: Scope) -> None:
        self._call = call
        self._where = f"{method.rsplit('/', 1)[-1]} at {address}"
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

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
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
        """End the call. Whoever waits for it gets ClientClosed if the scope is closed."""
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
            return _named(self._call, self._where, self._scope.shuffle_id)


def _named(call: Any, where: str, shuffle_id: str) -> Exception:
    """Return what a call that has failed means."""
    code, details, trailers = call.code(), call.details(), call.trailing_metadata() or ()
    for key, value in trailers:
        if key == wire.ERROR_KEY:
            meant = _meant(value, where, shuffle_id)
            if isinstance(meant, ServiceUnavailable) and meant.retriable:
                return Unreachable(str(meant), told=True)
            return meant
    reason = f"{where} failed: {code.name}: {' '.join(str(details).split())[:300]}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        reason += f": {guess('Method not found')}; give the address that the service is ready on"
    if code in _PASSING:
        return Unreachable(reason)
    return ServiceUnavailable(reason, shuffle_id=shuffle_id, retriable=False)


def _meant(detail: bytes, where: str, shuffle_id: str) -> CoscoError:
    try:
        # The service may know a number where its user knows a name.
        return wire.error_from_bytes(detail).place(shuffle_id)
    except Exception:  # noqa: BLE001  whatever the decoder thinks of bytes that are no ErrorDetail
        return ServiceUnavailable(
            f"{where} failed and its reason cannot be read: do the versions differ?",
            shuffle_id=shuffle_id,
            retriable=False,
        )


def _warn_of_fork() -> None:
    if why := fork_support.complaint():
        _LOG.warning(_FORK_WARNING, why)


def _in_child() -> None:
    _channels.forget_parent()
    if why := fork_support.complaint():  # a call would wait for ever, for threads of the parent
        _channels.refusal = (
            f"this process was forked from one that uses cosco and cannot use it: {why}"
        )
    inherit_scopes()
