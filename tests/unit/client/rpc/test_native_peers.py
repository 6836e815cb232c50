"""The native transport of the client, and services that break rules, hang up or say nothing."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.children import fork, join, run_code
from support.raw_http2 import GOAWAY, RST_STREAM, frame, literal, message
from support.raw_service import RawService, Script, raw_service

from cosco.client.rpc import transport
from cosco.client.rpc.native_channel import NativeTransport
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint, _Channels
from cosco.errors import ServiceUnavailable
from cosco.mechanics import NATIVE
from cosco.process.wrong_address import guess

pytestmark = pytest.mark.skipif(NATIVE is None, reason="needs the native part")
WAIT_S = 10.0
#: How far a service may be ahead of who reads.
WINDOW_BYTES = 2 << 20


@pytest.fixture(scope="module")
def made() -> _Channels:
    assert NATIVE is not None
    return _Channels(NativeTransport(NATIVE))


@pytest.fixture(autouse=True)
def channels(made: _Channels, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Channels]:
    monkeypatch.setattr(transport, "_channels", made)
    yield made
    while made._idle:
        made._idle.popitem()[1].channel.close()


@pytest.fixture
def scope() -> Scope:
    return Scope("a test", "x")


def call(address: str, scope: Scope, timeout_s: float = WAIT_S) -> bytes:
    with Endpoint(address) as endpoint:
        return endpoint.unary("/t/Echo", b"x", timeout_s, scope)


def test_silence_instead_of_a_greeting(scope: Scope) -> None:
    began = time.monotonic()
    with raw_service(RawService.hear_all) as address, pytest.raises(Unreachable) as caught:
        call(address, scope)
    assert 2.5 < time.monotonic() - began < 5
    assert guess(str(caught.value)).startswith("what takes connections there says nothing")


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no gRPC server"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what answers there is no gRPC server"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "what answers there speaks TLS"),
        (b"\x16\x03\x01\x02", "what answers there speaks TLS"),
    ],
)
def test_what_is_no_http2(said: bytes, meaning: str, scope: Scope) -> None:
    def script(service: RawService) -> None:
        service.send(said)
        service.hear_all()

    with raw_service(script) as address, pytest.raises(Unreachable) as caught:
        call(address, scope)
    assert guess(str(caught.value)).startswith(meaning)


def test_a_service_that_hangs_up_at_once(scope: Scope) -> None:
    with raw_service(lambda service: None) as address, pytest.raises(Unreachable):
        call(address, scope)


def served(*scripts: Script) -> list[Script]:
    """Scripts that greet first."""

    def greeting(script: Script) -> Script:
        def greet(service: RawService) -> None:
            service.greet()
            script(service)
            service.hear_all()

        return greet

    return [greeting(script) for script in scripts]


def answer(service: RawService) -> None:
    service.reply(service.call(), b"y")


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_replies_that_come_in_pieces(cut: int, scope: Scope) -> None:
    def script(service: RawService) -> None:
        service.cut_bytes = cut
        service.reply(service.call(), b"y" * 50)

    with raw_service(*served(script)) as address:
        with Endpoint(address) as endpoint:
            assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y" * 50
        close_all()


def close_all() -> None:
    """Have the connections of this test end, so that its service does."""
    channels = transport._channels
    while channels._idle:
        channels._idle.popitem()[1].channel.close()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(0, "INTERNAL"), (7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED")],
)
def test_streams_that_are_reset(code: int, meaning: str, scope: Scope) -> None:
    def script(service: RawService) -> None:
        service.send(frame(RST_STREAM, 0, service.call(), code.to_bytes(4, "big")))
        answer(service)

    expected = Unreachable if meaning in {"UNAVAILABLE", "CANCELLED"} else ServiceUnavailable
    with raw_service(*served(script)) as address:
        with Endpoint(address) as endpoint:
            with pytest.raises(expected, match=meaning):
                endpoint.unary("/t/Echo", b"x", WAIT_S, scope)
            assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y"
        close_all()


def test_a_service_that_ends_finishes_what_it_has(scope: Scope) -> None:
    """Calls that come meanwhile have another connection."""

    def going(service: RawService) -> None:
        stream = service.call()
        service.send(frame(GOAWAY, 0, 0, stream.to_bytes(4, "big") + bytes(4)))
        said.set()
        assert answered.wait(WAIT_S)
        service.reply(stream, b"first")

    said, answered, results = threading.Event(), threading.Event(), []
    with raw_service(*served(going, answer)) as address:
        with Endpoint(address) as endpoint:
            first = threading.Thread(
                target=lambda: results.append(endpoint.unary("/t/Echo", b"x", WAIT_S, scope))
            )
            first.start()
            assert said.wait(WAIT_S)
            time.sleep(0.1)
            assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y"
            answered.set()
            first.join(WAIT_S)
            assert results == [b"first"]
        close_all()


def test_after_goodbye_another_connection_is_made(scope: Scope) -> None:
    def going(service: RawService) -> None:
        stream = service.call()
        service.reply(stream, b"y")
        service.send(frame(GOAWAY, 0, 0, stream.to_bytes(4, "big") + bytes(4)))

    with raw_service(*served(going, answer)) as address:
        with Endpoint(address) as endpoint:
            assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y"
            time.sleep(0.1)
            assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y"
        close_all()


def test_a_lost_connection_fails_its_calls_and_is_made_again(scope: Scope) -> None:
    def gone(service: RawService) -> None:
        service.greet()
        service.call()

    with raw_service(gone, *served(answer)) as address:
        with Endpoint(address) as endpoint:
            with pytest.raises(Unreachable, match="the connection was lost"):
                endpoint.unary("/t/Echo", b"x", WAIT_S, scope)
            assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y"
        close_all()


def test_a_service_that_stands_still_is_left(scope: Scope) -> None:
    """Nothing answers what asks whether it lives: as its process is stopped, or its host gone."""

    def script(service: RawService) -> None:
        service.call()
        while over.wait(0.1) is False:
            pass

    over = threading.Event()
    began = time.monotonic()
    with raw_service(*served(script)) as address:
        with pytest.raises(Unreachable, match="ping timeout"):
            call(address, scope, 30.0)
        over.set()
    assert 7 < time.monotonic() - began < 12


def replies(service_script: Script, scope: Scope) -> list[bytes]:
    with raw_service(*served(service_script)) as address:
        try:
            with Endpoint(address) as endpoint:
                return list(endpoint.fetch_stream("/t/Count", b"", scope))
        finally:
            close_all()


def test_answers_that_break_grpc(scope: Scope) -> None:
    def html(service: RawService) -> None:
        stream = service.call()
        service.head(stream, "404", "text/html")
        service.end(stream)

    def compressed(service: RawService) -> None:
        stream = service.call()
        service.head(stream)
        service.data(stream, message(b"y", compressed=True))

    def long(service: RawService) -> None:
        stream = service.call()
        service.head(stream)
        service.data(stream, message(b"y", length=(64 << 20) + 1))

    def cut(service: RawService) -> None:
        stream = service.call()
        service.head(stream)
        service.data(stream, message(b"y", length=2))
        service.end(stream)

    def no_status(service: RawService) -> None:
        stream = service.call()
        service.head(stream)
        service.send(frame(1, 5, stream, literal("other", "x")))

    for script, said in [
        (html, "UNIMPLEMENTED: it is answered with HTTP status 404"),
        (compressed, "INTERNAL: a message is compressed"),
        (long, "RESOURCE_EXHAUSTED: a message of 67108865 bytes"),
        (cut, "INTERNAL: the last message is cut short"),
        (no_status, "INTERNAL: it ends without a status"),
    ]:
        with pytest.raises(ServiceUnavailable, match=said):
            replies(script, scope)


@pytest.mark.parametrize("count", [0, 2])
def test_a_unary_call_has_one_reply(count: int, scope: Scope) -> None:
    def script(service: RawService) -> None:
        service.reply(service.call(), *[b"y"] * count)

    with raw_service(*served(script)) as address:
        with pytest.raises(ServiceUnavailable, match="INTERNAL"):
            call(address, scope)
        close_all()


def test_a_service_is_held_back_by_who_reads(scope: Scope) -> None:
    """It is granted a window, and then as much as is read."""
    count, part = WINDOW_BYTES // 16384, bytes(16384 - 5)

    def script(service: RawService) -> None:
        stream = service.call()
        service.head(stream)
        for _ in range(count):
            service.data(stream, message(part))
        is_full.set()
        granted.append(service.granted(stream, 0.5))
        service.data(stream, message(part))
        service.end(stream)

    granted: list[int] = []
    is_full = threading.Event()
    with raw_service(*served(script)) as address:
        with Endpoint(address) as endpoint:
            call = endpoint.fetch_stream("/t/Count", b"", scope)
            assert is_full.wait(WAIT_S)
            time.sleep(0.1)
            assert call.within(WAIT_S) == part
            deadline = time.monotonic() + WAIT_S
            while not granted and time.monotonic() < deadline:
                time.sleep(0.01)
            assert granted == [16384]
            assert sum(1 for _ in call) == count
        close_all()


def test_a_service_that_sends_more_than_it_may_is_left(scope: Scope) -> None:
    def script(service: RawService) -> None:
        stream = service.call()
        service.head(stream)
        try:
            for _ in range(2 * WINDOW_BYTES // 16384):
                service.data(stream, message(bytes(16384 - 5)))
        except OSError:
            return

    with raw_service(*served(script)) as address:
        with Endpoint(address) as endpoint:
            call = endpoint.fetch_stream("/t/Count", b"", scope)
            time.sleep(0.3)
            with pytest.raises((Unreachable, ServiceUnavailable)):
                list(call)
        close_all()


def test_after_a_failure_to_connect_calls_fail_at_once_for_a_while(scope: Scope) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with Endpoint(address) as endpoint:
        for _ in range(3):
            with pytest.raises(Unreachable, match="Connection refused"):
                endpoint.unary("/t/Echo", b"x", WAIT_S, scope)
        with raw_service_at(address):
            began = time.monotonic()
            while True:
                try:
                    assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"y"
                    break
                except Unreachable:
                    time.sleep(0.01)
            assert time.monotonic() - began < 2
    close_all()


def raw_service_at(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    listener = socket.create_server((host, int(port)))
    (script,) = served(answer)

    def serve() -> None:
        connected, _ = listener.accept()
        with connected:
            script(RawService(connected))

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_an_interrupt_reaches_who_waits(scope: Scope) -> None:
    def script(service: RawService) -> None:
        service.call()
        service.hear_all()

    with raw_service(*served(script)) as address:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call(address, scope)
        timer.join()
        close_all()


def test_a_forked_child_does_not_hold_its_parents_connection(scope: Scope) -> None:
    """Which ends with the parent's descriptor, though the child lives on."""
    ended = threading.Event()

    def script(service: RawService) -> None:
        service.greet()
        answer(service)
        service.hear_all()
        ended.set()

    with raw_service(script) as address:
        assert call(address, scope) == b"y"
        told, tell = os.pipe()
        child = fork(lambda: os.read(told, 1))
        assert not ended.wait(0.2)  # the child did not end it
        close_all()
        assert ended.wait(WAIT_S / 4)
        os.write(tell, b"x")
        join(child)


