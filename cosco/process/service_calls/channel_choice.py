"""How the services call each other: by the native part where it is, else by grpcio."""

from __future__ import annotations

from cosco.mechanics import NATIVE
from cosco.process.service_calls.native_service_channel import NativeServiceChannel
from cosco.process.service_calls.service_channel import ServiceChannel
from cosco.process.tls.service_tls import PLAIN, ServiceTls


def new_channel(address: str, *, max_reply_bytes: int, tls: ServiceTls = PLAIN) -> ServiceChannel:
    """Make a channel to `host:port`, which begins without a connection.

    max_reply_bytes: how long messages may be that come. tls: of the service that calls.
    """
    if NATIVE is not None:
        return NativeServiceChannel(
            NATIVE, address, max_reply_bytes=max_reply_bytes, tls=tls.client
        )
    # Not where it is not used: its calls have threads.
    from cosco.process.service_calls.grpc_service_channel import (  # noqa: PLC0415
        GrpcServiceChannel,
    )

    return GrpcServiceChannel(address, max_reply_bytes=max_reply_bytes, files=tls.files)
