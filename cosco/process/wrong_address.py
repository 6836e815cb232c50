"""Tells who took one address for another: what a client has met instead of a service."""

from __future__ import annotations

from typing import Final

#: What is in gRPC's details of a failed call → what that says of the other end.
_GUESSES: Final = {
    "Failed parsing HTTP/2": "what answers there is no gRPC server: perhaps a web page, the "
    "metrics of a service, or another program's port",
    "before receiving SETTINGS": "what takes connections there says nothing: it hangs, or is no "
    "gRPC server",
    "errors resolving": "this machine knows no host of that name",
    "Connection refused": "nothing listens there",
    "Method not found": "what answers there is a gRPC server of something else, or of another "
    "version of Cosco",
}


def guess(details: str) -> str:
    """Return what the failure of a call says about the address, for its user; empty for nothing."""
    return next((meaning for part, meaning in _GUESSES.items() if part in details), "")
