"""A small HTTP endpoint for operators, beside a service: resources of a table, and nothing else.

It runs in threads of its own, so that it answers when the service's event loop does not. Threads,
connections, the length of a request and the time of a connection are bounded; when there are too
many connections the oldest one goes, so that whoever is slow keeps nobody out. A resource is asked
for by `GET` or `HEAD`; the connection ends with the answer.
"""

from __future__ import annotations

import http.client
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BufferedIOBase
from typing import Any, Final, cast
from urllib.parse import urlsplit

from cosco.config import parse_address
from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import printable

log = logging.getLogger(__name__)

#: Connections at a time; with one more the oldest is ended.
MAX_CONNECTIONS: Final = 32
#: Threads at a time, of connections that were ended included: who comes then waits until one of
#: these is over, or for this time, and is not let in.
MAX_THREADS: Final = 2 * MAX_CONNECTIONS
_PATIENCE_S: Final = 1.0
#: A connection may last this long, however its client behaves.
MAX_CONNECTION_S: Final = 10.0
#: The first line of a request and its headers together.
MAX_REQUEST_BYTES: Final = 16 << 10
#: How often it is looked for connections that last too long.
_LOOK_S: Final = 0.5
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What a resource may want to know of a request. `header` gives a header by its name."""

    path: str
    query: str
    header: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a resource says."""

    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


def text_answer(status: int, text: str) -> Answer:
    """Return a line of text, or several."""
    return Answer(status, f"{text}\n".encode())


#: A resource; it is called in a thread of the endpoint.
Resource = Callable[[Request], Answer]


class HttpEndpoint:
    """Serves resources from its making to `close`; `address` is where it really listens."""

    def __init__(self, listen: str, resources: Mapping[str, Resource], option: str) -> None:
        """`resources`: by path. `option`: names `listen` to the operator.

        Raises InvalidArgument if it cannot listen there.
        """
        host, port = parse_address(listen)
        try:
            self._server = _Server(host, port, dict(resources))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidArgument(f"{option}: cannot listen on {listen}: {reason}") from error
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_S,), name="cosco-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end what is open."""
        _hang_up(self._server.socket)  # which wakes the thread
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join()


class _Server(HTTPServer):
    """One thread for each connection, of which there are not too many."""

    # Several listeners never share the port: on Linux this only has a restart not wait.
    allow_reuse_address = True
    request_queue_size = 4 * MAX_CONNECTIONS

    def __init__(self, host: str, port: int, resources: Mapping[str, Resource]) -> None:
        self.resources = resources
        self._changed = threading.Condition()  # of what follows
        self._open: dict[socket.socket, float] = {}  # and until when, the oldest first
        self._threads = 0
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer asks the name service for a name
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            refused = not self._changed.wait_for(self._has_thread, _PATIENCE_S)
            if not refused:
                self._threads += 1
                if len(self._open) >= MAX_CONNECTIONS:
                    _hang_up(next(iter(self._open)))
                    del self._open[next(iter(self._open))]
                self._open[request] = time.monotonic() + MAX_CONNECTION_S
        if refused:
            self.shutdown_request(request)
            return
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="cosco-http-call", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the host has no more threads for now
            log.debug("a request of %s: %s", client_address[0], error)
            self._ended(request)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception as error:  # noqa: BLE001 - whatever a client did, it is its own affair
            log.debug("a request of %s: %s", client_address[0], error)
        finally:
            self._ended(request)

    def _has_thread(self) -> bool:
        return self._threads < MAX_THREADS

    def _ended(self, request: Any) -> None:
        with self._changed:
            self._open.pop(request, None)
            self._threads -= 1
            self._changed.notify_all()
        self.shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections that last too long; called every _LOOK_S."""
        now = time.monotonic()
        with self._changed:
            late = [request for request, until in self._open.items() if until <= now]
            for request in late:
                del self._open[request]
                _hang_up(request)

    def end_connections(self) -> None:
        with self._changed:
            for request in self._open:
                _hang_up(request)
            self._open.clear()


def _hang_up(connection: socket.socket) -> None:
    """Have the thread that waits for this client, or writes to it, go on; it closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Bounded:
    """Lines of a request, of which only the first MAX_REQUEST_BYTES are read."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = MAX_REQUEST_BYTES

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("request")
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    server_version = "cosco"
    sys_version = ""
    timeout = MAX_CONNECTION_S
    # Plain, and without what the client sent.
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = _TEXT

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer by what the status is called alone: Python would quote the request."""
        super().send_error(code)

    def setup(self) -> None:
        super().setup()
        self.rfile = cast("Any", _Bounded(self.rfile))

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except http.client.LineTooLong:  # in the first line
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def parse_request(self) -> bool:
        """Answer 400 also to a target that is no URL, as one with half an address of IPv6."""
        if not super().parse_request():
            return False
        try:
            self._url = urlsplit(self.path)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # any other method
            return self._do_other
        raise AttributeError(name)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _do_other(self) -> None:
        resource = self._resource()
        if resource is None:
            self._send(text_answer(HTTPStatus.NOT_FOUND, "404 Not Found"))
        else:
            answer = text_answer(HTTPStatus.METHOD_NOT_ALLOWED, "405 Method Not Allowed")
            self._send(Answer(answer.status, answer.body, headers=(("Allow", "GET, HEAD"),)))

    def _resource(self) -> Resource | None:
        resources: Mapping[str, Resource] = cast("_Server", self.server).resources
        return resources.get(self._url.path)

    def _answer(self, *, with_body: bool) -> None:
        resource = self._resource()
        if resource is None:
            answer = text_answer(HTTPStatus.NOT_FOUND, "404 Not Found")
        else:
            try:
                answer = resource(Request(self._url.path, self._url.query, self.headers.get))
            except Exception:
                log.exception("%s failed", self._url.path)
                answer = text_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "500 the log says why")
        self._send(answer, with_body=with_body)

    def _send(self, answer: Answer, *, with_body: bool = True) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: %s", self.client_address[0], printable(format % args))
