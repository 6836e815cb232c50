"""Requests over HTTP to a metadata service, also such as no client would send."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support.log_lines import LogReader
from support.processes import Service

TIMEOUT_S = 10.0
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """Whoever sends requests: with a token, a cookie or neither."""

    def __init__(
        self, url: str, token: str = "", *, cookie: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self.url = url
        self.address = "127.0.0.1" if parts.hostname == "0.0.0.0" else parts.hostname, parts.port
        self.host = f"{self.address[0]}:{self.address[1]}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if cookie:
            self._headers["Cookie"] = cookie
        self._tls = tls

    def connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(*self.address, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(*self.address, timeout=TIMEOUT_S, context=self._tls)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = self.connection()
        try:
            connection.request(method, path, body, {**self._headers, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What is answered to a good request below /api/v1/."""
        reply = self.ask(f"/api/v1/{path}")
        assert reply.status == 200, reply
        return reply.json()

    def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        text = None if body is None else json.dumps(body)
        return self.ask(f"/api/v1/{path}", "POST", text, {**JSON, **headers})

    def pages(self, path: str, of: str) -> list[Any]:
        """All of a list, by its pages."""
        found, cursor = [], ""
        for _ in range(1000):
            page = self.get(f"{path}{'&' if '?' in path else '?'}cursor={cursor}")
            found += page[of]
            cursor = page["next"]
            if not cursor:
                return found
        raise AssertionError("no end")

    @contextmanager
    def live(self, **headers: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """Server-sent events, as (event, data)."""
        connection = self.connection()
        connection.request("GET", "/api/v1/live", headers={**self._headers, **headers})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        try:
            yield _events(answer)
        finally:
            connection.close()


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    while line := answer.readline().decode():
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def url_of(service: Service) -> str:
    """Where a service that logs JSON has said that its HTTP is."""
    log = LogReader(service, from_start=True)
    log.wait("service_started", pid=service.pid)
    return str(log.events("service_started", pid=service.pid)[-1]["http"])


def raw(web: Web, *parts: bytes) -> socket.socket:
    """A connection on which bytes were sent."""
    connection = socket.create_connection(web.address, TIMEOUT_S)
    for part in parts:
        connection.sendall(part)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    found = bytearray()
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return bytes(found)


def trusting(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS of a client that trusts an authority, and has a certificate if one is named."""
    context = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
