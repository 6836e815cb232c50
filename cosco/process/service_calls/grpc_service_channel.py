"""The services' calls by grpcio, which is everywhere."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Final

import grpc

from cosco.process.grpc_settings import CHANNEL_OPTIONS, keepalive
from cosco.process.service_calls.service_channel import (
    HIGH_WATER_BYTES,
    CallFailed,
    ServiceChannel,
    ServiceStream,
    StreamListener,
)
from cosco.process.tls.grpc_credentials import new_channel_of
from cosco.process.tls.tls_files import TlsFiles
from cosco.protocol import wire

log = logging.getLogger(__name__)

#: A peer that says nothing for this long while calls wait is asked, and has as long to answer.
_SILENT_MS: Final = 5_000
#: Channels of earlier certificates that are kept for calls under way.
_RETIRED_MAX: Final = 1


class GrpcServiceChannel(ServiceChannel):
    """A channel of `grpc.aio`."""

    def __init__(
        self, address: str, *, max_reply_bytes: int, files: TlsFiles | None = None
    ) -> None:
        """Begin without a connection.

        max_reply_bytes: how long messages may be that come. files: of TLS; None: without.
        """
        options = dict((*CHANNEL_OPTIONS, *keepalive(_SILENT_MS, _SILENT_MS)))
        options["grpc.max_receive_message_length"] = max_reply_bytes
        self._address = address
        self._options = tuple(options.items())
        self._files = files
        self._content = None if files is None else files.content
        self._channel = self._connect()
        #: What connects by earlier files, the oldest first, for the calls that are under way.
        self._retired: list[grpc.aio.Channel] = []
        self._streams: dict[asyncio.Task[None], None] = {}

    async def unary(self, method: str, request: bytes, timeout_s: float) -> bytes:
        """See `ServiceChannel`."""
        call: Any = self._present().unary_unary(method)
        while len(self._retired) > _RETIRED_MAX:
            await self._retired.pop(0).close()
        try:
            reply: bytes = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None
        except grpc.aio.UsageError:
            raise _closed() from None
        return reply

    def stream(self, method: str, listener: StreamListener) -> ServiceStream:
        """See `ServiceChannel`."""
        begin: Any = self._present().stream_stream(method)
        stream = _GrpcStream(begin, listener)
        task = asyncio.create_task(stream.run(), name=method)
        stream.task = task
        self._streams[task] = None
        task.add_done_callback(lambda ended: self._streams.pop(ended, None))
        return stream

    async def close(self) -> None:
        """See `ServiceChannel`."""
        for channel in (*self._retired, self._channel):
            await channel.close()
        if self._streams:
            await asyncio.wait(list(self._streams))

    def _present(self) -> Any:
        """Return the channel by what the files have now."""
        if self._files is not None and self._files.content is not self._content:
            self._content = self._files.content
            self._retired.append(self._channel)
            self._channel = self._connect()
        return self._channel

    def _connect(self) -> Any:
        return new_channel_of(grpc.aio, self._address, self._content, self._options)


class _GrpcStream(ServiceStream):
    """A stream of `grpc.aio`, whose calls wait: tasks make them."""

    task: asyncio.Task[None]

    def __init__(self, begin: Any, listener: StreamListener) -> None:
        self._begin = begin
        self._listener = listener
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._is_full = self._ends = self._is_read = self._is_over = False
        self._news = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """See `ServiceStream`."""
        return self._queued_bytes < HIGH_WATER_BYTES

    def send(self, message: bytes) -> None:
        """See `ServiceStream`."""
        if not (self._ends or self._is_over):
            self._queue.append(message)
            self._queued_bytes += len(message)
            self._is_full = not self.has_room
            self._news.set()

    def half_close(self) -> None:
        """See `ServiceStream`."""
        self._ends = True
        self._news.set()

    def cancel(self) -> None:
        """See `ServiceStream`."""
        self._is_over = True
        self.task.cancel()

    async def run(self) -> None:
        """Carry messages until the stream is over, and tell its end unless it is cancelled."""
        failure: CallFailed | None = None
        try:
            await self._carry()
        except asyncio.CancelledError:
            # Either this task was, or the channel was closed.
            failure = CallFailed("CANCELLED", "it was cancelled here")
        except grpc.aio.AioRpcError as error:
            failure = _failed(error)
        except grpc.aio.UsageError:
            failure = _closed()
        except Exception as error:
            log.exception("a stream has failed")
            failure = CallFailed("UNKNOWN", f"unexpected {type(error).__name__}: {error}")
        if not self._is_over:
            self._is_over = True
            try:
                self._listener.on_end(failure)
            except Exception:
                log.exception("a stream cannot be ended well")

    async def _carry(self) -> None:
        call = self._begin()
        reading = asyncio.create_task(self._read(call), name="stream-replies")
        writing = asyncio.create_task(self._write(call), name="stream-requests")
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_EXCEPTION)
            for task in (reading, writing):
                if task.done():
                    task.result()
        finally:
            reading.cancel()
            writing.cancel()
            call.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, call: Any) -> None:
        try:
            while (message := await call.read()) is not grpc.aio.EOF and not self._is_over:
                self._listener.on_message(message)
        finally:
            self._is_read = True
            self._news.set()

    async def _write(self, call: Any) -> None:
        while not self._is_read:
            self._news.clear()
            if self._queue:
                message = self._queue.popleft()
                await call.write(message)
                self._queued_bytes -= len(message)
                if self._is_full and not self._queue:
                    self._is_full = False
                    self._listener.on_room()
            elif self._ends:
                await call.done_writing()
                return
            else:
                await self._news.wait()


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    found = [value for key, value in error.trailing_metadata() or () if key == wire.ERROR_KEY]
    meant = next((value for value in found if isinstance(value, bytes)), b"")
    return CallFailed(error.code().name, error.details() or "", meant)


def _closed() -> CallFailed:
    return CallFailed("UNAVAILABLE", "its connection is closed")
