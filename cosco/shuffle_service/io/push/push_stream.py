"""Carries one push stream: requests to its receiver, replies to its sender."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cosco.errors import CoscoError
from cosco.protocol.push.receiver import PushReceiver
from cosco.protocol.wire import push_reply_to_bytes, push_request_from_bytes
from cosco.shuffle_service.io.metrics import DaemonMetrics


class PushStream:
    """Serves one call of Push from its first message to its last."""

    def __init__(self, context: Any, receiver: PushReceiver, metrics: DaemonMetrics) -> None:
        self._context = context
        self._receiver = receiver
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._has_ended = False
        receiver.wake = self._woken.set

    async def run(self, requests: Any) -> None:
        """Read and answer until the sender is done, or does what it may not."""
        reading = asyncio.create_task(self._read(requests), name="push-requests")
        sending = asyncio.create_task(self._send_replies(), name="push-replies")
        self._receiver.cut_off = reading.cancel
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            error = reading.exception() if reading.done() and not reading.cancelled() else None
            if error is not None and not isinstance(error, CoscoError):
                raise error
            self._receiver.close(time.monotonic(), why=error)
            self._has_ended = True
            self._woken.set()
            await sending
        finally:
            self._receiver.close(time.monotonic())
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)

    async def _read(self, requests: Any) -> None:
        receiver = self._receiver
        async for message in requests:
            receiver.on_requests((push_request_from_bytes(message),), time.monotonic())
            while not receiver.may_read:
                await self._wait()
        while receiver.is_under_way:  # the sender has no more, and waits for these answers
            await self._wait()

    async def _send_replies(self) -> None:
        while True:
            reply = self._receiver.next_reply()
            if reply is not None:
                for refusal in reply.refused:
                    self._metrics.frames_refused.labels(refusal.code.name.lower()).inc()
                await self._context.write(push_reply_to_bytes(reply))
            elif self._has_ended:
                return
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Wait until the receiver has something to say, or may be read from again."""
        self._woken.clear()
        await self._woken.wait()
