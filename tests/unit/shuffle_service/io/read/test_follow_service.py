"""Readers that wait for marks, on a stream that a test reads and writes itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from support.copies import keep_copy
from support.daemon_parts import DaemonParts
from support.frame_making import INCARNATION, block, frame
from support.mark_making import found, mark

from cosco.dfs import MemoryStore
from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.process.native_grpc.call import MESSAGE_COST_BYTES
from cosco.protocol.capability import (
    MAX_CHARACTERS,
    CapabilityKey,
    Checker,
    Permit,
    Rights,
    made,
)
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.keys import MapperAttempt
from cosco.protocol.wire import (
    MAX_FOLLOWS,
    error_from_bytes,
    followed_from_bytes,
    follows_to_bytes,
)
from cosco.shuffle_service.io import lookups
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read import follow_service as module
from cosco.shuffle_service.io.read.direct_follow import DirectFollow
from cosco.shuffle_service.io.read.follow_service import Followers, FollowStream
from cosco.shuffle_service.state.access_check import AccessCheck, ReadingStream
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.follow_answers import MAX_DATA_BYTES
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

GROUP = 500
KEY = (GROUP, 0, 1)
READY, WAITING = FollowOutcome.READY, FollowOutcome.WAITING
ELSEWHERE, CLOSED = FollowOutcome.ELSEWHERE, FollowOutcome.CLOSED
ASK = Follow(1, INCARNATION, GROUP, 0, 1, 0, max_bytes=1000)


class Service:
    """A metadata service that answers look-ups when it is let, each number its own way."""

    def __init__(self) -> None:
        self.answers: dict[int, object] = {}
        self.asked: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def lookup(self, number, *_):
        self.asked.append(number)
        await self.may_answer.wait()
        answer = self.answers.get(number)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Stream:
    """One call of Follow; `open` False: the reader does not read."""

    def __init__(
        self, core: DaemonCore, lookups: Lookups, shown: ReadingStream, metrics: DaemonMetrics
    ) -> None:
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.replies: asyncio.Queue[Followed] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self.taken = self.written = 0
        self.shown = shown
        self.followers = Followers(core, lookups, self.shown, metrics)
        stream = FollowStream(self, self.followers)
        self.task = asyncio.create_task(stream.run(self._messages()))

    async def _messages(self) -> AsyncIterator[bytes]:
        while (message := await self.requests.get()) is not None:
            self.taken += 1
            yield message

    async def write(self, message: bytes) -> None:
        await self.reads.wait()
        self.written += 1
        for reply in followed_from_bytes(message):
            self.replies.put_nowait(reply)

    async def ask(self, *asks: Follow) -> None:
        """Send questions; they are taken when this returns."""
        for ask in asks:
            self.requests.put_nowait(follows_to_bytes([ask]))
        await settled()

    async def reply(self) -> Followed:
        return await asyncio.wait_for(self.replies.get(), 5)

    async def tell(self, ask: Follow) -> Followed:
        await self.ask(ask)
        return await self.reply()

    async def end(self) -> None:
        self.requests.put_nowait(None)
        await self.task


class DirectCall:
    """What a native server would give a handler of a `DirectStream`."""

    def __init__(self, stream: DirectStream) -> None:
        self.stream = stream
        self.asked: asyncio.Queue[int] = asyncio.Queue()

    @property
    def has_room(self) -> bool:
        return self.stream.reads.is_set()

    def ask(self, more_bytes: int = 0) -> None:
        self.asked.put_nowait(more_bytes)

    def send(self, message: bytes) -> None:
        self.stream.written += 1
        for reply in followed_from_bytes(message):
            self.stream.replies.put_nowait(reply)

    def finish(self, code, details="", trailers=()) -> None:
        if trailers:
            self.stream.task.set_exception(error_from_bytes(trailers[0][1]))
        else:
            self.stream.task.set_result(None)


class DirectStream(Stream):
    """The same on the native transport, without a task."""

    def __init__(
        self, core: DaemonCore, lookups: Lookups, shown: ReadingStream, metrics: DaemonMetrics
    ) -> None:
        self.requests = asyncio.Queue()
        self.replies = asyncio.Queue()
        self.call = DirectCall(self)
        self.reads = Reads(self.call)
        self.taken = self.written = 0
        self.task = asyncio.get_running_loop().create_future()
        self.shown = shown
        self.followers = Followers(core, lookups, self.shown, metrics)
        DirectFollow(self.call, self.followers)
        self.feeder = asyncio.create_task(self._feed())
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self.feeder.cancel()
        if task.cancelled():  # the reader is gone
            self.call.on_cancel()

    async def _feed(self) -> None:
        while True:
            left_bytes = await self.call.asked.get()
            messages = [await self.requests.get()]
            while None not in messages and not self.requests.empty() and left_bytes >= 100:
                messages.append(self.requests.get_nowait())
                left_bytes -= len(messages[-1] or b"") + MESSAGE_COST_BYTES
            come = [message for message in messages if message is not None]
            self.taken += len(come)
            if come:
                self.call.on_messages(come)
            if None in messages:
                self.call.on_end()
                return


class Reads(asyncio.Event):
    """Whether the reader reads; its call is told when it goes on."""

    def __init__(self, call: DirectCall) -> None:
        super().__init__()
        super().set()
        self.call = call

    def set(self) -> None:
        super().set()
        self.call.on_room()


STREAM: list[type[Stream]] = [Stream]


@pytest.fixture(params=[Stream, DirectStream], ids=["tasks", "direct"], autouse=True)
def _stream_kind(request: pytest.FixtureRequest) -> None:
    STREAM[0] = request.param


class Rig:
    """A daemon that has the first exchange of a group of two mappers."""

    def __init__(self, parts: DaemonParts, service: Service) -> None:
        self.parts, self.core, self.service = parts, parts.core, service
        self.access, self.streams = AccessCheck(), TenantStreams()

    def admit(self, number: int = GROUP, **options) -> None:
        answer = found(**options)
        self.core.admit(number, answer.assignment, answer.partition_range, answer.mappers)

    def stream(self) -> Stream:
        shown = ReadingStream(self.access, self.streams)
        return STREAM[0](self.core, self.parts.lookups, shown, self.parts.metrics)

    async def push(self, *blocks: bytes, number: int = GROUP, mapper: int = 0) -> None:
        await self.take(frame(blocks, exchange=number), MapperAttempt(mapper, 1), number)

    async def take(self, data: bytes, mapper_attempt: MapperAttempt, number: int) -> None:
        await self.parts.push(data, lambda error: None, mapper_attempt, number)

    async def finish(self, *mappers: int, number: int = GROUP) -> None:
        for mapper in mappers:
            done = mark(mapper, mapper + 7, exchange=number, p0=(1, 2, 3), p4=(4, 5, 2**64 - 6))
            await self.take(
                frame([done], exchange=number), MapperAttempt(mapper, mapper + 7), number
            )

    @property
    def waiting(self) -> int:
        return self.core.mark_boards.followers


async def settled() -> None:
    """Let all that is ready to run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Callable[[Rig, Stream], Awaitable[None]], **options) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        service = Service()
        rig = Rig(DaemonParts(store, link=service, **options), service)
        rig.admit()
        stream = rig.stream()
        try:
            await test(rig, stream)
        finally:
            if not stream.task.done():
                await stream.end()
        assert stream.shown._tenant == 0  # it is counted as nobody's any more
        assert rig.waiting == 0
        assert not any(rig.parts.lookups._waiting.values())
        board = rig.core.assignment(KEY)
        assert board is None or board.board is None or board.board._followers is None

    asyncio.run(main())


