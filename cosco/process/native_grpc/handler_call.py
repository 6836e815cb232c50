"""Runs the handlers that grpc's own servers run, on calls of a native one.

Handlers parse their requests themselves: `cosco.process.grpc_handlers.parsed_requests`.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

import grpc

from cosco.process.native_grpc.call import Aborted, Call

log = logging.getLogger(__name__)


async def run_handler(handler: Any, call: Call) -> None:
    """Serve a call by a `grpc.RpcMethodHandler` of coroutines, to its end."""
    try:
        await _serve(handler, call)
    except Aborted as end:
        call.finish(end.code, end.details, end.trailers)
    except asyncio.CancelledError:
        call.finish(grpc.StatusCode.CANCELLED, "the server ends")
        raise
    except Exception as error:
        log.exception("a handler of %s has failed", call.method)
        call.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
    else:
        call.finish(grpc.StatusCode.OK)


async def _serve(handler: Any, call: Call) -> None:
    request = call.messages() if handler.request_streaming else await _request(call)
    if not handler.response_streaming:
        serve = handler.stream_unary if handler.request_streaming else handler.unary_unary
        call.send(_encoded(handler, await serve(request, call)))
        return
    serve = handler.stream_stream if handler.request_streaming else handler.unary_stream
    replies = serve(request, call)
    if not hasattr(replies, "__aiter__"):
        await replies  # it writes by itself
        return
    async with aclosing(replies):
        async for reply in replies:
            await call.write(_encoded(handler, reply))


async def _request(call: Call) -> bytes:
    message = await call.next_message()
    if message is None:
        raise Aborted(grpc.StatusCode.INVALID_ARGUMENT, "a call without a request", ())
    return message


def _encoded(handler: Any, reply: Any) -> bytes:
    encode = handler.response_serializer
    return reply if encode is None else encode(reply)  # type: ignore[no-any-return]
