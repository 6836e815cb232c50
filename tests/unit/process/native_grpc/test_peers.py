"""Peers of the native server that break its rules, or say nothing: it is not harmed by them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from support.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
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

from cosco.client.rpc.failures import _TOO_MANY_CALLS
from cosco.mechanics import NATIVE
from cosco.process.native_grpc.connection_table import FIRST_CALL_S, PeerLimits
from cosco.process.native_grpc.large_messages import LargeMessages

if NATIVE is not None:
    from cosco.process.native_grpc.server import NativeServer

pytestmark = pytest.mark.skipif(NATIVE is None, reason="the native part is not installed")

MAX_BYTES = 4 << 20


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[str, Any]]:
    refused: Counter[str] = Counter()
    server: Any = NativeServer(
        max_message_bytes=MAX_BYTES,
        refused=lambda bound: refused.update((bound,)),
        **{"direct": {}, **options},
    )
    server.refused = refused

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


def test_calls_that_say_nothing_are_ended_however_their_peer_answers_pings() -> None:
    quiet: list[Any] = []

    def direct(call: Any) -> None:
        call.on_quiet = lambda: bool(quiet.append(call)) or len(quiet) > 1
        call.ask()

    async def test() -> None:
        async with serving(direct={"/test.Echo/Direct": direct}) as (address, server):
            with RawPeer(address) as raw:

                def begin() -> None:
                    raw.greet()
                    for method in ("One", "One", "Direct"):
                        raw.call(f"/test.Echo/{method}")
                    raw.data(3, message(b"", length=100_000))  # a long one, that does not come
                    raw.data(5, message(b"x"))

                await in_thread(begin)
                await until(lambda: any(len(one._calls) == 3 for one in server._connections))
                [connection] = server._connections
                await until(
                    lambda: all(c.has_spoken for n, c in connection._calls.items() if n > 1)
                )

                def look(now: float) -> int:
                    return connection.end_quiet_calls(now, first_s=30, quiet_s=600)

                assert [look(now) for now in (1000, 1029)] == [0, 0]
                await in_thread(lambda: raw.send(frame(PING, 0, 0, b"12345678")))
                assert await in_thread(lambda: raw.until(PING)) is not None
                assert (look(1031), look(1599)) == (1, 0)
                ended = await in_thread(lambda: raw.until(HEADERS))
                assert ended.stream == 1
                assert (look(1601), len(quiet)) == (0, 1)  # which goes on
                connection._calls[5].was_heard = True
                assert (look(1603), look(2202), look(2204), len(quiet)) == (0, 0, 1, 2)
                assert 3 in connection._calls  # its handler waits for what was promised
            await until(lambda: not server._tasks)

    run(test)


def test_what_a_direct_handler_raises_ends_its_call_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty:
        def __init__(self, call: Any) -> None:
            call.on_messages = self.on_messages
            call.ask()

        def on_messages(self, _: list[bytes]) -> None:
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


class Takes:
    """A direct handler that asks for several messages at a time."""

    def __init__(self, call: Any, more_bytes: int) -> None:
        self.call = call
        self.more_bytes = more_bytes
        self.entries: list[list[bytes]] = []
        self.ended = ""
        call.on_messages = self.on_messages
        call.on_end = lambda: self.note("end")
        call.on_cancel = lambda: self.note("cancel")
        call.on_large = self.on_large
        call.ask(more_bytes)

    def on_messages(self, messages: list[bytes]) -> None:
        self.entries.append(messages)
        self.call.ask(self.more_bytes)

    def on_large(self, length: int) -> bool:
        self.entries.append([b"large %d" % length])
        return True

    def note(self, end: str) -> None:
        self.ended = end


LONG = b"l" * ((16 << 10) + 1)


@pytest.mark.parametrize(
    ("more_bytes", "sent", "entries", "ended"),
    [
        (0, [b"a", b"b", b"c"], [[b"a"], [b"b"], [b"c"]], "end"),
        (1 << 20, [b"a", b"", b"ccc"], [[b"a", b"", b"ccc"]], "end"),
        # Each counts 64 bytes more, so that empty ones are bounded as well.
        (2 * 65, [b"a"] * 7, [[b"a"] * 3, [b"a"] * 3, [b"a"]], "end"),
        (2 * 65 - 1, [b"a"] * 4, [[b"a"] * 2, [b"a"] * 2], "end"),
        (2 * 64, [b""] * 4, [[b""] * 3, [b""]], "end"),
        # One that is long is not read on before it is asked for, and allowed; it comes alone.
        (
            1 << 20,
            [b"a", b"b", LONG, b"c", b"d"],
            [[b"a", b"b"], [b"large %d" % len(LONG)], [LONG], [b"c", b"d"]],
            "end",
        ),
        # What breaks the rules is told of behind what was right.
        (1 << 20, [b"a", b"b", None], [[b"a", b"b"]], "cancel"),
    ],
)
def test_several_messages_come_at_a_time_within_what_was_asked_for(
    more_bytes: int, sent: list[bytes | None], entries: list[list[bytes]], ended: str
) -> None:
    async def test() -> None:
        takes: list[Takes] = []
        direct = {"/test.Echo/Takes": lambda call: takes.append(Takes(call, more_bytes))}
        async with serving(direct=direct) as (address, _):
            wrong = message(b"x", compressed=True)
            all_of_it = b"".join(wrong if one is None else message(one) for one in sent)

            def peer() -> None:
                with RawPeer(address) as raw:
                    raw.greet()
                    stream = raw.call("/test.Echo/Takes")
                    # In one write: it is there as a whole when the server looks.
                    raw.data_at_once(stream, all_of_it, last=True)
                    raw.until(HEADERS if ended == "cancel" else RST_STREAM)

            work = asyncio.create_task(in_thread(peer))
            await until(lambda: bool(takes) and bool(takes[0].ended))
            [one] = takes
            assert one.entries == entries
            assert one.ended == ended
            if ended == "end":
                one.call.finish(grpc.StatusCode.OK)
            work.cancel()

    run(test)


def test_a_message_that_is_cut_holds_up_nobody_in_front_of_it() -> None:
    async def test() -> None:
        takes: list[Takes] = []
        direct = {"/test.Echo/Takes": lambda call: takes.append(Takes(call, 1 << 20))}
        async with serving(direct=direct) as (address, _):
            with RawPeer(address) as raw:
                raw.greet()
                stream = raw.call("/test.Echo/Takes")
                last = message(b"c" * 100)
                raw.data_at_once(stream, message(b"a") + message(b"b") + last[:50])
                await until(lambda: bool(takes) and takes[0].entries == [[b"a", b"b"]])
                raw.data_at_once(stream, last[50:] + message(b"d")[:3])
                await until(lambda: takes[0].entries[1:] == [[b"c" * 100]])
                raw.data_at_once(stream, message(b"d")[3:])
                await until(lambda: takes[0].entries[2:] == [[b"d"]])

    run(test)


# --- messages that are not finished ---------------------------------------------------------

KEPT_BYTES = 256 << 10
#: Short enough to come without being allowed, and to be sent at once.
PART = bytes(12_000)


def kept_by(server: Any) -> int:
    return int(server._unfinished.kept_bytes)


@pytest.mark.parametrize("length", [13_000, 2 << 20], ids=["short", "long"])
def test_messages_that_never_end_are_ended_beyond_their_bound(length: int) -> None:
    """Short ones, and the heads of long ones, which came with their lengths."""

    async def test() -> None:
        async with serving(unfinished_bytes=KEPT_BYTES) as (address, server):
            server._large._budget_bytes = 0  # one long message comes, and no other
            with RawPeer(address) as hostile:
                hostile.greet()
                calls = 50
                highest = 0
                for _ in range(calls):
                    number = hostile.call("/test.Echo/One")
                    said = message(PART, length=length)
                    assert await in_thread(lambda n=number, m=said: hostile.data_within(n, m))
                    await asyncio.sleep(0)
                    highest = max(highest, kept_by(server))
                    assert await answers(address)
                await until(lambda: server.refused["unfinished_bytes"] > 0)
                assert highest <= KEPT_BYTES
                ended = await in_thread(lambda: hostile.until(HEADERS))
                assert ended.flags & END_STREAM
            await until(lambda: kept_by(server) == 0)

    run(test)


def test_who_keeps_most_gives_it_up_and_others_go_on() -> None:
    async def test() -> None:
        async with serving(unfinished_bytes=KEPT_BYTES) as (address, server):
            with RawPeer(address) as honest, RawPeer(address) as hostile:
                honest.greet()
                begun = honest.call("/test.Echo/One")
                content = bytes(10_000)
                honest.data(begun, message(content[:5000], length=10_000))
                await until(lambda: kept_by(server) > 0)
                hostile.greet()
                for _ in range(100):
                    number = hostile.call("/test.Echo/One")
                    said = message(PART, length=13_000)
                    assert await in_thread(lambda n=number, m=said: hostile.data_within(n, m))
                await until(lambda: server.refused["unfinished_bytes"] >= 70)
                honest.data(begun, content[5000:], last=True)
                answer = await in_thread(lambda: honest.until(DATA))
                assert answer.payload == message(b"10000")

    run(test)


def test_of_a_call_that_was_answered_nothing_is_kept_either() -> None:
    """Its peer does not take the answer, so the call is not over for HTTP/2."""

    async def test() -> None:
        taken = asyncio.Event()

        def direct(call: Any) -> None:
            def finish(_: list[bytes]) -> None:
                call.send(bytes(1 << 20))  # more than the window of the stream
                call.finish(grpc.StatusCode.OK)
                taken.set()

            call.on_messages = finish
            call.ask()

        async with serving(direct={"/test.Echo/Two": direct}, unfinished_bytes=8) as (
            address,
            server,
        ):
            with RawPeer(address) as hostile:
                hostile.greet()
                number = hostile.call("/test.Echo/Two")
                hostile.data_at_once(number, message(b"1") + message(b"22") + message(b"333"))
                await taken.wait()
                await until(lambda: server.refused["unfinished_bytes"] == 1)
                assert kept_by(server) == 0
                assert await answers(address)

    run(test)


# --- how many there are ---------------------------------------------------------------------

OTHER_HOST = "127.0.0.2"


def calls_of(server: Any) -> dict[str, int]:
    """Return how many calls each peer has that has any connection."""
    return {peer: tally.calls for peer, tally in server._peer_calls._tallies.items()}


def called(raw: RawPeer) -> bool:
    """Greet, call, and say whether that was answered; the connection stays."""
    try:
        raw.greet()
        raw.data(raw.call("/test.Echo/One"), message(b"abc"), last=True)
        return raw.until(DATA) is not None
    except OSError:
        return False


def test_connections_of_a_peer_are_bounded() -> None:
    async def test() -> None:
        async with serving(peers=PeerLimits(peer_connections=3)) as (address, server):
            with ExitStack() as peers:

                def come(source: str = "127.0.0.1") -> RawPeer:
                    return peers.enter_context(RawPeer(address, source=source))

                first, *_ = raws = [come() for _ in range(3)]
                assert [await in_thread(lambda raw=raw: called(raw)) for raw in raws] == [True] * 3
                assert not await in_thread(lambda: called(come()))
                assert server.refused == {"peer_connections": 1}
                assert await in_thread(lambda: called(come(OTHER_HOST)))
                # Who is there goes on, and who leaves makes room.
                first.close()
                await until(lambda: len(server._connections) == 3)
                assert await answers(address)
            await until(lambda: not server._connections)
            assert len(server._table) == 0
            assert not calls_of(server)

    run(test)


def test_handshakes_that_never_end_keep_out_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(peers=PeerLimits(peer_connections=40, new_connections=8)) as served:
            address, server = served
            with ExitStack() as peers, RawPeer(address, source=OTHER_HOST) as slow:
                await until(lambda: len(server._connections) == 1)
                for _ in range(100):
                    peers.enter_context(RawPeer(address))
                await until(lambda: server.refused["new_connections"] == 93)
                assert len(server._connections) == 8
                assert await answers(address)
                assert await in_thread(lambda: called(slow))
                # Those that are left go when their time is over.
                for connection in server._table._new_since:
                    server._table._new_since[connection] -= FIRST_CALL_S
                server._ticks.cancel()
                server._tick()
                await until(lambda: len(server._connections) == 1)
                await in_thread(lambda: slow.data(slow.call("/test.Echo/One"), message(b"x")))
                assert await in_thread(lambda: slow.until(DATA)) is not None

    run(test)
    told = [one.getMessage() for one in caplog.records if "new_connections" in one.getMessage()]
    assert len(told) == 1  # of 93


def test_beyond_all_connections_who_has_most_gives_up_an_idle_one() -> None:
    async def test() -> None:
        async with serving(peers=PeerLimits(connections=8)) as (address, server):
            with ExitStack() as peers:
                raws = [peers.enter_context(RawPeer(address)) for _ in range(8)]
                for raw in raws:
                    assert await in_thread(lambda raw=raw: called(raw))
                raws[0].call("/test.Echo/One")  # is used
                await until(lambda: any(one._native.calls for one in server._connections))
                other = peers.enter_context(RawPeer(address, source=OTHER_HOST))
                assert await in_thread(lambda: called(other))
                assert server.refused == {"connections": 1}
                assert await in_thread(lambda: raws[1].until(GOAWAY)) is None
                assert not await in_thread(lambda: called(peers.enter_context(RawPeer(address))))
                raws[0].data(1, b"")

    run(test)


def test_calls_of_a_peer_are_bounded_over_its_connections() -> None:
    async def test() -> None:
        async with serving(peers=PeerLimits(peer_calls=5)) as (address, server):
            with RawPeer(address) as one, RawPeer(address) as two:

                def begin() -> None:
                    for raw, count in ((one, 3), (two, 2)):
                        raw.greet()
                        for _ in range(count):
                            raw.call("/test.Echo/One")

                await in_thread(begin)
                await until(lambda: calls_of(server) == {"127.0.0.1": 5})
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await answers(address)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert _TOO_MANY_CALLS in (refused.value.details() or "")  # so it is tried again
                assert server.refused == {"peer_calls": 1}
                with RawPeer(address, source=OTHER_HOST) as other:
                    assert await in_thread(lambda: called(other))
                await in_thread(lambda: two.data(1, message(b"x"), last=True))
                await until(lambda: calls_of(server)["127.0.0.1"] == 4)
                assert await answers(address)
            await until(lambda: not any(calls_of(server).values()))

    run(test)


def test_calls_whose_answers_nobody_takes_count_as_well() -> None:
    async def test() -> None:
        async with serving(peers=PeerLimits(peer_calls=5)) as (address, server):
            with RawPeer(address) as raw:

                def begin() -> None:
                    no_window = b"\0\4" + bytes(4)
                    raw.send(PREFACE + frame(SETTINGS, 0, 0, no_window))
                    for _ in range(5):
                        raw.data(raw.call("/test.Echo/One"), message(b"x"), last=True)

                await in_thread(begin)
                await until(lambda: calls_of(server) == {"127.0.0.1": 5})
                await until(lambda: not server._tasks)
                with pytest.raises(grpc.aio.AioRpcError):
                    await answers(address)
            await until(lambda: not any(calls_of(server).values()))
            assert await answers(address)

    run(test)
