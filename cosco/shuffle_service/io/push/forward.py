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
from collections.abc import Callable
from typing import Final

from cosco.errors import CapacityExceeded, CoscoError, ServiceUnavailable
from cosco.process.service_calls.channel_choice import new_channel
from cosco.process.service_calls.service_channel import CallFailed, ServiceChannel
from cosco.protocol import wire
from cosco.protocol.push.messages import PushReply
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
#: What a replica may say at once: it refuses many frames with a reason for each.
_REPLY_MAX_BYTES: Final = 64 << 20
#: Given the incarnation of a replica, and how many streams to it there were.
Proof = Callable[[int, int], str]


def _none_is_needed(_incarnation: int, _attempt: int) -> str:
    return ""


class Forwards(TaskRunner):
    """All links of one daemon; `start` to `stop` once."""

    def __init__(
        self,
        core: DaemonCore,
        metadata: MetadataLink,
        full_store_wait_s: float,
        proof: Proof = _none_is_needed,
    ) -> None:
        """proof: makes what shows a replica that this daemon is one of its cluster."""
        super().__init__()
        self._core = core
        self._metadata = metadata
        self._proof = proof
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
        link = _Link(replica, self._core, self._metadata, self._proof)
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

    def __init__(
        self, replica: Replica, core: DaemonCore, metadata: MetadataLink, proof: Proof
    ) -> None:
        self._replica = replica
        self._core = core
        self._metadata = metadata
        self._proof = proof
        self._streams = 0  # begun
        self._unreached_since: float | None = None
        self._said_alive = False
        self._channel = new_channel(
            replica.ref.address, max_reply_bytes=_REPLY_MAX_BYTES, tls=metadata.tls
        )

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
        self._replica.begin_stream(self._proof(self._replica.ref.incarnation, self._streams))
        self._streams += 1
        stream = _ReplicaStream(self._replica, self._channel, self._on_reply)
        self._replica.wake = stream.wake
        try:
            await stream.over
            self._replica.end_stream()
        finally:
            self._replica.wake = _nothing
            stream.close()

    def _on_reply(self, reply: PushReply) -> None:
        self._unreached_since = None
        self._said_alive = False
        sealed = self._replica.on_reply(reply, time.monotonic())
        if sealed:
            self._core.seal(sealed)
        if sealed or reply.acknowledged:
            self._core.changed(time.monotonic())


class _ReplicaStream:
    """One stream to a replica: says what there is to say when there is room, in no task of its own.

    over: done when the stream has ended well; its exception is why it broke.
    """

    def __init__(
        self, replica: Replica, channel: ServiceChannel, on_reply: Callable[[PushReply], None]
    ) -> None:
        """Begin a stream. on_reply: takes note of what the replica says."""
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._replica = replica
        self._on_reply = on_reply
        self._is_due = self._ends = False
        self._idle_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stream = channel.stream(f"/{wire.SHUFFLE_SERVICE}/Push", self)
        self.wake()

    def wake(self) -> None:
        """Say what there is to say: once, for all that comes up until then."""
        if not (self._is_due or self.over.done()):
            self._is_due = True
            self._loop.call_soon(self._say)

    def close(self) -> None:
        """End it at once."""
        self.over.cancel()
        self._stream.cancel()
        if self._timer is not None:
            self._timer.cancel()

    # --- what the channel tells -------------------------------------------------------------

    def on_message(self, message: bytes) -> None:
        """See `StreamListener`."""
        if self.over.done():  # it has failed: what comes behind that counts no more
            return
        try:
            self._on_reply(wire.push_reply_from_bytes(message))
        except Exception as error:  # noqa: BLE001  whatever it is, the stream ends by it
            self._fail(error)
        else:
            self.wake()

    def on_room(self) -> None:
        """See `StreamListener`."""
        self.wake()

    def on_end(self, failure: CallFailed | None) -> None:
        """See `StreamListener`."""
        if failure is not None:
            self._fail(failure)
        elif not self._ends:
            self._fail(ConnectionResetError("it ended the stream"))
        elif not self.over.done():
            self.over.set_result(None)

    # --- inside -----------------------------------------------------------------------------

    def _say(self) -> None:
        self._is_due = False
        if self._ends or self.over.done():
            return
        try:
            while self._stream.has_room:
                request = self._replica.next_request()
                if request is None:
                    break
                self._stream.send(wire.push_request_to_bytes(request))
        except Exception as error:  # noqa: BLE001  as for what comes
            self._fail(error)
            return
        self._idle_since = self._loop.time() if self._replica.is_idle else None
        if self._idle_since is not None and self._timer is None:
            self._timer = self._loop.call_later(LINGER_S, self._look)

    def _look(self) -> None:
        """End the stream if there was nothing to say for a while."""
        self._timer = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + LINGER_S - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
            return
        self._ends = True
        self._stream.half_close()
        late = TimeoutError("it does not end the stream")
        self._timer = self._loop.call_later(_END_S, self._fail, late)

    def _fail(self, error: Exception) -> None:
        if not self.over.done():
            self.over.set_exception(error)


def _nothing() -> None:
    """There is no stream; the next one begins with all there is to say."""


def _reason(error: Exception) -> str:
    """Return why a stream broke, in one line."""
    return str(error) or type(error).__name__
