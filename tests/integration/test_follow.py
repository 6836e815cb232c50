"""Readers that wait for marks, over real connections to a daemon's calls.

What each answer says is told in tests/unit/shuffle_service/io/read/test_follow_service.py.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from support.daemon_parts import DaemonParts
from support.frame_making import INCARNATION, block, frame
from support.mark_making import found, mark
from support.raw_push import request_bytes

from cosco.dfs import MemoryStore
from cosco.process.native_grpc.server_choice import bind
from cosco.protocol import wire
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.messages import Hello, PushRequest
from cosco.protocol.wire import followed_from_bytes, follows_to_bytes
from cosco.shuffle_service.grpc_server import DaemonHandlers

GROUP = 500
ASK = Follow(1, INCARNATION, GROUP, 0, 1, 0, max_bytes=1 << 20)


class Daemon:
    """The calls of a daemon with a group's exchange of two mappers, and a channel to it."""

    def __init__(self, parts: DaemonParts) -> None:
        self.core = parts.core
        answer = found(2)
        self.core.admit(GROUP, answer.assignment, answer.partition_range, answer.mappers)
        handlers = DaemonHandlers(
            parts.core, FrameBudgets(64 << 20), parts.intakes, parts.copies, parts.fetch,
            parts.lookups, parts.metrics,
        )  # fmt: skip
        self.server = handlers.server()
        self.channel = grpc.aio.insecure_channel(bind(self.server, "127.0.0.1:0"))

    def follow(self) -> Any:
        return self.channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Follow")()

    async def push(self, mapper: int, *blocks: bytes) -> None:
        """A mapper's only frame, acknowledged."""
        call = self.channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Push")()
        hello, data = Hello(GROUP, mapper, 1, INCARNATION), frame(blocks, exchange=GROUP)
        await call.write(request_bytes(PushRequest(hello=hello, announce=(len(data),))))
        await call.write(request_bytes(PushRequest(frame=data)))
        async for message in call:
            reply = wire.push_reply_from_bytes(message)
            assert not reply.refused
            if reply.acknowledged:
                break
        await call.done_writing()

    async def forgotten(self) -> None:
        """Return when nobody waits any more; the daemon answers others meanwhile."""
        call = self.follow()
        while self.core.mark_boards.followers:
            await call.write(follows_to_bytes([replace(ASK, now=True)]))
            await call.read()


def run(test: Callable[[Daemon], Awaitable[None]]) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        daemon = Daemon(DaemonParts(store, pages=64))
        await daemon.server.start()
        try:
            await asyncio.wait_for(test(daemon), 20)
        finally:
            await daemon.channel.close()
            await daemon.server.stop(grace=0)

    asyncio.run(main())


def rows(mapper: int, content: bytes = b"x" * 100) -> bytes:
    return block(0, 0, content, exchange=GROUP, mapper=mapper)


def done(mapper: int) -> bytes:
    return mark(mapper, exchange=GROUP, p0=(1, 100, mapper + 1))


#: Answers that came together with one that was asked for.
_LEFT: defaultdict[Any, deque[Followed]] = defaultdict(deque)


async def answer(call: Any) -> Followed:
    left = _LEFT[call]
    if not left:
        left += followed_from_bytes(await call.read())
    return left.popleft()


def test_rows_of_waiting_readers_come_with_the_last_mark():
    async def test(daemon: Daemon) -> None:
        call = daemon.follow()
        await call.write(follows_to_bytes([ASK]))
        await call.write(follows_to_bytes([replace(ASK, id=2, now=True)]))
        assert (await answer(call)).id == 2  # so the first one waits
        await daemon.push(0, rows(0), done(0))
        await call.write(follows_to_bytes([replace(ASK, id=3, now=True)]))
        assert list((await answer(call)).done) == [0]
        await daemon.push(1, rows(1), done(1))
        told = await answer(call)
        assert (told.id, told.outcome) == (1, FollowOutcome.READY)
        assert (told.rows, told.raw_bytes, told.digest) == (2, 200, 3)
        assert told.data == rows(0) + rows(1)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    run(test)


@pytest.mark.parametrize("message", [b"\xff" * 50, b"", follows_to_bytes([replace(ASK, id=0)])])
def test_a_bad_message_ends_its_stream_with_the_reason(message):
    async def test(daemon: Daemon) -> None:
        other, bad = daemon.follow(), daemon.follow()
        await other.write(follows_to_bytes([ASK]))
        await bad.write(follows_to_bytes([ASK]))
        await bad.write(message)
        with pytest.raises(grpc.aio.AioRpcError, match="FollowRequest") as caught:
            await bad.read()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        daemon.core.seal([(GROUP, 0, 1)])
        assert (await answer(other)).outcome == FollowOutcome.ELSEWHERE

    run(test)


def test_a_reader_that_hangs_up_is_forgotten():
    async def test(daemon: Daemon) -> None:
        call = daemon.follow()
        await call.write(follows_to_bytes([ASK]))
        await call.write(follows_to_bytes([replace(ASK, id=2, now=True)]))
        await call.read()
        assert daemon.core.mark_boards.followers == 1
        call.cancel()
        await daemon.forgotten()

    run(test)


def test_a_reader_that_does_not_read_holds_up_nobody():
    """A hundred replies of 800 KB are not made for it, and others are answered."""

    async def test(daemon: Daemon) -> None:
        slow, quick = daemon.follow(), daemon.follow()
        for number in range(1, 101):
            await slow.write(follows_to_bytes([replace(ASK, id=number)]))
        await slow.write(follows_to_bytes([replace(ASK, id=999, now=True)]))
        assert (await answer(slow)).id == 999
        await daemon.push(0, rows(0, b"y" * 800_000), done(0))
        await daemon.push(1, done(1))
        await quick.write(follows_to_bytes([ASK]))
        assert len((await answer(quick)).data) == len(rows(0, b"y" * 800_000))
        assert daemon.core.mark_boards.followers > 50
        assert [(await answer(slow)).id for _ in range(100)] == list(range(1, 101))
        assert daemon.core.mark_boards.followers == 0

    run(test)
