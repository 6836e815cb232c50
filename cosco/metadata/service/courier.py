"""What the metadata service asks of daemons: who is there, and to end assignments."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from google.protobuf.message import DecodeError

from cosco.metadata.service.journal import Journal
from cosco.metadata.service.polls import Polls
from cosco.metadata.state.daemons.errands import Fence, ProbeOutcome
from cosco.metadata.state.state import MetadataState
from cosco.process.service_calls.channel_choice import new_channel
from cosco.process.service_calls.service_channel import CallFailed
from cosco.process.tls.service_tls import PLAIN, ServiceTls
from cosco.protocol import wire
from cosco.protocol.records import DaemonRef
from cosco.protocol.wire import spb

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S: Final = 1.0
SEAL_TIMEOUT_S: Final = 2.0
#: A daemon that could not be told is told again after this time.
SEAL_RETRY_S: Final = 0.25
#: Calls to daemons under way; more wait.
MAX_CALLS: Final = 64
#: Daemons answer with some numbers.
_REPLY_MAX_BYTES: Final = 64 << 10

#: What is in the reason of a daemon that is there, and does not listen to this service.
_NOT_SPOKEN_TO: Final = ("TLS has failed", "SSL_ERROR", "is for the metadata service alone")
#: It is told once in this time at most.
_TELL_S: Final = 10.0
#: What gRPC reports when nobody listens at an address, as the process is gone.
_REFUSED: Final = "Connection refused"


class _Unanswered(Exception):
    """A daemon did not answer, or not as one does."""


class Courier:
    """Carries out the probes and fences of the state. Calls to daemons are rare, and each has
    a channel of its own, which ends with it."""

    def __init__(
        self, state: MetadataState, journal: Journal, polls: Polls, tls: ServiceTls = PLAIN
    ) -> None:
        """tls: of the service."""
        self._state = state
        self._journal = journal
        self._polls = polls
        self._tls = tls
        self._told_at = -_TELL_S
        self._calls = asyncio.Semaphore(MAX_CALLS)

    async def run(self) -> None:
        """Make calls until cancelled, which ends those under way."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._polls.errands.wait()
                self._polls.errands.clear()
                for daemon in self._state.members.pop_probes():
                    tasks.create_task(self._probe(daemon))
                for claimant in self._state.members.pop_claims():
                    tasks.create_task(self._claim(claimant))
                for fence in self._state.failover.pop_fences():
                    tasks.create_task(self._seal(fence))

    async def _probe(self, daemon: DaemonRef) -> None:
        try:
            reply = await self._call(daemon, "Probe", spb.ProbeRequest(), PROBE_TIMEOUT_S)
        except _Unanswered as error:
            refused = _REFUSED in str(error)
            outcome = ProbeOutcome.GONE if refused else ProbeOutcome.SILENT
            self._tell(daemon, "asked who is there", error)
        else:
            same = reply.incarnation == daemon.incarnation
            outcome = ProbeOutcome.ALIVE if same else ProbeOutcome.GONE
        log.debug("the daemon at %s was asked, and is %s", daemon.address, outcome.name)
        self._probed(daemon, outcome)

    async def _claim(self, claimant: DaemonRef) -> None:
        """Find out who is at an address that two daemons have."""
        found: int | None
        try:
            reply = await self._call(claimant, "Probe", spb.ProbeRequest(), PROBE_TIMEOUT_S)
        except _Unanswered as error:
            found = 0 if _REFUSED in str(error) else None
        else:
            found = reply.incarnation
        if found != claimant.incarnation:
            log.warning(
                "the daemon %d registers at %s, where another one is registered: %s answers there",
                *(claimant.incarnation, claimant.address, found or "nobody"),
            )
        self._state.members.claim_answered(claimant, found, time.monotonic())
        self._polls.wake(self._polls.waiting.probed(claimant.incarnation))
        self._polls.changed()

    async def _seal(self, fence: Fence) -> None:
        daemon = fence.daemon
        request = spb.SealRequest(
            incarnation=daemon.incarnation,
            keys=map(wire.to_pb, fence.keys),
            capability=self._state.access.proof(daemon.incarnation),
        )
        await self._journal.durable()
        try:
            reply = await self._call(daemon, "Seal", request, SEAL_TIMEOUT_S)
        except _Unanswered as error:
            log.debug("the daemon at %s is not fenced yet: %s", daemon.address, error)
            self._tell(daemon, "told to take nothing more", error)
            await asyncio.sleep(SEAL_RETRY_S)
            self._state.members.fence_failed(daemon.incarnation)
            self._polls.changed()
        else:
            if reply.incarnation == daemon.incarnation:
                self._state.failover.fenced(daemon.incarnation, fence.keys)
                self._polls.changed()
            else:
                self._probed(daemon, ProbeOutcome.GONE)

    def _tell(self, daemon: DaemonRef, what: str, error: _Unanswered) -> None:
        """Say in the log of a daemon that is there and cannot be spoken to: it counts as silent."""
        why = str(error)
        now = time.monotonic()
        if not any(sign in why for sign in _NOT_SPOKEN_TO) or now < self._told_at + _TELL_S:
            return
        self._told_at = now
        log.warning(
            "the daemon at %s cannot be %s, and counts as silent: %s", daemon.address, what, why
        )

    def _probed(self, daemon: DaemonRef, outcome: ProbeOutcome) -> None:
        self._state.probed(daemon.incarnation, outcome, time.monotonic())
        self._polls.wake(self._polls.waiting.probed(daemon.incarnation))
        self._polls.changed()

    async def _call(self, daemon: DaemonRef, method: str, request: Any, timeout_s: float) -> Any:
        """Make one call to a daemon; raises _Unanswered."""
        reply_type = getattr(spb, f"{method}Reply")
        path = f"/{wire.SHUFFLE_SERVICE}/{method}"
        async with self._calls:
            channel = new_channel(daemon.address, max_reply_bytes=_REPLY_MAX_BYTES, tls=self._tls)
            try:
                reply = await channel.unary(path, request.SerializeToString(), timeout_s)
            except CallFailed as error:
                raise _Unanswered(error.details) from None
            finally:
                await channel.close()
        try:
            return reply_type.FromString(reply)
        except DecodeError:
            raise _Unanswered("something else than a shuffle daemon answers there") from None
