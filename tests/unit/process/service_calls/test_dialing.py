"""How the services look names up, and which of their addresses they are connected to."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.raw_http2 import HEADERS
from support.raw_service import RawService, raw_service

from cosco.mechanics import NATIVE
from cosco.process.service_calls import dialing, native_service_channel
from cosco.process.service_calls.channel_choice import new_channel
from cosco.process.service_calls.dialing import MAX_LOOK_UPS, NotConnected, dial
from cosco.process.service_calls.service_channel import CallFailed
from cosco.process.wrong_address import guess

WAIT_S = 20.0
NAME = "store-7.example:7000"
#: A family of addresses that no system has, and an address that no connection can have.
NO_FAMILY = (1000, ("::2", 1))
NO_ROUTE = (socket.AF_INET, ("224.0.0.1", 1))
natively = pytest.mark.skipif(NATIVE is None, reason="grpcio connects by itself")

Place = tuple[int, Any]


class NameServer:
    """What names stand for, as long as the system would ask a name server; it may hang."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.answers = threading.Event()
        self.asked: list[str] = []
        self._numbers = dialing._looked_up

    def look_up(self, host: str, port: int, flags: int) -> list[Place]:
        if flags & socket.AI_NUMERICHOST:
            return self._numbers(host, port, flags)
        self.asked.append(host)
        assert self.answers.wait(WAIT_S)
        if not self.places:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.places


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(dialing, "_looked_up", server.look_up)
    yield server
    server.answers.set()
    for thread in look_ups():
        thread.join(WAIT_S)


@pytest.fixture
def listening() -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield (socket.AF_INET, listener.getsockname())


@pytest.fixture
def silent() -> Iterator[Place]:
    """An address whose host says nothing, as if it was gone."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as queued:
        for _ in range(4):  # until no further one is taken
            other = queued.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        yield (socket.AF_INET, listener.getsockname())


@pytest.fixture
def refusing() -> Iterator[Place]:
    """An address at which nobody listens: it is taken, so that nobody can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield (socket.AF_INET, taken.getsockname())


def look_ups() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "look-up"]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


async def fails(address: str, timeout_s: float = WAIT_S) -> str:
    with pytest.raises(NotConnected) as caught:
        (await dial(address, timeout_s)).close()
    return str(caught.value)


async def peer(address: str, timeout_s: float = WAIT_S) -> Any:
    with await dial(address, timeout_s) as connected:
        return connected.getpeername()


# --- looking up -------------------------------------------------------------------------------


@natively
def test_calls_that_give_up_leave_one_look_up(names: NameServer, listening: Place) -> None:
    async def call() -> None:
        channel = new_channel(NAME, max_reply_bytes=1000)
        try:
            with pytest.raises(CallFailed) as caught:
                await channel.unary("/t/Echo", b"", 0.05)
            assert caught.value.code == "DEADLINE_EXCEEDED"
        finally:
            await channel.close()

    async def test() -> None:
        for _ in range(5):
            await asyncio.gather(*(call() for _ in range(10)))
        assert len(look_ups()) == 1
        assert [len(waiting) for waiting in dialing._LOOK_UPS._waiting.values()] == [0]
        names.places = [listening]
        next_one = asyncio.create_task(peer(NAME))
        await asyncio.sleep(0)
        names.answers.set()
        assert await next_one == listening[1]
        assert names.asked == ["store-7.example"]

    run(test)


