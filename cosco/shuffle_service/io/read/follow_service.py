"""Serves readers that wait for marks: one stream of a process, many questions on it.

A question is answered when the last mark has come, or at once. Replies are made one after
another as the stream takes them, so a reader that does not read costs its questions and no
rows. What waits is bounded over all streams, by `state.buffers.mark_boards.MarkBoards`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cosco.errors import AccessDenied, CoscoError, ExchangeClosed, InvalidArgument
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.wire import followed_to_bytes, follows_from_bytes
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.state.access_check import ReadingStream
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoard
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.follow_answers import (
    MAX_DATA_BYTES,
    answer,
    board_to_wait_at,
    is_unknown,
    key_of,
    refused,
)

#: A reader with this many answers to come is not read from meanwhile.
MAX_READY: Final = 1024


@dataclass(slots=True, eq=False)
class _Follower:
    """One question that is not answered yet.

    waits: and is counted. board: where it waits. stop_look_up: ends what it waits for instead.
    refusal: the answer, if that is known already.
    """

    stream: Followers
    ask: Follow
    waits: bool = False
    board: MarkBoard | None = None
    stop_look_up: Callable[[], object] | None = None
    refusal: Followed | None = None

    def tell(self) -> None:
        """Have it answered now."""
        self.stream.ready(self)

    def found(self, found: AssignmentBuffers | CoscoError, _: float) -> None:
        """Have it wait at the board of its assignment, or answered."""
        if isinstance(found, CoscoError):
            self.refusal = refused(self.ask, _outcome(found), str(found))
        self.stop_look_up = None
        self.stream.place(self)


def _outcome(error: CoscoError) -> FollowOutcome:
    """Return what a reader is told who is not told about marks."""
    if isinstance(error, ExchangeClosed):
        return FollowOutcome.CLOSED
    is_denied = isinstance(error, AccessDenied)
    return FollowOutcome.DENIED if is_denied else FollowOutcome.ELSEWHERE


class Followers:
    """The questions of one call of Follow: what they wait for, and the answers to them."""

    def __init__(
        self, core: DaemonCore, lookups: Lookups, shown: ReadingStream, metrics: DaemonMetrics
    ) -> None:
        self._metrics = metrics
        self._core = core
        self._lookups = lookups
        self._shown = shown
        self._followers: dict[int, _Follower] = {}
        self._ready: deque[_Follower] = deque()
        #: Called when there is an answer.
        self.on_ready: Callable[[], object] = lambda: None

    @property
    def more_questions(self) -> int:
        """Return how many messages may be read from the reader; none while much is to be said."""
        return max(MAX_READY - len(self._ready), 0)

    @property
    def has_questions(self) -> bool:
        """Whether a question waits for its answer, or for the reader to take it."""
        return bool(self._followers)

    @property
    def has_answers(self) -> bool:
        return bool(self._ready)

    @property
    def is_to_end(self) -> bool:
        """Whether the call is one more than its tenant may have, and everything is answered. For
        more questions there will be another one."""
        return self._shown.is_beyond and not self._followers

    def on_message(self, message: bytes) -> None:
        """Take note of what a reader asks; raises InvalidArgument if it breaks the rules."""
        for ask in follows_from_bytes(message):
            self._on_question(ask)

    def close(self) -> None:
        """Forget what was not answered."""
        for follower in list(self._followers.values()):
            self._forget(follower)
        self._shown.close()

    def _on_question(self, ask: Follow) -> None:
        before = self._followers.get(ask.id)
        if ask.leave:
            if before is not None:
                self._forget(before)
            return
        if before is not None:
            raise InvalidArgument(f"a second question with the id {ask.id} of one that waits")
        follower = self._followers[ask.id] = _Follower(self, ask)
        try:
            self._shown.check(ask.number, ask.capability, time.time(), waits=not ask.now)
        except CoscoError as error:  # others on the stream may read theirs
            follower.refusal = refused(ask, _outcome(error), str(error))
        self.place(follower)

    def place(self, follower: _Follower) -> None:
        """Answer it, or have it wait for marks, or for its assignment to be found."""
        core, ask = self._core, follower.ask
        unknown = follower.refusal is None and is_unknown(core, ask)
        board = None if unknown or follower.refusal else board_to_wait_at(core, ask)
        if not (unknown or board):
            self.ready(follower)
        elif not (follower.waits or core.mark_boards.add_follower()):
            reason = "too many readers wait here"
            follower.refusal = refused(ask, FollowOutcome.ELSEWHERE, reason)
            self.ready(follower)
        else:
            follower.waits, follower.board = True, board
            if board is not None:
                board.follow(follower.tell)
            else:
                key = key_of(ask)
                follower.stop_look_up = self._lookups.look_up(key, follower.found)

    def ready(self, follower: _Follower) -> None:
        """Have it answered; the answer is made when the stream takes it."""
        self._ready.append(follower)
        self.on_ready()

    def _forget(self, follower: _Follower) -> None:
        del self._followers[follower.ask.id]
        if follower.waits:
            self._core.mark_boards.remove_follower()
            if follower.stop_look_up is not None:
                follower.stop_look_up()
            if follower.board is not None:
                follower.board.leave(follower.tell)

    def replies(self) -> list[Followed]:
        """Return answers to send together: messages cost by their number."""
        replies: list[Followed] = []
        data_bytes = 0
        while self._ready and data_bytes < MAX_DATA_BYTES:
            follower = self._ready.popleft()
            if self._followers.get(follower.ask.id) is follower:  # it has not left
                self._forget(follower)
                reply = follower.refusal or answer(self._core, follower.ask)
                replies.append(reply)
                data_bytes += len(reply.data)
                if reply.data:
                    self._count(reply.data)
        return replies

    def _count(self, blocks: bytes) -> None:
        """Count blocks as sent; that is all there is to fetch of a small partition."""
        self._metrics.bytes_fetched.inc(len(blocks))
        rows = mechanics_choice.CHOSEN.section_rows()
        self._metrics.rows_fetched.inc(rows.feed([memoryview(blocks)]))


class FollowStream:
    """Serves one call of Follow from its first message to its last; a task for each direction."""

    def __init__(self, context: Any, followers: Followers) -> None:
        self._context = context
        self._followers = followers
        self._has_ready = asyncio.Event()
        self._has_room = asyncio.Event()
        self._ended = self._broken = False
        followers.on_ready = self._has_ready.set

    async def run(self, requests: Any) -> None:
        """Answer until the reader is done; raises InvalidArgument if it breaks the rules."""
        sending = asyncio.create_task(self._send(), name="follow-replies")
        reading = asyncio.create_task(self._read(requests), name="follow-requests")
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                self._ended = True
                self._broken = reading.exception() is not None
                self._has_ready.set()
            # Also of a reader that breaks the rules: gRPC ends no call in the middle of a write.
            await sending
            if reading.done():
                await reading
        finally:
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)
            self._followers.close()

    async def _read(self, requests: Any) -> None:
        async for message in requests:
            while not self._followers.more_questions:
                self._has_room.clear()
                await self._has_room.wait()
            self._followers.on_message(message)

    async def _send(self) -> None:
        while not self._broken and (not self._ended or self._followers.has_answers):
            await self._has_ready.wait()
            self._has_ready.clear()
            while replies := self._next_replies():
                self._has_room.set()
                await self._context.write(followed_to_bytes(replies))
            if self._followers.is_to_end:
                return

    def _next_replies(self) -> list[Followed]:
        return [] if self._broken else self._followers.replies()
