"""Tells who took one address for another.

Both services know calls that are meant for the other one, and a client can say what kind of program
it has met instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from cosco.errors import InvalidArgument
from cosco.protocol import wire

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


class Misdirected(grpc.GenericRpcHandler):
    """Refuses the calls of a service that is not served here, and says what is."""

    def __init__(self, service: str, explanation: str) -> None:
        """Refuse every method of `service` with InvalidArgument and this explanation."""
        self._prefix = f"/{service}/"
        self._error = InvalidArgument(explanation)
        # Without waiting for what the caller sends, which may be nothing.
        self._refusing: Any = grpc.stream_stream_rpc_method_handler(self._refuse)

    def service(self, handler_call_details: Any) -> Any:
        """See grpc.GenericRpcHandler: return the handler of a call, or None for other services."""
        if handler_call_details.method.startswith(self._prefix):
            return self._refusing
        return None

    async def _refuse(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            str(self._error),
            trailing_metadata=((wire.ERROR_KEY, wire.error_to_bytes(self._error)),),
        )
        yield b""
