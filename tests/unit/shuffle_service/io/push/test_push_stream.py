"""One push stream over a real daemon's parts: how it ends, and what it must not keep."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from support.daemon_parts import KEY, DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.raw_push import request_bytes

from cosco.dfs import MemoryStore
from cosco.protocol.push.credits import EAGER_BYTES, FrameBudgets
from cosco.protocol.push.messages import Hello, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.receiver import MAX_UNTOLD
from cosco.protocol.wire import push_reply_from_bytes

BUDGET = 8 << 20


class Call:
    """gRPC's end of one push stream: what the sender sends, and what it was told."""

    def __init__(self, parts: DaemonParts, budgets: FrameBudgets, *, reads: bool = True) -> None:
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._reads = asyncio.Event()
        if reads:
            self._reads.set()
        self._replied = asyncio.Event()
        self.granted = self.eager_bytes = 0
        self.acknowledged: list[int] = []
        self.refused: list[Refusal] = []
        self.task = asyncio.create_task(parts.push_stream(self, budgets).run(self))

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        message = await self._requests.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def write(self, message: bytes) -> None:
        await self._reads.wait()
        reply = push_reply_from_bytes(message)
        self.granted += reply.granted
        self.eager_bytes += reply.eager_bytes
        self.acknowledged += reply.acknowledged
        self.refused += reply.refused
        self._replied.set()

    def read_replies(self) -> None:
        """From now on the sender reads."""
        self._reads.set()

    def send(self, *messages: bytes | None) -> None:
        for message in messages:
            self._requests.put_nowait(message)

    @property
    def unread_requests(self) -> int:
        return self._requests.qsize()

    async def until(self, condition) -> None:
        while not condition():
            self._replied.clear()
            await self._replied.wait()


def said(mapper: int = 1) -> Hello:
    return Hello(EXCHANGE, mapper, 1, INCARNATION)


def hello(*, mapper: int = 1) -> bytes:
    return request_bytes(PushRequest(hello=said(mapper)))


def announce(*lengths: int) -> bytes:
    return request_bytes(PushRequest(announce=lengths))


def push(data: bytes) -> bytes:
    return request_bytes(PushRequest(frame=data))


def eager(data: bytes) -> bytes:
    return request_bytes(PushRequest(eager=True, frame=data))


def opening(mapper: int, data: bytes) -> bytes:
    return request_bytes(PushRequest(hello=said(mapper), eager=True, frame=data))


async def pass_by() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def run(main, store=MemoryStore, **parts) -> None:
    async def all_of_it() -> None:
        opened = store()
        await opened.open()
        rig = DaemonParts(opened, **parts)
        try:
            await main(rig, FrameBudgets(BUDGET))
        finally:
            await rig.flusher.stop()
            await rig.link.close()

    asyncio.run(all_of_it())


def filled_up(parts: DaemonParts) -> None:
    """Leave no page free: whoever comes next waits."""
    parts.pool_pages = parts.core.pool.allocate(parts.core.pool.free_bytes)


def test_a_stream_that_is_cancelled_anywhere_gives_all_credits_back():
    """Before a grant is used, in the middle of a wait for pages, and with replies unread."""

    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        made = frame([block(0, 0)])
        unused = Call(parts, budgets)
        unused.send(hello(), announce(1 << 20, 1 << 20))
        await unused.until(lambda: unused.granted)
        unread = Call(parts, budgets, reads=False)
        unread.send(hello(mapper=2), announce(1 << 20))
        filled_up(parts)
        waiting = Call(parts, budgets)
        waiting.send(hello(), announce(len(made)))
        await waiting.until(lambda: waiting.granted)
        waiting.send(push(made))
        await pass_by()
        assert parts.core.page_queue.waiting_bytes == len(made)
        assert budgets.in_flight_bytes == (3 << 20) + len(made)
        for call in (unused, unread, waiting):
            call.task.cancel()
            with suppress(asyncio.CancelledError):
                await call.task
        assert budgets.in_flight_bytes == 0
        assert parts.core.page_queue.waiting_bytes == 0
        # The budget is whole again: another stream gets all that one stream may have.
        parts.core.pool.free(parts.pool_pages)
        last = Call(parts, budgets)
        last.send(hello(), announce(len(made)))
        await last.until(lambda: last.granted)
        last.send(push(made), None)
        await last.task
        assert last.acknowledged == [1]
        assert budgets.in_flight_bytes == 0

    run(main)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x0a\x7f", b"\xff" * 40, b"\x1a\x05ab", b"\x1a\xff\xff\xff\xff\xff\x01"]
)
def test_garbage_ends_the_stream_with_a_reason_that_is_counted(garbage):
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        call = Call(parts, budgets)
        call.send(hello(), announce(1 << 20), garbage)
        await call.task
        assert [refusal.code for refusal in call.refused] == [RefusalCode.PROTOCOL]
        assert call.refused[0].reason
        assert budgets.in_flight_bytes == 0
        refused = parts.metrics.frames_refused.labels("protocol")
        assert refused._value.get() == 1

    run(main)


