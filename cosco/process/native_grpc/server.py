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
from cosco.process.grpc_settings import CONNECTION_CALLS_MAX
from cosco.process.native_grpc.call import Call
from cosco.process.native_grpc.connection import ServedConnection
from cosco.process.native_grpc.connection_table import (
    CONNECTIONS,
    NEW_CONNECTIONS,
    PEER_CONNECTIONS,
    USUAL,
    ConnectionTable,
    PeerLimits,
    peer_of_host,
)
from cosco.process.native_grpc.handler_call import run_handler
from cosco.process.native_grpc.large_messages import LargeMessages
from cosco.process.native_grpc.peer_calls import PEER_CALLS, PeerCalls, PeerTally
from cosco.process.native_grpc.rare_warnings import RareWarnings
from cosco.process.native_grpc.unfinished_messages import TOO_MUCH, UnfinishedMessages
from cosco.process.tls.native_tls import Tls, without_tls

log = logging.getLogger(__name__)

#: A peer that says nothing for this long is asked whether it lives, and has this long to answer.
_SILENT_S: Final = 20.0
_ANSWER_S: Final = 10.0
_TICK_S: Final = 2.0
#: A call on which no message has come, be it the beginning of a long one, is ended after this time.
_FIRST_MESSAGE_S: Final = 30.0
#: What a connection may send that was not asked for.
_WINDOW_BYTES: Final = 64 << 10
#: The budget of long messages that nothing else bounds.
_LARGE_BYTES: Final = 16 << 20
#: The bounds for which calls are refused.
CALLS: Final = "calls"
UNFINISHED: Final = "unfinished_bytes"
#: Not refused, but ended for what they do not say.
SILENT_CALLS: Final = "silent_calls"
#: All bounds of peers, each of which they may reach on a server without harm to others.
PEER_BOUNDS: Final = (
    UNFINISHED,
    CONNECTIONS,
    PEER_CONNECTIONS,
    NEW_CONNECTIONS,
    PEER_CALLS,
    SILENT_CALLS,
)
#: What messages that have not come whole may hold, unless it is said.
UNFINISHED_BYTES: Final = 16 << 20
_BACKLOG: Final = 1024
#: At the end, peers that take what they were sent are looked at again after this time.
_LOOK_S: Final = 0.05
#: After an error of accept, as for want of descriptors, it is tried again after this time.
_ACCEPT_AGAIN_S: Final = 0.5
#: What is told in the log of a bound, with the peer by which it was reached.
_REFUSED: Final = "the bound %s is reached, now by %s, who is refused or gives something up"

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
    unfinished_bytes: what messages that have not come whole may hold, over all connections. peers:
    what they may have. refused: called with the bound for which a call or a connection was refused
    or ended. tls: asked at each connection, so that certificates may change meanwhile; it must not
    raise.
    """

    def __init__(
        self,
        *,
        direct: Mapping[str, Direct],
        max_message_bytes: int,
        calls_max: int | None = None,
        unfinished_bytes: int = UNFINISHED_BYTES,
        peers: PeerLimits = USUAL,
        refused: Callable[[str], object] = str,
        tls: Tls = without_tls,
    ) -> None:
        self._tls = tls
        self._warnings = RareWarnings(log)
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._direct = direct
        self._calls_max = calls_max
        self._max_message_bytes = max_message_bytes
        self._large = LargeMessages(_LARGE_BYTES)
        self._unfinished: UnfinishedMessages[ServedConnection] = UnfinishedMessages(
            unfinished_bytes
        )
        self._is_relieving = False
        self._refused = refused
        self._listeners: list[socket.socket] = []
        self._connections: dict[ServedConnection, None] = {}
        self._table: ConnectionTable[ServedConnection] = ConnectionTable(
            peers, is_idle=lambda connection: connection.is_idle
        )
        self._peer_calls = PeerCalls(peers.peer_calls)
        self._quiet_s = peers.idle_stream_s
        self._streams_max = min(CONNECTION_CALLS_MAX, peers.peer_calls)
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
            ended = connection.end_quiet_calls(
                loop.time(), first_s=_FIRST_MESSAGE_S, quiet_s=self._quiet_s
            )
            for _ in range(ended):
                self._count_refused(SILENT_CALLS, connection.address)
        for connection in self._table.overdue(loop.time()):
            self._count_refused(NEW_CONNECTIONS, connection.address)
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            connected, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            log.warning("a connection cannot be taken: %s", error)
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_AGAIN_S, self._accept_again, listener)
            return
        peer = peer_of_host(address[0])
        if self._admits(peer):
            self._serve(connected, _shown(address), peer)
        else:
            connected.close()

    def _admits(self, peer: str) -> bool:
        """Whether a peer may have one more connection; whoever makes room for it is closed."""
        admission = self._table.admit(peer)
        if admission.bound:
            self._count_refused(admission.bound, peer)
        if admission.leaves is not None:
            admission.leaves.close()
        return admission.is_let_in

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _serve(self, connected: socket.socket, address: str, peer: str) -> None:
        assert NATIVE is not None
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._tls()
            native = NATIVE.ServerConnection(
                connected.fileno(), self._streams_max, _WINDOW_BYTES, tls
            )
        except OSError as error:  # it is gone already, or there are no descriptors
            log.debug("a connection was lost at once: %s", error)
            connected.close()
            return
        tally = self._peer_calls.enter(peer)
        connection = ServedConnection(
            connected,
            native,
            address=address,
            is_encrypted=tls is not None,
            begin=lambda call: self._begin(call, tally),
            large=self._large,
            max_message_bytes=self._max_message_bytes,
            kept=lambda connection, kept_bytes: self._on_kept(connection, peer, kept_bytes),
            tally=tally,
            called=self._table.called,
            closed=self._on_closed,
        )
        self._connections[connection] = None
        self._table.add(connection, peer, asyncio.get_running_loop().time())
        connection.open()

    def _on_closed(self, connection: ServedConnection, tls_failure: str) -> None:
        self._connections.pop(connection, None)
        self._table.remove(connection)
        self._peer_calls.leave(connection.tally)
        self._changed.set()
        if tls_failure:
            now = asyncio.get_running_loop().time()
            text = "TLS with %s has failed: %s"
            self._warnings.tell("TLS", now, text, connection.address, tls_failure)

    def _count_refused(self, bound: str, peer: str) -> None:
        """Count what was refused or ended for a bound, and tell it now and then."""
        self._refused(bound)
        self._warnings.tell(bound, asyncio.get_running_loop().time(), _REFUSED, bound, peer)

    def _on_kept(self, connection: ServedConnection, peer: str, kept_bytes: int) -> None:
        """Take what a connection keeps of messages; beyond the bound calls are ended."""
        self._unfinished.note(connection, peer, kept_bytes)
        if self._is_relieving:
            return
        self._is_relieving = True
        try:
            while (heaviest := self._unfinished.heaviest()) is not None:
                self._count_refused(UNFINISHED, heaviest.address)
                heaviest.refuse_most(TOO_MUCH)
        finally:
            self._is_relieving = False

    def _begin(self, call: Call, tally: PeerTally) -> None:
        if self._peer_calls.are_too_many(tally):
            self._count_refused(PEER_CALLS, tally.peer)
            call.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, self._peer_calls.refusal)
            return
        serve = self._direct.get(call.method)
        if serve is not None and not self._stops:
            serve(call)
            return
        handler = self._handler_of(call.method)
        if self._stops:
            call.finish(grpc.StatusCode.UNAVAILABLE, "the server ends")
        elif self._calls_max is not None and len(self._tasks) >= self._calls_max:
            self._count_refused(CALLS, tally.peer)
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


def _shown(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
