"""The services' calls by the native part; see docs/architecture/native.md.

The event loop waits for sockets and the clock; the native part reads, parses and writes when it is
called, and says what came.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from cosco.process.service_calls.dialing import NotConnected, dial
from cosco.process.service_calls.service_channel import (
    CallFailed,
    ServiceChannel,
    ServiceStream,
    StreamListener,
)
from cosco.process.service_calls.status_codes import code_name
from cosco.process.tls.native_tls import Tls, without_tls
from cosco.protocol import wire

log = logging.getLogger(__name__)

#: An attempt to connect takes at most this, and the peer's first word as long again.
_CONNECT_S: Final = 3.0
#: How often connections are looked after while calls are under way.
_TICK_S: Final = 0.5

_MESSAGE, _ROOM, _ENDED = range(3)


@dataclass(slots=True)
class _Watched:
    """A connection's socket, and for what the loop watches it."""

    socket: socket.socket
    is_reading: bool = False
    is_writing: bool = False


class NativeServiceChannel(ServiceChannel):
    """One address of the native part; it has two connections while one of them says goodbye."""

    def __init__(
        self, native: ModuleType, address: str, *, max_reply_bytes: int, tls: Tls = without_tls
    ) -> None:
        """Begin without a connection.

        max_reply_bytes: how long messages may be that come. tls: asked at each connection, so that
        certificates may change meanwhile; it must not raise.
        """
        self._address = address
        self._tls = tls
        self._caller: Any = native.ServiceCaller(address, max_reply_bytes)
        self._calls: dict[int, StreamListener] = {}
        self._watched: dict[int, _Watched] = {}
        self._connections = 0
        self._dialing: asyncio.Task[None] | None = None
        self._ticks: asyncio.TimerHandle | None = None
        self._is_pumping = self._is_due = self._is_closed = False

    async def unary(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """See `ServiceChannel`."""
        waiting = _Unary(asyncio.get_running_loop().create_future())
        number = self._begin(method, request, waiting, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await waiting.outcome
        except TimeoutError:
            raise CallFailed("DEADLINE_EXCEEDED", "its time is over") from None
        finally:
            self.forget(number)
        if isinstance(outcome, CallFailed):
            raise outcome
        return outcome

    def stream(self, method: str, listener: StreamListener) -> ServiceStream:
        """See `ServiceChannel`."""
        stream = _NativeStream(self, self._caller, listener)
        stream.number = self._begin(method, None, stream, None)
        self._caller.ask(stream.number)
        return stream

    async def close(self) -> None:
        """See `ServiceChannel`."""
        self._is_closed = True
        if self._ticks is not None:
            self._ticks.cancel()
            self._ticks = None
        self._caller.close()
        self._pump()
        if self._dialing is not None:
            self._dialing.cancel()
            await asyncio.wait((self._dialing,))

    # --- for calls ------------------------------------------------------------------------

    def forget(self, number: int) -> None:
        """End a call, whose listener is told nothing more; repeatable."""
        if self._calls.pop(number, None) is not None:
            self._caller.forget(number)
            self.soon()

    def soon(self) -> None:
        """Have what calls have asked for done: once, for all that they do until then."""
        if not (self._is_pumping or self._is_due):
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _begin(
        self, method: str, request: bytes | None, listener: StreamListener, timeout_s: float | None
    ) -> int:
        try:
            number: int = self._caller.begin(method, request, request is not None, timeout_s)
        except ValueError as error:
            raise CallFailed("INTERNAL", f"{self._address} cannot be asked: {error}") from None
        self._calls[number] = listener
        if self._ticks is None and not self._is_closed:
            self._ticks = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self.soon()
        return number

    # --- what comes -----------------------------------------------------------------------

    def _pump(self, readable: int | None = None) -> None:
        """Read and write what can be, and have calls told, until nothing is left to do."""
        self._is_due = False
        self._is_pumping = True
        try:
            while news := self._caller.advance(readable):
                readable = None
                for kind, number, what in news:
                    self._tell(kind, number, what)
        finally:
            self._is_pumping = False
        self._look_after_connections()

    def _tell(self, kind: int, number: int, what: Any) -> None:
        listener = self._calls.get(number)
        if listener is None:  # it was cancelled, and this crossed that
            return
        try:
            if kind == _MESSAGE:
                self._caller.ask(number)
                listener.on_message(what)
            elif kind == _ROOM:
                listener.on_room()
            else:
                del self._calls[number]
                listener.on_end(_failure(*what))
        except Exception as error:
            log.exception("a call of %s has failed", self._address)
            self._end(number, CallFailed("UNKNOWN", f"unexpected {type(error).__name__}: {error}"))

    def _end(self, number: int, failure: CallFailed) -> None:
        listener = self._calls.get(number)
        self.forget(number)
        try:
            if listener is not None:
                listener.on_end(failure)
        except Exception:
            log.exception("a call of %s cannot be ended well", self._address)

    def _tick(self) -> None:
        """Look for peers that are gone without a word, as long as that may be."""
        self._ticks = None
        if self._caller.tick():
            self._ticks = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self._pump()

    # --- connections ----------------------------------------------------------------------

    def _look_after_connections(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._caller.take_gone():
            gone = self._watched.pop(number)
            loop.remove_reader(gone.socket)
            loop.remove_writer(gone.socket)
            gone.socket.close()
        for number, watched in self._watched.items():
            self._watch(number, watched)
        if self._caller.wants_connection():
            self._dialing = loop.create_task(self._dial(), name=f"dial-{self._address}")

    def _watch(self, number: int, watched: _Watched) -> None:
        loop = asyncio.get_running_loop()
        wants_write = self._caller.wants_write(number)
        # Nothing is read of who takes nothing, as it could not be answered: the loop would tell
        # again and again that there is something.
        wants_read = not (wants_write and self._caller.has_unread(number))
        if wants_write and not watched.is_writing:
            loop.add_writer(watched.socket, self._pump)
        elif watched.is_writing and not wants_write:
            loop.remove_writer(watched.socket)
        if wants_read and not watched.is_reading:
            loop.add_reader(watched.socket, self._pump, number)
        elif watched.is_reading and not wants_read:
            loop.remove_reader(watched.socket)
        watched.is_writing, watched.is_reading = wants_write, wants_read

    async def _dial(self) -> None:
        try:
            connected = await dial(self._address, _CONNECT_S)
        except NotConnected as error:
            self._caller.not_connected(str(error))
        except Exception as error:
            log.exception("%s cannot be connected to", self._address)
            self._caller.not_connected(f"failed to connect: {error}")
        else:
            self._take(connected)
        self._dialing = None
        self._pump()

    def _take(self, connected: socket.socket) -> None:
        self._connections += 1
        number = self._connections
        self._watched[number] = _Watched(connected)
        try:
            self._caller.set_tls(self._tls())
            self._caller.connected(number, connected.fileno())
        except (OSError, ValueError) as error:  # no descriptors, or a host that has no certificate
            del self._watched[number]
            connected.close()
            self._caller.not_connected(f"failed to connect: {error}")


class _Unary:
    """Who waits for one reply, which is told with its end."""

    def __init__(self, outcome: asyncio.Future[bytes | CallFailed]) -> None:
        self.outcome = outcome
        self._message = b""

    def on_message(self, message: bytes) -> None:
        """See `StreamListener`."""
        self._message = message

    def on_room(self) -> None:
        """See `StreamListener`; its one message was sent at once."""

    def on_end(self, failure: CallFailed | None) -> None:
        """See `StreamListener`."""
        if not self.outcome.done():  # else its time is over, or its caller was cancelled
            self.outcome.set_result(self._message if failure is None else failure)


class _NativeStream(ServiceStream):
    """A stream of the native part; for its channel, the listener of that."""

    number: int

    def __init__(
        self, channel: NativeServiceChannel, caller: Any, listener: StreamListener
    ) -> None:
        self._channel = channel
        self._caller = caller
        self._listener = listener
        self._has_room = True
        self.on_message = listener.on_message
        self.on_end = listener.on_end

    def on_room(self) -> None:
        """See `StreamListener`."""
        self._has_room = True
        self._listener.on_room()

    @property
    def has_room(self) -> bool:
        """See `ServiceStream`."""
        return self._has_room

    def send(self, message: bytes) -> None:
        """See `ServiceStream`."""
        self._has_room = self._caller.send(self.number, message)
        self._channel.soon()

    def half_close(self) -> None:
        """See `ServiceStream`."""
        self._caller.half_close(self.number)
        self._channel.soon()

    def cancel(self) -> None:
        """See `ServiceStream`."""
        self._channel.forget(self.number)


def _failure(code: int, details: str, metadata: list[tuple[str, bytes]]) -> CallFailed | None:
    name = code_name(code)
    if name == "OK":
        return None
    meant = next((value for key, value in metadata if key == wire.ERROR_KEY), b"")
    return CallFailed(name, details, meant)
