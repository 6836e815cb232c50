"""Calls of the services, by grpcio and natively, to a server of either kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from support.certificates import Authority, Identity

from cosco.mechanics import NATIVE
from cosco.process.grpc_settings import SERVER_OPTIONS
from cosco.process.native_grpc import server_choice
from cosco.process.native_grpc.server import NativeServer
from cosco.process.service_calls import channel_choice
from cosco.process.service_calls.native_service_channel import NativeServiceChannel
from cosco.process.service_calls.service_channel import CallFailed, ServiceChannel, ServiceStream
from cosco.protocol.wire import ERROR_KEY

MAX_BYTES = 4 << 20
WAIT_S = 20.0
ONE = "/test.Echo/One"
WAYS = [("portable", "portable")]
SECURE_WAYS: list[tuple[str, str]] = []
if NATIVE is not None:
    SECURE_WAYS += [("native", "portable with TLS"), ("native", "native with TLS")]
    WAYS += [("portable", "native"), ("native", "portable"), ("native", "native"), *SECURE_WAYS]
of_tls = pytest.mark.parametrize("served", SECURE_WAYS, ids=" to ".join, indirect=True)
GRPC_OPTIONS = (
    *SERVER_OPTIONS,
    ("grpc.max_receive_message_length", MAX_BYTES),
    ("grpc.max_send_message_length", -1),
)


class Echo:
    """What the service does, and what happened to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = asyncio.Event()
        self.go_on = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "One": grpc.unary_unary_rpc_method_handler(self.one),
                "Zeros": grpc.unary_unary_rpc_method_handler(self.zeros),
                "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
                "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
                "Each": grpc.stream_stream_rpc_method_handler(self.each),
                "RefuseLate": grpc.stream_stream_rpc_method_handler(self.refuse_late),
                "Rest": grpc.stream_stream_rpc_method_handler(self.rest),
            },
        )

    async def one(self, request: bytes, _: Any) -> bytes:
        return request

    async def zeros(self, request: bytes, _: Any) -> bytes:
        return bytes(int(request))

    async def refuse(self, _: bytes, context: Any) -> bytes:
        trailers = ((ERROR_KEY, bytes(range(256))), ("plain", "text"))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "näh: 100 %\n", trailers)
        raise AssertionError("abort returned")

    async def wait(self, request: bytes, _: Any) -> bytes:
        self.note("begun")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        return request

    async def each(self, requests: Any, _: Any) -> AsyncIterator[bytes]:
        self.note("begun")
        try:
            async for request in requests:
                yield request
        finally:
            self.note("over")

    async def refuse_late(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            await context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    async def rest(self, requests: Any, _: Any) -> AsyncIterator[bytes]:
        """Read nothing before it is told to."""
        await self.go_on.wait()
        async for request in requests:
            yield b"%d" % len(request)

    def note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, event: str) -> None:
        while event not in self.events:
            await self.changed.wait()


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[CallFailed | None] = []
        self.rooms = 0
        self.raises: Exception | None = None
        self.changed = asyncio.Event()

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)
        self._note()
        if self.raises is not None:
            raise self.raises

    def on_room(self) -> None:
        self.rooms += 1
        self._note()

    def on_end(self, failure: CallFailed | None) -> None:
        self.ends.append(failure)
        self._note()

    def _note(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()

    async def end(self) -> CallFailed | None:
        await self.until(lambda: bool(self.ends))
        assert len(self.ends) == 1
        return self.ends[0]


class Rig:
    """A service that may be started again on its port, and a channel to it."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.address = "127.0.0.1:0"
        self.server: Any = None

    def make_server(self) -> None:
        """Make it, and have it listen on its address."""
        self.server = server_choice.new_server(max_message_bytes=MAX_BYTES)
        self.address = f"127.0.0.1:{self.server.add_insecure_port(self.address)}"

    async def serve(self) -> None:
        self.make_server()
        self.server.add_generic_rpc_handlers((self.echo.handler(),))
        await self.server.start()

    def new_channel(self, address: str) -> ServiceChannel:
        return channel_choice.new_channel(address, max_reply_bytes=MAX_BYTES)

    def begin(self) -> None:
        self.channel = self.new_channel(self.address)

    async def call(self, method: str, request: bytes = b"x", timeout_s: float = WAIT_S) -> bytes:
        return await self.channel.unary(f"/test.Echo/{method}", request, timeout_s)

    def stream(self, method: str) -> tuple[ServiceStream, Heard]:
        heard = Heard()
        return self.channel.stream(f"/test.Echo/{method}", heard), heard


class TlsRig(Rig):
    """The same with TLS on both sides; `client_tls` is what its channel goes by."""

    def __init__(self, *, is_native: bool) -> None:
        super().__init__()
        self.ca = Authority()
        self.host = self.ca.issue("127.0.0.1")
        self.client_tls = client_tls(self.ca, self.ca.issue("a.daemon"))
        self._is_native = is_native

    def make_server(self) -> None:
        """See `Rig`."""
        if self._is_native:
            assert NATIVE is not None
            tls = NATIVE.TlsServer(self.host.cert, self.host.key, self.ca.pem, True)
            self.server = NativeServer(direct={}, max_message_bytes=MAX_BYTES, tls=lambda: tls)
            self.address = f"127.0.0.1:{self.server.add_insecure_port(self.address)}"
            return
        pair = (self.host.key, self.host.cert)
        credentials = grpc.ssl_server_credentials((pair,), self.ca.pem, True)
        self.server = grpc.aio.server(options=GRPC_OPTIONS)
        self.address = f"127.0.0.1:{self.server.add_secure_port(self.address, credentials)}"

    def new_channel(self, address: str) -> ServiceChannel:
        """See `Rig`."""
        assert NATIVE is not None
        tls = self.current_tls
        return NativeServiceChannel(NATIVE, address, max_reply_bytes=MAX_BYTES, tls=tls)

    def current_tls(self) -> Any:
        """Return what the next connection goes by."""
        return self.client_tls


def client_tls(ca: Authority, own: Identity | None = None) -> Any:
    assert NATIVE is not None
    cert, key = (own.cert, own.key) if own is not None else (None, None)
    return NATIVE.TlsClient(ca.pem, cert, key)


RIGS: dict[str, Callable[[], Rig]] = {
    "portable": Rig,
    "native": Rig,
    "portable with TLS": lambda: TlsRig(is_native=False),
    "native with TLS": lambda: TlsRig(is_native=True),
}
#: What `served` says, for `run`.
NOW = {"served": ""}


@asynccontextmanager
async def rigged() -> AsyncIterator[Rig]:
    rig = RIGS[NOW["served"]]()
    await rig.serve()
    rig.begin()
    try:
        yield rig
    finally:
        await rig.channel.close()
        await rig.server.stop(None)


def run(test: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), rigged() as rig:
            await test(rig)

    asyncio.run(main())


async def fails(awaited: Awaitable[bytes]) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await awaited
    return caught.value


@pytest.fixture(params=WAYS, ids=" to ".join, autouse=True)
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How calls are made, and served: of a cluster some daemons may have the native part alone."""
    made, served = request.param
    for chosen, choice in ((made, channel_choice), (served, server_choice)):
        if chosen == "portable":
            monkeypatch.setattr(choice, "NATIVE", None)
    monkeypatch.setitem(NOW, "served", served)
    return str(served)


def test_replies_of_all_lengths() -> None:
    async def test(rig: Rig) -> None:
        for length in [0, 1, 16 << 10, (16 << 10) + 1, 300_000, 3 << 20]:
            assert await rig.call("One", b"y" * length) == b"y" * length

    run(test)


def test_many_calls_at_once() -> None:
    async def test(rig: Rig) -> None:
        said = [b"%d" % number for number in range(500)]
        assert await asyncio.gather(*(rig.call("One", one) for one in said)) == said

    run(test)


def test_what_a_service_means_by_an_error_comes_with_it() -> None:
    async def test(rig: Rig) -> None:
        failure = await fails(rig.call("Refuse"))
        assert failure.code == "FAILED_PRECONDITION"
        assert failure.details == "näh: 100 %\n"
        assert failure.error == bytes(range(256))
        assert str(failure) == "failed_precondition: näh: 100 %"
        unknown = await fails(rig.call("Other"))
        assert (unknown.code, unknown.error) == ("UNIMPLEMENTED", b"")

    run(test)


def test_a_reply_may_be_as_long_as_is_allowed() -> None:
    async def test(rig: Rig) -> None:
        assert len(await rig.call("Zeros", b"%d" % MAX_BYTES)) == MAX_BYTES
        failure = await fails(rig.call("Zeros", b"%d" % (MAX_BYTES + 1)))
        assert failure.code == "RESOURCE_EXHAUSTED"
        assert await rig.call("One") == b"x"

    run(test)


def test_a_call_has_its_time() -> None:
    async def test(rig: Rig) -> None:
        await rig.call("One")
        began = time.monotonic()
        failure = await fails(rig.call("Wait", timeout_s=0.3))
        assert failure.code == "DEADLINE_EXCEEDED"
        assert 0.25 < time.monotonic() - began < 5
        await rig.echo.until("cancelled")

    run(test)


def test_a_caller_that_is_cancelled_cancels_its_call() -> None:
    async def test(rig: Rig) -> None:
        calling = asyncio.create_task(rig.call("Wait"))
        await rig.echo.until("begun")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await rig.echo.until("cancelled")
        assert await rig.call("One") == b"x"

    run(test)


def test_an_address_at_which_nobody_listens_and_then_somebody_does() -> None:
    async def test(rig: Rig) -> None:
        await rig.server.stop(None)
        failure = await fails(rig.call("One"))
        assert failure.code == "UNAVAILABLE"
        assert "Connection refused" in (await fails(rig.call("One"))).details
        await rig.serve()
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(CallFailed):
                    assert await rig.call("One") == b"x"
                    return
                await asyncio.sleep(0.05)

    run(test)


@pytest.mark.parametrize("address", ["no-such-host.invalid:1", "no host:1"])
def test_an_address_that_is_none(address: str) -> None:
    async def test(rig: Rig) -> None:
        channel = rig.new_channel(address)
        try:
            failure = await fails(channel.unary(ONE, b"", WAIT_S))
            assert failure.code in {"UNAVAILABLE", "INTERNAL"}
        finally:
            await channel.close()

    run(test)


def test_what_is_said_on_a_stream_comes_in_order_and_is_answered_so() -> None:
    async def test(rig: Rig) -> None:
        stream, heard = rig.stream("Each")
        said = [bytes([number % 256]) * (number * 977 % 70_000) for number in range(300)]
        for message in said:
            if not stream.has_room:
                await heard.until(lambda: stream.has_room)
            stream.send(message)
        stream.half_close()
        stream.send(b"what nobody should hear")
        assert await heard.end() is None
        assert heard.messages == said

    run(test)


def test_a_stream_that_fails_says_how() -> None:
    async def test(rig: Rig) -> None:
        stream, heard = rig.stream("RefuseLate")
        stream.send(b"a")
        failure = await heard.end()
        assert failure is not None
        assert (failure.code, failure.details) == ("UNAVAILABLE", "later")
        assert heard.messages == [b"a"]
        for _ in range(3):  # nothing comes of it
            stream.send(b"c" * 100_000)
        stream.half_close()
        stream.cancel()
        _, unknown = rig.stream("Other")
        failure = await unknown.end()
        assert failure is not None
        assert failure.code == "UNIMPLEMENTED"

    run(test)


def test_who_does_not_read_holds_the_sender_back() -> None:
    async def test(rig: Rig) -> None:
        stream, heard = rig.stream("Rest")
        part, count = b"p" * (256 << 10), 0
        while count < 200:
            await asyncio.sleep(0.005)
            if not stream.has_room:
                await asyncio.sleep(0.1)  # so that what can leave does
                if not stream.has_room:
                    break
            stream.send(part)
            count += 1
        assert 4 <= count < 100  # what is under way, and what both ends hold
        assert not heard.rooms or not stream.has_room
        rooms = heard.rooms
        rig.echo.go_on.set()
        await heard.until(lambda: heard.rooms > rooms)
        assert stream.has_room
        stream.half_close()
        assert await heard.end() is None
        assert heard.messages == [b"%d" % len(part)] * count

    run(test)


def test_a_stream_that_is_cancelled_is_told_nothing_more() -> None:
    async def test(rig: Rig) -> None:
        stream, heard = rig.stream("Each")
        stream.send(b"a")
        await heard.until(lambda: bool(heard.messages))
        stream.send(b"b")
        stream.cancel()
        stream.cancel()
        await rig.echo.until("over")
        assert await rig.call("One") == b"x"
        assert (heard.messages, heard.ends) == ([b"a"], [])

    run(test)


def test_what_a_listener_raises_ends_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def test(rig: Rig) -> None:
        other, others = rig.stream("Each")
        stream, heard = rig.stream("Each")
        heard.raises = ZeroDivisionError("on purpose")
        stream.send(b"a")
        failure = await heard.end()
        assert failure is not None
        assert "ZeroDivisionError: on purpose" in failure.details
        await rig.echo.until("over")
        other.send(b"b")
        await others.until(lambda: others.messages == [b"b"])
        assert others.ends == []

    run(test)
    assert "on purpose" in caplog.text


def test_nothing_is_left_of_a_channel_that_is_closed() -> None:
    async def test(rig: Rig) -> None:
        _, heard = rig.stream("Each")
        await rig.echo.until("begun")
        calling = asyncio.create_task(rig.call("Wait"))
        while rig.echo.events != ["begun", "begun"]:
            await rig.echo.changed.wait()
        await rig.channel.close()
        failure = await heard.end()
        assert failure is not None
        assert failure.code in {"CANCELLED", "UNAVAILABLE"}
        with pytest.raises((CallFailed, asyncio.CancelledError)):
            await calling
        left = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in left if name.startswith(("stream-", "dial-"))}
        late = await fails(rig.call("One"))
        assert late.code == "UNAVAILABLE"
        await rig.channel.close()

    run(test)