def test_a_look_up_ends_in_the_time_of_who_waits(names: NameServer, listening: Place) -> None:
    async def test() -> None:
        began = time.monotonic()
        why = await fails(NAME, 0.1)
        assert why == f"errors resolving {NAME}: it takes too long"
        assert guess(why) == "the name servers of this machine do not answer, or slowly"
        assert time.monotonic() - began < 2.0
        # One that is given up leaves it to the others.
        patient, cancelled = (asyncio.create_task(peer(NAME)) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait((cancelled,))
        names.places = [listening]
        names.answers.set()
        assert await patient == listening[1]
        assert len(names.asked) == 1

    run(test)


@natively
def test_a_stream_learns_of_a_look_up_that_hangs(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_service_channel, "_CONNECT_S", 0.2)

    class Heard:
        def __init__(self) -> None:
            self.over: asyncio.Future[CallFailed | None] = asyncio.Future()

        def on_message(self, message: bytes) -> None:
            raise AssertionError(message)

        def on_room(self) -> None: ...

        def on_end(self, failure: CallFailed | None) -> None:
            self.over.set_result(failure)

    async def test() -> None:
        channel = new_channel(NAME, max_reply_bytes=1000)
        try:
            heard = Heard()
            channel.stream("/t/Each", heard)
            async with asyncio.timeout(5):
                failure = await heard.over
            assert failure is not None
            assert failure.code == "UNAVAILABLE"
            assert failure.details.startswith("errors resolving")
        finally:
            await channel.close()

    run(test)


def test_look_ups_are_bounded(names: NameServer, listening: Place) -> None:
    async def test() -> None:
        others = [asyncio.create_task(peer(f"host-{n}:1")) for n in range(MAX_LOOK_UPS)]
        await asyncio.sleep(0)
        assert len(look_ups()) == MAX_LOOK_UPS
        known = asyncio.create_task(peer("host-0:1"))
        assert "64 other names" in await fails(NAME)
        names.places = [listening]
        names.answers.set()
        assert set(await asyncio.gather(*others, known)) == {listening[1]}
        assert await peer(NAME) == listening[1]

    run(test)


def test_a_name_that_is_not_known_is_asked_for_again(names: NameServer, listening: Place) -> None:
    async def test() -> None:
        names.answers.set()
        assert "Name or service not known" in await fails(NAME)
        names.places = [listening]
        assert await peer(NAME) == listening[1]

    run(test)


@pytest.mark.parametrize("address", ["a..b:1", f"{'a' * 64}.b:1", "no host:1"])
def test_a_host_that_cannot_be_asked_for(address: str) -> None:
    async def test() -> None:
        assert (await fails(address)).startswith(f"errors resolving {address}: ")

    run(test)


@natively
def test_a_host_that_cannot_be_asked_for_is_no_error_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        channel = new_channel("a..b:1", max_reply_bytes=1000)
        try:
            with pytest.raises(CallFailed) as caught:
                await channel.unary("/t/Echo", b"", WAIT_S)
            assert caught.value.code == "UNAVAILABLE"
            assert caught.value.details.startswith("errors resolving a..b:1")
        finally:
            await channel.close()

    run(test)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# --- connecting -------------------------------------------------------------------------------


@natively
def test_a_probe_reaches_the_address_after_a_silent_one(names: NameServer, silent: Place) -> None:
    def answer(service: RawService) -> None:
        service.greet()
        service.reply(service.until(HEADERS).stream, b"y")
        service.hear_all()

    async def test(address: str) -> None:
        host, port = address.rsplit(":", 1)
        names.places = [silent, (socket.AF_INET, (host, int(port)))]
        names.answers.set()
        channel = new_channel(NAME, max_reply_bytes=1000)
        try:
            assert await channel.unary("/t/Echo", b"x", 1.0) == b"y"
        finally:
            await channel.close()

    with raw_service(answer) as address:
        run(lambda: test(address))


def test_a_slow_address_is_waited_for_beside_the_next_one(
    names: NameServer, listening: Place, silent: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs longer than its head start is not given up."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        connect, next_began = loop.sock_connect, asyncio.Event()

        async def slow_connect(one: socket.socket, where: Any) -> None:
            if where == listening[1]:
                await next_began.wait()
            else:
                next_began.set()
            await connect(one, where)

        monkeypatch.setattr(loop, "sock_connect", slow_connect)
        names.places = [listening, silent]
        names.answers.set()
        assert await peer(NAME) == listening[1]

    run(test)


@pytest.mark.parametrize(
    ("other", "why"), [(NO_FAMILY, errno.EAFNOSUPPORT), (NO_ROUTE, errno.ENETUNREACH)]
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_refusal_is_told_whatever_this_machine_has_no_way_to(
    names: NameServer, refusing: Place, other: Place, why: int, order: int
) -> None:
    async def test() -> None:
        names.places = [refusing, other][::order]
        names.answers.set()
        assert "Connection refused" in await fails(NAME)
        names.places = [other]
        assert os.strerror(why) in await fails(NAME)

    run(test)


@pytest.mark.parametrize("order", [1, -1])
def test_nobody_is_gone_of_whom_an_address_is_silent(
    names: NameServer, refusing: Place, silent: Place, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "_LEAST_S", 0.2)

    async def test() -> None:
        names.places = [refusing, silent, NO_FAMILY][::order]
        names.answers.set()
        began = time.monotonic()
        reason = await fails(NAME, 0.2)
        assert reason.endswith(f"{silent[1][1]} cannot be connected to: it does not answer")
        assert time.monotonic() - began < 2.0

    run(test)


def test_nothing_is_left_of_a_dial(
    names: NameServer, listening: Place, silent: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        connect, sockets, begun = loop.sock_connect, list[socket.socket](), asyncio.Event()

        async def noted_connect(one: socket.socket, where: Any) -> None:
            sockets.append(one)
            begun.set()
            await connect(one, where)

        monkeypatch.setattr(loop, "sock_connect", noted_connect)
        names.places = [silent, listening]
        names.answers.set()
        assert await peer(NAME) == listening[1]
        names.places = [silent, silent]
        begun.clear()
        dialing_on = asyncio.create_task(dial(NAME, WAIT_S))
        await begun.wait()
        dialing_on.cancel()
        await asyncio.wait((dialing_on,))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [one.fileno() for one in sockets] == [-1] * 3

    run(test)


def test_one_connection_is_left_of_two_at_once(
    names: NameServer, listening: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        connect, sockets, both = loop.sock_connect, list[socket.socket](), asyncio.Event()

        async def late_connect(one: socket.socket, where: Any) -> None:
            await connect(one, where)
            sockets.append(one)
            if len(sockets) == 2:
                both.set()
            await both.wait()

        monkeypatch.setattr(loop, "sock_connect", late_connect)
        names.places = [listening, listening]
        names.answers.set()
        with await dial(NAME, WAIT_S) as connected:
            await asyncio.sleep(0)
            open_ones = [one for one in sockets if one.fileno() >= 0]
            assert (len(sockets), open_ones) == (2, [connected])

    run(test)


def test_addresses_are_bounded(names: NameServer, refusing: Place, listening: Place) -> None:
    async def test() -> None:
        names.answers.set()
        names.places = [refusing] * 15 + [listening]
        assert await peer(NAME) == listening[1]
        names.places = [refusing] * 16 + [listening]
        assert "Connection refused" in await fails(NAME)

    run(test)
