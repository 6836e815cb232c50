"""Serves readers that wait for marks on the native transport: no task, answers leave at once.

The same as `cosco.shuffle_service.io.read.follow_service.FollowStream`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import grpc

from cosco.errors import InvalidArgument
from cosco.process.grpc_handlers.refusals import refusal
from cosco.process.native_grpc.call import MESSAGE_COST_BYTES, Call
from cosco.protocol.wire import followed_to_bytes
from cosco.shuffle_service.io.read.follow_service import Followers

log = logging.getLogger(__name__)

#: The questions that enter at a time have this many bytes at most.
_ENTRY_BYTES: Final = 16 << 10


class DirectFollow:
    """Serves one call of Follow from its first message to its last."""

    def __init__(self, call: Call, followers: Followers) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._followers = followers
        self._is_asked = self._is_due = self._has_ended = self._is_over = False
        call.on_messages = self._on_messages
        call.on_end = self._on_end
        call.on_cancel = self._close
        call.on_quiet = self._on_quiet
        call.on_room = self._advance
        followers.on_ready = self._wake
        self._advance()

    def _on_messages(self, messages: list[bytes]) -> None:
        self._is_asked = False
        try:
            for message in messages:
                self._followers.on_message(message)
        except InvalidArgument as error:
            self._close()
            self._call.finish(*refusal(error))
        self._advance()

    def _on_quiet(self) -> bool:
        """End a stream on which no question waits."""
        if self._is_over or self._followers.has_questions:
            return False
        self._on_end()
        return True

    def _on_end(self) -> None:
        """Answer what can be answered: the reader has no more questions."""
        self._has_ended = True
        self._advance()

    def _wake(self) -> None:
        """Answer soon: what one mark ends are many waits, and their answers share a message."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Advance in a step of the loop's own; whatever is raised ends this stream alone."""
        try:
            self._advance()
        except Exception as error:
            log.exception("a stream of readers has failed")
            self._close()
            self._call.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}")

    def _advance(self) -> None:
        self._is_due = False
        if self._is_over:
            return
        while self._call.has_room and (replies := self._followers.replies()):
            self._call.send(followed_to_bytes(replies))
        if self._has_ended or self._followers.is_to_end:
            if not self._followers.has_answers:
                self._close()
                self._call.finish(grpc.StatusCode.OK)
        elif not self._is_asked and self._followers.more_questions > 0:
            self._is_asked = True
            more = self._followers.more_questions - 1
            self._call.ask(min(more * MESSAGE_COST_BYTES, _ENTRY_BYTES))

    def _close(self) -> None:
        self._is_over = True
        self._followers.close()