def sent(rig: Rig) -> list[float | None]:
    """Bytes and rows that were counted as sent to readers."""
    names = ("cosco_bytes_fetched_total", "cosco_rows_fetched_total")
    return [rig.parts.metrics.registry.get_sample_value(name) for name in names]


def rows(partition: int = 0, mapper: int = 0, first_row: int = 0, content: bytes = b"x") -> bytes:
    return block(partition, first_row, content, exchange=GROUP, mapper=mapper)


def test_who_waits_is_told_when_the_last_mark_comes():
    async def test(rig: Rig, stream: Stream) -> None:
        await stream.ask(ASK, replace(ASK, id=2, partition=4))
        await rig.push(rows(0), rows(4))
        await rig.finish(1)
        await settled()
        assert stream.replies.empty()
        assert rig.waiting == 2
        await rig.finish(0)
        one, two = await stream.reply(), await stream.reply()
        assert (one.id, one.outcome, one.attempts.tolist()) == (1, READY, [7, 8])
        assert (one.rows, one.raw_bytes, one.digest) == (2, 4, 6)
        assert (one.data, one.fetch) == (rows(0), False)
        assert (two.id, two.rows, two.raw_bytes, two.digest) == (2, 8, 10, 2**64 - 12)
        assert two.data == rows(4)
        assert rig.waiting == 0
        empty = await stream.tell(replace(ASK, partition=7))
        assert (empty.outcome, empty.rows, empty.raw_bytes, empty.digest) == (READY, 0, 0, 0)
        assert (empty.data, empty.fetch) == (b"", False)
        assert sent(rig) == [len(rows(0) + rows(4)), 2]

    run(test)


