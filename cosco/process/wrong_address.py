"""Tells who took one address for another: what a client has met instead of a service."""

from __future__ import annotations

from typing import Final

#: What is in gRPC's details of a failed call → what that says of the other end.
_GUESSES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of the authority that is trusted here, or "
    "is not valid now",
    "WRONG_VERSION_NUMBER": "this end speaks TLS, and what answers there does not",
    "is not in peer certificate": "its certificate is of another name",
    "Hostname Verification Check failed": "its certificate is of another name",
    "Socket closed": "it ends connections at once: perhaps it speaks TLS, and this end does not, "
    "or has no certificate of its authority",
    "Failed parsing HTTP/2": "what answers there is no gRPC server: perhaps a web page, the "
    "metrics of a service, or another program's port",
    "it speaks TLS": "what answers there speaks TLS, and this process was not told to",
    "it does not speak TLS": "what answers there speaks no TLS: a service that was not told to, or "
    "another program's port",
    "before receiving SETTINGS": "what takes connections there says nothing: it hangs, or is no "
    "gRPC server",
    "it takes too long": "the name servers of this machine do not answer, or slowly",
    "other names are being looked up": "the name servers of this machine answer slowly",
    "errors resolving": "this machine knows no host of that name",
    "Connection refused": "nothing listens there",
    "Method not found": "what answers there is a gRPC server of something else, or of another "
    "version of Cosco",
}


def guess(details: str) -> str:
    """Return what the failure of a call says about the address, for its user; empty for nothing."""
    return next((meaning for part, meaning in _GUESSES.items() if part in details), "")
