"""Carries one push stream on the native transport: no task, each message is taken in as it comes.

The same as `cosco.shuffle_service.io.push.push_stream`, which needs a task for each direction.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import grpc

from cosco.errors import InvalidArgument
from cosco.process.native_grpc.call import SMALL_BYTES, Call
from cosco.protocol.push.receiver import PushReceiver
from cosco.protocol.wire import push_reply_to_bytes, push_request_from_bytes
from cosco.shuffle_service.io.metrics import DaemonMetrics

#: What a message may have beside frames that were granted: announcements, releases.
_BESIDE_BYTES: Final = 64 << 10


class DirectPush:
    """Serves one call of Push from its first message to its last."""

    def __init__(self, call: Call, receiver: PushReceiver, metrics: DaemonMetrics) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._receiver = receiver
        self._metrics = metrics
        self._is_asked = self._is_inside = self._is_due = False
        self._has_ended = self._is_over = False
        call.on_message = self._on_message
        call.on_end = self._on_end
        call.on_cancel = self._on_cancel
        call.on_large = self._on_large
        call.on_room = self._advance
        receiver.wake = self._wake
        receiver.cut_off = self._end
        metrics.push_streams.inc()
        self._advance()

    def _on_message(self, message: bytes) -> None:
        self._is_asked, self._is_inside = False, True
        try:
            self._receiver.on_request(push_request_from_bytes(message), time.monotonic())
        except InvalidArgument as error:
            self._end(broken=str(error))
        finally:
            self._is_inside = False
        self._advance()

    def _on_end(self) -> None:
        """Answer what is under way: the sender has no more, and waits for that."""
        self._has_ended = True
        self._advance()

    def _on_cancel(self) -> None:
        if not self._is_over:
            self._close("")

    def _on_large(self, length: int) -> bool:
        """Whether a message may come for which there is no room set aside."""
        if length <= self._receiver.expected_bytes + _BESIDE_BYTES:
            return True
        self._end(broken=f"a message of {length} bytes, though no frame so long was granted")
        return False

    def _wake(self) -> None:
        """Go on soon: several things may come before."""
        if not (self._is_inside or self._is_due):
            self._is_due = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Say what there is to say, and ask for the next message if it may come."""
        self._is_due = False
        if self._is_over:
            return
        self._is_inside = True
        self._send_replies()
        self._is_inside = False
        if self._has_ended:
            if not self._receiver.is_under_way:
                self._end()
        elif not self._is_asked and self._receiver.may_read:
            self._is_asked = True
            self._call.ask()
        frames_bytes = self._receiver.expected_bytes
        self._call.allow(frames_bytes and frames_bytes + SMALL_BYTES)

    def _send_replies(self) -> None:
        while self._call.has_room and (reply := self._receiver.next_reply()) is not None:
            for refusal in reply.refused:
                self._metrics.frames_refused.labels(refusal.code.name.lower()).inc()
            self._call.send(push_reply_to_bytes(reply))

    def _end(self, *, broken: str = "") -> None:
        """End the stream from this side; its sender is told what it has not been told yet."""
        if not self._is_over:
            self._close(broken)
            self._send_replies()
            self._call.finish(grpc.StatusCode.OK)

    def _close(self, broken: str) -> None:
        self._is_over = True
        self._metrics.push_streams.dec()
        self._receiver.close(time.monotonic(), broken=broken)
