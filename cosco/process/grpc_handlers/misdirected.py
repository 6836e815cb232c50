"""Tells who took one address for another: both services know calls that are meant for the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from cosco.errors import InvalidArgument
from cosco.process.grpc_handlers.refusals import refusal


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
        code, details, trailers = refusal(self._error)
        await context.abort(code, details, trailers)
        yield b""
