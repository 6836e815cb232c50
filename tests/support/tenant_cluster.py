"""A cluster with TLS and tokens of two tenants, and who calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.raw_push import channel_to
from support.with_tls import make_token, options

from cosco import Connection, LocalCluster
from cosco.client.access.credentials import TOKEN_FILE_VARIABLE
from cosco.process.tls.authority import CA, make_authority
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol import wire
from cosco.protocol.peer import Role
from cosco.protocol.records import ExchangeInfo
from cosco.protocol.wire import mpb

import grpc  # isort: skip  (after cosco, which turns its fork support on)


class Tenants:
    """A cluster with tokens, and the connections of those who have one."""

    def __init__(self, directory: Path, cluster: LocalCluster) -> None:
        self.certs = directory
        self.cluster = cluster
        self.ours, self.theirs, self.viewer, self.admin = (
            self.with_token(name) for name in ("ours", "theirs", "viewer", "admin")
        )

    def with_token(self, name: str) -> Connection:
        return Connection(self.cluster.metadata, token_file=self.certs / f"{name}.token")

    def call(self, who: Connection, method: str, request: Any) -> Any:
        """Make a call that no client would make, and return what is said; raises RpcError."""
        credential = who.credential()
        assert credential is not None
        _, reply_type = wire.METADATA_METHODS[method]
        with channel_to(self.cluster.metadata) as channel:
            stub = channel.unary_unary(
                f"/{wire.METADATA_SERVICE}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reply_type.FromString,
            )
            shown = [("authorization", f"Bearer {credential()}")]
            return stub(request, timeout=10, metadata=shown)

    def denied(self, who: Connection, method: str, request: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(who, method, request)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
        return str(error.details())

    def info(self, who: Connection, shuffle_id: str) -> ExchangeInfo:
        asked = mpb.DescribeExchangeRequest(shuffle_id=shuffle_id)
        return wire.from_pb(ExchangeInfo, self.call(who, "DescribeExchange", asked))


def make_certificates(directory: Path, environment: pytest.MonkeyPatch) -> Path:
    """Make certificates and tokens; this process has those of a client, and no token."""
    make_authority(directory, [], 30)
    files = (CA, "client.pem", "client-key.pem")
    for variable, file in zip(CLIENT_VARIABLES, files, strict=True):
        environment.setenv(variable, str(directory / file))
    environment.delenv(TOKEN_FILE_VARIABLE, raising=False)
    make_token(directory, "ours", "ours", Role.TENANT)
    make_token(directory, "theirs", "theirs", Role.TENANT)
    make_token(directory, "viewer", "ours", Role.VIEWER)
    make_token(directory, "admin", "operators", Role.ADMIN)
    return directory


@contextmanager
def running(certs: Path, *more: str, daemon_options: tuple[str, ...] = ()) -> Iterator[Tenants]:
    """Run two daemons with what `make_certificates` made."""
    # A cluster asks whether its daemons are there as the admin.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(TOKEN_FILE_VARIABLE, str(certs / "admin.token"))
        cluster = LocalCluster(
            2,
            memory="32MiB",
            metadata_options=[*options(certs, "metadata"), *more],
            daemon_options=[*options(certs, "daemon"), *daemon_options],
        )
    with cluster:
        yield Tenants(certs, cluster)
