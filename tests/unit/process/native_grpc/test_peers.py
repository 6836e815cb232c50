"""Peers of the native server that break its rules, or say nothing: it is not harmed by them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from support.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawPeer,
    call_headers,
    frame,
    message,
)

from cosco.mechanics import NATIVE
from cosco.process.native_grpc.large_messages import LargeMessages

if NATIVE is not None:
    from cosco.process.native_grpc.server import NativeServer

pytestmark = pytest.mark.skipif(NATIVE is None, reason="the native part is not installed")

MAX_BYTES = 4 << 20


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[str, Any]]:
    server = NativeServer(max_message_bytes=MAX_BYTES, **{"direct": {}, **options})

    async def one(request: bytes, _: Any) -> bytes:
        return b"%d" % len(request)

    handlers = {"One": grpc.unary_unary_rpc_method_handler(one)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(None)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def answers(address: str) -> bool:
    """Whether the server still serves others."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/test.Echo/One")
        return bool(await call(b"xyz", timeout=10) == b"3")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the event loop comes to meanwhile."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 1000,
        PREFACE + b"\xff" * 100,
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, b"x"),  # of no call
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"),
        PREFACE + frame(SETTINGS, 0, 3),
    ],
)
def test_what_is_no_http2_ends_the_connection(said: bytes) -> None:
    async def test() -> None:
        async with serving() as (address, server):

            def peer() -> None:
                with RawPeer(address) as raw:
                    raw.send(said)
                    while raw.next() is not None:
                        pass

            await in_thread(peer)
            assert await answers(address)
            assert not any(one._calls for one in server._connections)

    run(test)


def test_messages_that_break_grpc_end_their_call_alone() -> None:
    async def test() -> None:
        async with serving() as (address, _):

            def peer() -> None:
                with RawPeer(address) as raw:
                    raw.greet()
                    waiting = raw.call("/test.Echo/One")
                    for content, last in [
                        (message(b"x", compressed=True), False),
                        (message(b"", length=MAX_BYTES + 1), False),
                        (message(b"abc", length=10), True),
                        (b"", True),
                    ]:
                        broken = raw.call("/test.Echo/One")
                        raw.data(broken, content, last=last)
                        if not content:
                            raw.send(frame(DATA, 1, broken))
                        ended = raw.until(HEADERS)
                        assert ended is not None
                        assert ended.stream == broken
                    raw.data(waiting, message(b"abcd"), last=True)
                    answer = raw.until(DATA)
                    assert answer is not None
                    assert answer.payload == message(b"4")

            await in_thread(peer)

    run(test)


def test_of_what_nobody_asked_for_a_connection_holds_its_window_alone() -> None:
    """A thousand calls whose messages never end; long ones come in turn, within a budget."""

    async def test() -> None:
        async with serving() as (address, server):
            large = server._large

            def peer() -> int:
                with RawPeer(address) as raw:
                    raw.greet()
                    sent = 0
                    for _ in range(1000):
                        stream = raw.call("/test.Echo/One")
                        part = message(b"x" * 30, length=MAX_BYTES)
                        raw.data(stream, part)
                        sent += len(part)
                    return sent + raw.window(1.0)

            # What the peer may have sent in all, and what it may send beside.
            allowed = await in_thread(peer)
            assert allowed < large._budget_bytes + (1 << 20)
            await until(lambda: not server._connections)
            assert large._used_bytes == 0
            assert not large._waiting
            assert await answers(address)

    run(test)


def test_who_sends_more_than_the_window_is_cut_off() -> None:
    async def test() -> None:
        async with serving() as (address, server):

            def peer() -> None:
                with RawPeer(address) as raw:
                    raw.greet()
                    stream = raw.call("/test.Echo/Nothing")
                    other = raw.call("/test.Echo/One")
                    raw.data(other, message(b"", length=MAX_BYTES))
                    try:
                        for _ in range(20):
                            raw.data(stream, bytes(1 << 20))
                            raw.data(other, bytes(1 << 20))
                    except OSError:  # it has closed the connection already
                        return
                    assert raw.until(GOAWAY) is not None or raw.next() is None

            await in_thread(peer)
            await until(lambda: not server._connections)
            assert await answers(address)

    run(test)


def test_calls_that_are_begun_and_reset_again_and_again() -> None:
    async def test() -> None:
        async with serving() as (address, server):

            def peer() -> None:
                with RawPeer(address) as raw:
                    raw.greet()
                    headers = call_headers("/test.Echo/One")
                    try:
                        for number in range(1, 20_001, 2):
                            raw.send(
                                frame(HEADERS, END_HEADERS, number, headers)
                                + frame(RST_STREAM, 0, number, b"\0\0\0\x08")
                            )
                    except OSError:
                        return

            await in_thread(peer)
            assert await answers(address)
            await until(lambda: not server._tasks)

    run(test)