def test_a_stream_without_questions_is_ended_when_it_is_quiet():
    async def test(rig: Rig, stream: Stream) -> None:
        if not isinstance(stream, DirectStream):
            return  # gRPC's own server does not look
        await stream.ask(ASK)
        await settled()
        assert not stream.call.on_quiet()  # it waits for marks, for as long as it takes
        await rig.push(rows(0))
        await rig.finish(0, 1)
        assert (await stream.reply()).outcome == READY
        assert stream.call.on_quiet()
        await stream.task
        assert not stream.call.on_quiet()

    run(test)


def test_who_shows_no_capability_is_denied_alone():
    """Of the readers that share a stream; each exchange is shown once."""

    async def test(rig: Rig, stream: Stream) -> None:
        master = CapabilityKey(1, b"k" * 32)
        rig.access.set_keys([master.derived(Checker.DAEMON)])
        shown = made(master, Permit(GROUP, 1, Rights.READ))
        await rig.push(rows(0))
        await stream.ask(replace(ASK, capability=shown))
        rig.admit(GROUP + 1)
        told = await stream.tell(replace(ASK, id=2, number=GROUP + 1, capability=shown))
        assert (told.id, told.outcome) == (2, FollowOutcome.DENIED)
        assert "to read from" in told.reason
        assert not told.data
        told = await stream.tell(replace(ASK, id=2, number=GROUP + 7))  # nobody looks it up
        assert (told.outcome, rig.service.asked) == (FollowOutcome.DENIED, [])
        told = await rig.stream().tell(replace(ASK, id=2, now=True))
        assert (told.outcome, list(told.done)) == (FollowOutcome.DENIED, [])
        told = await stream.tell(replace(ASK, id=3, now=True))
        assert told.outcome is FollowOutcome.WAITING
        await stream.ask(replace(ASK, id=1, leave=True), ASK)
        await rig.finish(0, 1)
        told = await stream.reply()
        assert (told.id, told.outcome, told.data) == (1, READY, rows(0))

    run(test)


def test_a_stream_more_than_its_tenant_may_have_is_told_what_is_there_and_ends():
    """By that readers find who has ended without a commit, however many streams there are."""

    async def test(rig: Rig, stream: Stream) -> None:
        master = CapabilityKey(1, b"k" * 32)
        rig.access.set_keys([master.derived(Checker.DAEMON)])
        shown = made(master, Permit(GROUP, 2, Rights.READ, tenant=7))
        rig.streams = TenantStreams(1)
        first, one, two = rig.stream(), rig.stream(), rig.stream()
        await first.ask(replace(ASK, capability=shown))
        await rig.finish(1)
        told = await one.tell(replace(ASK, id=2, now=True, capability=shown))
        assert (told.outcome, list(told.done)) == (FollowOutcome.WAITING, [1])
        told = await two.tell(replace(ASK, id=3, capability=shown))
        assert told.outcome is FollowOutcome.ELSEWHERE
        assert "--tenant-streams" in told.reason
        async with asyncio.timeout(5):
            await asyncio.gather(one.task, two.task)
        three = rig.stream()
        rig.service.may_answer.clear()
        unknown = replace(ASK, number=GROUP + 1, now=True, capability=shown)
        await three.ask(unknown)
        assert not three.task.done()  # it is being looked up
        rig.service.may_answer.set()
        assert (await three.reply()).outcome is FollowOutcome.ELSEWHERE
        async with asyncio.timeout(5):
            await three.task
        await rig.finish(0)
        assert (await first.reply()).outcome is READY
        await settled()
        assert not first.task.done()
        await first.end()

    run(test)