@pytest.mark.parametrize("kind", ["refused", "acknowledged"])
def test_a_sender_that_does_not_read_is_not_read_from(kind):
    """Else what it is to be told would grow for as long as it sends."""

    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        parts.flusher.start()
        made = frame([block(0, 0)]) if kind == "acknowledged" else b"x"
        call = Call(parts, budgets, reads=False)
        call.send(hello())
        count = 5 * MAX_UNTOLD
        for _ in range(count):
            call.send(announce(len(made)), push(made))
        before = 0
        while call.unread_requests != before:
            before = call.unread_requests
            await pass_by()
        assert call.unread_requests >= 2 * (count - 3 * MAX_UNTOLD)
        call.read_replies()
        call.send(None)
        await call.task
        assert len(getattr(call, kind)) == count

    run(main)


def test_a_sender_whose_frame_waits_for_pages_does_not_sit_on_its_next_grant(monkeypatch):
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        monkeypatch.setattr("cosco.protocol.push.credits.GRANT_PATIENCE_S", 0.0)
        made = frame([block(0, 0)])
        filled_up(parts)
        call = Call(parts, budgets)
        call.send(hello(), announce(len(made), 1 << 20))
        await call.until(lambda: call.granted == 2)
        call.send(push(made))
        others = [Call(parts, budgets) for _ in range(5)]
        for mapper, other in enumerate(others, 2):  # one of them gets nothing
            other.send(hello(mapper=mapper), announce(*[2 << 20] * 2))
        await pass_by()
        budgets.tick(time.monotonic())
        await pass_by()
        assert not call.task.done()
        parts.core.pool.free(parts.pool_pages)
        parts.core.changed(0.0)
        await call.until(lambda: call.acknowledged)
        for one in (call, *others):
            one.task.cancel()
            with suppress(asyncio.CancelledError):
                await one.task
        assert budgets.in_flight_bytes == 0

    run(main)


def test_one_sequence_twice_and_one_block_twice_are_taken_once():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        made = [block(0, n) for n in range(3)]
        frames = [frame(made[:2], sequence=4), frame([made[1], made[2], made[1]], sequence=4)]
        call = Call(parts, budgets)
        call.send(hello(), announce(*map(len, frames)))
        await call.until(lambda: call.granted == 2)
        call.send(*(push(one) for one in frames), None)
        await call.task
        assert call.acknowledged == [4, 4]
        assert await parts.read(0) == b"".join(made)

    run(main)


def test_a_frame_of_which_a_part_is_in_is_not_taken_twice_by_the_next_stream():
    """The first stream dies while its frame waits for pages; the resend adds the rest."""

    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        made = [block(p, 0, bytes([p]) * 100_000) for p in range(6)]
        whole = frame(made)
        kept = parts.core.pool.allocate(parts.core.pool.free_bytes - 300_000)
        first = Call(parts, budgets)
        first.send(hello(), announce(len(whole)))
        await first.until(lambda: first.granted)
        first.send(push(whole))
        await pass_by()
        assert await parts.read(0) == made[0]
        assert await parts.read(5) == b""
        first.task.cancel()
        with suppress(asyncio.CancelledError):
            await first.task
        parts.core.pool.free(kept)
        second = Call(parts, budgets)
        second.send(hello(), announce(len(whole)))
        await second.until(lambda: second.granted)
        second.send(push(whole), None)
        await second.task
        assert second.acknowledged == [1]
        for partition, one in enumerate(made):
            assert await parts.read(partition) == one
        assert parts.core.assignment(KEY) is not None

    run(main)


