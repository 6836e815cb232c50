"""The native server with TLS: whom it lets in, what it says of others, and who means harm."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from support.certificates import Authority, Identity
from support.raw_http2 import PREFACE, SETTINGS, frame

from cosco.mechanics import NATIVE
from cosco.process.native_grpc.call import Call
from cosco.process.native_grpc.connection_table import USUAL, PeerLimits
from cosco.process.native_grpc.server import NativeServer
from cosco.protocol.peer import Peer

pytestmark = pytest.mark.skipif(NATIVE is None, reason="the native part is not installed")

MAX_BYTES = 16 << 20
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
CLIENT_NAMES = ("a.client", "10.1.2.3", "spiffe://cluster/reader")


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def host(ca: Authority) -> Identity:
    return ca.issue("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def client(ca: Authority) -> Identity:
    return ca.issue(*CLIENT_NAMES)


def settings(host: Identity, client_ca: bytes | None = None, *, requires: bool = False) -> Any:
    assert NATIVE is not None
    return NATIVE.TlsServer(host.cert, host.key, client_ca, requires)


class Service:
    """A server, and who has called it."""

    def __init__(self, tls: Callable[[], Any], limits: PeerLimits) -> None:
        self.peers: list[Peer] = []
        self.server = NativeServer(
            direct={"/test/Who": self._who}, max_message_bytes=MAX_BYTES, peers=limits, tls=tls
        )
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

        async def each(requests: Any, _: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request

        handlers = {"Each": grpc.stream_stream_rpc_method_handler(each)}
        handler = grpc.method_handlers_generic_handler("test", handlers)
        self.server.add_generic_rpc_handlers((handler,))

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def _who(self, call: Call) -> None:
        self.peers.append(call.peer)
        call.send(b"x")
        call.finish(grpc.StatusCode.OK)


@asynccontextmanager
async def serving(tls: Any, limits: PeerLimits = USUAL) -> AsyncIterator[Service]:
    """Serve by these settings, or by what a function returns."""
    service = Service(tls if callable(tls) else lambda: tls, limits)
    await service.server.start()
    try:
        yield service
    finally:
        await service.server.stop(None)


def channel(service: Service, ca: Authority, own: Identity | None = None) -> Any:
    key, cert = (own.key, own.cert) if own is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.pem, key, cert)
    return grpc.aio.secure_channel(service.address, credentials, NO_LIMIT)


async def who(of: Any) -> bytes:
    reply: bytes = await of.unary_unary("/test/Who")(b"", timeout=20)
    return reply


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 100))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the event loop comes to meanwhile."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_the_peer_of_a_call_is_known(ca: Authority, host: Identity, client: Identity) -> None:
    async def test() -> None:
        for requires in (True, False):
            async with serving(settings(host, ca.pem, requires=requires)) as service:
                async with channel(service, ca, client) as known:
                    await who(known)
                    await who(known)
                first, second = service.peers
                assert first == second
                assert first.names == frozenset(CLIENT_NAMES)
                assert first.is_encrypted
                assert first.address.startswith("127.0.0.1:")
        for tls in (settings(host, ca.pem), settings(host)):
            async with serving(tls) as service, channel(service, ca) as unknown:
                await who(unknown)
                assert (service.peers[0].names, service.peers[0].is_encrypted) == (set(), True)
        async with serving(None) as service:
            async with grpc.aio.insecure_channel(service.address) as plain:
                await who(plain)
            assert (service.peers[0].names, service.peers[0].is_encrypted) == (set(), False)

    run(test)


@pytest.mark.parametrize("wrong", ["no certificate", "another CA", "expired", "plain"])
def test_who_is_not_let_in_and_what_is_logged(
    wrong: str, ca: Authority, host: Identity, client: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    own, told = {
        "no certificate": (None, "it shows no certificate, and has to"),
        "another CA": (Authority("other").issue("a.client"), "of a CA that is not trusted here"),
        "expired": (ca.issue("a.client", ends_in_days=-1), "its certificate has expired"),
        "plain": (None, "it does not speak TLS, and this end does"),
    }[wrong]

    async def test() -> None:
        async with serving(settings(host, ca.pem, requires=True)) as service:
            if wrong == "plain":
                stranger = grpc.aio.insecure_channel(service.address)
            else:
                stranger = channel(service, ca, own)
            async with stranger:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await who(stranger)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            async with channel(service, ca, client) as known:
                assert await who(known) == b"x"
            assert [peer.names for peer in service.peers] == [set(CLIENT_NAMES)]

    with caplog.at_level(logging.WARNING):
        run(test)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert messages[0].startswith("TLS with 127.0.0.1:")
    assert told in messages[0]


def test_of_a_flood_of_failures_few_are_logged(
    host: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with serving(settings(host)) as service:

            def strangers(count: int) -> None:
                for _ in range(count):
                    with connected(service) as raw:
                        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        while raw.recv(100):  # an alert, and the end
                            pass

            await asyncio.to_thread(strangers, 20)
            await until(lambda: service.server._warnings.untold("TLS") == 19)
            assert len(caplog.records) == 1
            warnings = service.server._warnings
            told_at, untold = warnings._told["TLS"]
            warnings._told["TLS"] = told_at - 10.0, untold  # as if that time had passed
            await asyncio.to_thread(strangers, 1)
            await until(lambda: len(caplog.records) == 2)
            assert (
                caplog.records[1].getMessage().endswith("(and 19 times since this was told last)")
            )

    run(test)


def test_handshakes_that_never_end_keep_out_nobody(
    ca: Authority, host: Identity, client: Identity
) -> None:
    """Beyond their bound the oldest goes, before it has cost anything but its place."""

    async def test() -> None:
        limits = PeerLimits(new_connections=8)
        async with serving(settings(host, ca.pem, requires=True), limits) as service:
            with ExitStack() as strangers:

                def flood() -> None:
                    for _ in range(50):
                        raw = strangers.enter_context(connected(service))
                        with suppress(OSError):
                            raw.sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake

                await asyncio.to_thread(flood)
                async with channel(service, ca, client) as known:
                    await who(known)
                    await asyncio.to_thread(flood)
                    await who(known)
                    async with channel(service, ca, client) as other:
                        await who(other)
                    assert len(service.server._connections) <= limits.new_connections + 2

    run(test)


def test_tls_at_a_plain_server_is_logged(ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(None) as service, channel(service, ca) as stranger:
            with pytest.raises(grpc.aio.AioRpcError):
                await who(stranger)

    run(test)
    assert "it speaks TLS, and this end does not" in caplog.text


def test_another_certificate_holds_from_the_next_connection_on(
    ca: Authority, host: Identity
) -> None:
    other = Authority("another one")
    now = [settings(host)]

    async def test() -> None:
        async with serving(lambda: now[0]) as service, channel(service, ca) as old:
            stream = old.stream_stream("/test/Each")()
            await stream.write(b"before")
            assert await stream.read() == b"before"
            now[0] = settings(other.issue("127.0.0.1"))
            async with channel(service, other) as new:
                assert await who(new) == b"x"
            for number in range(10):
                await stream.write(b"%d" % number * 100_000)
                assert await stream.read() == b"%d" % number * 100_000
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF

    run(test)


def test_long_messages_both_ways(ca: Authority, host: Identity) -> None:
    async def test() -> None:
        async with serving(settings(host)) as service, channel(service, ca) as peer:
            said = [os.urandom(MAX_BYTES), b"", os.urandom(70_001)]
            call = peer.stream_stream("/test/Each")(iter(said))
            assert [message async for message in call] == said

    run(test)


# --- who means harm -------------------------------------------------------------------------


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), 20) as raw:
        yield raw


@contextmanager
def greeted(service: Service, ca: Authority) -> Iterator[ssl.SSLSocket]:
    """A client with TLS that has said hello in HTTP/2."""
    context = ssl.create_default_context(cadata=ca.pem.decode())
    context.set_alpn_protocols(["h2"])
    with (
        connected(service) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        wrapped.sendall(PREFACE + frame(SETTINGS, 0, 0))
        yield wrapped


def hello() -> bytes:
    """What a client says first."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def test_handshakes_without_end_cost_little_and_are_left(
    ca: Authority, host: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving(settings(host)) as service, channel(service, ca) as peer:
            assert await who(peer) == b"x"
            process = psutil.Process()
            before = process.memory_info().rss
            all_of_it = hello()
            raws = []
            for number in range(300):
                raw = socket.create_connection(("127.0.0.1", service.port), 20)
                raw.sendall(all_of_it[: -1 - number % 100] if number % 2 else all_of_it)
                raws.append(raw)
            await until(lambda: len(service.server._connections) == 301)
            assert await who(peer) == b"x"
            # Both ends are in this process, and each costs the server's some KiB.
            assert process.memory_info().rss - before < 300 * (64 << 10)
            now = asyncio.get_running_loop().time()
            for connection in list(service.server._connections):
                connection.tick(now + 21, silent_s=20, answer_s=10)
            for raw in raws[1::2]:  # byte by byte, which is no sign of life
                with suppress(OSError):
                    raw.send(b"\0")
            for connection in list(service.server._connections):
                connection.tick(now + 32, silent_s=20, answer_s=10)
            assert len(service.server._connections) <= 1
            for raw in raws:
                raw.close()
            assert await who(peer) == b"x"

    run(test)


