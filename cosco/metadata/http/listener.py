"""Listens for HTTP in the event loop of the service, and bounds what clients may hold of it.

The protocol is uvicorn's; what is bounded here is when a connection ends that its client does not
end: before a request has come, while an answer is not taken, or because others wait for its place.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import h11
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from cosco.config import parse_address
from cosco.errors import InvalidArgument
from cosco.metadata.http.outer import HEADERS
from cosco.process.tls.tls_files import TlsContent, TlsFiles

log = logging.getLogger(__name__)

#: Connections at a time, those of which the handshake is under way included.
MAX_CONNECTIONS: Final = 256
#: The first line of a request and its headers together.
MAX_HEAD_BYTES: Final = 16 << 10
#: The head of a request must have come in this time, a handshake end, and an answer go on.
HEAD_S: Final = 10.0
#: How often it is looked for connections that take too long.
LOOK_S: Final = 0.5
#: Requests that are under way at the end have this time.
STOP_S: Final = 0.5
#: After an accept that failed, as no file can be opened.
_AGAIN_S: Final = 0.1
_BACKLOG: Final = 128


class _Connection(H11Protocol):
    """A connection of uvicorn's that knows since when it waits for its client."""

    #: Since when no request is under way, and since when the client takes nothing.
    quiet_since: float | None = None
    paused_since: float | None = None
    is_lost = False
    #: Called once it has ended.
    on_lost: Callable[[], object] = bool

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.quiet_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_lost = True
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_asked():
            self.quiet_since = None

    def on_response_complete(self) -> None:
        self.quiet_since = self.loop.time()
        super().on_response_complete()
        if self._is_asked():  # the next one was there
            self.quiet_since = None

    def _is_asked(self) -> bool:
        """Whether a request is under way."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        return cycle is not None and not cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way that has come as a whole: who has sent a part of one
        holds a place for nothing."""
        cycle: RequestResponseCycle | None = self.cycle
        return not self._is_asked() or (cycle is not None and cycle.more_body)

    def pause_writing(self) -> None:
        self.paused_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.paused_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP like all else; uvicorn would leave our headers out."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = f"{msg}\n".encode()
            fields = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *HEADERS,
            ]
            for event in (
                h11.Response(status_code=400, headers=fields, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def is_late(self, now: float) -> bool:
        """Whether its client has taken too long."""
        since = (self.quiet_since, self.paused_since)
        return any(one is not None and now - one > HEAD_S for one in since)


class Listener:
    """Serves an application from its making to `close`; `address` is where it really listens.

    Made in the event loop in which it serves.
    """

    def __init__(
        self,
        listen: str,
        app: ASGIApp,
        tls: TlsFiles | None = None,
        *,
        requires_client_cert: bool = False,
        option: str = "--http",
    ) -> None:
        """tls: of HTTPS; None: HTTP. `option`: names `listen` to the operator.

        Raises: InvalidArgument if it cannot listen there.
        """
        self._socket = _listening(listen, option)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._contexts = None if tls is None else _Contexts(tls, requires_client_cert)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # clients' own affairs
        self._config = Config(
            app,
            log_config=None,
            access_log=False,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(HEAD_S),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._config.load()
        self._state = ServerState()
        self._loop = asyncio.get_running_loop()
        #: By socket, the oldest first; None: its handshake is under way.
        self._open: dict[socket.socket, _Connection | None] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._tasks = [
            self._loop.create_task(self._accept(), name="http-accept"),
            self._loop.create_task(self._look(), name="http-look"),
        ]

    async def close(self) -> None:
        """Stop listening, let what is under way end for STOP_S, and end the rest."""
        for task in (*self._tasks, *self._handshakes):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._handshakes, return_exceptions=True)
        self._socket.close()
        for connection in self._connections():
            connection.shutdown()
        if requests := tuple(self._state.tasks):
            await asyncio.wait(requests, timeout=STOP_S)
        for task in tuple(self._state.tasks):
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)

    def _connections(self) -> list[_Connection]:
        return [one for one in self._open.values() if one is not None]

    async def _accept(self) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._socket)
            except OSError as error:  # of this one connection, or of all for now
                log.debug("a connection is not taken: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            accepted.setblocking(False)
            if len(self._open) >= MAX_CONNECTIONS:
                self._make_room()
            self._open[accepted] = None
            task = self._loop.create_task(self._serve(accepted), name="http-handshake")
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        """Make a connection of what was accepted."""
        times: dict[str, float] = {}
        context = None if self._contexts is None else self._contexts.current()
        if context is not None:
            times = {"ssl_handshake_timeout": HEAD_S, "ssl_shutdown_timeout": 1.0}
        try:
            _, connection = await self._loop.connect_accepted_socket(
                self._made, accepted, ssl=context, **times
            )
        except (OSError, asyncio.CancelledError) as error:  # errors of ssl are OSErrors
            log.debug("a handshake has failed: %s", error)
            self._open.pop(accepted, None)
            accepted.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        if accepted not in self._open:  # it had to make room meanwhile
            connection.transport.abort()
        elif connection.is_lost:
            del self._open[accepted]
        else:
            self._open[accepted] = connection
            connection.on_lost = partial(self._open.pop, accepted, None)

    def _made(self) -> _Connection:
        return _Connection(
            config=self._config, server_state=self._state, app_state={}, _loop=self._loop
        )

    def _make_room(self) -> None:
        """End the oldest connection on which no whole request is under way, or else the oldest."""
        idle = (known for known, one in self._open.items() if one is None or one.is_idle)
        self._end(next(idle, next(iter(self._open))))

    def _end(self, known: socket.socket) -> None:
        connection = self._open.pop(known)
        if connection is not None:
            connection.transport.abort()
            return
        with suppress(OSError):  # its handshake fails by that
            known.shutdown(socket.SHUT_RDWR)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            for known, one in list(self._open.items()):
                if one is not None and one.is_late(now):
                    self._end(known)


class _Contexts:
    """What HTTPS is served by: made anew when the files have others, for connections from then on.

    What does not fit, as half a rotation, leaves it as it was.
    """

    def __init__(self, files: TlsFiles, requires_client_cert: bool) -> None:
        self._files = files
        self._requires_client_cert = requires_client_cert
        self._of: TlsContent | None = None
        self._context = self._made()

    def current(self) -> ssl.SSLContext:
        if self._files.content is not self._of:
            try:
                self._context = self._made()
            except OSError as error:
                log.debug("HTTPS goes on with the certificate it had: %s", error)
        return self._context

    def _made(self) -> ssl.SSLContext:
        content, (ca, cert, key) = self._files.content, self._files.paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert, key)
        if self._requires_client_cert:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._of = content
        return context


def _listening(listen: str, option: str) -> socket.socket:
    host, port = parse_address(listen)
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, proto)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
            made.listen(_BACKLOG)
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgument(f"{option}: cannot listen on {listen}: {reason}") from error
    return made
