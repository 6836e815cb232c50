"""What a server promises its handlers and its clients: gRPC's own one, and the native one."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from support.certificates import Authority
from support.raw_http2 import SETTINGS, RawPeer

from cosco.client.rpc.failures import _TOO_MANY_CALLS
from cosco.errors import (
    CoscoError,
    ExchangeClosed,
    InvalidArgument,
    SchemaMismatch,
    ServiceUnavailable,
)
from cosco.mechanics import NATIVE
from cosco.process.grpc_handlers.calling_peer import peer_of
from cosco.process.grpc_handlers.parsed_requests import unary_stream, unary_unary
from cosco.process.grpc_handlers.refusals import refusal
from cosco.process.native_grpc import server_choice
from cosco.process.native_grpc.connection_table import PeerLimits
from cosco.process.native_grpc.server import NativeServer
from cosco.protocol import wire
from cosco.protocol.peer import MAX_CREDENTIAL_CHARACTERS

MAX_BYTES = 4 << 20
_NATIVE = pytest.mark.skipif(NATIVE is None, reason="the native part is not installed")
WAYS = [
    "portable",
    pytest.param("native", marks=_NATIVE),
    pytest.param("native with TLS", marks=_NATIVE),
]
#: The id of that setting of HTTP/2.
_MAX_CONCURRENT_STREAMS = 3
LENGTHS = [0, 1, 5, 16 << 10, (16 << 10) + 1, 300_000, 3 << 20]


class Echo:
    """Methods of each kind; `events` is what happened to them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.sent = 0
        self.refused: list[str] = []

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "One": grpc.unary_unary_rpc_method_handler(self.one),
                "Many": grpc.unary_stream_rpc_method_handler(self.many),
                "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
                "Each": grpc.stream_stream_rpc_method_handler(self.each),
                "Writes": grpc.stream_stream_rpc_method_handler(self.writes),
                "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
                "RefuseLate": grpc.unary_stream_rpc_method_handler(self.refuse_late),
                "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
                "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
                "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
                "Who": grpc.unary_unary_rpc_method_handler(self.who),
                "WhoSays": grpc.stream_stream_rpc_method_handler(self.who_says),
                "Parse": unary_unary(self.one, _parse, bytes),
                "ParseMany": unary_stream(self.many, _parse, bytes),
            },
        )

    async def one(self, request: bytes, _: Any) -> bytes:
        return request

    async def who(self, _: bytes, context: Any) -> bytes:
        return peer_of(context).credential.encode()

    async def who_says(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield peer_of(context).credential.encode()

    async def many(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield request

    async def sum(self, requests: Any, _: Any) -> bytes:
        return b"".join([message async for message in requests])

    async def each(self, requests: Any, _: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            yield message

    async def writes(self, requests: Any, context: Any) -> None:
        async for message in requests:
            await context.write(message)

    async def refuse(self, _: bytes, context: Any) -> bytes:
        error = (("cosco-error-bin", bytes(range(256))), ("plain", "text"))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "näh: 100 %\n", error)
        raise AssertionError("abort returned")

    async def refuse_late(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        await context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    async def fail(self, _: bytes, _context: Any) -> bytes:
        raise ZeroDivisionError("on purpose")

    async def wait(self, request: bytes, _: Any) -> bytes:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        return request

    async def flood(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        try:
            for _ in range(200):
                self.sent += 1
                yield request
        finally:
            self.events.append("flood ended")


def _parse(message: bytes) -> bytes:
    if message == b"bad":
        raise ValueError("no\nmessage")
    return message


Stub = Callable[[str, str], Any]
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def new_server(
    way: str, calls_max: int | None, refused: Callable[[str], object]
) -> tuple[Any, Callable[[str], Any]]:
    """Make a server, and what makes channels to it."""
    if way == "native with TLS":
        assert NATIVE is not None
        ca = Authority()
        host, client = ca.issue("127.0.0.1"), ca.issue("a.client")
        tls = NATIVE.TlsServer(host.cert, host.key, ca.pem, True)
        server: Any = NativeServer(
            direct={},
            max_message_bytes=MAX_BYTES,
            calls_max=calls_max,
            refused=refused,
            tls=lambda: tls,
        )
        credentials = grpc.ssl_channel_credentials(ca.pem, client.key, client.cert)
        return server, lambda address: grpc.aio.secure_channel(address, credentials, OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        if way == "portable":
            patch.setattr(server_choice, "NATIVE", None)
        server = server_choice.new_server(
            max_message_bytes=MAX_BYTES,
            calls_max=calls_max,
            refused=refused,
            options=(("grpc.max_send_message_length", -1),),
        )
    return server, lambda address: grpc.aio.insecure_channel(address, OPTIONS)


@asynccontextmanager
async def serving(way: str, calls_max: int | None = None) -> AsyncIterator[tuple[Echo, Stub, Any]]:
    echo = Echo()
    server, channel_to = new_server(way, calls_max, echo.refused.append)
    server.add_generic_rpc_handlers((echo.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with channel_to(f"127.0.0.1:{port}") as channel:

        def stub(kind: str, method: str) -> Any:
            return getattr(channel, kind)(f"/test.Echo/{method}")

        try:
            yield echo, stub, server
        finally:
            await server.stop(None)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the event loop comes to meanwhile."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("way", WAYS)
def test_all_kinds_of_calls(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            for length in LENGTHS:
                data = bytes(range(256)) * (length // 256 + 1)
                data = data[:length]
                assert await stub("unary_unary", "One")(data) == data
                assert [one async for one in stub("unary_stream", "Many")(data)] == [data] * 3
                assert await stub("stream_unary", "Sum")(iter([data, b"x", data])) == (
                    data + b"x" + data
                )
                for method in ("Each", "Writes"):
                    call = stub("stream_stream", method)(iter([data, b"", data]))
                    assert [one async for one in call] == [data, b"", data]
            assert [one async for one in stub("stream_stream", "Each")(iter([]))] == []

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_many_calls_at_a_time_on_one_connection(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            one = stub("unary_unary", "One")
            sent = [b"%d" % number * 10_000 for number in range(200)]
            assert await asyncio.gather(*[one(data) for data in sent]) == sent

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_handler_refuses_is_told_with_its_metadata(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            error = await failure(stub("unary_unary", "Refuse")(b"x"))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert error.details() == "näh: 100 %\n"
            trailing = dict(error.trailing_metadata() or ())
            assert trailing["cosco-error-bin"] == bytes(range(256))
            assert trailing["plain"] == "text"

            call = stub("unary_stream", "RefuseLate")(b"first")
            assert await call.read() == b"first"
            error = await failure(call.read())
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "later")

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_a_handler_that_fails_is_logged_and_the_server_goes_on(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            error = await failure(stub("unary_unary", "Fail")(b"x"))
            assert error.code() is grpc.StatusCode.UNKNOWN
            assert "ZeroDivisionError" in str(error.details())
            assert await stub("unary_unary", "One")(b"x") == b"x"

    with caplog.at_level(logging.ERROR):
        run(test)
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("way", WAYS)
def test_methods_that_are_not_there_and_messages_that_are_none(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            error = await failure(stub("unary_unary", "Nothing")(b"x"))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "Method not found" in str(error.details())
            too_long = await failure(stub("unary_unary", "One")(bytes(MAX_BYTES + 1)))
            assert too_long.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_cannot_be_parsed_is_refused_in_a_line_and_not_logged(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            for error in (
                await failure(stub("unary_unary", "Parse")(b"bad")),
                await failure(stub("unary_stream", "ParseMany")(b"bad").read()),
            ):
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert str(error.details()).endswith("is no message of this method: no\\nmessage")
                trailers = dict(error.trailing_metadata() or ())
                meant = wire.error_from_bytes(trailers[wire.ERROR_KEY])
                assert isinstance(meant, InvalidArgument)
            assert await stub("unary_unary", "Parse")(b"x") == b"x"
            many = stub("unary_stream", "ParseMany")(b"x")
            assert [reply async for reply in many] == [b"x"] * 3

    run(test)
    assert not caplog.records


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["One", "Many", "Parse", "ParseMany"])
def test_a_call_without_its_request_is_refused_and_one_with_several_has_the_first(
    way: str, method: str
) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):

            def call(*messages: bytes) -> Any:
                return stub("stream_stream", method)(iter(messages), timeout=10.0)

            error = await failure(call().read())
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "a call without a request"
            count = 3 if "Many" in method else 1
            assert [reply async for reply in call(b"x", b"y")] == [b"x"] * count

    run(test)


class ExecuteBatchError(Exception):
    """As gRPC's own server has it, and lets nobody import it."""


@pytest.mark.parametrize(
    ("error", "is_logged"),
    [
        (ExecuteBatchError('Failed "execute_batch": (<SendStatusFromServerOperation …>,)'), False),
        (ExecuteBatchError("Failed grpc_call_start_batch: 8 with grpc_call_error value"), True),
        (ValueError('Failed "execute_batch"'), True),
    ],
)
def test_a_peer_that_is_gone_as_it_is_answered_is_not_logged(
    error: Exception, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Which comes about once in some hundred calls that clients give up."""

    async def test() -> None:
        async with serving("portable"):
            log = logging.getLogger("grpc._cython.cygrpc")
            log.error("raised in core by servicer method [/x]", exc_info=error)

    run(test)
    assert bool(caplog.records) == is_logged


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_its_client_gives_up_ends_its_handler(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (echo, stub, _server):
            call = stub("unary_unary", "Wait")(b"x")
            await echo.begun.wait()
            call.cancel()
            await until(lambda: bool(echo.events))
            assert echo.events == ["cancelled"]

            flood = stub("unary_stream", "Flood")(bytes(1 << 20))
            await flood.read()
            flood.cancel()
            await until(lambda: len(echo.events) == 2)
            assert echo.events[-1] == "flood ended"

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_who_does_not_read_holds_his_handler_back(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (echo, stub, _server):
            call = stub("unary_stream", "Flood")(bytes(1 << 20))
            await call.read()
            sent = -1
            while echo.sent != sent:  # until nothing more is made
                sent = echo.sent
                await asyncio.sleep(0.2)
            assert sent < 40
            for _ in range(199):  # and it goes on when he does
                assert len(await call.read()) == 1 << 20
            assert await call.read() is grpc.aio.EOF
            assert await stub("unary_unary", "One")(b"x") == b"x"

    run(test)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("grace", [None, 5.0])
def test_at_the_end_calls_have_their_grace(way: str, grace: float | None) -> None:
    async def test() -> None:
        async with serving(way) as (echo, stub, server):
            call = stub("unary_unary", "Wait")(b"answer")
            await echo.begun.wait()
            stopping = asyncio.create_task(server.stop(grace))
            await asyncio.sleep(0.05)
            echo.go_on.set()
            if grace:
                assert await call == b"answer"
            else:
                error = await failure(call)
                assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            await stopping
            error = await failure(stub("unary_unary", "One")(b"x"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_calls_at_a_time_are_bounded(way: str) -> None:
    async def test() -> None:
        async with serving(way, calls_max=2) as (echo, stub, _server):
            waiting = [stub("unary_unary", "Wait")(b"%d" % n) for n in range(2)]
            await echo.begun.wait()
            await asyncio.sleep(0.05)
            error = await failure(stub("unary_unary", "One")(b"x"))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            # So the client knows it, and tries again.
            assert _TOO_MANY_CALLS in (error.details() or "")
            if way == "native":
                assert echo.refused == ["calls"]
            echo.go_on.set()
            assert [await call for call in waiting] == [b"0", b"1"]

    run(test)


@pytest.mark.parametrize("way", ["portable", pytest.param("native", marks=_NATIVE)])
def test_a_connection_is_told_how_many_calls_it_may_have(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the settings of HTTP/2, which clients keep to and either server has others keep to."""
    if way == "portable":
        monkeypatch.setattr(server_choice, "NATIVE", None)

    def told(address: str) -> int | None:
        with RawPeer(address) as raw:
            raw.greet()
            settings = raw.until(SETTINGS)
            assert settings is not None
            pairs = struct.iter_unpack(">HI", settings.payload)
            return dict(pairs).get(_MAX_CONCURRENT_STREAMS)

    async def test() -> None:
        for given, said in ((30, 30), (50_000, 10_000)):
            peers = PeerLimits(peer_calls=given)
            server = server_choice.new_server(max_message_bytes=1, peers=peers)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            assert await asyncio.to_thread(told, f"127.0.0.1:{port}") == said
            await server.stop(None)

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_a_port_that_is_taken_is_an_error(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (_, _stub, server):
            other = server_choice.new_server(max_message_bytes=1, unfinished_bytes=1, refused=str)
            port = server.add_insecure_port("127.0.0.1:0")
            with pytest.raises(RuntimeError):
                other.add_insecure_port(f"127.0.0.1:{port}")
            with pytest.raises(RuntimeError):
                other.add_insecure_port("203.0.113.1:0")  # no address of this machine
            await other.stop(None)

    run(test)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("a\nb"), grpc.StatusCode.INVALID_ARGUMENT),
        (ServiceUnavailable("a\nb"), grpc.StatusCode.UNAVAILABLE),
        (ExchangeClosed("a\nb"), grpc.StatusCode.FAILED_PRECONDITION),
        (SchemaMismatch("a\nb"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_how_a_call_ends_that_is_refused(error: CoscoError, code: grpc.StatusCode) -> None:
    found, details, [(key, value)] = refusal(error)
    assert (found, details, key) == (code, r"a\nb", wire.ERROR_KEY)
    assert type(wire.error_from_bytes(value)) is type(error)


LONGEST = "t" * MAX_CREDENTIAL_CHARACTERS
CREDENTIALS = {
    "cosco-token-abc": "Bearer cosco-token-abc",
    "a.b-c_d~e+/==": "bearer a.b-c_d~e+/==",
    LONGEST: f"Bearer {LONGEST}",
}
NO_CREDENTIALS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer a b",
    "Bearer  a",
    "Basic YTpi",
    "cosco-token-abc",
    f"Bearer {LONGEST}t",
]


@pytest.mark.parametrize("way", WAYS)
def test_a_credential_comes_with_its_call_alone(way: str) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            who = stub("unary_unary", "Who")
            for credential, header in CREDENTIALS.items():
                told = await who(b"", metadata=(("authorization", header),))
                assert told == credential.encode()
                assert await who(b"") == b"", "it is of one call, not of the connection"
            call = stub("stream_stream", "WhoSays")(metadata=(("authorization", "Bearer mine"),))
            for _ in range(2):
                await call.write(b"x")
                assert await call.read() == b"mine"
            await call.done_writing()

    run(test)


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged, but for what gRPC's poller has asyncio say now and then: it reads a socket
    from which another thread has read already."""
    return [one for one in caplog.records if "PollerCompletionQueue" not in one.getMessage()]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_credential_is_none(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            who = stub("unary_unary", "Who")
            for header in NO_CREDENTIALS:
                assert await who(b"", metadata=(("authorization", header),)) == b"", header
            twice = (("authorization", "Bearer a"), ("authorization", "Bearer b"))
            assert await who(b"", metadata=twice) == b""

    run(test)
    assert not told(caplog)


@pytest.mark.parametrize("way", WAYS)
def test_headers_of_a_call_are_bounded(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(way) as (_, stub, _server):
            who = stub("unary_unary", "Who")
            with pytest.raises(grpc.aio.AioRpcError):
                await who(b"", metadata=(("authorization", "Bearer " + "t" * (20 << 10)),))
            assert await who(b"") == b""

    run(test)
    assert not told(caplog)
