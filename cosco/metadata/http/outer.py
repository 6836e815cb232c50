"""Around all routes: checks of requests, bounds of their bodies, headers of all answers, errors."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cosco.errors import CoscoError
from cosco.metadata.http.problems import (
    PROBLEM_TYPE,
    Problem,
    encoded,
    problem,
    problem_of,
)
from cosco.metadata.http.request_checks import (
    Header,
    HostNames,
    Refused,
    check_origin,
    check_type,
    routed_path,
)

log = logging.getLogger(__name__)

#: The longest body of a request, and the time in which it must have come.
MAX_BODY_BYTES: Final = 64 << 10
BODY_S: Final = 10.0

#: What a page of ours may load: from here alone, no script or style in the page itself; nobody may
#: have it in a frame.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: What all answers have, but that a route may say how long its answer may be kept.
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


_CACHE: Final = b"cache-control"


class _HeadIsOver(Exception):
    """The answer to HEAD is complete, though the route would go on."""


class Outer:
    """The application of ASGI that all requests come through, before `inner`."""

    def __init__(self, inner: ASGIApp, hosts: HostNames) -> None:
        self._inner = inner
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            return
        answer = _Answer(send, is_head=scope["method"] == "HEAD")
        try:
            inner = self._checked(scope)
            body = await _body(receive)
            await self._inner(inner, _again(body, receive), answer.send)
        except _HeadIsOver:
            pass
        except Refused as refused:
            # What is left of its body is not waited for.
            await answer.fail(problem(refused.status, str(refused)), {"Connection": "close"})
        except CoscoError as error:
            await answer.fail(*problem_of(error))
        except Exception:
            log.exception("%s failed", scope["method"])
            await answer.fail(_inside())

    def _checked(self, scope: Scope) -> Scope:
        """Return what routes see of a request; raises Refused."""
        header = header_of(scope)
        self._hosts.check(header("host"))
        path = routed_path(scope["raw_path"])
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        check_origin(method, path, header)
        check_type(method, path, header)
        return {**scope, "path": path, "method": method}


class _Answer:
    """Sends one answer, with the headers of all; once it has begun, nothing but the rest of it."""

    def __init__(self, send: Send, *, is_head: bool) -> None:
        self._send = send
        self._is_head = is_head
        self._has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            theirs = message.get("headers", ())
            is_kept = any(name.lower() == _CACHE for name, _ in theirs)
            ours = [(k, v) for k, v in HEADERS if not (is_kept and k == _CACHE)]
            names = {name for name, _ in ours}
            theirs = [(k, v) for k, v in theirs if k.lower() not in names]
            message = {**message, "headers": [*theirs, *ours]}
            await self._send(message)
            if self._is_head:  # of a route that goes on for ever, too
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _HeadIsOver
            return
        await self._send(message)

    async def fail(self, of: Problem, headers: dict[str, str] | None = None) -> None:
        if self._has_begun:
            return  # the connection ends in the middle, as nothing completes the answer
        body = encoded(of)
        fields = {"Content-Type": PROBLEM_TYPE, "Content-Length": str(len(body)), **(headers or {})}
        raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        try:
            await self.send({"type": "http.response.start", "status": of.status, "headers": raw})
        except _HeadIsOver:
            return
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def header_of(scope: Scope) -> Header:
    """Return what gives the headers of a request. One that came twice is none: who reads another
    one of the two than we do would be let in, or kept out, for the wrong reason."""
    found: dict[str, str] = {}
    twice = set()
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found:
            twice.add(key)
        found[key] = value.decode("latin-1")
    for key in twice & {"host", "origin", "content-type", "authorization"}:
        raise Refused(HTTPStatus.BAD_REQUEST, f"there are several headers {key}")
    return found.get


async def _body(receive: Receive) -> bytes:
    """Return the whole body of a request; raises Refused if it is too long, or takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(HTTPStatus.BAD_REQUEST, "the client is gone")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"the body is longer than {MAX_BODY_BYTES} bytes",
                    )
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refused(
            HTTPStatus.REQUEST_TIMEOUT, f"the body has not come within {BODY_S:g} s"
        ) from None


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body once, and then waits for the end of the connection."""
    left: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return left.pop() if left else await receive()

    return give


def _inside() -> Problem:
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "it failed inside the metadata service; its log says why",
    )