def test_a_channel_that_is_closed_while_it_connects() -> None:
    async def test(rig: Rig) -> None:
        channels: list[ServiceChannel] = []
        for _ in range(3):
            channel = rig.new_channel(rig.address)
            channels.append(channel)
            calling = asyncio.create_task(channel.unary(ONE, b"", WAIT_S))
            for _ in range(len(channels)):
                await asyncio.sleep(0)
            await channel.close()
            with pytest.raises((CallFailed, asyncio.CancelledError)):
                await calling

    run(test)


# --- of TLS alone -------------------------------------------------------------------------


UNTOLD = ["perhaps it wants another certificate of this end, or one", "before receiving SETTINGS"]


@of_tls
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("no certificate", "it wants a certificate of this end"),
        ("another CA", "does not t"),  # trust it, or take it, as gRPC has it
        ("expired", "the certificate of this end has expired"),
        ("untrusted service", "its certificate is of a CA that is not trusted here"),
        ("another name", 'its certificate is not of "localhost", but of '),
        ("no TLS", "it speaks TLS, and this end does not"),
    ],
)
def test_why_there_is_no_tls(wrong: str, told: str, served: str) -> None:
    async def test(rig: Rig) -> None:
        assert isinstance(rig, TlsRig)
        good, address = rig.client_tls, rig.address
        own = rig.ca.issue("a.daemon", ends_in_days=-1 if wrong == "expired" else 1)
        if wrong == "another name":
            address = address.replace("127.0.0.1", "localhost")
        rig.client_tls = {
            "no certificate": client_tls(rig.ca),
            "another CA": client_tls(rig.ca, Authority("other").issue("a.daemon")),
            "expired": client_tls(rig.ca, own),
            "untrusted service": client_tls(Authority("other"), own),
            "no TLS": None,
        }.get(wrong, good)
        channel = rig.new_channel(address)
        failure = await fails(channel.unary(ONE, b"x", WAIT_S))
        await channel.close()
        assert failure.code == "UNAVAILABLE"
        is_told = served == "native with TLS" or told.startswith("its ")
        # gRPC's server says nothing, and hangs up.
        expected = told if is_told else UNTOLD[wrong == "no TLS"]
        assert expected in failure.details
        rig.client_tls = good
        assert await rig.call("One") == b"x"

    run(test)