def test_a_capability_that_waits_with_its_question_is_short():
    async def test(rig: Rig, stream: Stream) -> None:
        await stream.ask(replace(ASK, capability="x" * (MAX_CHARACTERS + 1)))
        with pytest.raises(InvalidArgument, match=f"capability beyond {MAX_CHARACTERS}"):
            await stream.task

    run(test)


def test_a_reply_is_written_without_another_wait():
    """The mark, the stream's turn, and the reply is on its way."""

    async def test(rig: Rig, stream: Stream) -> None:
        await stream.ask(ASK)
        await rig.finish(0)
        await rig.finish(1)
        assert stream.replies.empty()
        await asyncio.sleep(0)
        assert stream.replies.qsize() == 1

    run(test)


@pytest.mark.parametrize(
    ("length", "max_bytes", "fetch"),
    [(100, 164, False), (100, 163, True), (100, 0, True), (0, 0, False)],
)
def test_rows_come_with_the_reply_if_they_are_few(length, max_bytes, fetch):
    async def test(rig: Rig, stream: Stream) -> None:
        made = rows(content=b"y" * length) if length else b""
        if made:
            await rig.push(made)
        await rig.finish(0, 1)
        reply = await stream.tell(replace(ASK, max_bytes=max_bytes))
        assert reply.fetch == fetch
        assert reply.data == (b"" if fetch else made)

    run(test)


def test_no_reply_is_longer_than_the_bound():
    async def test(rig: Rig, stream: Stream) -> None:
        for first in range(4):
            await rig.push(rows(first_row=first, content=b"y" * (MAX_DATA_BYTES // 4)))
        await rig.finish(0, 1)
        assert (await stream.tell(replace(ASK, max_bytes=2**32 - 1))).fetch

    run(test, pages=32)


@pytest.mark.parametrize("state", ["open", "flushing", "flushing and open", "stored"])
def test_rows_are_sent_from_memory_wherever_they_are_there(state):
    async def test(rig: Rig, stream: Stream) -> None:
        await rig.push(rows())
        if state != "open":
            rig.core.flushes.everything = True
            flush = rig.core.next_flush()
            rig.core.flushes.everything = False
            if state == "stored":
                rig.core.end_flush(flush, 0.0)
        if "and" in state:
            await rig.push(rows(first_row=1))
        await rig.finish(0, 1)
        reply = await stream.tell(ASK)
        assert reply.fetch == (state == "stored")
        expected = rows() + (rows(first_row=1) if "and" in state else b"")
        assert reply.data == (b"" if reply.fetch else expected)

    run(test)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"incarnation": INCARNATION + 1}, ELSEWHERE),
        ({"incarnation": 0}, ELSEWHERE),
        ({"partition": 8}, ELSEWHERE),
        ({"partition": 2**32 - 1, "now": True}, ELSEWHERE),
        ({"number": 2**64 - 1, "id": 2**64 - 1}, ELSEWHERE),
        ({"range_index": 1}, ELSEWHERE),
        ({"epoch": 2**32 - 1}, ELSEWHERE),
        ({"number": 7}, ELSEWHERE),  # of no group
        ({"number": 600}, ELSEWHERE),  # another daemon is the primary
    ],
)
def test_what_is_not_to_be_learned_here(change, outcome):
    async def test(rig: Rig, stream: Stream) -> None:
        rig.admit(600, primary=99, replicas=(INCARNATION,))
        reply = await stream.tell(replace(ASK, **change))
        assert (reply.id, reply.outcome) == (change.get("id", 1), outcome)
        assert reply.reason

    run(test)


