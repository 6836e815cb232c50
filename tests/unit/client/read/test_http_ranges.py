"""One range of one object over HTTP: exactly that, in time, or a failure without secrets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from cosco.client.read import http_ranges
from cosco.client.read.http_ranges import HttpRanges
from cosco.client.read.state.direct_chunk import DirectFailed
from cosco.protocol.fetch_records import Reference

DATA = bytes(range(256)) * 64
OFFSET, LENGTH = 4096, 8192
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the next of `server.answers` says, or with the range."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        self.server.ports.append(self.client_address[1])
        answers = self.server.answers
        (answers.pop(0) if answers else good)(self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def content_range(total: int = len(DATA), shift: int = 0) -> str:
    return f"bytes {OFFSET + shift}-{OFFSET + LENGTH + shift - 1}/{total}"


def good(handler: Handler) -> None:
    first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
    body = DATA[first : last + 1]
    handler.reply(206, body, Content_Range=f"bytes {first}-{last}/{len(DATA)}")


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(code, b"<Message>secret</Message>", **headers)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str]] = []
        self.ports: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/b/c/7/x%20y?X-Sig=a%2Fb%3D&n=1"

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpRanges]:
    monkeypatch.setattr(http_ranges, "_PAUSE_S", 0.001)
    ranges = HttpRanges()
    yield ranges
    ranges.close()


def read(ranges: HttpRanges, server: Server, offset: int = OFFSET, length: int = LENGTH) -> bytes:
    reference = Reference(server.url, "c/7/x y", len(DATA), 0)
    return bytes(ranges.read(urlsplit(server.url), reference, offset, length))


def test_a_range_is_asked_for_by_the_url_as_it_was_given(
    server: Server, ranges: HttpRanges
) -> None:
    assert read(ranges, server) == DATA[OFFSET : OFFSET + LENGTH]
    assert server.asked == [("/b/c/7/x%20y?X-Sig=a%2Fb%3D&n=1", "bytes=4096-12287")]


def test_connections_are_used_again(server: Server, ranges: HttpRanges) -> None:
    for offset in (0, 4096, 8192):
        assert read(ranges, server, offset, 4096) == DATA[offset : offset + 4096]
    assert len(set(server.ports)) == 1


def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    server: Server, ranges: HttpRanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is no failure of the server, so it is no attempt."""
    monkeypatch.setattr(http_ranges, "_ATTEMPTS", 1)

    def good_and_gone(handler: Handler) -> None:
        good(handler)
        handler.close_connection = True

    server.answers = [good_and_gone]
    for _ in range(2):
        assert read(ranges, server) == DATA[OFFSET : OFFSET + LENGTH]
    assert len(set(server.ports)) == 2


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_for_again(server: Server, ranges: HttpRanges, code: int) -> None:
    server.answers = [status(code), status(code)]
    assert read(ranges, server) == DATA[OFFSET : OFFSET + LENGTH]
    assert len(server.asked) == 3
    server.answers = [status(code)] * 3
    with pytest.raises(DirectFailed, match=f"its server answers {code}"):
        read(ranges, server)
    assert len(server.asked) == 6


@pytest.mark.parametrize("code", [200, 204, 301, 302, 307, 308, 400, 401, 403, 404, 410, 416, 501])
def test_what_does_not_pass_fails_at_once(server: Server, ranges: HttpRanges, code: int) -> None:
    """Redirects as well, as they could lead anywhere."""
    server.answers = [status(code, Location=server.url)]
    with pytest.raises(DirectFailed, match=f"c/7/x y: its server answers {code}") as failed:
        read(ranges, server)
    assert "secret" not in str(failed.value)
    assert "X-Sig" not in str(failed.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": content_range(total=len(DATA) + 1)},
        {"Content_Range": content_range(shift=1)},
        {"Content_Range": "bytes */100"},
        {},
    ],
)
def test_another_range_or_an_object_of_another_length(
    server: Server, ranges: HttpRanges, headers: dict[str, str]
) -> None:
    body = DATA[OFFSET : OFFSET + LENGTH]
    server.answers = [lambda handler: handler.reply(206, body, **headers)]
    with pytest.raises(DirectFailed, match="answers another range"):
        read(ranges, server)


@pytest.mark.parametrize("length", [LENGTH - 1, LENGTH + 1, 1 << 40])
def test_an_answer_of_another_length(server: Server, ranges: HttpRanges, length: int) -> None:
    def long(handler: Handler) -> None:
        handler.reply(206, b"", Content_Range=content_range(), Content_Length=str(length))

    server.answers = [long]
    with pytest.raises(DirectFailed, match="answers another range"):
        read(ranges, server)


def test_an_answer_that_breaks_off_is_asked_for_again(server: Server, ranges: HttpRanges) -> None:
    def half(handler: Handler) -> None:
        body = DATA[OFFSET : OFFSET + LENGTH // 2]
        handler.reply(206, body, Content_Range=content_range(), Content_Length=str(LENGTH))
        handler.close_connection = True

    server.answers = [half]
    assert read(ranges, server) == DATA[OFFSET : OFFSET + LENGTH]
    server.answers = [half] * 3
    with pytest.raises(DirectFailed, match="has answered a part"):
        read(ranges, server)


@pytest.mark.parametrize(
    "text", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 206 OK\r\n" + b"a: b\r\n" * 200]
)
def test_an_answer_that_is_none(server: Server, ranges: HttpRanges, text: bytes) -> None:
    def nonsense(handler: Handler) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    server.answers = [nonsense] * 3
    with pytest.raises(DirectFailed, match=r"answers nonsense|cannot be reached"):
        read(ranges, server)


def test_a_server_that_is_silent(
    server: Server, ranges: HttpRanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_ranges, "_SILENT_S", 0.05)
    done = threading.Event()
    server.answers = [lambda _: done.wait(60) and None] * 3
    try:
        with pytest.raises(DirectFailed, match="its server is silent"):
            read(ranges, server)
    finally:
        done.set()


def test_a_server_that_is_not_there(ranges: HttpRanges) -> None:
    with Server() as gone:
        pass
    with pytest.raises(DirectFailed, match="cannot be reached"):
        read(ranges, gone)


def test_a_certificate_that_nobody_vouches_for(server: Server, ranges: HttpRanges) -> None:
    url = server.url.replace("http://", "https://")
    with pytest.raises(DirectFailed):
        ranges.read(urlsplit(url), Reference(url, "c/7/x y", len(DATA), 0), OFFSET, LENGTH)


def test_closing_ends_a_read_that_is_under_way(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_ranges, "_SILENT_S", 1000.0)
    monkeypatch.setattr(http_ranges, "READ_S", 1000.0)
    began, done = threading.Event(), threading.Event()

    def begin(handler: Handler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", content_range())
        handler.send_header("Content-Length", str(LENGTH))
        handler.end_headers()
        handler.wfile.write(b"x")
        began.set()
        done.wait(60)

    server.answers = [begin]
    ranges, failures = HttpRanges(), list[Exception]()

    def reads() -> None:
        try:
            read(ranges, server)
        except DirectFailed as error:
            failures.append(error)

    thread = threading.Thread(target=reads)
    thread.start()
    try:
        assert began.wait(60)
        ranges.close()
        thread.join(60)
        assert not thread.is_alive()
        assert len(failures) == 1
        assert len(server.asked) == 1
    finally:
        done.set()
