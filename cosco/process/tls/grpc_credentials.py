"""What grpcio makes of files of TLS."""

from __future__ import annotations

from typing import Any

import grpc

from cosco.process.tls.tls_files import TlsContent, TlsFiles


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return what serves connections, each by what the files have when it is made.

    Who connects must have a certificate: grpcio asks all for one, or nobody. Somebody must `watch`
    the files.
    """
    used = files.content

    def changed() -> Any:
        nonlocal used
        content = files.content
        if content is used:
            return None  # nothing has
        used = content
        return _server_configuration(content)

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(used), changed, require_client_authentication=True
    )


def new_channel_of(kind: Any, address: str, content: TlsContent | None, options: Any = ()) -> Any:
    """Make a channel that connects by these certificates for as long as it lives.

    kind: `grpc` or `grpc.aio`. content: None: without TLS.
    """
    if content is None:
        return kind.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(
        content.ca, content.key or None, content.cert or None
    )
    return kind.secure_channel(address, credentials, options=options)


def _server_configuration(content: TlsContent) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(content.key, content.cert)], root_certificates=content.ca
    )