def test_a_process_may_end_while_its_threads_wait() -> None:
    run_code(
        """
        import socket, threading
        from cosco.client.rpc.scope import Scope
        from cosco.client.rpc.transport import Endpoint

        listener = socket.create_server(("127.0.0.1", 0))
        endpoint = Endpoint(f"127.0.0.1:{listener.getsockname()[1]}")
        scope = Scope("a test", "x")
        for _ in range(4):
            wait = lambda: endpoint.unary("/t/Echo", b"x", 60.0, scope)
            threading.Thread(target=wait, daemon=True).start()
        listener.accept()[0].detach()  # is there until the process ends
        """
    )


@pytest.mark.parametrize("where", ["for the process", "to connect"])
def test_no_thread_can_be_started(
    where: str, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As there are too many."""

    def refuse(*_: object) -> None:
        raise RuntimeError("Resource temporarily unavailable")

    connection = SimpleNamespace(call=refuse, close=lambda: None)
    runtime = SimpleNamespace(connection=lambda *_: connection)
    of_process = refuse if where == "for the process" else lambda: runtime
    native: Any = SimpleNamespace(ClientRuntime=of_process)
    monkeypatch.setattr(transport, "_channels", _Channels(NativeTransport(native)))
    with pytest.raises(ServiceUnavailable, match="cannot be called: Resource") as caught:
        call("127.0.0.1:1", scope)
    assert not caught.value.retriable
