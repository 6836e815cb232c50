"""The daemon's calls as gRPC makes them: messages in, the parts that answer, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc

from cosco.errors import CoscoError, InvalidArgument
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.process.grpc_settings import SERVER_OPTIONS, keepalive
from cosco.protocol.wire import ERROR_KEY, SHUFFLE_SERVICE, error_to_bytes, fetch_request, spb
from cosco.shuffle_service.io.control import ControlService
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.push.push_stream import GrantBoards, PushStream
from cosco.shuffle_service.io.push.take_copies import Copies
from cosco.shuffle_service.io.push.take_in import TakeIn
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.follow_service import FollowService, FollowStream

#: gRPC itself refuses what is longer; frames up to here are refused with a reason.
_MAX_MESSAGE_BYTES: Final = 2 * MAX_FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Calls:
    """The parts of a daemon that calls go to."""

    boards: GrantBoards
    take_in: TakeIn
    copies: Copies
    fetch: FetchService
    follow: FollowService
    control: ControlService
    metrics: DaemonMetrics

    def server(self) -> grpc.aio.Server:
        """A server of all calls, which is neither bound nor started."""
        server = grpc.aio.server(
            options=[
                *SERVER_OPTIONS,
                *keepalive(20_000, 10_000),  # a host that vanished is noticed
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
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
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SHUFFLE_SERVICE, handlers),)
        )
        return server

    async def _push(self, requests: Any, context: Any) -> None:
        self.metrics.push_streams.inc()
        try:
            await PushStream(context, self.boards, self.take_in, self.copies).run(requests)
        finally:
            self.metrics.push_streams.dec()

    async def _fetch(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        self.metrics.fetch_streams.inc()
        try:
            request = fetch_request(message)
            key = (request.number, request.range_index, request.epoch)
            replies = self.fetch.serve(key, request.partition, files=request.files)
            async with aclosing(replies):
                async for reply in replies:
                    yield reply
        except CoscoError as error:
            await _abort(context, error)
        finally:
            self.metrics.fetch_streams.dec()

    async def _follow(self, requests: Any, context: Any) -> None:
        try:
            await FollowStream(context, self.follow).run(requests)
        except InvalidArgument as error:
            await _abort(context, error)

    async def _probe(self, _request: spb.ProbeRequest, _context: Any) -> spb.ProbeReply:
        return self.control.probe()

    async def _seal(self, request: spb.SealRequest, context: Any) -> spb.SealReply:
        try:
            return self.control.seal(request)
        except InvalidArgument as error:
            return await _abort(context, error)


async def _abort(context: Any, error: CoscoError) -> NoReturn:
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION,
        str(error),
        trailing_metadata=((ERROR_KEY, error_to_bytes(error)),),
    )
    raise AssertionError("abort returned")
