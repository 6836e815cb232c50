"""Which gRPC server serves: the native one where the native part is, else gRPC's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import grpc

from cosco.config import ReachOptions, parse_address
from cosco.errors import InvalidArgument
from cosco.mechanics import NATIVE
from cosco.process.grpc_handlers.gone_peers import leave_out_gone_peers
from cosco.process.grpc_handlers.one_request import OneRequest
from cosco.process.grpc_settings import CONNECTION_CALLS_MAX, SERVER_OPTIONS, Options
from cosco.process.host_checks import open_files_for
from cosco.process.native_grpc.connection_table import USUAL, PeerLimits
from cosco.process.native_grpc.server import UNFINISHED_BYTES, Direct, NativeServer
from cosco.process.tls.grpc_credentials import server_credentials
from cosco.process.tls.service_tls import PLAIN, ServiceTls

log = logging.getLogger(__name__)

#: What both have: `add_generic_rpc_handlers`, `add_insecure_port`, `start` and `stop`.
Server = grpc.aio.Server | NativeServer


def new_server(
    *,
    max_message_bytes: int,
    direct: Mapping[str, Direct] | None = None,
    calls_max: int | None = None,
    unfinished_bytes: int = UNFINISHED_BYTES,
    peers: PeerLimits = USUAL,
    refused: Callable[[str], object] = str,
    tls: ServiceTls = PLAIN,
    options: Options = (),
) -> Server:
    """Make a server of coroutines.

    direct: by `/service/method`, who serves a call by itself on the native server; its handler
    does so on gRPC's. calls_max: calls at a time; more are refused. unfinished_bytes: what messages
    that have not come whole may hold, on the native server; gRPC's has no such bound. peers:
    what they may have, on the native server; gRPC's bounds by it the calls of one connection.
    refused: called by the native one with the bound for
    which a call or a connection was refused. tls: of the service, which `bind` is given too.
    options: of gRPC's server.
    """
    if NATIVE is not None:
        return NativeServer(
            direct=direct or {},
            max_message_bytes=max_message_bytes,
            calls_max=calls_max,
            unfinished_bytes=unfinished_bytes,
            peers=peers,
            refused=refused,
            tls=tls.server,
        )
    leave_out_gone_peers()
    own = (
        *SERVER_OPTIONS,
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_concurrent_streams", min(CONNECTION_CALLS_MAX, peers.peer_calls)),
        *options,
    )
    return grpc.aio.server(
        interceptors=(OneRequest(),), options=own, maximum_concurrent_rpcs=calls_max
    )


def peer_limits(options: ReachOptions) -> PeerLimits:
    """Return what peers of a service may have, as far as the files that it may open allow it."""
    asked = PeerLimits(
        options.connections, options.peer_connections, options.new_connections, options.peer_calls
    )
    connections = open_files_for(asked.connections)
    if connections < asked.connections:
        log.info(
            "--connections is %s, and the files that may be open allow %s: raise them, with "
            "ulimit -n or LimitNOFILE=, if there are so many workers",
            *(asked.connections, connections),
        )
    return replace(asked, connections=connections)


def bind(server: Server, listen: str, tls: ServiceTls = PLAIN) -> str:
    """Have a server listen, and return its address; raises InvalidArgument if it cannot."""
    host, _ = parse_address(listen)
    try:
        if isinstance(server, NativeServer) or tls.files is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, server_credentials(tls.files))
    except RuntimeError:
        port = 0
    if not port:
        raise InvalidArgument(
            f"cannot listen on {listen}: the port is in use or the host is not this machine; "
            "name another with --listen"
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
