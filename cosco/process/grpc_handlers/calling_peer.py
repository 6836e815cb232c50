"""Who calls, whichever server carries the call."""

from __future__ import annotations

from typing import Any, Final

from cosco.protocol.peer import CREDENTIAL_HEADER, Peer, credential_of

#: What grpcio calls the names of a verified certificate, by their kinds. URIs have a scheme, so
#: that they are no other kind of name.
_PLAIN_NAMES: Final = ("peer_dns", "peer_ip")
_URIS: Final = "peer_uri"
#: How it says that there is TLS.
_SECURITY: Final = "transport_security_type"
_TLS: Final = (b"ssl", b"tls")


def peer_of(context: Any) -> Peer:
    """Return who makes the call of a handler, by its context."""
    peer = context.peer
    if isinstance(peer, Peer):  # of the native server
        return peer
    auth = context.auth_context()
    is_encrypted = any(kind in _TLS for kind in auth.get(_SECURITY, ()))
    if not is_encrypted:
        return Peer(str(peer()), frozenset(), is_encrypted=False, credential=_credential(context))
    found = [name for kind in _PLAIN_NAMES for name in auth.get(kind, ())]
    found += [uri for uri in auth.get(_URIS, ()) if b"://" in uri]
    names = frozenset(name.decode("utf-8", "replace") for name in found)
    return Peer(str(peer()), names, is_encrypted=True, credential=_credential(context))


def _credential(context: Any) -> str:
    """Return the credential that came with the call; of several nobody knows which is meant."""
    found = [
        value for key, value in context.invocation_metadata() or () if key == CREDENTIAL_HEADER
    ]
    if len(found) != 1:
        return ""
    (header,) = found
    return credential_of(header.encode() if isinstance(header, str) else header)