@of_tls
def test_certificates_change_under_a_stream_that_goes_on() -> None:
    async def test(rig: Rig) -> None:
        assert isinstance(rig, TlsRig)
        stream, heard = rig.stream("Each")
        stream.send(b"before")
        await heard.until(lambda: len(heard.messages) == 1)
        rig.client_tls = client_tls(Authority("other"))
        stream.send(b"after")
        await heard.until(lambda: len(heard.messages) == 2)
        assert await rig.call("One") == b"x"  # on the same connection
        stream.cancel()
        new = rig.new_channel(rig.address)
        failure = await fails(new.unary(ONE, b"x", WAIT_S))
        assert "its certificate is of a CA that is not trusted here" in failure.details
        rig.client_tls = client_tls(rig.ca, rig.ca.issue("a.daemon"))
        async with asyncio.timeout(WAIT_S):
            while True:  # until the pause after a failure is over
                with suppress(CallFailed):
                    assert await new.unary(ONE, b"x", WAIT_S) == b"x"
                    break
                await asyncio.sleep(0.02)
        await new.close()

    run(test)


@of_tls
def test_a_host_that_no_certificate_can_be_of() -> None:
    async def test(rig: Rig) -> None:
        channel = rig.new_channel("127.1:" + rig.address.rpartition(":")[2])
        failure = await fails(channel.unary(ONE, b"x", WAIT_S))
        assert "no certificate can be of" in failure.details
        await channel.close()

    run(test)
