"""gRPC's settings, each once: what all channels have, and how a silent peer is noticed."""

from __future__ import annotations

from typing import Final

from cosco.protocol import wire

Options = tuple[tuple[str, int], ...]

#: Every channel has these; callers add to them.
CHANNEL_OPTIONS: Final[Options] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # retries are decided by whoever calls
    # Neither a connection nor a back-off of another channel, nor, after a fork, of the parent.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", wire.MAX_METADATA_MESSAGE_BYTES),
    # Errors travel in trailing metadata, and gRPC drops at random above the first limit.
    ("grpc.max_metadata_size", wire.MAX_ERROR_BYTES),
    ("grpc.absolute_max_metadata_size", wire.MAX_ERROR_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # the time one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
#: What may come with a call, a credential above all: as much as the native server takes.
_MAX_HEADERS_BYTES: Final = 16 << 10
#: Every server has these.
SERVER_OPTIONS: Final[Options] = (
    ("grpc.so_reuseport", 0),  # a port in use is an error
    # Peers ping while they wait for a reply; without this that counts as abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.max_metadata_size", _MAX_HEADERS_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_HEADERS_BYTES),
    ("grpc.server_handshake_timeout_ms", 10_000),  # of TLS and of HTTP/2; it would be two minutes
)
#: Calls of one connection at a time, of either server.
CONNECTION_CALLS_MAX: Final = 10_000


def keepalive(after_ms: int, timeout_ms: int) -> Options:
    """Return options to notice a peer that is gone without a word, or stands still.

    It is asked once nothing came for `after_ms`, and has `timeout_ms` to answer. Two time-outs,
    as a peer whose kernel still acknowledges what it is sent is left to the second one, which
    would be a minute.
    """
    return (
        ("grpc.keepalive_time_ms", after_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
    )
