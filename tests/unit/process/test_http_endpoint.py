"""The endpoint: what it serves, what it refuses, and whom it does not wait for."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from cosco.errors import InvalidArgument
from cosco.process import http_endpoint
from cosco.process.http_endpoint import (
    MAX_CONNECTIONS,
    MAX_REQUEST_BYTES,
    MAX_THREADS,
    Answer,
    HttpEndpoint,
    Request,
    text_answer,
)


def fail(_: Request) -> Answer:
    raise RuntimeError("a fault")


RESOURCES = {
    "/hello": lambda r: text_answer(200, f"hello {r.query} {r.header('x-who')}"),
    "/away": lambda _: text_answer(503, "away"),
    "/fail": fail,
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[HttpEndpoint]:
    made = HttpEndpoint("127.0.0.1:0", RESOURCES, "--metrics 127.0.0.1:0")
    yield made
    made.close()


def ask(
    endpoint: HttpEndpoint, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(endpoint.address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer
    finally:
        connection.close()


def raw(endpoint: HttpEndpoint) -> socket.socket:
    host, port = endpoint.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def test_a_resource_is_given_the_query_and_headers(endpoint: HttpEndpoint) -> None:
    status, body, answer = ask(endpoint, "/hello?a=1", **{"X-Who": "me"})
    assert (status, body) == (200, b"hello a=1 me\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(body))


def test_head_is_get_without_a_body(endpoint: HttpEndpoint) -> None:
    status, body, answer = ask(endpoint, "/hello", "HEAD")
    assert (status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/", "/hello/", "/HELLO", "/hello%2f", "/x?/hello"])
def test_whatever_else_is_not_there(path: str, endpoint: HttpEndpoint) -> None:
    assert ask(endpoint, path)[:2] == (404, b"404 Not Found\n")
    assert ask(endpoint, path, "POST")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_other_methods_are_refused(method: str, endpoint: HttpEndpoint) -> None:
    status, _, answer = ask(endpoint, "/hello", method)
    assert (status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_resource_says_its_status(endpoint: HttpEndpoint) -> None:
    assert ask(endpoint, "/away")[:2] == (503, b"away\n")


def test_a_fault_is_logged_and_not_shown(
    endpoint: HttpEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    status, body, _ = ask(endpoint, "/fail")
    assert status == 500
    assert b"fault" not in body
    assert "a fault" in caplog.text


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * MAX_REQUEST_BYTES + b" HTTP/1.0\r\n\r\n",
        b"GET /hello HTTP/1.0\r\nX: " + b"x" * MAX_REQUEST_BYTES + b"\r\n\r\n",
        b"GET /hello HTTP/1.0\r\n" + b"X: y\r\n" * MAX_REQUEST_BYTES,
    ],
    ids=["line", "header", "headers"],
)
def test_requests_are_bounded(request_bytes: bytes, endpoint: HttpEndpoint) -> None:
    with raw(endpoint) as client:
        client.sendall(request_bytes)
        try:
            answer = client.recv(1000)
        except ConnectionResetError:  # it has closed, with a part of the request unread
            answer = b""
    assert not answer or b" 431 " in answer.splitlines()[0], answer
    assert ask(endpoint, "/hello")[0] == 200


@pytest.mark.parametrize("request_bytes", [b"\r\n\r\n", b"\0\xff\n\n", b"GET\r\n\r\n", b""])
def test_nonsense_harms_nobody(request_bytes: bytes, endpoint: HttpEndpoint) -> None:
    with raw(endpoint) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1000):
            pass
    assert ask(endpoint, "/hello")[0] == 200


@pytest.mark.parametrize(
    "request_line", [b"GET http://[secret HTTP/1.1", b"GET secret se cret", b"secret HTTP/7.1"]
)
def test_a_request_that_is_none_is_told_so_without_its_words(
    request_line: bytes, endpoint: HttpEndpoint
) -> None:
    answer = b""
    with raw(endpoint) as client:
        client.sendall(request_line + b"\r\n\r\n")
        while more := client.recv(1000):
            answer += more
    assert answer.endswith(b"400 Bad Request\n")
    assert b"secret" not in answer


def test_slow_clients_keep_nobody_out(endpoint: HttpEndpoint) -> None:
    slow = [raw(endpoint) for _ in range(3 * MAX_CONNECTIONS)]
    for client in slow:
        client.send(b"GET /hel")
    assert ask(endpoint, "/hello")[0] == 200
    assert slow[0].recv(100) == b""  # the oldest went
    for client in slow:
        client.close()
    threads = [t for t in threading.enumerate() if t.name == "cosco-http-call"]
    assert len(threads) <= 2 * MAX_CONNECTIONS


def test_who_comes_while_all_threads_end_waits_for_one(
    endpoint: HttpEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was ended has its thread until that is told."""
    may_end = threading.Event()
    handle = http_endpoint._Handler.handle_one_request

    def late(handler: http_endpoint._Handler) -> None:
        handle(handler)
        may_end.wait(10)

    waits = threading.Event()
    has_thread = http_endpoint._Server._has_thread

    def looked(server: http_endpoint._Server) -> bool:
        if not (found := has_thread(server)):
            waits.set()
        return found

    monkeypatch.setattr(http_endpoint._Handler, "handle_one_request", late)
    monkeypatch.setattr(http_endpoint._Server, "_has_thread", looked)
    monkeypatch.setattr(http_endpoint, "_PATIENCE_S", 10.0)
    slow = [raw(endpoint) for _ in range(2 * MAX_CONNECTIONS)]
    with raw(endpoint) as client:
        assert waits.wait(10)
        may_end.set()
        client.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.0 200")
    for other in slow:
        other.close()


def test_a_connection_does_not_last(
    endpoint: HttpEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often its client sends a byte."""
    monkeypatch.setattr(http_endpoint, "MAX_CONNECTION_S", 0.1)
    with raw(endpoint) as client:
        began = time.monotonic()
        client.settimeout(0.05)
        ended = False
        while not ended and time.monotonic() - began < 10:
            try:
                client.send(b"G")
                ended = client.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


def test_its_end_does_not_wait_for_clients() -> None:
    made = HttpEndpoint("127.0.0.1:0", RESOURCES, "--metrics 127.0.0.1:0")
    with raw(made) as client:
        client.send(b"GET")
        began = time.monotonic()
        made.close()
        assert time.monotonic() - began < 5
        with suppress(ConnectionResetError):  # it had not been accepted yet
            assert client.recv(10) == b""


@pytest.mark.parametrize(
    "listen", [lambda a: a, lambda _: "192.0.2.1:0", lambda _: "no.such.host.invalid:0"]
)
def test_where_it_cannot_listen_is_said(
    listen: Callable[[str], str], endpoint: HttpEndpoint
) -> None:
    address = listen(endpoint.address)
    with pytest.raises(InvalidArgument, match=f"--metrics X: cannot listen on {address}: ") as said:
        HttpEndpoint(address, RESOURCES, "--metrics X")
    assert "\n" not in str(said.value)


def test_version_6_of_ip() -> None:
    made = HttpEndpoint("[::1]:0", RESOURCES, "--metrics")
    assert made.address.startswith("[::1]:")
    assert ask(made, "/hello")[0] == 200
    made.close()


def test_a_process_with_too_many_threads_answers_again_when_it_has_fewer(
    endpoint: HttpEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MAX_THREADS + 1):
            with suppress(ConnectionError), raw(endpoint) as connection:
                assert connection.recv(1) == b""
    assert ask(endpoint, "/away")[0] == 503
