"""The daemon's calls as gRPC makes them: messages in, the parts that answer, messages out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from cosco.errors import AccessDenied, CoscoError, InvalidArgument, ServiceUnavailable
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.process.grpc_handlers.calling_peer import peer_of
from cosco.process.grpc_handlers.misdirected import Misdirected
from cosco.process.grpc_handlers.parsed_requests import unary_unary
from cosco.process.grpc_handlers.refusals import refuse
from cosco.process.grpc_settings import keepalive
from cosco.process.native_grpc.call import Call
from cosco.process.native_grpc.connection_table import USUAL, PeerLimits
from cosco.process.native_grpc.server import UNFINISHED_BYTES
from cosco.process.native_grpc.server_choice import Server, new_server
from cosco.process.tls.service_tls import PLAIN, ServiceTls
from cosco.protocol.capability import Rights
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.peer import NAMES, NOBODY, ServiceNames
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.messages import Hello
from cosco.protocol.push.receiver import Intake, PushReceiver
from cosco.protocol.wire import (
    METADATA_SERVICE,
    SHUFFLE_SERVICE,
    fetch_request_from_bytes,
    spb,
)
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.push.copy_keeper import CopyKeeper
from cosco.shuffle_service.io.push.direct_push import DirectPush
from cosco.shuffle_service.io.push.push_stream import PushStream
from cosco.shuffle_service.io.read.direct_follow import DirectFollow
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.follow_service import Followers, FollowStream
from cosco.shuffle_service.state.access_check import AccessCheck, ReadingStream
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Intakes
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

#: Assignments one Seal may name; several calls seal more.
MAX_SEAL_KEYS: Final = 1 << 16
#: gRPC itself refuses what is longer; frames up to here are refused with a reason.
_MAX_MESSAGE_BYTES: Final = 2 * MAX_FRAME_BYTES
_STARTING: Final = "the daemon is starting"
_FORWARDING: Final = "to forward frames as a primary"
#: For who takes a daemon for the metadata service.
_NO_METADATA: Final = Misdirected(
    METADATA_SERVICE,
    "this is the address of a shuffle daemon, and was given as that of the metadata service: give "
    "the one that cosco-metadata says it is ready on",
)


@dataclass(frozen=True, slots=True)
class DaemonHandlers:
    """The parts of a daemon that calls go to."""

    core: DaemonCore
    budgets: FrameBudgets
    intakes: Intakes
    copies: CopyKeeper
    fetch: FetchService
    lookups: Lookups
    metrics: DaemonMetrics
    #: By which services are known.
    names: ServiceNames = NAMES
    #: By which others show what they may do.
    access: AccessCheck = field(default_factory=AccessCheck)
    #: The streams of readers, by tenant.
    readers: TenantStreams = field(default_factory=TenantStreams)

    def server(
        self,
        *others: grpc.GenericRpcHandler,
        unfinished_bytes: int = UNFINISHED_BYTES,
        peers: PeerLimits = USUAL,
        tls: ServiceTls = PLAIN,
    ) -> Server:
        """Make a server of all calls and of `others`, which is neither bound nor started.

        unfinished_bytes: what messages that have not come whole may hold. peers: what they may
        have. tls: of the daemon.
        """
        server = new_server(
            max_message_bytes=_MAX_MESSAGE_BYTES,
            direct={
                f"/{SHUFFLE_SERVICE}/Push": self._push_directly,
                f"/{SHUFFLE_SERVICE}/Follow": self._follow_directly,
            },
            unfinished_bytes=unfinished_bytes,
            peers=peers,
            refused=self.metrics.count_refused,
            tls=tls,
            options=(
                *keepalive(20_000, 10_000),  # a host that vanished is noticed
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_permit_without_calls", 1),
            ),
        )
        server.add_generic_rpc_handlers((self._calls(), *others, _NO_METADATA))
        return server

    def _calls(self) -> grpc.GenericRpcHandler:
        handlers: dict[str, Any] = {
            "Push": grpc.stream_stream_rpc_method_handler(self._push),
            "Fetch": grpc.unary_stream_rpc_method_handler(self._fetch),
            "Follow": grpc.stream_stream_rpc_method_handler(self._follow),
            "Probe": unary_unary(
                self._probe, spb.ProbeRequest.FromString, spb.ProbeReply.SerializeToString
            ),
            "Seal": unary_unary(
                self._seal, spb.SealRequest.FromString, spb.SealReply.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler(SHUFFLE_SERVICE, handlers)

    async def _check_started(self, context: Any) -> None:
        """Refuse what comes before the daemon is registered: paths need the cluster's id."""
        if not self.core.cluster_id:
            await context.abort(grpc.StatusCode.UNAVAILABLE, _STARTING)

    def _push_directly(self, call: Call) -> None:
        if not self.core.cluster_id:
            call.finish(grpc.StatusCode.UNAVAILABLE, _STARTING)
            return
        receiver = PushReceiver(self.core.incarnation, self.budgets, self._opening(call))
        DirectPush(call, receiver, self.metrics)

    def _opening(self, context: Any) -> Callable[[Hello, PushReceiver, float], Intake]:
        """Return what takes in the frames of who calls: of a writer that may write to his exchange,
        of a primary only if that is a daemon."""
        peer = peer_of(context) if self.names.is_checked else NOBODY

        def open_intake(hello: Hello, stream: PushReceiver, now: float) -> Intake:
            if not hello.primary:
                return self._open_writer(hello, stream, now)
            if self.names.is_checked:
                self.names.check_daemon(peer, _FORWARDING)
            else:
                self.access.check_service(hello.capability, _FORWARDING, "daemons", time.time())
            return self.intakes.open(hello, stream, now)

        return open_intake

    def _open_writer(self, hello: Hello, stream: PushReceiver, now: float) -> Intake:
        try:
            permit = self.access.check(hello.number, Rights.WRITE, hello.capability, time.time())
            return self.intakes.open(hello, stream, now, permit.tenant if permit else 0)
        except ServiceUnavailable as error:  # so that he asks who takes over, and tries again
            raise NotAssigned(str(error)) from None

    async def _check_metadata(self, context: Any, method: str) -> None:
        """Refuse a call that is the metadata service's, of anybody else."""
        if not self.names.is_checked:
            return
        try:
            self.names.check_metadata(peer_of(context), method)
        except AccessDenied as error:
            await refuse(context, error)

    async def _check_sealing(self, request: spb.SealRequest, context: Any) -> None:
        """Refuse to seal for anybody but the metadata service, which is known by its certificate,
        and without TLS by what it shows."""
        await self._check_metadata(context, "Seal")
        if self.names.is_checked:
            return
        try:
            shown = request.capability
            self.access.check_service(shown, "Seal", "the metadata service", time.time())
        except AccessDenied as error:
            await refuse(context, error)

    def _followers(self) -> Followers:
        shown = ReadingStream(self.access, self.readers)
        return Followers(self.core, self.lookups, shown, self.metrics)

    def _follow_directly(self, call: Call) -> None:
        if not self.core.cluster_id:
            call.finish(grpc.StatusCode.UNAVAILABLE, _STARTING)
            return
        DirectFollow(call, self._followers())

    async def _push(self, requests: Any, context: Any) -> None:
        await self._check_started(context)
        self.metrics.push_streams.inc()
        receiver = PushReceiver(self.core.incarnation, self.budgets, self._opening(context))
        try:
            await PushStream(context, receiver, self.metrics).run(requests)
        finally:
            self.metrics.push_streams.dec()

    async def _fetch(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._check_started(context)
        self.metrics.fetch_streams.inc()
        try:
            request = fetch_request_from_bytes(message)
            self.access.check(request.number, Rights.READ, request.capability, time.time())
            replies = self.fetch.serve(request)
            async with aclosing(replies):
                async for reply in replies:
                    yield reply
        except CoscoError as error:
            await refuse(context, error)
        finally:
            self.metrics.fetch_streams.dec()

    async def _follow(self, requests: Any, context: Any) -> None:
        await self._check_started(context)
        try:
            await FollowStream(context, self._followers()).run(requests)
        except InvalidArgument as error:
            await refuse(context, error)

    async def _probe(self, _request: spb.ProbeRequest, context: Any) -> spb.ProbeReply:
        await self._check_metadata(context, "Probe")
        return spb.ProbeReply(incarnation=self.core.incarnation)

    async def _seal(self, request: spb.SealRequest, context: Any) -> spb.SealReply:
        """Take nothing more for these assignments, and begin to store what is held of them."""
        await self._check_sealing(request, context)
        await self._check_started(context)
        core, count = self.core, len(request.keys)
        if count > MAX_SEAL_KEYS:
            error = f"{count} assignments to seal at once, at most {MAX_SEAL_KEYS} are"
            await refuse(context, InvalidArgument(error))
        if request.incarnation != core.incarnation:
            return spb.SealReply(incarnation=core.incarnation)
        keys = [AssignmentKey(key.number, key.range_index, key.epoch) for key in request.keys]
        held_bytes = core.seal(keys)
        self.copies.sealed(keys)
        return spb.SealReply(incarnation=core.incarnation, held_bytes=held_bytes)
