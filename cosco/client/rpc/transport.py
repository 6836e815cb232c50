"""How the client calls the services: channels that a process shares, by the native part or by gRPC.

Which of both is chosen here, once; see `cosco.mechanics`.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from typing import Any, Final, NamedTuple, Self, TypeVar

from cosco.client.rpc.channel import Call, Channel, Conversation, Manner, Transport
from cosco.client.rpc.failures import refused
from cosco.client.rpc.fork_gate import ProcessWide
from cosco.client.rpc.native_channel import NativeTransport
from cosco.client.rpc.scope import Scope, inherit_scopes
from cosco.config import parse_address
from cosco.errors import ServiceUnavailable
from cosco.mechanics import NATIVE
from cosco.process.allocator import keep_large_blocks
from cosco.process.tls.tls_files import BY_ENVIRONMENT, TlsFiles, TlsNames, client_files

_T = TypeVar("_T")
#: Channels kept open without a user, the last used ones: connecting again for each of many
#: short readers costs more than what they read.
MAX_IDLE_CHANNELS: Final = 16


class _Place(NamedTuple):
    """Where a channel leads, and by which files of TLS; None: without."""

    address: str
    files: TlsFiles | None


class _Shared:
    """A channel and how many endpoints use it."""

    __slots__ = ("channel", "users")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.users = 0


class _Channels(ProcessWide):
    """The channels of this process, one for each place; forked children forget them.

    The lock guards the table alone: channels are made and closed outside of it.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport: Transport = transport
        self._is_set_up = False  # what is set up then stays in forked children

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._table: dict[_Place, _Shared] = {}
        self._idle: OrderedDict[_Place, _Shared] = OrderedDict()  # the one used last is last
        #: Places that collected endpoints leave: a finalizer must not touch channels.
        self.abandoned: deque[_Place] = deque()
        #: Why this process must not make calls at all; empty if it may.
        self.refusal = ""

    def acquire(self, place: _Place) -> Channel:
        """Return the channel to a place, which is to be released.

        Raises: ServiceUnavailable in a process that must not make calls, or cannot.
        """
        if self.refusal:
            raise ServiceUnavailable(self.refusal, retriable=False)
        while self.abandoned:
            self.release(self.abandoned.popleft())
        with self._lock:
            shared = self._table.get(place) or self._idle.pop(place, None)
            if shared is not None:
                self._table[place] = shared
                shared.users += 1
                return shared.channel
        try:
            channel = self._transport.channel(place.address, place.files)
        except (RuntimeError, OSError) as error:
            raise refused(place.address, RuntimeError(str(error)), "") from None
        with self._lock:
            if not self._is_set_up:
                self._is_set_up = True
                self._transport.install(in_child=self._in_child)
                keep_large_blocks()
            shared = self._table.setdefault(place, _Shared(channel))
            shared.users += 1
        if shared.channel is not channel:  # another thread was faster
            channel.close()
        return shared.channel

    def release(self, place: _Place) -> None:
        with self._lock:
            shared = self._table.get(place)
            if shared is None:  # of the parent process
                return
            shared.users -= 1
            if shared.users:
                return
            del self._table[place]
            self._idle[place] = shared
            is_full = len(self._idle) > MAX_IDLE_CHANNELS
            oldest = self._idle.popitem(last=False)[1] if is_full else None
        if oldest is not None:
            oldest.channel.close()

    def _in_child(self) -> None:
        self.forget_parent()
        self.refusal = self._transport.refusal()
        inherit_scopes()


def _chosen() -> Transport:
    if NATIVE is not None:
        return NativeTransport(NATIVE)
    # Not where it is not used: it costs 20 MiB, and the time of some dozen small writers.
    from cosco.client.rpc.grpc_channel import GrpcTransport  # noqa: PLC0415

    return GrpcTransport()


_channels = _Channels(_chosen())


class Endpoint:
    """One address, reached over a channel that the process shares.

    The first call takes it, as many objects of the client never make one; `close()` gives it
    back. A few channels without users are kept for the next one.
    """

    def __init__(self, address: str, tls: TlsNames = BY_ENVIRONMENT) -> None:
        """Begin without a connection. tls: by which files of TLS the address is reached.

        Raises: InvalidArgument for what is no host:port, and for files of TLS that are named
        wrongly.
        """
        parse_address(address)
        self.address: Final = address
        self._place: Final = _Place(address, client_files(names=tls))
        self._channels: Final = _channels
        self._lock = threading.Lock()  # of what follows
        self._channel: Channel | None = None
        self._finalizer: weakref.finalize[Any, Endpoint] | None = None

    def unary(
        self, method: str, request: bytes, timeout_s: float, scope: Scope, credential: str = ""
    ) -> bytes:
        """Make a unary call, and return its reply. credential: what is shown with it; empty: none.

        Raises: the CoscoError that the service meant, Unreachable where another try may
        help, ServiceUnavailable for other failures and in a process that must not make calls, or
        cannot, ClientClosed when `scope` is closed.
        """
        return self._taken(scope).unary(method, request, timeout_s, scope, credential)

    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> Call:
        """Start a call with one request. Iterate over it for the replies."""
        return self._taken(scope).fetch_stream(method, request, scope)

    def conversation(self, method: str, manner: Manner[_T], scope: Scope) -> Conversation[_T]:
        """Start a call on which much will be said. Iterate over it for the replies."""
        return self._taken(scope).conversation(method, manner, scope)

    def close(self) -> None:
        """Give the channel back; harmless to repeat, and in a forked child."""
        finalizer = self._finalizer
        if finalizer is not None and finalizer.detach() is not None:
            self._channels.release(self._place)

    def _taken(self, scope: Scope) -> Channel:
        channel = self._channel
        if channel is not None:
            return channel
        scope.check()  # in a forked child nobody may ever give the lock back
        with self._lock:
            if self._channel is None:
                channels = self._channels
                self._channel = channels.acquire(self._place)
                self._finalizer = weakref.finalize(self, channels.abandoned.append, self._place)
                self._finalizer.atexit = False
            return self._channel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
