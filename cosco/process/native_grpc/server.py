"""A gRPC server on the native transport, with the calls of grpc's that our services use."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc

from cosco.config import parse_address
from cosco.mechanics import NATIVE
from cosco.process.native_grpc.call import Call
from cosco.process.native_grpc.connection import ServedConnection
from cosco.process.native_grpc.handler_call import run_handler
from cosco.process.native_grpc.large_messages import LargeMessages

log = logging.getLogger(__name__)

#: A peer that says nothing for this long is asked whether it lives, and has this long to answer.
_SILENT_S: Final = 20.0
_ANSWER_S: Final = 10.0
_TICK_S: Final = 2.0
#: Calls of one connection at a time.
_CALLS_MAX: Final = 10_000
#: What a connection may send that was not asked for.
_WINDOW_BYTES: Final = 64 << 10
#: The budget of long messages that nothing else bounds.
_LARGE_BYTES: Final = 16 << 20
_BACKLOG: Final = 1024
#: At the end, peers that take what they were sent are looked at again after this time.
_LOOK_S: Final = 0.05
#: After an error of accept, as for want of descriptors, it is tried again after this time.
_ACCEPT_AGAIN_S: Final = 0.5

#: Serves a call by itself, message by message.
Direct = Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class _Details:
    """What grpc's generic handlers are asked with."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class NativeServer:
    """A server of generic handlers of coroutines; `start` to `stop` once.

    direct: by `/service/method`, who serves calls without a task. calls_max: of handlers.
    """

    def __init__(
        self,
        *,
        direct: Mapping[str, Direct],
        max_message_bytes: int,
        calls_max: int | None = None,
    ) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._direct = direct
        self._calls_max = calls_max
        self._max_message_bytes = max_message_bytes
        self._large = LargeMessages(_LARGE_BYTES)
        self._listeners: list[socket.socket] = []
        self._connections: dict[ServedConnection, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._stops = False

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve the methods of these, the first that knows one before others."""
        self._handlers += handlers

    def add_insecure_port(self, listen: str) -> int:
        """Listen on `host:port`. Returns the port; raises RuntimeError if that cannot be."""
        host, port = parse_address(listen)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise RuntimeError(f"{listen}: {error}") from error
        for family, _, _, _, address in dict.fromkeys(found):  # hosts files may say one twice
            try:
                listener = _listener(family, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL} and len(found) > 1:
                    continue  # a name with an address that this machine does not have
                raise RuntimeError(f"{listen}: {error}") from error
            self._listeners.append(listener)
            port = listener.getsockname()[1]
        if not self._listeners:
            raise RuntimeError(f"{listen}: this machine has no such address")
        return port

    async def start(self) -> None:
        """Take connections from now on."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener)
        self._tick()

    async def stop(self, grace: float | None) -> None:
        """Take nothing more; calls have `grace` seconds to end."""
        self._stops = True
        self._stop_listening()
        if self._ticks is not None:
            self._ticks.cancel()
        for connection in list(self._connections):
            connection.stop()
        if grace and self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._without_calls(), grace)
        for connection in list(self._connections):
            connection.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _without_calls(self) -> None:
        while not all(connection.is_idle for connection in self._connections):
            self._changed.clear()
            with suppress(TimeoutError):  # what peers have not taken yet ends by itself
                await asyncio.wait_for(self._changed.wait(), _LOOK_S)

    def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticks = loop.call_later(_TICK_S, self._tick)
        self._large.tick(loop.time())
        for connection in list(self._connections):
            connection.tick(loop.time(), silent_s=_SILENT_S, answer_s=_ANSWER_S)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            connected, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            log.warning("a connection cannot be taken: %s", error)
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_AGAIN_S, self._accept_again, listener)
            return
        self._serve(connected)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _serve(self, connected: socket.socket) -> None:
        assert NATIVE is not None
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            native = NATIVE.ServerConnection(connected.fileno(), _CALLS_MAX, _WINDOW_BYTES)
        except OSError as error:  # it is gone already, or there are no descriptors
            log.debug("a connection was lost at once: %s", error)
            connected.close()
            return
        connection = ServedConnection(
            connected,
            native,
            begin=self._begin,
            large=self._large,
            max_message_bytes=self._max_message_bytes,
            closed=self._on_closed,
        )
        self._connections[connection] = None
        connection.open()

    def _on_closed(self, connection: ServedConnection) -> None:
        self._connections.pop(connection, None)
        self._changed.set()

    def _begin(self, call: Call) -> None:
        serve = self._direct.get(call.method)
        if serve is not None and not self._stops:
            serve(call)
            return
        handler = self._handler_of(call.method)
        if self._stops:
            call.finish(grpc.StatusCode.UNAVAILABLE, "the server ends")
        elif self._calls_max is not None and len(self._tasks) >= self._calls_max:
            call.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
        elif handler is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        else:
            task = asyncio.create_task(run_handler(handler, call), name=call.method)
            self._tasks.add(task)
            call.on_cancel = task.cancel  # type: ignore[assignment]
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call has failed", exc_info=error)

    def _handler_of(self, method: str) -> Any:
        details = _Details(method)
        for handler in self._handlers:
            found = handler.service(details)  # type: ignore[arg-type]
            if found is not None:
                return found
        return None


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Not for a port that somebody listens on: only for one that was left a moment ago.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            takes_both = address[0] == "::"  # as gRPC's server has it
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_both)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
