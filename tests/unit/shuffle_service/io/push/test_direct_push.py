"""A push stream on the native transport: messages that enter a daemon's decisions at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.daemon_parts import KEY, DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.raw_push import request_bytes

from cosco.dfs import MemoryStore
from cosco.process.native_grpc.call import HIGH_WATER_BYTES, Call
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.push.credits import EAGER_BYTES, FrameBudgets
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, RefusalCode
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import push_reply_from_bytes
from cosco.shuffle_service.io.push.direct_push import DirectPush
from cosco.shuffle_service.state.intake import Found


class Stream:
    """The connection of one call: what it was asked for, and what its peer was told."""

    def __init__(self, parts: DaemonParts, budgets: FrameBudgets) -> None:
        self.asked: int | None = None  # more_bytes, while a message is asked for
        self.replies: list[PushReply] = []
        self.trailers: list[tuple[str, bytes]] | None = None
        self.call = Call(self, 1, "/cosco.v1.Shuffle/Push")
        self.core = parts.core
        self.unsent_bytes = 0  # what the peer does not take
        self.push = DirectPush(self.call, parts.receiver(budgets), parts.metrics)

    def ask(self, number: int, more_bytes: int) -> None:
        assert self.asked is None
        self.asked = more_bytes

    def allow(self, number: int, length: int) -> None:
        """Nothing long is sent here."""

    def send(self, number: int, message: bytes) -> int:
        self.replies.append(push_reply_from_bytes(message))
        return self.unsent_bytes

    def finish(self, number: int, trailers: list[tuple[str, bytes]]) -> None:
        assert self.trailers is None
        self.trailers = trailers

    def come(self, *messages: bytes) -> list[PushReply]:
        """Messages that were asked for have come together. Returns what is said at once."""
        assert self.asked is not None
        self.asked = None
        self.replies.clear()
        self.call.on_messages(list(messages))
        return self.replies


def hello(mapper: int = 1) -> bytes:
    return request_bytes(PushRequest(hello=Hello(EXCHANGE, mapper, 1, INCARNATION)))


def eager(sequence: int, data: bytes | None = None, **header: int) -> bytes:
    made = frame([block(0, sequence)], sequence=sequence, **header) if data is None else data
    return request_bytes(PushRequest(eager=True, frame=made))


def acknowledged(replies: list[PushReply]) -> list[int]:
    return [sequence for reply in replies for sequence in reply.acknowledged]


def run(main: Callable[[DaemonParts, FrameBudgets, Stream], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        store = MemoryStore()
        await store.open()
        parts, budgets = DaemonParts(store), FrameBudgets(8 << 20)
        try:
            stream = Stream(parts, budgets)
            assert stream.come(hello())[0].eager_bytes == EAGER_BYTES
            await main(parts, budgets, stream)
        finally:
            await parts.flusher.stop()
            await parts.link.close()

    asyncio.run(all_of_it())


def test_what_came_together_is_answered_by_one_reply_and_looked_at_once():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        looks: list[float] = []
        parts.core.frame_came = looks.append  # type: ignore[method-assign]
        [reply] = stream.come(*map(eager, range(1, 9)))
        assert reply.acknowledged == list(range(1, 9))
        assert len(looks) == 1
        assert parts.metrics.blocks_received._value.get() == 8
        assert await parts.read(0) == b"".join(block(0, n) for n in range(1, 9))
        assert budgets.in_flight_bytes == 0

    run(main)


def test_no_more_is_asked_for_than_is_lent():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        assert stream.asked is not None
        assert 0 < stream.asked <= EAGER_BYTES
        others = [Stream(parts, budgets) for _ in range(4)]
        for other in others:
            other.come(hello())
        assert others[-1].asked == 0  # to which nothing is lent: one message at a time

    run(main)


def test_a_bad_frame_among_several_is_refused_by_its_sequence_alone():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        bad = bytearray(frame([block(0, 3)], sequence=3))
        bad[-1] ^= 1
        [reply] = stream.come(eager(1), eager(2), eager(3, bytes(bad)), eager(4))
        assert reply.acknowledged == [1, 2, 4]
        assert [(one.sequence, one.code) for one in reply.refused] == [(3, RefusalCode.BAD_FRAME)]
        assert await parts.read(0) == b"".join(block(0, n) for n in (1, 2, 4))
        assert stream.asked is not None  # the stream goes on

    run(main)


@pytest.mark.parametrize("broken", [b"", b"\xff" * 40, request_bytes(PushRequest(frame=b"x" * 99))])
def test_what_breaks_the_rules_ends_the_stream_and_what_came_before_counts(broken: bytes):
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        [reply] = stream.come(eager(1), eager(2), broken, eager(3))
        assert reply.acknowledged == [1, 2]
        assert [(one.sequence, one.code) for one in reply.refused] == [(0, RefusalCode.PROTOCOL)]
        assert reply.refused[0].reason
        assert stream.trailers is not None
        assert await parts.read(0) == block(0, 1) + block(0, 2)
        assert budgets.in_flight_bytes == 0

    run(main)


def test_a_loan_that_is_used_up_among_several_ends_the_stream_at_that_one():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        replicas = (DaemonRef(INCARNATION + 1, "replica"),)  # which never answers
        own = Assignment(1, 1, 1, DaemonRef(INCARNATION, "own"), replicas)
        parts.core.admit(EXCHANGE, own, PartitionRange(1, 9, 9))
        content = b"x" * (EAGER_BYTES // 4 - 200)
        frames = [
            eager(n, frame([block(9, n, content)], sequence=n, range_index=1)) for n in range(1, 6)
        ]
        assert stream.come(*frames[:3]) == []
        assert budgets.in_flight_bytes > 3 * len(content)
        [reply] = stream.come(*frames[3:], frames[0])
        assert reply.acknowledged == []
        assert [(one.sequence, one.code) for one in reply.refused] == [(0, RefusalCode.PROTOCOL)]
        assert "neither announced nor granted" in reply.refused[0].reason
        assert budgets.in_flight_bytes == 0
        held = parts.core.assignment(AssignmentKey(EXCHANGE, 1, 1))
        assert held is not None
        assert held.unstored_bytes() == 4 * len(block(9, 1, content))

    run(main)


def test_what_waits_for_pages_holds_up_those_behind_it_and_nothing_is_lost():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        filled = parts.core.pool.allocate(parts.core.pool.free_bytes)
        assert stream.come(*map(eager, (1, 2, 3))) == []
        assert stream.asked is None  # nothing more is read meanwhile
        one = len(frame([block(0, 1)]))
        assert parts.core.page_queue.waiting_bytes == one
        assert budgets.in_flight_bytes == one
        parts.core.pool.free(filled)
        parts.core.changed(0.0)
        await asyncio.sleep(0)
        assert acknowledged(stream.replies) == [1, 2, 3]
        assert stream.asked is not None
        assert await parts.read(0) == b"".join(block(0, n) for n in (1, 2, 3))
        assert budgets.in_flight_bytes == 0

    run(main)


def test_what_nobody_expects_of_a_message_that_waited_ends_its_stream_alone(caplog):
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        filled = parts.core.pool.allocate(parts.core.pool.free_bytes)
        stream.come(*map(eager, (1, 2, 3)))
        append = parts.core.append_frame

        def append_once(*arguments: Any) -> Any:
            parts.core.append_frame = broken  # type: ignore[method-assign]
            return append(*arguments)

        def broken(*_: Any) -> Any:
            raise RuntimeError("a fault of ours")

        parts.core.append_frame = append_once  # type: ignore[method-assign]
        parts.core.pool.free(filled)
        parts.core.changed(0.0)
        await asyncio.sleep(0)
        assert ("grpc-status", b"2") in (stream.trailers or [])
        assert budgets.in_flight_bytes == 0
        assert not stream.push._rest
        assert "a fault of ours" in caplog.text
        parts.core.append_frame = append  # type: ignore[method-assign]
        other = Stream(parts, budgets)
        other.come(hello())
        assert acknowledged(other.come(eager(1))) == [1]

    run(main)


def test_a_stream_that_ends_with_several_under_way_gives_all_back():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        filled = parts.core.pool.allocate(parts.core.pool.free_bytes)
        stream.come(*map(eager, (1, 2, 3)))
        stream.call.on_cancel()
        assert budgets.in_flight_bytes == 0
        assert parts.core.page_queue.waiting_bytes == 0
        assert not stream.push._rest
        parts.core.pool.free(filled)
        parts.core.changed(0.0)
        await asyncio.sleep(0)
        assert stream.replies == []
        assert await parts.read(0) == b""

    run(main)


def test_an_end_that_comes_behind_several_that_wait_is_kept_for_after_them():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        filled = parts.core.pool.allocate(parts.core.pool.free_bytes)
        stream.come(*map(eager, (1, 2)))
        stream.call.on_end()
        assert stream.trailers is None
        parts.core.pool.free(filled)
        parts.core.changed(0.0)
        await asyncio.sleep(0)
        assert acknowledged(stream.replies) == [1, 2]
        assert stream.trailers is not None

    run(main)


def test_a_peer_that_reads_no_answers_is_told_all_of_them_before_the_end(monkeypatch):
    monkeypatch.setattr("cosco.protocol.push.receiver.MAX_UNTOLD", 2)

    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        stream.unsent_bytes = HIGH_WATER_BYTES
        assert acknowledged(stream.come(eager(1))) == [1]
        assert stream.come(*map(eager, (2, 3, 4, 5))) == []
        assert await parts.read(0) == b"".join(block(0, n) for n in (1, 2, 3))
        stream.call.on_end()
        assert stream.trailers is None
        stream.unsent_bytes = 0
        stream.call.room()
        assert acknowledged(stream.replies) == [2, 3, 4, 5]
        assert stream.trailers is not None

    run(main)


def test_an_assignment_that_is_sealed_between_two_refuses_the_rest_of_them():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        filled = parts.core.pool.allocate(parts.core.pool.free_bytes)
        stream.come(*map(eager, (1, 2)))
        parts.core.seal([KEY])
        parts.core.pool.free(filled)
        parts.core.changed(0.0)
        await asyncio.sleep(0)
        refused = [one for reply in stream.replies for one in reply.refused]
        assert [(one.sequence, one.code) for one in refused] == [
            (1, RefusalCode.NOT_ASSIGNED),
            (2, RefusalCode.NOT_ASSIGNED),
        ]
        assert acknowledged(stream.replies) == []

    run(main)


def test_a_writer_that_takes_over_among_several_messages_has_its_own_frames():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        theirs = frame([block(0, 0, mapper=2)], sequence=7)
        [reply] = stream.come(eager(1), hello(2), eager(7, theirs), eager(2))
        assert reply.acknowledged == [1, 7]
        assert [(one.sequence, one.code) for one in reply.refused] == [(2, RefusalCode.BAD_FRAME)]
        assert len(parts.core._dedupe._hung_up) == 1
        assert parts.metrics.blocks_received._value.get() == 2

    run(main)


def test_an_unknown_assignment_among_several_is_looked_up_before_those_behind_it():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        asked: list[tuple[AssignmentKey, Found]] = []

        def look_up(key: AssignmentKey, found: Found) -> Callable[[], object]:
            asked.append((key, found))
            return lambda: None

        parts.intakes.look_up = look_up
        [reply] = stream.come(hello(), eager(1), eager(2, epoch=9), eager(3))
        assert reply.acknowledged == [1]
        assert stream.asked is None
        [(key, found)] = asked
        assert key == AssignmentKey(EXCHANGE, 0, 9)
        found(NotAssigned("of another daemon"), 0.0)
        await asyncio.sleep(0)
        assert acknowledged(stream.replies) == [1, 3]
        assert [one.sequence for reply in stream.replies for one in reply.refused] == [2]

    run(main)


def test_a_stream_of_no_use_is_ended_when_it_is_quiet_and_no_other():
    async def main(parts: DaemonParts, budgets: FrameBudgets, stream: Stream) -> None:
        share = budgets.writers.budget_bytes // 4
        other = Stream(parts, budgets)
        assert not other.call.on_quiet()  # which has not said who it is: others see to that
        other.come(hello(2))
        [granted] = other.come(request_bytes(PushRequest(announce=(share, share))))
        assert granted.granted == 1
        assert not other.call.on_quiet()  # it waits for room
        other.call.on_cancel()
        filled = parts.core.pool.allocate(parts.core.pool.free_bytes)
        assert stream.come(eager(1)) == []
        assert not stream.call.on_quiet()  # its frame is not answered
        parts.core.pool.free(filled)
        parts.core.changed(0.0)
        await asyncio.sleep(0)
        assert acknowledged(stream.replies) == [1]
        stream.come(request_bytes(PushRequest(announce=(share,))))
        primary = Stream(parts, budgets)
        said = Hello(EXCHANGE, 0, 0, INCARNATION, primary=7)
        primary.come(request_bytes(PushRequest(hello=said)))
        assert not primary.call.on_quiet()
        primary.call.on_cancel()
        assert stream.call.on_quiet()  # it was granted a frame and does not send it
        assert stream.trailers == [("grpc-status", b"0")]
        assert not stream.call.on_quiet()
        assert budgets.in_flight_bytes == 0

    run(main)
