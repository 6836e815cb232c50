"""Has gRPC's own server answer calls without the request that they should have.

It waits for ever where the client has said that none will come, and such calls count among those
that it takes at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc


class OneRequest(grpc.aio.ServerInterceptor):
    """Refuses a call that has none, where a method takes one; the native server does by itself."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """See grpc.aio.ServerInterceptor: return the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        if handler.response_streaming:
            serve = _stream(handler.unary_stream)
            return grpc.stream_stream_rpc_method_handler(
                serve, handler.request_deserializer, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            _unary(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )


def _unary(serve: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    async def call(requests: Any, context: Any) -> Any:
        return await serve(await _first(requests, context), context)

    return call


def _stream(serve: Callable[[Any, Any], Any]) -> Any:
    async def call(requests: Any, context: Any) -> AsyncIterator[Any]:
        replies = serve(await _first(requests, context), context)
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    return call


async def _first(requests: Any, context: Any) -> Any:
    async for request in requests:
        return request
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call without a request")
    raise AssertionError("abort returned")
