"""Handlers whose requests are parsed here, so that one which cannot be is refused in one line.

gRPC's own server would take it for a fault of its own, with a traceback in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from cosco.errors import IncompatibleVersion, InvalidArgument
from cosco.process.grpc_handlers.refusals import refuse

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
#: Returns the request that bytes are, or raises anything.
Parse = Callable[[bytes], _Request]


def unary_unary(
    serve: Callable[[_Request, Any], Awaitable[_Reply]],
    parse: Parse[_Request],
    encode: Callable[[_Reply], bytes] | None = None,
) -> Any:
    """Return a handler for grpc's servers and the native one, of one request and one reply."""

    async def call(message: bytes, context: Any) -> _Reply:
        return await serve(await _parsed(message, context, parse), context)

    return grpc.unary_unary_rpc_method_handler(call, None, encode)


def unary_stream(
    serve: Callable[[_Request, Any], Any],
    parse: Parse[_Request],
    encode: Callable[[Any], bytes] | None = None,
) -> Any:
    """Return a handler of one request and a stream of replies. serve: an async generator."""

    async def call(message: bytes, context: Any) -> AsyncIterator[Any]:
        replies = serve(await _parsed(message, context, parse), context)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    return grpc.unary_stream_rpc_method_handler(call, None, encode)


async def _parsed(message: bytes, context: Any, parse: Parse[_Request]) -> _Request:
    try:
        return parse(message)
    except IncompatibleVersion as error:
        await refuse(context, error)
    except Exception as error:  # noqa: BLE001  whatever a parser raises for what a peer sent
        why = f"a request that is no message of this method: {error}"
        await refuse(context, InvalidArgument(why))
