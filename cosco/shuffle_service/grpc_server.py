"""The daemon's calls as gRPC makes them: messages in, the parts that answer, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc

from cosco.errors import CoscoError, InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.process.grpc_settings import keepalive
from cosco.process.native_grpc.call import Call
from cosco.process.native_grpc.misdirected import Misdirected
from cosco.process.native_grpc.server_choice import Server, new_server
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.receiver import PushReceiver
from cosco.protocol.wire import (
    ERROR_KEY,
    METADATA_SERVICE,
    SHUFFLE_SERVICE,
    error_to_bytes,
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
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Intakes

#: Assignments one Seal may name; several calls seal more.
MAX_SEAL_KEYS: Final = 1 << 16
#: gRPC itself refuses what is longer; frames up to here are refused with a reason.
_MAX_MESSAGE_BYTES: Final = 2 * MAX_FRAME_BYTES
_STARTING: Final = "the daemon is starting"
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

    def server(self, *others: grpc.GenericRpcHandler) -> Server:
        """Make a server of all calls and of `others`, which is neither bound nor started."""
        server = new_server(
            max_message_bytes=_MAX_MESSAGE_BYTES,
            direct={
                f"/{SHUFFLE_SERVICE}/Push": self._push_directly,
                f"/{SHUFFLE_SERVICE}/Follow": self._follow_directly,
            },
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
            "Probe": grpc.unary_unary_rpc_method_handler(
                self._probe, spb.ProbeRequest.FromString, spb.ProbeReply.SerializeToString
            ),
            "Seal": grpc.unary_unary_rpc_method_handler(
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
        receiver = PushReceiver(self.core.incarnation, self.budgets, self.intakes.open)
        DirectPush(call, receiver, self.metrics)

    def _follow_directly(self, call: Call) -> None:
        if not self.core.cluster_id:
            call.finish(grpc.StatusCode.UNAVAILABLE, _STARTING)
            return
        DirectFollow(call, Followers(self.core, self.lookups))

    async def _push(self, requests: Any, context: Any) -> None:
        await self._check_started(context)
        self.metrics.push_streams.inc()
        receiver = PushReceiver(self.core.incarnation, self.budgets, self.intakes.open)
        try:
            await PushStream(context, receiver, self.metrics).run(requests)
        finally:
            self.metrics.push_streams.dec()

    async def _fetch(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._check_started(context)
        self.metrics.fetch_streams.inc()
        try:
            replies = self.fetch.serve(fetch_request_from_bytes(message))
            async with aclosing(replies):
                async for reply in replies:
                    yield reply
        except CoscoError as error:
            await _abort(context, error)
        finally:
            self.metrics.fetch_streams.dec()

    async def _follow(self, requests: Any, context: Any) -> None:
        await self._check_started(context)
        try:
            await FollowStream(context, Followers(self.core, self.lookups)).run(requests)
        except InvalidArgument as error:
            await _abort(context, error)

    async def _probe(self, _request: spb.ProbeRequest, _context: Any) -> spb.ProbeReply:
        return spb.ProbeReply(incarnation=self.core.incarnation)

    async def _seal(self, request: spb.SealRequest, context: Any) -> spb.SealReply:
        """Take nothing more for these assignments, and begin to store what is held of them."""
        await self._check_started(context)
        core, count = self.core, len(request.keys)
        if count > MAX_SEAL_KEYS:
            error = f"{count} assignments to seal at once, at most {MAX_SEAL_KEYS} are"
            await _abort(context, InvalidArgument(error))
        if request.incarnation != core.incarnation:
            return spb.SealReply(incarnation=core.incarnation)
        keys = [AssignmentKey(key.number, key.range_index, key.epoch) for key in request.keys]
        held_bytes = core.seal(keys)
        self.copies.sealed(keys)
        return spb.SealReply(incarnation=core.incarnation, held_bytes=held_bytes)


async def _abort(context: Any, error: CoscoError) -> NoReturn:
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION,
        str(error),
        trailing_metadata=((ERROR_KEY, error_to_bytes(error)),),
    )
    raise AssertionError("abort returned")
