"""Which gRPC server serves: the native one where the native part is, else gRPC's own."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from cosco.mechanics import NATIVE
from cosco.process.grpc_settings import SERVER_OPTIONS, Options
from cosco.process.native_grpc.server import Direct, NativeServer

#: What both have: `add_generic_rpc_handlers`, `add_insecure_port`, `start` and `stop`.
Server = grpc.aio.Server | NativeServer


def new_server(
    *,
    max_message_bytes: int,
    direct: Mapping[str, Direct] | None = None,
    calls_max: int | None = None,
    options: Options = (),
) -> Server:
    """Make a server of coroutines.

    direct: by `/service/method`, who serves a call by itself on the native server; its handler
    does so on gRPC's. calls_max: calls at a time; more are refused. options: of gRPC's server.
    """
    if NATIVE is not None:
        return NativeServer(
            direct=direct or {}, max_message_bytes=max_message_bytes, calls_max=calls_max
        )
    own = (*SERVER_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes), *options)
    return grpc.aio.server(options=own, maximum_concurrent_rpcs=calls_max)