def test_certificates_of_megabytes_end_the_handshake(
    ca: Authority, host: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = ca.issue("a.client", extra=bytes(60_000))
    (tmp_path / "chain.pem").write_bytes(long.cert * 20)
    (tmp_path / "key.pem").write_bytes(long.key)
    context = ssl.create_default_context(cadata=ca.pem.decode())
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    context.set_alpn_protocols(["h2"])

    async def test() -> None:
        async with serving(settings(host, ca.pem)) as service:

            def peer() -> None:
                with connected(service) as raw, pytest.raises(OSError):  # noqa: PT011
                    with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                        while wrapped.recv(1 << 16):
                            pass
                        raise OSError

            await asyncio.to_thread(peer)
            await until(lambda: not service.server._connections)

    run(test)
    assert "are too long" in caplog.text


@pytest.mark.parametrize("ends", ["half", "abort"])
def test_connections_that_end_amid_a_call(ends: str, ca: Authority, host: Identity) -> None:
    async def test() -> None:
        async with serving(settings(host)) as service:

            def peer() -> None:
                with greeted(service, ca) as wrapped:
                    assert wrapped.recv(9)
                    if ends == "half":
                        wrapped.shutdown(socket.SHUT_WR)
                        while wrapped.recv(1 << 16):  # until the server has hung up
                            pass
                    else:
                        linger = b"\1\0\0\0\0\0\0\0"  # the peer is told that it was cut off
                        wrapped.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

            await asyncio.to_thread(peer)
            await until(lambda: not service.server._connections)

    run(test)


def test_garbage_after_a_handshake_ends_the_connection(
    ca: Authority, host: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with serving(settings(host)) as service:

            def peer() -> None:
                with greeted(service, ca) as wrapped:
                    with socket.socket(fileno=os.dup(wrapped.fileno())) as under:
                        under.settimeout(20)
                        under.sendall(b"\x17\x03\x03\x00\x30" + os.urandom(48))
                        while True:
                            try:
                                if not under.recv(1 << 16):
                                    return
                            except ConnectionResetError:
                                return

            await asyncio.to_thread(peer)
            await until(lambda: not service.server._connections)

    run(test)
    assert "it breaks TLS" in caplog.text