def test_who_waits_for_what_is_sealed_or_dropped_is_told():
    async def test(rig: Rig, stream: Stream) -> None:
        rig.admit(501)
        await stream.ask(ASK, replace(ASK, id=2, number=501))
        rig.core.seal([KEY])
        rig.core.drop(501)
        assert [(await stream.reply()).outcome for _ in range(2)] == [ELSEWHERE, CLOSED]
        assert (await stream.tell(ASK)).outcome == ELSEWHERE
        assert (await stream.tell(replace(ASK, number=501))).outcome == CLOSED

    run(test)


def test_what_was_complete_before_it_was_sealed_is_answered():
    async def test(rig: Rig, stream: Stream) -> None:
        await rig.push(rows())
        await rig.finish(0, 1)
        rig.core.seal([KEY])
        reply = await stream.tell(ASK)
        assert (reply.outcome, reply.data) == (READY, rows())
        rig.core.drop(GROUP)
        assert (await stream.tell(ASK)).outcome == CLOSED

    run(test)


@pytest.mark.parametrize("at", ["primary", "replica", "sealed"])
def test_now_is_answered_at_once(at):
    async def test(rig: Rig, stream: Stream) -> None:
        now = replace(ASK, now=True)
        reply = await stream.tell(now)
        assert (reply.outcome, list(reply.done)) == (WAITING, [])
        await rig.finish(1)
        reply = await stream.tell(now)
        assert (reply.outcome, list(reply.done)) == (WAITING, [1])
        if at == "primary":
            await rig.finish(0)
            reply = await stream.tell(now)
            assert (reply.outcome, list(reply.done)) == (READY, [0, 1])
            assert not reply.data
        elif at == "sealed":
            rig.core.seal([KEY])
            reply = await stream.tell(now)
            assert (reply.outcome, list(reply.done)) == (WAITING, [1])
        else:
            rig.admit(600, primary=99, replicas=(INCARNATION,))
            made = [mark(0, 7, exchange=600)]
            keep_copy(rig.core, frame(made, exchange=600), 99, lambda error: None)
            reply = await stream.tell(replace(now, number=600))
            assert (reply.outcome, list(reply.done)) == (WAITING, [0])

    run(test)


def test_now_tells_of_marks_of_earlier_epochs_as_well():
    async def test(rig: Rig, stream: Stream) -> None:
        await rig.finish(1)
        rig.core.seal([KEY])
        rig.admit(epoch=2)
        reply = await stream.tell(replace(ASK, epoch=2, now=True))
        assert (reply.outcome, list(reply.done)) == (WAITING, [1])

    run(test)


@pytest.mark.parametrize(("build", "done"), [(1, [1]), (2, [])])
def test_of_one_build_marks_of_earlier_ones_are_not_told(build, done):
    async def test(rig: Rig, stream: Stream) -> None:
        await rig.finish(1)
        rig.core.seal([KEY])
        rig.admit(epoch=2, build=build)
        now = replace(ASK, epoch=2, now=True)
        assert list((await stream.tell(replace(now, same_build=True))).done) == done
        assert list((await stream.tell(now)).done) == [1]

    run(test)


def test_an_unknown_assignment_is_looked_up_and_holds_up_nobody():
    async def test(rig: Rig, stream: Stream) -> None:
        rig.service.may_answer.clear()
        rig.service.answers[501] = found(first=501, size=3)
        asks = [replace(ASK, id=n, number=n) for n in range(501, 504)]
        await stream.ask(*asks, replace(ASK, id=10, partition=1), replace(ASK, number=501, id=11))
        assert rig.service.asked == [501, 502, 503]
        await rig.finish(0, 1)
        assert (await stream.reply()).id == 10
        assert rig.waiting == 4
        rig.service.answers[502] = rig.service.answers[503] = rig.service.answers[501]
        rig.service.may_answer.set()
        await settled()
        assert stream.replies.empty()
        assert rig.waiting == 4
        for number in range(501, 504):
            await rig.finish(0, 1, number=number)
        assert sorted([(await stream.reply()).id for _ in range(4)]) == [11, 501, 502, 503]

    run(test)


