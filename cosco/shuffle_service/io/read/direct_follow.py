"""Serves readers that wait for marks on the native transport: no task, answers leave at once.

The same as `cosco.shuffle_service.io.read.follow_service.FollowStream`.
"""

from __future__ import annotations

import asyncio

import grpc

from cosco.errors import InvalidArgument
from cosco.process.native_grpc.call import Call
from cosco.protocol.wire import ERROR_KEY, error_to_bytes, followed_to_bytes
from cosco.shuffle_service.io.read.follow_service import Followers


class DirectFollow:
    """Serves one call of Follow from its first message to its last."""

    def __init__(self, call: Call, followers: Followers) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._followers = followers
        self._is_asked = self._is_due = self._has_ended = self._is_over = False
        call.on_message = self._on_message
        call.on_end = self._on_end
        call.on_cancel = self._close
        call.on_room = self._advance
        followers.on_ready = self._wake
        self._advance()

    def _on_message(self, message: bytes) -> None:
        self._is_asked = False
        try:
            self._followers.on_message(message)
        except InvalidArgument as error:
            self._close()
            self._call.finish(
                grpc.StatusCode.FAILED_PRECONDITION,
                str(error),
                ((ERROR_KEY, error_to_bytes(error)),),
            )
        self._advance()

    def _on_end(self) -> None:
        """Answer what can be answered: the reader has no more questions."""
        self._has_ended = True
        self._advance()

    def _wake(self) -> None:
        """Answer soon: what one mark ends are many waits, and their answers share a message."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._is_due = False
        if self._is_over:
            return
        while self._call.has_room and (replies := self._followers.replies()):
            self._call.send(followed_to_bytes(replies))
        if self._has_ended:
            if not self._followers.has_answers:
                self._close()
                self._call.finish(grpc.StatusCode.OK)
        elif not self._is_asked and self._followers.takes_questions:
            self._is_asked = True
            self._call.ask()

    def _close(self) -> None:
        self._is_over = True
        self._followers.close()
