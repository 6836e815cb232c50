"""Calls of the services to who breaks rules, hangs up or says nothing, by grpcio and natively."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
from support.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    literal,
    message,
)
from support.raw_service import RawService, Script, raw_service

from cosco.mechanics import NATIVE
from cosco.process.service_calls import channel_choice
from cosco.process.service_calls.service_channel import CallFailed, ServiceChannel, ServiceStream
from cosco.process.wrong_address import guess

MAX_BYTES = 1 << 20
WAIT_S = 20.0
#: How far a service may be ahead of who reads.
WINDOW_BYTES = 2 << 20
CONTINUATION, INITIAL_WINDOW = 9, 4
NATIVELY = pytest.param(
    "native", marks=pytest.mark.skipif(NATIVE is None, reason="needs the native part")
)
WAYS = ["portable", NATIVELY]
#: Of what grpcio is more patient with, or has a mind of its own about.
natively_alone = pytest.mark.parametrize("way", [NATIVELY], indirect=True)


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "portable":
        monkeypatch.setattr(channel_choice, "NATIVE", None)
    return str(request.param)


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.over: asyncio.Future[CallFailed | None] = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)

    def on_room(self) -> None:
        self.room.set()

    def on_end(self, failure: CallFailed | None) -> None:
        self.over.set_result(failure)


class Caller:
    """A channel, and short words for what is done with it."""

    def __init__(self, channel: ServiceChannel) -> None:
        self.channel = channel

    async def one(self, timeout_s: float = WAIT_S) -> bytes:
        return await self.channel.unary("/t/Echo", b"x", timeout_s)

    async def fails(self, timeout_s: float = WAIT_S) -> CallFailed:
        with pytest.raises(CallFailed) as caught:
            await self.one(timeout_s)
        return caught.value

    def stream(self) -> tuple[ServiceStream, Heard]:
        heard = Heard()
        return self.channel.stream("/t/Each", heard), heard


def run(test: Callable[[Caller], Awaitable[None]], *scripts: Script) -> None:
    """Have a test call who is served by scripts, a connection each."""

    async def main(address: str) -> None:
        channel = channel_choice.new_channel(address, max_reply_bytes=MAX_BYTES)
        try:
            async with asyncio.timeout(60):
                await test(Caller(channel))
        finally:
            await channel.close()

    with raw_service(*scripts) as address:
        asyncio.run(main(address))


def greeting(script: Script, *settings: tuple[int, int]) -> Script:
    """A script that greets first, and hears all that comes at last."""

    def greet(service: RawService) -> None:
        if settings:
            said = b"".join(n.to_bytes(2, "big") + v.to_bytes(4, "big") for n, v in settings)
            service.send(frame(SETTINGS, 0, 0, said))
        service.greet()
        script(service)
        service.hear_all()

    return greet


def answer(service: RawService) -> None:
    service.reply(service.call(), b"y")


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 1000]
)
def test_what_is_no_http2(said: bytes, way: str) -> None:
    def script(service: RawService) -> None:
        service.send(said)
        service.hear_all()

    async def test(caller: Caller) -> None:
        failure = await caller.fails()
        assert failure.code == "UNAVAILABLE"
        if way == "native" or not said.startswith(b"\0"):
            assert guess(failure.details).startswith("what answers there is no gRPC server")

    run(test, script)


def test_silence_in_the_place_of_a_greeting() -> None:
    async def test(caller: Caller) -> None:
        began = time.monotonic()
        failure = await caller.fails()
        assert failure.code == "UNAVAILABLE"
        assert guess(failure.details).startswith("what takes connections there says nothing")
        assert 2.5 < time.monotonic() - began < 8

    run(test, RawService.hear_all)


def test_who_hangs_up_at_once() -> None:
    async def test(caller: Caller) -> None:
        assert (await caller.fails()).code == "UNAVAILABLE"

    run(test, lambda _: None)


@natively_alone
def test_who_greets_and_hangs_up_is_not_connected_to_without_end() -> None:
    """A stream has no deadline of its own: it fails, and its owner does something about it."""
    count = 0

    def hang_up(service: RawService) -> None:
        nonlocal count
        count += 1
        service.send(frame(SETTINGS, 0, 0), frame(GOAWAY, 0, 0, bytes(8)))
        service.hear_all()

    async def test(caller: Caller) -> None:
        _, heard = caller.stream()
        failure = await heard.over
        assert failure is not None
        assert failure.code == "UNAVAILABLE"
        assert count == 1

    run(test, hang_up)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(0, "INTERNAL"), (7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED")],
)
def test_streams_that_are_reset(code: int, meaning: str, way: str) -> None:
    def script(service: RawService) -> None:
        stream = service.until(HEADERS).stream
        service.send(frame(RST_STREAM, 0, stream, code.to_bytes(4, "big")))
        stream = service.call()
        service.send(frame(RST_STREAM, 0, stream, code.to_bytes(4, "big")))
        service.reply(service.call(), b"y")

    async def test(caller: Caller) -> None:
        _, heard = caller.stream()
        failure = await heard.over
        assert failure is not None
        assert way == "portable" or failure.code == meaning
        assert (await caller.fails()).code == failure.code
        assert await caller.one() == b"y"

    run(test, greeting(script))


def test_who_says_goodbye_finishes_what_it_has() -> None:
    """Calls that come meanwhile have another connection."""
    said, answered = threading.Event(), threading.Event()

    def going(service: RawService) -> None:
        stream = service.call()
        service.send(frame(GOAWAY, 0, 0, stream.to_bytes(4, "big") + bytes(4)))
        # What answers this has come behind the goodbye.
        service.send(frame(PING, 0, 0, b"goodbye!"))
        while service.until(PING).payload != b"goodbye!":
            pass
        said.set()
        assert answered.wait(WAIT_S)
        service.reply(stream, b"first")

    async def test(caller: Caller) -> None:
        first = asyncio.create_task(caller.one())
        assert await asyncio.to_thread(said.wait, WAIT_S)
        assert await caller.one() == b"y"
        assert not first.done()
        answered.set()
        assert await first == b"first"

    run(test, greeting(going), greeting(answer))


def test_a_lost_connection_ends_its_calls_and_is_made_again() -> None:
    def gone(service: RawService) -> None:
        service.greet()
        service.until(HEADERS)
        service.until(HEADERS)

    async def test(caller: Caller) -> None:
        _, heard = caller.stream()
        assert (await caller.fails()).code == "UNAVAILABLE"
        failure = await heard.over
        assert failure is not None
        assert failure.code == "UNAVAILABLE"
        assert await caller.one() == b"y"

    run(test, gone, greeting(answer))


def test_a_service_that_stands_still_is_left() -> None:
    """Nothing answers what asks whether it lives: as its process is stopped, or its host gone."""
    over = threading.Event()

    def script(service: RawService) -> None:
        service.greet()
        service.until(HEADERS)
        assert over.wait(30.0)

    async def test(caller: Caller) -> None:
        began = time.monotonic()
        _, heard = caller.stream()
        failure = await heard.over
        over.set()
        assert failure is not None
        assert "ping timeout" in failure.details.lower()
        assert 7 < time.monotonic() - began < 15

    run(test, script)


@natively_alone
def test_headers_that_never_end() -> None:
    """They are no more than a call may be answered with, or its connection ends."""

    def script(service: RawService) -> None:
        stream = service.call()
        service.send(frame(HEADERS, 0, stream, literal(":status", "200")))
        field = literal("x", "y" * 100)
        try:
            for _ in range(10_000):
                service.send(frame(CONTINUATION, 0, stream, field * 100))
        except OSError:
            return
        raise AssertionError("it takes them all")

    async def test(caller: Caller) -> None:
        failure = await caller.fails()
        assert failure.code in {"UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"}

    run(test, greeting(script))


@natively_alone
def test_answers_that_break_grpc() -> None:
    def html(service: RawService, stream: int) -> None:
        service.head(stream, "404", "text/html")
        service.end(stream)

    def compressed(service: RawService, stream: int) -> None:
        service.head(stream)
        service.data(stream, message(b"y", compressed=True))
        service.end(stream)

    def long(service: RawService, stream: int) -> None:
        service.head(stream)
        service.data(stream, message(b"y", length=MAX_BYTES + 1))

    def cut(service: RawService, stream: int) -> None:
        service.head(stream)
        service.data(stream, message(b"y", length=2))
        service.end(stream)

    def none(service: RawService, stream: int) -> None:
        service.reply(stream)

    def no_status(service: RawService, stream: int) -> None:
        service.head(stream)
        service.data(stream, message(b"y"))
        service.send(frame(HEADERS, 5, stream, literal("other", "x")))

    def strange_status(service: RawService, stream: int) -> None:
        service.head(stream)
        service.send(frame(HEADERS, 5, stream, literal("grpc-status", "99999999999")))

    wrongs = [html, compressed, long, cut, none, no_status, strange_status]

    def script(service: RawService) -> None:
        for wrong in wrongs:
            wrong(service, service.call())
        answer(service)

    async def test(caller: Caller) -> None:
        for _ in wrongs:
            assert (await caller.fails()).code != "OK"
        assert await caller.one() == b"y"

    run(test, greeting(script))


def test_a_stream_that_ends_without_a_word_of_it_has_failed() -> None:
    def script(service: RawService) -> None:
        service.until(HEADERS)
        service.head(1)
        service.data(1, message(b"y"))
        service.send(frame(DATA, 1, 1))

    async def test(caller: Caller) -> None:
        _, heard = caller.stream()
        assert await heard.over is not None
        assert heard.messages == [b"y"]

    run(test, greeting(script))


def all_of(service: RawService, stream: int) -> int:
    """Open the window of a stream, hear it out, and end it. Returns the bytes of messages."""
    heard_bytes = 0
    for number in (stream, 0):
        service.send(frame(WINDOW_UPDATE, 0, number, (1 << 30).to_bytes(4, "big")))
    while not (found := service.until(DATA)).flags & END_STREAM:
        heard_bytes += len(found.payload)
    service.head(stream)
    service.end(stream)
    return heard_bytes + len(found.payload)


def test_who_gives_no_window_is_waited_for_and_holds_nobody_up_here() -> None:
    """Nothing of a message leaves, and how much is kept for it is known to the sender."""
    opened = threading.Event()
    heard_bytes, early = 0, list[int]()

    def script(service: RawService) -> None:
        nonlocal heard_bytes
        stream = service.until(HEADERS).stream
        assert opened.wait(WAIT_S)
        service.send(frame(PING, 0, 0, b"sent all"))
        while (found := service.next()).payload != b"sent all":
            early.append(found.kind)
        heard_bytes = all_of(service, stream)

    async def test(caller: Caller) -> None:
        stream, heard = caller.stream()
        part, count = b"p" * (512 << 10), 0
        while stream.has_room and count < 20:
            stream.send(part)
            count += 1
            await asyncio.sleep(0)
        assert 2 <= count <= 8
        opened.set()
        await heard.room.wait()
        stream.half_close()
        assert await heard.over is None
        assert DATA not in early  # before the answer to what was asked when all was said
        assert heard_bytes == count * (len(part) + 5)

    run(test, greeting(script, (INITIAL_WINDOW, 0)))


def test_who_reads_without_a_word_is_sent_more_as_he_does() -> None:
    """His window is open, so nothing but the room in the socket says that there is more to do."""
    count, part = 64, b"p" * (1 << 20)
    heard_bytes = 0

    def script(service: RawService) -> None:
        nonlocal heard_bytes
        stream = service.until(HEADERS).stream
        heard_bytes = all_of(service, stream)

    async def test(caller: Caller) -> None:
        stream, heard = caller.stream()
        began = time.monotonic()
        for _ in range(count):
            while not stream.has_room:
                heard.room.clear()
                await heard.room.wait()
            stream.send(part)
        stream.half_close()
        assert await heard.over is None
        assert heard_bytes == count * (len(part) + 5)
        assert time.monotonic() - began < 5

    run(test, greeting(script))


def test_a_channel_to_who_takes_no_connection_can_be_closed() -> None:
    """As of a host that is gone: an attempt to connect hears nothing."""

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as queued:
            address = listener.getsockname()
            for _ in range(4):  # until no further one is taken
                other = queued.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(address)
            where = f"{address[0]}:{address[1]}"
            channel = channel_choice.new_channel(where, max_reply_bytes=MAX_BYTES)
            caller = Caller(channel)
            assert (await caller.fails(0.3)).code in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
            _, heard = caller.stream()
            await asyncio.sleep(0.01)
            began = time.monotonic()
            await channel.close()
            assert time.monotonic() - began < 1.0
            assert await heard.over is not None
            left = {task.get_name() for task in asyncio.all_tasks()}
            assert not {name for name in left if name.startswith(("dial-", "stream-"))}

    asyncio.run(test())


def test_who_sends_more_than_it_may_is_left() -> None:
    """A service may be ahead by a window; who goes on breaks HTTP/2."""

    def script(service: RawService) -> None:
        stream = service.until(HEADERS).stream
        service.head(stream)
        try:
            for _ in range(200):
                # Never whole: so nothing of it can be read by anybody.
                service.data(stream, message(bytes(MAX_BYTES)))
                service.data(stream, message(bytes(MAX_BYTES), length=MAX_BYTES + 1))
        except OSError:
            return

    async def test(caller: Caller) -> None:
        _, heard = caller.stream()
        failure = await heard.over
        assert failure is not None
        assert failure.code in {"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"}
        assert len(heard.messages) <= 1

    run(test, greeting(script))


@natively_alone
@pytest.mark.parametrize(
    "said",
    [
        frame(PING, 0, 0, b"12345678"),  # the answers to which are not taken
        frame(SETTINGS, 0, 0),
        frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")),  # which is never answered
    ],
    ids=["pings", "settings", "windows"],
)
def test_floods_leave_others_their_turn(said: bytes) -> None:
    over = threading.Event()

    def script(service: RawService) -> None:
        service.until(HEADERS)
        ends_at = time.monotonic() + 5
        try:
            while not over.is_set() and time.monotonic() < ends_at:
                service.send(said * 10_000)
        except OSError:
            return

    async def test(caller: Caller) -> None:
        _, heard = caller.stream()
        longest_s, began = 0.0, time.monotonic()
        while time.monotonic() - began < 1.5 and not heard.over.done():
            before = time.monotonic()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.monotonic() - before)
        over.set()
        assert longest_s < 1.0

    run(test, greeting(script))


@natively_alone
def test_a_service_that_pushes_is_not_listened_to() -> None:
    """Nobody has allowed promises, so they break HTTP/2."""
    promise: Any = frame(5, END_HEADERS, 1, (2).to_bytes(4, "big") + literal(":status", "200"))

    def script(service: RawService) -> None:
        service.call()
        service.send(promise)

    async def test(caller: Caller) -> None:
        assert (await caller.fails()).code in {"UNAVAILABLE", "INTERNAL"}
        assert await caller.one() == b"y"

    run(test, greeting(script), greeting(answer))


def test_acknowledgements_of_nothing() -> None:
    def script(service: RawService) -> None:
        stream = service.call()
        service.send(frame(PING, ACK, 0, b"12345678"))
        service.reply(stream, b"y")

    async def test(caller: Caller) -> None:
        assert await caller.one() == b"y"

    run(test, greeting(script))
