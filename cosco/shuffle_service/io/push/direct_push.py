"""Carries one push stream on the native transport: no task, messages are taken in as they come.

Under load several have come at a time. They enter as one: what is looked at, counted and said once
for all of them is most of what a short message costs.

The same as `cosco.shuffle_service.io.push.push_stream`, which needs a task for each direction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

import grpc

from cosco.errors import CoscoError, InvalidArgument
from cosco.process.native_grpc.call import SMALL_BYTES, Call
from cosco.protocol.push.messages import PushRequest
from cosco.protocol.push.receiver import PushReceiver
from cosco.protocol.wire import push_reply_to_bytes, push_request_from_bytes
from cosco.shuffle_service.io.metrics import DaemonMetrics

log = logging.getLogger(__name__)

#: What a message may have beside frames that were granted: announcements, releases.
_BESIDE_BYTES: Final = 64 << 10
#: The messages of a stream that enter at a time have this many bytes at most, and no more than are
#: lent to it.
_ENTRY_BYTES: Final = 32 << 10


class DirectPush:
    """Serves one call of Push from its first message to its last."""

    def __init__(self, call: Call, receiver: PushReceiver, metrics: DaemonMetrics) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._receiver = receiver
        self._metrics = metrics
        #: Messages that have come and wait, as one before them does.
        self._rest: deque[bytes] = deque()
        self._is_asked = self._is_inside = self._is_due = False
        self._has_ended = self._is_over = False
        call.on_messages = self._on_messages
        call.on_end = self._on_end
        call.on_cancel = self._on_cancel
        call.on_large = self._on_large
        call.on_quiet = self._on_quiet
        call.on_room = self._advance
        receiver.wake = self._wake
        receiver.cut_off = self._end
        metrics.push_streams.inc()
        self._advance()

    def _on_messages(self, messages: list[bytes]) -> None:
        self._is_asked = False
        self._rest += messages
        self._advance()

    def _on_end(self) -> None:
        """Answer what is under way: the sender has no more, and waits for that."""
        self._has_ended = True
        self._advance()

    def _on_cancel(self) -> None:
        if not self._is_over:
            self._close(None)

    def _on_quiet(self) -> bool:
        """End a stream that is kept without use; whoever has frames later opens another one."""
        if self._is_over or self._rest or not self._receiver.is_of_no_use:
            return False
        self._end()
        return True

    def _on_large(self, length: int) -> bool:
        """Whether a message may come for which there is no room set aside."""
        if length <= self._receiver.expected_bytes + _BESIDE_BYTES:
            return True
        why = f"a message of {length} bytes, though no frame so long was granted"
        self._end(InvalidArgument(why))
        return False

    def _wake(self) -> None:
        """Go on soon: several things may come before."""
        if not (self._is_inside or self._is_due):
            self._is_due = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Advance in a step of the loop's own; whatever is raised ends this stream alone."""
        try:
            self._advance()
        except Exception as error:
            log.exception("a push stream has failed")
            self._call.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}")
            self._on_cancel()

    def _advance(self) -> None:
        """Say what there is to say, and ask for the next message if it may come."""
        self._is_due = False
        if not self._is_over:
            self._take_in()
        if not self._is_over:
            self._read_on()

    def _take_in(self) -> None:
        """Have taken in what has come, as far as it may be read, and say what there is to say."""
        self._is_inside = True
        try:
            if not self._receiver.may_read:
                self._send_replies()  # with them told, it may be
            while self._rest and self._receiver.may_read:
                self._receiver.on_requests(self._requests(), time.monotonic())
                self._send_replies()
            self._send_replies()
        except CoscoError as error:
            self._end(error)
        finally:
            self._is_inside = False

    def _read_on(self) -> None:
        """Ask for what comes next, if it may come; end if nothing will, and all is answered."""
        receiver = self._receiver
        if self._has_ended:
            if not (self._rest or receiver.is_under_way):
                self._end()
        elif not (self._is_asked or self._rest) and receiver.may_read:
            self._is_asked = True
            self._call.ask(min(receiver.lent_bytes, _ENTRY_BYTES))
        frames_bytes = receiver.expected_bytes
        self._call.allow(frames_bytes and frames_bytes + SMALL_BYTES)

    def _requests(self) -> Iterator[PushRequest[memoryview]]:
        rest = self._rest
        while rest:
            yield push_request_from_bytes(rest.popleft())

    def _send_replies(self) -> None:
        while self._call.has_room and (reply := self._receiver.next_reply()) is not None:
            for refusal in reply.refused:
                self._metrics.frames_refused.labels(refusal.code.name.lower()).inc()
            self._call.send(push_reply_to_bytes(reply))

    def _end(self, why: CoscoError | None = None) -> None:
        """End the stream from this side; its sender is told what it has not been told yet."""
        if not self._is_over:
            self._close(why)
            self._send_replies()
            self._call.finish(grpc.StatusCode.OK)

    def _close(self, why: CoscoError | None) -> None:
        self._is_over = True
        self._rest.clear()
        self._metrics.push_streams.dec()
        self._receiver.close(time.monotonic(), why=why)
