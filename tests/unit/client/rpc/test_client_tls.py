"""The client's calls with TLS: why there are none, and certificates that change meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from support.certificates import Authority, Identity

from cosco.client.rpc import transport
from cosco.client.rpc.channel import Manner
from cosco.client.rpc.native_channel import NativeTransport
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint, _Channels
from cosco.errors import CoscoError
from cosco.mechanics import NATIVE
from cosco.process.wrong_address import guess

import grpc  # isort: skip  (after cosco, which turns its fork support on)

pytestmark = pytest.mark.skipif(NATIVE is None, reason="needs the native part")
WAIT_S = 20.0
MANNER: Manner[bytes] = Manner(b"".join, batch=1, idle_s=5.0, is_over=lambda: False)
LONG_BYTES = 16 << 20
NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture
def scope() -> Scope:
    return Scope("a test", "x")


@contextmanager
def serving(host: Identity, client_ca: bytes | None = None, address: str = "") -> Iterator[str]:
    """A server of grpcio's, with TLS."""
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "Stream": grpc.stream_stream_rpc_method_handler(lambda requests, _: requests),
    }
    server = grpc.server(ThreadPoolExecutor(4), options=NO_LIMIT)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
    pairs = ((host.key, host.cert),)
    credentials = grpc.ssl_server_credentials(pairs, client_ca, client_ca is not None)
    port = server.add_secure_port(address or "127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


class Client:
    """A client's process-wide channels; `tls` is what its connections go by."""

    def __init__(self, tls: Any) -> None:
        self.tls = tls
        self.channels = _Channels(NativeTransport(NATIVE, lambda: self.tls))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Client]]:
    made: list[Client] = []

    def make(tls: Any) -> Client:
        made.append(Client(tls))
        monkeypatch.setattr(transport, "_channels", made[-1].channels)
        return made[-1]

    yield make
    for one in made:
        while one.channels._idle:
            one.channels._idle.popitem()[1].channel.close()


def settings(ca: Authority, own: Identity | None = None) -> Any:
    assert NATIVE is not None
    cert, key = (own.cert, own.key) if own is not None else (None, None)
    return NATIVE.TlsClient(ca.pem, cert, key)


def echo(address: str, scope: Scope, message: bytes = b"x") -> bytes:
    with Endpoint(address) as endpoint:
        return endpoint.unary("/t/Echo", message, WAIT_S, scope)


Make = Callable[[Any], Client]


def test_long_messages_both_ways(ca: Authority, scope: Scope, client: Make) -> None:
    client(settings(ca))
    with serving(ca.issue("127.0.0.1")) as address:
        for length in (0, 1, LONG_BYTES):
            message = os.urandom(length)
            assert echo(address, scope, message) == message


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("CA", "its certificate is of a CA that is not trusted here"),
        ("CA of the same name", "which may be of the same name"),
        ("expired", "its certificate has expired"),
        ("name", 'its certificate is not of "127.0.0.1", but of DnsName("other.example")'),
        ("no certificate", "it ended after the handshake of TLS"),
    ],
)
def test_why_there_is_no_tls(
    wrong: str, told: str, ca: Authority, scope: Scope, client: Make
) -> None:
    host = ca.issue(
        "other.example" if wrong == "name" else "127.0.0.1",
        ends_in_days=-1 if wrong == "expired" else 1,
    )
    others = {"CA": Authority("other"), "CA of the same name": Authority()}
    client(settings(others.get(wrong, ca)))
    with serving(host, ca.pem if wrong == "no certificate" else None) as address:
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            echo(address, scope)
        assert time.monotonic() - began < 2
    assert told in str(caught.value)


def test_tls_at_one_end_alone(ca: Authority, scope: Scope, client: Make) -> None:
    client(settings(ca))
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with pytest.raises(Unreachable) as caught:
        echo(address, scope)
    server.stop(0).wait()
    assert guess(str(caught.value)).startswith("what answers there speaks no TLS")


def test_certificates_change_and_what_is_open_goes_on(
    ca: Authority, scope: Scope, client: Make
) -> None:
    own = ca.issue("a.client")
    made = client(settings(ca, own))
    later = Authority("later")
    host = ca.issue("127.0.0.1")
    with serving(host, ca.pem) as address, Endpoint(address) as endpoint:
        call = endpoint.conversation("/t/Stream", MANNER, scope)
        call.say(b"before")
        replies = iter(call)
        assert next(replies) == b"before"
        made.tls = settings(later, later.issue("a.client"))
        call.say(b"after")
        assert next(replies) == b"after"
        assert endpoint.unary("/t/Echo", b"x", WAIT_S, scope) == b"x"
        call.cancel()
    with serving(later.issue("127.0.0.1"), later.pem, address):
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:  # until the pause after a failure is over
            with suppress(Unreachable):
                assert echo(address, scope) == b"x"
                return
            time.sleep(0.05)
        raise AssertionError


def test_a_host_that_no_certificate_can_be_of(ca: Authority, scope: Scope, client: Make) -> None:
    client(settings(ca))
    with pytest.raises(CoscoError, match="no certificate can be of"):
        echo("127.1:1", scope)
