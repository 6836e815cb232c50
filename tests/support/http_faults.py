"""A proxy before a server of HTTP, which does wrong what a test tells it to."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_UPSTREAM_TIMEOUT_S = 30

#: What becomes of a request. `answer`: an error of S3, in place of the server's; `hold`: nothing
#: happens until `release`, then it goes on; `late`: the server has it, and its answer is held;
#: `half_answer`: the connection ends amid the body of the answer; `half_body`: amid the body of
#: the request, for the server too; `torn_answer`: a body that is short, and says so.
Action = Literal["answer", "hold", "late", "half_answer", "half_body", "torn_answer"]


@dataclass
class Fault:
    """What goes wrong, with the next `times` requests of a method that have `where` in the path."""

    action: Action
    method: str
    where: str = ""
    times: int = 1
    status: int = 503
    code: str = "SlowDown"
    done: int = 0


@dataclass(frozen=True)
class Seen:
    """One request that has come."""

    method: str
    path: str
    range: str


@dataclass
class _Plan:
    lock: threading.Lock = field(default_factory=threading.Lock)
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    held: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def next_for(self, seen: Seen) -> Fault | None:
        with self.lock:
            self.seen.append(seen)
            for fault in self.faults:
                if (
                    fault.done < fault.times
                    and fault.method in {seen.method, "*"}
                    and fault.where in seen.path
                ):
                    fault.done += 1
                    return fault
        return None

    def wait(self) -> None:
        self.held.release()
        self.released.wait(_UPSTREAM_TIMEOUT_S)


class HttpFaults:
    """The proxy: `address` is where to reach it."""

    def __init__(self, target: str) -> None:
        self._plan = _Plan()
        plan = self._plan

        class Handler(_Handler):
            host, _, port = target.rpartition(":")
            upstream = host, int(port)

        Handler.plan = plan
        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def fault(self, action: Action, method: str, where: str = "", **more: Any) -> Fault:
        """Have something go wrong from now on."""
        fault = Fault(action, method, where, **more)
        with self._plan.lock:
            self._plan.faults.append(fault)
        return fault

    def seen(self, method: str, where: str = "") -> list[Seen]:
        """Return the requests that have come so far."""
        with self._plan.lock:
            return [one for one in self._plan.seen if one.method == method and where in one.path]

    def wait_for_held(self, timeout_s: float = 10) -> None:
        """Wait until one more request is held."""
        assert self._plan.held.acquire(timeout=timeout_s), "no request has come"

    def release(self) -> None:
        """Let go on what is held, and all that is to come."""
        self._plan.released.set()

    def close(self) -> None:
        """End, with all connections."""
        self.release()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients go away, and are meant to."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plan: _Plan
    upstream: tuple[str, int]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = Seen(self.command, self.path, self.headers.get("Range", ""))
        fault = self.plan.next_for(seen)
        action = fault.action if fault is not None else None
        if action == "hold":
            self.plan.wait()
        if action == "half_body":
            self._send_half(body)
            self.close_connection = True
            return
        if fault is not None and action == "answer":
            xml = f"<Error><Code>{fault.code}</Code><Message>as a test has it</Message></Error>"
            self._answer(fault.status, [("Content-Type", "application/xml")], xml.encode())
            return
        with self._asked(body) as answer:
            content = answer.read()
            if action == "late":
                self.plan.wait()
            self._answer(answer.status, answer.getheaders(), content, action)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815  as above

    @contextmanager
    def _asked(self, body: bytes) -> Iterator[http.client.HTTPResponse]:
        server = http.client.HTTPConnection(*self.upstream, timeout=_UPSTREAM_TIMEOUT_S)
        try:
            self._send_head(server)
            server.send(body)
            yield server.getresponse()
        finally:
            server.close()

    def _send_head(self, server: http.client.HTTPConnection) -> None:
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "connection":
                server.putheader(name, value)
        server.endheaders()

    def _send_half(self, body: bytes) -> None:
        server = http.client.HTTPConnection(*self.upstream, timeout=_UPSTREAM_TIMEOUT_S)
        self._send_head(server)
        server.send(body[: len(body) // 2])
        server.close()

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        action: Action | None = None,
    ) -> None:
        self.send_response_only(status)
        length = len(content)
        if self.command == "HEAD":
            length = int({n.lower(): v for n, v in headers}.get("content-length", 0))
        if action == "torn_answer":
            content = content[: length // 2]
            length = len(content)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if action == "half_answer":
            self.wfile.write(content[: length // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
