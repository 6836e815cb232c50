"""How a call ends that a service refuses: the same for all calls of both services."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import grpc

from cosco.errors import AccessDenied, CoscoError, InvalidArgument, ServiceUnavailable
from cosco.protocol import wire

#: What is wrong with the request itself, and an outage of which the caller tries again.
_CODES: Final = (
    (InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
    (ServiceUnavailable, grpc.StatusCode.UNAVAILABLE),
    (AccessDenied, grpc.StatusCode.PERMISSION_DENIED),
)
Trailers = tuple[tuple[str, bytes], ...]


def refusal(error: CoscoError) -> tuple[grpc.StatusCode, str, Trailers]:
    """Return the status, one line of details, and the trailers that a client has the error from."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    trailers = ((wire.ERROR_KEY, wire.error_to_bytes(error)),)
    return code or grpc.StatusCode.FAILED_PRECONDITION, wire.error_line(error), trailers


async def refuse(context: Any, error: CoscoError) -> NoReturn:
    """End the call of a handler with an error, which does not return."""
    await context.abort(*refusal(error))
    raise AssertionError("abort returned")
