"""A metadata service before the real one, which notes who calls, and gives capabilities out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from cosco.errors import AccessDenied
from cosco.process.grpc_handlers.calling_peer import peer_of
from cosco.process.grpc_handlers.refusals import refuse
from cosco.process.native_grpc.server_choice import new_server
from cosco.process.tls.service_tls import PLAIN, ServiceTls
from cosco.protocol import wire
from cosco.protocol.wire import mpb

#: Of an exchange, by what tells of one.
_INFOS = {"CreateExchange", "DescribeExchange", "FixRowKind"}
_WITH_INFO = {"OpenAttempt", "CreateGroup"}


class MetadataProxy(grpc.GenericRpcHandler):
    """Passes calls on to the service at `target`, whose capabilities are all `capability`; those of
    one right end with `-read` or `-write`."""

    def __init__(self, target: str, capability: str) -> None:
        self.address = ""
        self.capability = capability
        #: The credentials that calls came with, by their methods.
        self.shown: dict[str, list[str]] = {}
        #: Credentials that are refused.
        self.refused: set[str] = set()
        self._target = target
        self._channel: Any = None

    def service(self, details: Any) -> Any:
        method = details.method

        async def passed_on(request: bytes, context: Any) -> bytes:
            return await self._passed_on(method, request, context)

        return grpc.unary_unary_rpc_method_handler(passed_on)

    def all_shown(self) -> set[str]:
        """Every credential that came; "" stands for calls without one."""
        return {one for shown in list(self.shown.values()) for one in shown}

    async def serve(self, ready: threading.Event, stop: asyncio.Event, tls: ServiceTls) -> None:
        server = new_server(max_message_bytes=wire.MAX_METADATA_MESSAGE_BYTES, tls=tls)
        server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        async with grpc.aio.insecure_channel(self._target) as self._channel:
            await server.start()
            ready.set()
            await stop.wait()
            await server.stop(None)

    async def _passed_on(self, method: str, request: bytes, context: Any) -> bytes:
        name = method.rpartition("/")[2]
        credential = peer_of(context).credential
        self.shown.setdefault(name, []).append(credential)
        if credential in self.refused:
            await refuse(context, AccessDenied("who shows that may do nothing"))
        try:
            reply: bytes = await self._channel.unary_unary(method)(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), tuple(error.trailing_metadata()))
            raise AssertionError from None
        if name == "MakeCapability" and self.capability:
            wanted = mpb.MakeCapabilityRequest.FromString(request)
            rights = [right for right in ("read", "write") if getattr(wanted, right)]
            made = self.capability if len(rights) > 1 else f"{self.capability}-{rights[0]}"
            return bytes(mpb.MakeCapabilityReply(capability=made).SerializeToString())
        return self._with_capability(name, reply, credential)

    def _with_capability(self, name: str, reply: bytes, credential: str) -> bytes:
        """Have the answer tell whoever shows one of these capabilities that one again."""
        if not self.capability or name not in _INFOS | _WITH_INFO:
            return reply
        told = wire.METADATA_METHODS[name][1].FromString(reply)
        (told if name in _INFOS else told.info).capability = (
            credential if credential.startswith(self.capability) else self.capability
        )
        return bytes(told.SerializeToString())


@contextmanager
def metadata_proxy(
    target: str, capability: str = "", tls: ServiceTls = PLAIN
) -> Iterator[MetadataProxy]:
    """Serve in a thread of this process."""
    proxy = MetadataProxy(target, capability)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy.serve(ready, stop, tls),))
    thread.start()
    assert ready.wait(20)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