def test_an_answer_for_one_is_used_for_those_that_are_looked_up_after_it(monkeypatch):
    monkeypatch.setattr(lookups, "MAX_LOOK_UPS", 1)

    async def test(rig: Rig, stream: Stream) -> None:
        rig.service.may_answer.clear()
        rig.service.answers[501] = found(first=501, size=50)
        await stream.ask(*(replace(ASK, id=n, number=n) for n in range(501, 551)))
        rig.service.may_answer.set()
        await settled()
        assert rig.service.asked == [501]
        assert rig.waiting == 50
        await stream.end()

    run(test, pages=64)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, ELSEWHERE),
        (ExchangeClosed("over"), CLOSED),
        (InvalidArgument("no such thing"), ELSEWHERE),
        (found(sealed=True), ELSEWHERE),
        (found(0), ELSEWHERE),
    ],
)
def test_what_the_service_denies_is_told(answer, outcome):
    async def test(rig: Rig, stream: Stream) -> None:
        rig.service.answers[501] = answer
        reply = await stream.tell(replace(ASK, number=501))
        assert reply.outcome == outcome
        assert reply.reason

    run(test)


def test_an_exchange_dropped_during_its_look_up_is_closed():
    async def test(rig: Rig, stream: Stream) -> None:
        rig.service.may_answer.clear()
        rig.service.answers[501] = found()
        await stream.ask(replace(ASK, number=501))
        rig.core.drop(501)
        rig.service.may_answer.set()
        assert (await stream.reply()).outcome == CLOSED

    run(test)


def test_who_leaves_is_told_nothing():
    async def test(rig: Rig, stream: Stream) -> None:
        rig.service.may_answer.clear()
        unknown = replace(ASK, id=3, number=501)
        await stream.ask(ASK, replace(ASK, id=2), unknown)
        assert rig.waiting == 3
        await stream.ask(
            Follow(1, 0, 0, 0, 0, 0, leave=True),
            Follow(3, 0, 0, 0, 0, 0, leave=True),
            Follow(99, 0, 0, 0, 0, 0, leave=True),
        )
        assert rig.waiting == 1
        rig.service.may_answer.set()
        await rig.finish(0, 1)
        assert (await stream.reply()).id == 2
        await stream.ask(ASK)  # its id may be used again
        assert (await stream.reply()).id == 1
        assert stream.replies.empty()

    run(test)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers with data travel alone."""
    monkeypatch.setattr(module, "MAX_DATA_BYTES", 1)


def test_who_leaves_before_the_stream_takes_the_answer_gets_none(one_by_one):
    async def test(rig: Rig, stream: Stream) -> None:
        await rig.push(rows())
        await stream.ask(ASK, replace(ASK, id=2), replace(ASK, id=3))
        stream.reads.clear()
        await rig.finish(0, 1)
        gone = Follow(2, 0, 0, 0, 0, 0, leave=True)
        await stream.ask(gone, replace(ASK, id=2, partition=4))  # its id is used again
        stream.reads.set()
        told = [await stream.reply() for _ in range(3)]
        assert [(reply.id, reply.rows) for reply in told] == [(1, 2), (3, 2), (2, 8)]
        await settled()
        assert stream.replies.empty()

    run(test)


def test_a_stream_that_ends_is_forgotten():
    async def test(rig: Rig, stream: Stream) -> None:
        rig.service.may_answer.clear()
        await stream.ask(ASK, replace(ASK, id=2), replace(ASK, id=3, number=501))
        other = rig.stream()
        await other.ask(ASK)
        assert rig.waiting == 4
        await stream.end()
        assert rig.waiting == 1
        other.task.cancel()
        await asyncio.gather(other.task, return_exceptions=True)
        assert rig.waiting == 0
        assert not any(rig.parts.lookups._waiting.values())

    run(test)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff" * 40,
        b"",
        follows_to_bytes([replace(ASK, id=0)]),
        follows_to_bytes([replace(ASK, id=5)]),
        follows_to_bytes([replace(ASK, id=number) for number in range(6, MAX_FOLLOWS + 7)]),
    ],
    ids=["garbage", "empty", "id 0", "an id that waits", "too many at once"],
)
def test_a_bad_message_ends_the_stream_and_no_other(message):
    async def test(rig: Rig, stream: Stream) -> None:
        bad = rig.stream()
        await stream.ask(ASK)
        await bad.ask(replace(ASK, id=5))
        bad.requests.put_nowait(message)
        with pytest.raises(InvalidArgument):
            await bad.task
        assert rig.waiting == 1
        await rig.finish(0, 1)
        assert (await stream.reply()).outcome == READY

    run(test)


def test_a_reply_that_is_being_written_is_written_before_a_stream_is_refused():
    """gRPC's own server takes one at a time; else it fails to refuse, and logs a traceback."""

    async def test(rig: Rig, stream: Stream) -> None:
        bad = rig.stream()
        if not isinstance(bad, DirectStream):  # which has written when it returns
            bad.reads.clear()
        await bad.ask(replace(ASK, now=True), replace(ASK, id=2))
        bad.requests.put_nowait(b"")
        await settled()
        assert bad.task.done() == isinstance(bad, DirectStream)
        bad.reads.set()
        with pytest.raises(InvalidArgument):
            await bad.task
        assert bad.written == 1

    run(test)


