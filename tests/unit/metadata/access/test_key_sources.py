"""Keys from a server: fetched, kept while it is away, and not asked for by each who calls."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.web_tokens import Issuer, SigningKey, key_set, serving

from cosco.errors import InvalidArgument
from cosco.metadata.access import key_sources
from cosco.metadata.access.key_sources import AGAIN_S, FETCH_S, KeyFile, KeyUrl, fetched

ONE, OTHER = SigningKey("ES256", "one"), SigningKey("ES256", "other")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving(key_set(ONE)) as server:
        yield server


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(what, 30))


def has(source: KeyUrl | KeyFile, key: SigningKey) -> bool:
    return source.keys.find(key.id, "ES256") is not None


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_keys_are_fetched_when_they_are_asked_for(issuer: Issuer) -> None:
    async def body() -> None:
        source = KeyUrl(issuer.url)
        assert not len(source.keys)
        await source.refresh()
        assert has(source, ONE)
        assert issuer.paths == ["/keys"]

    run(body())


def test_unknown_keys_cause_no_fetch_for_each_call(issuer: Issuer) -> None:
    clock = Clock()

    async def body() -> None:
        source = KeyUrl(issuer.url, now_s=clock)
        await asyncio.gather(*(source.refresh() for _ in range(50)))
        assert issuer.asked == 1, "all wait for the same"
        issuer.content = key_set(ONE, OTHER)
        for _ in range(50):
            clock.now_s += AGAIN_S / 51
            await source.refresh()
        assert issuer.asked == 1
        assert not has(source, OTHER)
        clock.now_s += AGAIN_S / 51
        await asyncio.gather(*(source.refresh() for _ in range(50)))
        assert issuer.asked == 2
        assert has(source, OTHER)

    run(body())


@pytest.mark.parametrize("status", [500, 404, 200])
def test_keys_stay_while_the_server_is_of_no_use(
    issuer: Issuer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()

    async def body() -> None:
        source = KeyUrl(f"{issuer.url}?key=hidden", now_s=clock)
        await source.refresh()
        issuer.status, issuer.content = status, b"sorry"
        for _ in range(3):
            clock.now_s += AGAIN_S
            await source.refresh()
            await source.refresh()
        assert issuer.asked == 4, "a server that is down is not asked by each call, either"
        assert has(source, ONE)
        issuer.status, issuer.content = 200, key_set(OTHER)
        clock.now_s += AGAIN_S
        await source.refresh()
        assert has(source, OTHER)
        assert not has(source, ONE)

    with caplog.at_level(logging.INFO):
        run(body())
    assert "hidden" not in caplog.text
    [said] = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert issuer.url in said
    assert (f"the answer is {status}" if status != 200 else "is no JSON Web Key Set") in said


def test_the_same_keys_are_the_same_object(issuer: Issuer) -> None:
    """By which it is known that what was checked stays checked."""
    clock = Clock()

    async def body() -> None:
        source = KeyUrl(issuer.url, now_s=clock)
        await source.refresh()
        keys = source.keys
        clock.now_s += AGAIN_S
        await source.refresh()
        assert issuer.asked == 2
        assert source.keys is keys

    run(body())


def test_they_are_fetched_again_and_again(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sources, "_LOOK_S", 0.001)
    clock = Clock()

    async def body() -> None:
        source = KeyUrl(issuer.url, now_s=clock)
        watching = asyncio.create_task(source.watch())
        await until(lambda: has(source, ONE))
        issuer.content = key_set(OTHER)
        clock.now_s += FETCH_S - 1
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert issuer.asked == 1
        clock.now_s += 1
        await until(lambda: has(source, OTHER))
        assert issuer.asked == 2
        watching.cancel()

    run(body())


def test_without_keys_they_are_tried_for_sooner(issuer: Issuer) -> None:
    clock = Clock()
    issuer.status = 503

    async def body() -> None:
        source = KeyUrl(issuer.url, now_s=clock)
        await source.refresh()
        issuer.status = 200
        await source.refresh()
        assert issuer.asked == 1
        clock.now_s += key_sources.FIRST_AGAIN_S
        await source.refresh()
        assert has(source, ONE)

    run(body())


def test_who_calls_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sources, "WAIT_S", 0.01)
    go_on, ended = threading.Event(), threading.Event()

    def fetch(_url: str) -> bytes:
        go_on.wait(30)
        ended.set()
        return key_set(ONE)

    async def body() -> None:
        source = KeyUrl("https://a.example", fetch)
        await source.refresh()
        await source.refresh()
        assert not len(source.keys)
        go_on.set()
        await until(lambda: has(source, ONE))

    run(body())
    assert ended.is_set()


def test_who_ends_does_not_wait_for_a_server_at_all() -> None:
    go_on = threading.Event()

    def fetch(_url: str) -> bytes:
        go_on.wait(30)
        raise InvalidArgument("too late")

    async def body() -> None:
        watching = asyncio.create_task(KeyUrl("https://a.example", fetch).watch())
        await until(lambda: any(thread.name == "cosco-keys" for thread in threading.enumerate()))
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    run(body())
    [thread] = [thread for thread in threading.enumerate() if thread.name == "cosco-keys"]
    assert thread.daemon
    go_on.set()
    thread.join()


def test_nothing_elsewhere_is_followed(issuer: Issuer) -> None:
    with serving(key_set(OTHER)) as elsewhere:
        issuer.status, issuer.headers = 302, {"Location": elsewhere.url}
        with pytest.raises(InvalidArgument, match="the answer is 302"):
            fetched(issuer.url)
        assert elsewhere.asked == 0


def test_a_proxy_is_not_asked_for_this_machine(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetched(issuer.url) == key_set(ONE)


def test_only_a_server_with_a_certificate_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the authorities of the machine, or those that OpenSSL's own variable names."""
    authority = Authority()
    mine, others = authority.issue("127.0.0.1"), authority.issue("a.example")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    for identity, variable, says in (
        (mine, "", "self-signed|unable to get"),
        (others, str(tmp_path / "ca.pem"), "ip address mismatch"),
        (mine, str(tmp_path / "ca.pem"), None),
    ):
        (tmp_path / "server.pem").write_bytes(identity.cert + identity.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        monkeypatch.setenv("SSL_CERT_FILE", variable)
        with serving(key_set(ONE), context) as server:
            if says is None:
                assert fetched(server.url) == key_set(ONE)
            else:
                with pytest.raises(InvalidArgument, match=says):
                    fetched(server.url)
                assert server.asked == 0


def test_what_is_too_long_is_not_read_to_its_end(issuer: Issuer) -> None:
    issuer.content = b" " * (8 << 20)
    with pytest.raises(InvalidArgument, match="longer than any"):
        fetched(issuer.url)


def test_what_comes_too_slowly_is_left(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sources, "_WHOLE_S", 0.0)
    with pytest.raises(InvalidArgument, match="does not come whole"):
        fetched(issuer.url)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says this to whoever connects, and then nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(answer)
                ended.wait(30)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/keys"
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"SSH-2.0-OpenSSH_9.0\r\n"],
)
def test_what_is_silent_or_speaks_otherwise_is_left(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "_SILENCE_S", 0.05)
    with answering(answer) as url, pytest.raises(InvalidArgument, match="cannot be fetched"):
        fetched(url)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InvalidArgument, match=r"cannot be fetched: .*refused"):
        fetched(f"http://127.0.0.1:{port}/keys")


def test_keys_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(InvalidArgument, match="cannot be read"):
        KeyFile(str(path))
    path.write_bytes(key_set(ONE))
    source = KeyFile(str(path))
    assert has(source, ONE)
    path.write_bytes(b"broken")
    source._file.look()
    assert has(source, ONE)
    path.write_bytes(key_set(ONE, OTHER))
    source._file.look()
    run(source.refresh())
    assert has(source, OTHER)
