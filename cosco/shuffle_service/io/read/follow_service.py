"""Serves readers that wait for marks: one stream of a process, many questions on it.

A question is answered when the last mark has come, or at once. Replies are made one after
another as the stream takes them, so a reader that does not read costs its questions and no
rows. What waits is bounded by `cosco.shuffle_service.state.buffers.mark_boards.Boards`, over all
streams.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, Final

from cosco.errors import CoscoError, ExchangeClosed, InvalidArgument
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.wire import followed_to_bytes, follows_from_bytes
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoard
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.follow_answers import (
    MAX_DATA_BYTES,
    answer,
    board_to_wait_at,
    is_unknown,
    key_of,
    refused,
)

#: Assignments that are looked up at a time for readers.
MAX_LOOK_UPS: Final = 16
#: A reader with so many answers to come is not read from meanwhile.
MAX_READY: Final = 1024


class _Follower:
    """One question that is not answered yet.

    board: where it waits. refusal: the answer, if that is known already.
    """

    __slots__ = ("ask", "board", "refusal", "stream", "waits")

    def __init__(self, stream: FollowStream, ask: Follow) -> None:
        self.stream = stream
        self.ask = ask
        self.waits = False  # and is counted
        self.board: MarkBoard | None = None
        self.refusal: Followed | None = None

    def tell(self) -> None:
        """There is an answer now."""
        self.stream.ready(self)


class FollowService:
    """The waiting readers of one daemon; `start` to `stop` once."""

    def __init__(self, core: DaemonCore, lookups: Lookups) -> None:
        self.core = core
        self._lookups = lookups
        self._unknown: dict[AssignmentKey, dict[_Follower, None]] = {}
        self._to_look_up: OrderedDict[AssignmentKey, None] = OrderedDict()
        self._has_work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._look_up(), name="follow-look-up") for _ in range(MAX_LOOK_UPS)
        ]

    def tasks(self) -> list[asyncio.Task[None]]:
        """For the server to watch: none of them ever ends by itself."""
        return self._tasks

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def find(self, follower: _Follower) -> None:
        """Have its assignment looked up, and place it again then."""
        key = key_of(follower.ask)
        if key not in self._unknown:
            self._unknown[key] = {}
            self._to_look_up[key] = None
            self._has_work.set()
        self._unknown[key][follower] = None

    def forget(self, follower: _Follower) -> None:
        """It waits for no look-up any more."""
        key = key_of(follower.ask)
        waiting = self._unknown.get(key, {})
        waiting.pop(follower, None)
        if key in self._unknown and not waiting:
            del self._unknown[key]
            self._to_look_up.pop(key, None)

    async def _look_up(self) -> None:
        """One assignment after another: the answer for one may be that for the next."""
        while True:
            while not self._to_look_up:
                self._has_work.clear()
                await self._has_work.wait()
            key, _ = self._to_look_up.popitem(last=False)
            outcome, reason = FollowOutcome.ELSEWHERE, ""
            try:
                await self._lookups.find(key)
            except CoscoError as error:
                reason = str(error)
                if isinstance(error, ExchangeClosed):
                    outcome = FollowOutcome.CLOSED
            for follower in self._unknown.pop(key, {}):
                if reason:
                    follower.refusal = refused(follower.ask, outcome, reason)
                follower.stream.place(follower)


class FollowStream:
    """Serves one call of Follow from its first message to its last."""

    def __init__(self, context: Any, service: FollowService) -> None:
        self._context = context
        self._service = service
        self._core = service.core
        self._followers: dict[int, _Follower] = {}
        self._ready: deque[_Follower] = deque()
        self._has_ready = asyncio.Event()
        self._has_room = asyncio.Event()
        self._ended = False

    async def run(self, requests: Any) -> None:
        """Answer until the reader is done; raises InvalidArgument if it breaks the rules."""
        sending = asyncio.create_task(self._send(), name="follow-replies")
        reading = asyncio.create_task(self._read(requests), name="follow-requests")
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
                self._ended = True
                self._has_ready.set()
            await sending
        finally:
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)
            for follower in list(self._followers.values()):
                self._forget(follower)

    async def _read(self, requests: Any) -> None:
        async for message in requests:
            while len(self._ready) >= MAX_READY:
                self._has_room.clear()
                await self._has_room.wait()
            for ask in follows_from_bytes(message):
                self._on_question(ask)

    def _on_question(self, ask: Follow) -> None:
        before = self._followers.get(ask.id)
        if ask.leave:
            if before is not None:
                self._forget(before)
            return
        if before is not None:
            raise InvalidArgument(f"a second question with the id {ask.id} of one that waits")
        follower = self._followers[ask.id] = _Follower(self, ask)
        self.place(follower)

    def place(self, follower: _Follower) -> None:
        """Answer it, or have it wait for marks, or for its assignment to be found."""
        core, ask = self._core, follower.ask
        unknown = follower.refusal is None and is_unknown(core, ask)
        board = None if unknown or follower.refusal else board_to_wait_at(core, ask)
        if not (unknown or board):
            self.ready(follower)
        elif not (follower.waits or core.boards.take_follower()):
            reason = "too many readers wait here"
            follower.refusal = refused(ask, FollowOutcome.ELSEWHERE, reason)
            self.ready(follower)
        else:
            follower.waits, follower.board = True, board
            if board is not None:
                board.follow(follower.tell)
            else:
                self._service.find(follower)

    def ready(self, follower: _Follower) -> None:
        """There is an answer: it is made when the stream takes it."""
        self._ready.append(follower)
        self._has_ready.set()

    def _forget(self, follower: _Follower) -> None:
        del self._followers[follower.ask.id]
        if follower.waits:
            self._core.boards.free_follower()
            self._service.forget(follower)
            if follower.board is not None:
                follower.board.leave(follower.tell)

    async def _send(self) -> None:
        while not self._ended or self._ready:
            await self._has_ready.wait()
            self._has_ready.clear()
            while replies := self._replies():
                self._has_room.set()
                await self._context.write(followed_to_bytes(replies))

    def _replies(self) -> list[Followed]:
        """Answers to send together: messages cost by their number."""
        replies: list[Followed] = []
        data_bytes = 0
        while self._ready and data_bytes < MAX_DATA_BYTES:
            follower = self._ready.popleft()
            if self._followers.get(follower.ask.id) is follower:  # it has not left
                self._forget(follower)
                reply = follower.refusal or answer(self._core, follower.ask)
                replies.append(reply)
                data_bytes += len(reply.data)
        return replies
