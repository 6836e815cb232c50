"""gRPC as the client uses it: shared channels, calls that can be cancelled, named errors.

The only module of the client that imports grpc, so that fork support is always on before.
Messages are bytes here. All use of gRPC goes through the process's fork gate, see
`cosco.client.rpc.fork_gate`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

_GRPC_CAME_FIRST: Final = "grpc" in sys.modules and "GRPC_ENABLE_FORK_SUPPORT" not in os.environ
# gRPC reads these once, when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc  # noqa: E402

from cosco.client.rpc.fork_gate import ForkGate, ProcessWide  # noqa: E402
from cosco.client.rpc.scope import Scope, Unreachable, inherit_scopes  # noqa: E402
from cosco.config import parse_address  # noqa: E402
from cosco.errors import CoscoError, ServiceUnavailable  # noqa: E402
from cosco.format.frame import MAX_FRAME_BYTES  # noqa: E402
from cosco.process.allocator import keep_large_blocks  # noqa: E402
from cosco.process.grpc_settings import CHANNEL_OPTIONS, keepalive  # noqa: E402
from cosco.protocol import wire  # noqa: E402

_gate = ForkGate()

_OPTIONS: Final = (
    *CHANNEL_OPTIONS,
    ("grpc.max_send_message_length", max(wire.MAX_METADATA_MESSAGE_BYTES, 2 * MAX_FRAME_BYTES)),
    *keepalive(3_000, 5_000),
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

    def acquire(self, address: str) -> grpc.Channel:
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
                if _GRPC_CAME_FIRST:
                    os.register_at_fork(before=_warn)
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
        scope.check()
        with _gate:
            future = self._channel.unary_unary(method).future(request, timeout=timeout_s)
            call = Call(future, self.address, method, scope)
        return call.result()

    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> Call:
        """Start a call with one request. Iterate over it for the replies."""
        scope.check()
        with _gate:
            return Call(self._channel.unary_stream(method)(request), self.address, method, scope)

    def duplex_stream(self, method: str, requests: Iterator[bytes], scope: Scope) -> Call:
        """Start a call that sends what `requests` yields. Iterate over it for the replies.

        A thread of gRPC's takes from `requests`; see `Call.on_end` for how to wake it.
        """
        scope.check()
        with _gate:
            return Call(self._channel.stream_stream(method)(requests), self.address, method, scope)

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
                reply: bytes = self._call.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            raise self._failure() from None
        finally:
            self._scope.remove_call(self)
        return reply

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with _gate:
                reply: bytes = next(self._call)
        except StopIteration:
            self._scope.remove_call(self)
            raise
        except grpc.RpcError:
            self._scope.remove_call(self)
            raise self._failure() from None
        return reply

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
                return Unreachable(str(meant))
            return meant
    reason = f"{where} failed: {code.name}: {' '.join(str(details).split())[:300]}"
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


def _warn() -> None:
    logging.getLogger("cosco").warning(
        "grpc was imported before cosco and without fork support: a forked child that uses it "
        "may hang; import cosco first, or set GRPC_ENABLE_FORK_SUPPORT=1"
    )


def _in_child() -> None:
    _channels.forget_parent()
    inherit_scopes()