def test_more_than_may_wait_are_sent_elsewhere():
    async def test(rig: Rig, stream: Stream) -> None:
        count = 20_000
        for number in range(1, count + 1):
            stream.requests.put_nowait(follows_to_bytes([replace(ASK, id=number)]))
        first = await stream.reply()
        waiting = rig.waiting
        assert 10 < waiting < 10_000
        assert (first.id, first.outcome) == (waiting + 1, ELSEWHERE)
        for number in range(first.id + 1, count + 1):
            reply = await stream.replies.get()
            assert (reply.id, reply.outcome) == (number, ELSEWHERE)
        await rig.finish(0, 1)
        for number in range(1, waiting + 1):
            reply = await stream.reply()
            assert (reply.id, reply.outcome) == (number, READY)

    run(test)


def test_questions_and_answers_travel_together():
    async def test(rig: Rig, stream: Stream) -> None:
        asks = [replace(ASK, id=number) for number in range(1, 101)]
        stream.requests.put_nowait(follows_to_bytes(asks))
        await settled()
        assert rig.waiting == 100
        await rig.finish(0, 1)
        assert [(await stream.reply()).id for _ in asks] == list(range(1, 101))
        assert stream.written == 1

    run(test)


def test_answers_with_much_data_travel_apart():
    async def test(rig: Rig, stream: Stream) -> None:
        await rig.push(rows(content=b"z" * (600 << 10)))
        await rig.finish(0, 1)
        await stream.ask(*(replace(ASK, id=n, max_bytes=1 << 20) for n in range(1, 7)))
        assert [(await stream.reply()).id for _ in range(6)] == list(range(1, 7))
        assert stream.written >= 3

    run(test)


def test_a_reader_that_does_not_read_is_not_read_from(one_by_one, monkeypatch):
    monkeypatch.setattr(module, "MAX_READY", 8)

    async def test(rig: Rig, stream: Stream) -> None:
        await rig.push(rows(content=b"z" * 500))
        await rig.finish(0, 1)
        stream.reads.clear()
        await stream.ask(*(replace(ASK, id=n) for n in range(1, 101)))
        assert stream.taken <= 8 + 2
        assert len(stream.followers._ready) <= 8
        stream.reads.set()
        assert [(await stream.reply()).id for _ in range(100)] == list(range(1, 101))

    run(test)


def test_rows_are_copied_when_the_stream_takes_them(one_by_one):
    """Until then an answer costs nothing, so what it says is of that moment."""

    async def test(rig: Rig, stream: Stream) -> None:
        await rig.push(rows())
        await stream.ask(ASK, replace(ASK, id=2))
        stream.reads.clear()
        await rig.finish(0, 1)
        await settled()
        rig.core.drop(GROUP)
        stream.reads.set()
        # By tasks, one was on its way already.
        first = CLOSED if isinstance(stream, DirectStream) else READY
        assert [(await stream.reply()).outcome for _ in range(2)] == [first, CLOSED]

    run(test)