def test_a_stream_serves_one_writer_after_another():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        call = Call(parts, budgets)
        for mapper in (1, 2, 3):
            made = frame([block(0, 0, mapper=mapper)], sequence=mapper)
            call.send(hello(mapper=mapper), announce(len(made)))
            await call.until(lambda mapper=mapper: call.granted == mapper)
            call.send(push(made))
            await call.until(lambda mapper=mapper: len(call.acknowledged) == mapper)
        assert len(parts.core._dedupe._hung_up) == 2
        wrong = frame([block(0, 1, mapper=2)], sequence=4)
        call.send(announce(len(wrong)))
        await call.until(lambda: call.granted == 4)
        call.send(push(wrong), None)
        await call.task
        assert [(r.sequence, r.code) for r in call.refused] == [(4, RefusalCode.BAD_FRAME)]
        assert call.acknowledged == [1, 2, 3]

    run(main)


@pytest.mark.parametrize("granted", [False, True])
def test_nobody_takes_over_a_stream_with_frames_under_way(granted):
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        if not granted:
            budgets.writers._in_flight_bytes = BUDGET
        call = Call(parts, budgets)
        call.send(hello(), announce(1 << 20))
        await pass_by()
        assert call.granted == granted
        call.send(hello(mapper=2))
        await call.task
        assert [refusal.code for refusal in call.refused] == [RefusalCode.PROTOCOL]

    run(main)


def test_small_frames_are_taken_without_a_grant():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        call = Call(parts, budgets)
        for mapper in (1, 2):
            frames = [frame([block(0, i, mapper=mapper)], sequence=i) for i in range(3)]
            call.send(hello(mapper=mapper), *(eager(f) for f in frames))
        await call.until(lambda: len(call.acknowledged) == 6)
        assert call.acknowledged == [0, 1, 2] * 2
        assert call.eager_bytes == EAGER_BYTES  # said once
        assert call.granted == budgets.in_flight_bytes == 0
        # A refused one gives its bytes back as well.
        half = frame([block(0, 9, b"x" * (EAGER_BYTES // 2), mapper=3)])
        call.send(*[eager(half)] * 4, None)
        await call.task
        assert [r.code for r in call.refused] == [RefusalCode.BAD_FRAME] * 4
        assert budgets.in_flight_bytes == 0

    run(main)


def test_a_hello_may_bring_a_frame():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        call = Call(parts, budgets)
        call.send(hello())
        await call.until(lambda: call.eager_bytes)
        for mapper in (2, 3):
            made = frame([block(0, 0, mapper=mapper)], sequence=mapper)
            call.send(opening(mapper, made))
        await call.until(lambda: call.acknowledged == [2, 3])
        # The frame is the new writer's, and refused if it is another one's.
        call.send(opening(4, frame([block(0, 1, mapper=3)], sequence=4)), None)
        await call.task
        assert [(r.sequence, r.code) for r in call.refused] == [(4, RefusalCode.BAD_FRAME)]
        assert budgets.in_flight_bytes == 0

    run(main)


def test_a_hello_brings_no_frame_beyond_the_loan():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        for _ in range(4):  # all that there is to lend
            Call(parts, budgets).send(hello())
        call = Call(parts, budgets)
        call.send(opening(1, frame([block(0, 0)])))
        await call.task
        assert [refusal.code for refusal in call.refused] == [RefusalCode.PROTOCOL]
        assert budgets.in_flight_bytes == 0

    run(main)


def test_what_is_sent_eagerly_beyond_the_loan_ends_the_stream():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        for _ in range(4):  # all that there is to lend
            Call(parts, budgets).send(hello())
        made = eager(frame([block(0, 0)]))
        call = Call(parts, budgets)
        call.send(hello(), made)
        await call.task
        assert call.eager_bytes == 0
        assert [refusal.code for refusal in call.refused] == [RefusalCode.PROTOCOL]
        assert budgets.in_flight_bytes == 0

    run(main)


def test_an_eager_frame_whose_stream_ends_is_not_counted_any_more():
    async def main(parts: DaemonParts, budgets: FrameBudgets) -> None:
        filled_up(parts)
        call = Call(parts, budgets)
        call.send(hello(), eager(frame([block(0, 0)])))
        await pass_by()
        assert budgets.in_flight_bytes > 0
        call.task.cancel()
        with suppress(asyncio.CancelledError):
            await call.task
        assert budgets.in_flight_bytes == 0

    run(main)
