"""Links to replicas: forwards frames and tells what is released, one stream a daemon.

What to send is decided in `cosco.shuffle_service.state.replication.replica`; here it is sent, and
sent again when a stream breaks. When to connect again, when to report a replica that cannot be
reached and when to insist is decided here. A replica that stalls on a stream that holds is not
reported.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

import grpc

from cosco.errors import CapacityExceeded, CoscoError, ServiceUnavailable
from cosco.process.grpc_settings import CHANNEL_OPTIONS, keepalive
from cosco.protocol import wire
from cosco.protocol.wire import mpb
from cosco.shuffle_service.io.membership import MetadataLink
from cosco.shuffle_service.io.task_runner import TaskRunner
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.replication.replica import Replica, ReplicaReplaced

log = logging.getLogger(__name__)

#: A replica that is out of reach for this time, though it is said to live, is insisted on.
INSIST_AFTER_S: Final = 5.0
#: A link with nothing to say ends after this time.
LINGER_S: Final = 5.0
_TICK_S: Final = 0.1
_RETRY_MIN_S: Final = 0.1
_RETRY_MAX_S: Final = 2.0
#: The replica ends a stream that is done within this time, or it counts as broken.
_END_S: Final = 5.0
_OPTIONS: Final = (*CHANNEL_OPTIONS, *keepalive(5_000, 5_000))


class Forwards(TaskRunner):
    """All links of one daemon; `start` to `stop` once."""

    def __init__(self, core: DaemonCore, metadata: MetadataLink, full_store_wait_s: float) -> None:
        super().__init__()
        self._core = core
        self._metadata = metadata
        self._full_store_wait_s = full_store_wait_s
        self._links: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Make links from now on."""
        self._core.replication.on_replica = self._connect
        self.run("watch-forwards", self._watch())

    async def stop(self) -> None:
        """End all links."""
        self.tasks += self._links
        await super().stop()

    def _connect(self, replica: Replica) -> None:
        link = _Link(replica, self._core, self._metadata)
        task = asyncio.create_task(link.run(), name=f"forward-{replica.ref.address}")
        self._links.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._links.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()

    async def _watch(self) -> None:
        """Look for replicas that keep frames waiting."""
        replication, flushes = self._core.replication, self._core.flushes
        while True:
            await asyncio.sleep(_TICK_S)
            if self._failure is not None:  # of a link, which nothing would replace
                raise self._failure
            now = time.monotonic()
            if replication.tick(now):
                self._core.kick()
            patience_s = self._full_store_wait_s
            if flushes.takes_nothing(now, patience_s):
                # Neither copied nor stored: nothing here will change that.
                why = f"the store takes nothing ({flushes.failure}), nor does the replica"
                replication.give_up(now - patience_s, CapacityExceeded(f"rows are not safe: {why}"))


class _Link:
    """One replica: a stream, and another one when it breaks, until nothing is to be said."""

    def __init__(self, replica: Replica, core: DaemonCore, metadata: MetadataLink) -> None:
        self._replica = replica
        self._core = core
        self._metadata = metadata
        self._wake = asyncio.Event()
        self._unreached_since: float | None = None
        self._said_alive = False
        self._channel = grpc.aio.insecure_channel(replica.ref.address, options=_OPTIONS)
        self._open_stream: Any = self._channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Push")
        replica.wake = self._wake.set

    async def run(self) -> None:
        """Serve the replica until it needs no link any more, or is gone and that was heard."""
        delay_s, heard = _RETRY_MIN_S, False
        try:
            while not (self._replica.is_gone and heard):
                if not self._replica.is_gone and await self._try_stream():
                    if self._replica.is_idle:
                        self._core.replication.end(self._replica)
                        return
                    continue
                if self._unreached_since is None:  # it was reached on this stream
                    self._unreached_since = time.monotonic()
                    delay_s = _RETRY_MIN_S
                self._core.changed(time.monotonic())
                heard = await self._report()
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
        finally:
            await self._channel.close()

    async def _try_stream(self) -> bool:
        """Have one stream, and return whether it ended well."""
        try:
            await self._stream()
        except ReplicaReplaced:
            self._core.replication.gone(self._replica.ref.incarnation)
        except Exception as error:  # noqa: BLE001  whatever it is, another stream is tried
            log.warning("copies to %s: %s", self._replica.ref.address, _reason(error))
        else:
            return True
        return False

    async def _report(self) -> bool:
        """Say that it is out of reach, and learn whether it is dead.

        Returns: whether anybody heard.
        """
        since = self._unreached_since
        insist = (
            self._said_alive and since is not None and time.monotonic() - since >= INSIST_AFTER_S
        )
        ref = self._replica.ref
        request = mpb.ReportDaemonRequest(
            daemon=wire.to_pb(ref), reporter=self._core.incarnation, insist=insist
        )
        try:
            reply = await self._metadata.call("ReportDaemon", request)
        except ServiceUnavailable as error:
            log.warning("%s cannot be reported: %s", ref.address, error)
            return False
        except CoscoError as error:
            log.warning("the report of %s: %s", ref.address, error)
            return True
        self._said_alive = reply.alive
        if not reply.alive:
            self._core.replication.gone(ref.incarnation)
            self._core.changed(time.monotonic())
        return True

    # --- one stream -----------------------------------------------------------------------

    async def _stream(self) -> None:
        """Have one stream, until nothing is left to be said; raises if it breaks."""
        self._replica.begin_stream()
        call = self._open_stream()
        reading = asyncio.create_task(self._read(call), name="replica-replies")
        writing = asyncio.create_task(self._write(call), name="replica-requests")
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
                raise ConnectionResetError("it ended the stream")
            await writing
            await asyncio.wait_for(reading, _END_S)
            self._replica.end_stream()
        finally:
            reading.cancel()
            writing.cancel()
            call.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _write(self, call: Any) -> None:
        """Send what there is to send; returns when there was nothing for a while."""
        while True:
            self._wake.clear()
            request = self._replica.next_request()
            if request is not None:
                await call.write(wire.push_request_to_bytes(request))
            elif not self._replica.is_idle:
                await self._wake.wait()
            else:
                try:
                    await asyncio.wait_for(self._wake.wait(), LINGER_S)
                except TimeoutError:
                    await call.done_writing()
                    return

    async def _read(self, call: Any) -> None:
        """Take note of replies; returns at the end of a stream that ended well."""
        while (message := await call.read()) is not grpc.aio.EOF:
            self._unreached_since = None
            self._said_alive = False
            reply = wire.push_reply_from_bytes(message)
            sealed = self._replica.on_reply(reply, time.monotonic())
            if sealed:
                self._core.seal(sealed)
            if sealed or reply.acknowledged:
                self._core.changed(time.monotonic())
            self._wake.set()


def _reason(error: Exception) -> str:
    """Return why a stream broke, in one line."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name.lower()}: {' '.join((error.details() or '').split())[:200]}"
    return str(error) or type(error).__name__