def test_a_peer_that_is_silent_is_asked_and_then_left() -> None:
    async def test() -> None:
        async with serving() as (address, server):
            loop = asyncio.get_running_loop()
            with RawPeer(address) as alive, RawPeer(address) as dead:
                for raw in (alive, dead):
                    await in_thread(raw.greet)
                    assert await in_thread(lambda raw=raw: raw.until(SETTINGS)) is not None
                await until(lambda: len(server._connections) == 2)

                def tick(later_s: float) -> None:
                    for one in list(server._connections):
                        one.tick(loop.time() + later_s, silent_s=20, answer_s=10)

                tick(0)
                tick(19)
                tick(21)
                asked = await in_thread(lambda: alive.until(PING))
                alive.send(frame(PING, ACK, 0, asked.payload))
                assert (await in_thread(lambda: dead.until(PING))).payload
                await until(
                    lambda: not (all(one._native.awaits_pong for one in server._connections))
                )
                tick(32)
                assert len(server._connections) == 1
                assert await in_thread(dead.next) is None

    run(test)


def test_long_messages_come_in_turn() -> None:
    large, told = LargeMessages(100), []

    def enter(name: str, length: int, now: float = 0.0) -> None:
        large.enter(
            name,
            length,
            now,
            allow=lambda: told.append(name),
            refuse=lambda why: told.append(f"{name}: {why}"),
        )

    for name, length in [("a", 60), ("b", 50), ("c", 10), ("d", 500)]:
        enter(name, length)
    assert told == ["a"]  # c waits behind b
    assert not large.leave("b")
    assert told == ["a", "c"]
    assert large.leave("a")
    assert large.leave("c")
    assert not large.leave("c")
    assert told == ["a", "c", "d"]  # longer than all there is, so alone
    large.tick(1000.0)  # nobody waits
    assert large.leave("d")
    enter("e", 99, 1000.0)
    enter("f", 99, 1001.0)
    large.tick(1010.0)
    assert told[-1] == "e"
    large.tick(1010.1)
    assert told[-2:] == ["f", "e: a long message has not come in 10 s"]


def test_who_takes_nothing_and_still_sends_does_not_keep_the_loop_busy() -> None:
    async def test() -> None:
        async with serving() as (address, server):
            reply = bytes(1 << 20)

            async def flood(_: bytes, __: Any) -> AsyncIterator[bytes]:
                for _ in range(100):
                    yield reply

            handlers = {"Flood": grpc.unary_stream_rpc_method_handler(flood)}
            made = grpc.method_handlers_generic_handler("test.Flood", handlers)
            server.add_generic_rpc_handlers((made,))
            with RawPeer(address) as raw:

                def peer() -> None:
                    raw.greet()
                    raw.send(frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
                    stream = raw.call("/test.Flood/Flood")
                    raw.data(stream, message(b"x"), last=True)
                    raw.send(frame(WINDOW_UPDATE, 0, stream, (1 << 30).to_bytes(4, "big")))

                await in_thread(peer)
                [connection] = server._connections
                await until(lambda: connection._native.wants_write)
                await in_thread(lambda: raw.send(frame(PING, 0, 0, b"12345678") * 200))
                turns = 0
                pump = connection._pump

                def counted(*arguments: Any) -> None:
                    nonlocal turns
                    turns += 1
                    pump(*arguments)

                connection._pump = counted
                await asyncio.sleep(0.2)
                assert turns < 5
                await in_thread(lambda: raw.until(PING))  # and it is answered once it reads
            await until(lambda: not server._connections)
            assert await answers(address)

    run(test)


def test_a_peer_that_never_greets_is_left() -> None:
    async def test() -> None:
        async with serving() as (address, server):
            loop = asyncio.get_running_loop()
            with RawPeer(address) as raw:
                await until(lambda: len(server._connections) == 1)
                [connection] = server._connections
                for later_s, there in [(19, 1), (21, 1), (30, 1), (31.5, 0)]:
                    connection.tick(loop.time() + later_s, silent_s=20, answer_s=10)
                    assert len(server._connections) == there
                assert await in_thread(lambda: raw.until(GOAWAY)) is None

    run(test)


def test_what_a_direct_handler_raises_ends_its_call_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty:
        def __init__(self, call: Any) -> None:
            call.on_message = self.on_message
            call.ask()

        def on_message(self, _: bytes) -> None:
            raise ZeroDivisionError("on purpose")

    async def test() -> None:
        async with serving(direct={"/test.Echo/Faulty": Faulty}) as (address, _):
            async with grpc.aio.insecure_channel(address) as channel:
                faulty: Any = channel.unary_unary("/test.Echo/Faulty")
                one: Any = channel.unary_unary("/test.Echo/One")
                calls = [faulty(b"x"), one(b"abc"), faulty(b"y"), one(b"abcd")]
                found = await asyncio.gather(*calls, return_exceptions=True)
                assert [found[1], found[3]] == [b"3", b"4"]
                for error in (found[0], found[2]):
                    assert isinstance(error, grpc.aio.AioRpcError)
                    assert error.code() is grpc.StatusCode.UNKNOWN

    run(test)
    assert sum(bool(record.exc_info) for record in caplog.records) == 2
