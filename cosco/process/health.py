"""Whether a service lives and would serve: over HTTP, and as `grpc.health.v1` over gRPC.

*Alive*: its event loop answers within ALIVE_S. *Ready*: it would serve, and if not it says why.
Only the event loop knows, so that is where it is asked, by whoever asks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar

import grpc

from cosco.process.grpc_handlers.parsed_requests import unary_stream, unary_unary
from cosco.process.http_endpoint import Answer, Request, Resource, text_answer
from cosco.protocol.wire import health_messages

#: An event loop that takes longer to do the next thing is said to stand still.
ALIVE_S: Final = 5.0
#: `Watch` looks this often whether its answer has changed.
WATCH_S: Final = 0.5
#: Calls of `Watch` at a time.
MAX_WATCHES: Final = 100

_T = TypeVar("_T")
#: Gives the reasons why a service would not serve; called in its event loop.
Readiness = Callable[[], Sequence[str]]


class Health:
    """What a service says of itself to who asks; made in its event loop.

    readiness: gives why it would not serve, nothing if it would.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._loop = asyncio.get_running_loop()
        self._readiness = readiness
        self._watches = 0
        self._stopped = False

    def stop(self) -> None:
        """Have calls of `Watch` told that it ends, and end themselves."""
        self._stopped = True

    # --- over HTTP -------------------------------------------------------------------------

    def resources(self) -> dict[str, Resource]:
        """Return `/healthz` and `/readyz`."""
        return {"/healthz": self._healthz, "/readyz": self._readyz}

    def _healthz(self, _: Request) -> Answer:
        try:
            self._in_loop(lambda: None)
        except TimeoutError:
            return _stands_still()
        return text_answer(HTTPStatus.OK, "alive")

    def _readyz(self, _: Request) -> Answer:
        try:
            reasons = self._in_loop(self._readiness)
        except TimeoutError:
            return _stands_still()
        if reasons:
            return text_answer(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(reasons))
        return text_answer(HTTPStatus.OK, "ready")

    def _in_loop(self, ask: Callable[[], _T]) -> _T:
        """Return what `ask` gives in the event loop; raises TimeoutError."""
        answer: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(ask())
                except Exception as error:  # noqa: BLE001 - it is raised again where it was asked
                    answer.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:  # the loop has ended
            raise TimeoutError from None
        try:
            return answer.result(ALIVE_S)
        finally:
            answer.cancel()

    # --- over gRPC -------------------------------------------------------------------------

    def handler(self, *services: str) -> grpc.GenericRpcHandler:
        """Return the calls of `grpc.health.v1.Health`, for the server as a whole and for the
        `services` on it."""
        known = {"", *services}

        async def check(request: str, context: Any) -> int:
            if request not in known:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request!r} is here")
            return self._status()

        async def watch(request: str, context: Any) -> AsyncIterator[int]:
            if self._watches >= MAX_WATCHES:
                much = f"{MAX_WATCHES} calls of Watch are under way: ask again later, or Check"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, much)
            self._watches += 1
            try:
                async for status in self._changes(known=request in known):
                    yield status
            finally:
                self._watches -= 1

        methods = {
            "Check": unary_unary(check, health_messages.service_of, health_messages.status_message),
            "Watch": unary_stream(
                watch, health_messages.service_of, health_messages.status_message
            ),
        }
        return grpc.method_handlers_generic_handler(health_messages.HEALTH_SERVICE, methods)

    async def _changes(self, *, known: bool) -> AsyncIterator[int]:
        told = None
        while True:
            is_last = self._stopped
            status = self._status() if known else health_messages.SERVICE_UNKNOWN
            if status != told:
                told = status
                yield status
            if is_last:
                return
            await asyncio.sleep(WATCH_S)

    def _status(self) -> int:
        if self._stopped or self._readiness():
            return health_messages.NOT_SERVING
        return health_messages.SERVING


def _stands_still() -> Answer:
    said = f"the event loop has not answered in {ALIVE_S:g} s"
    return text_answer(HTTPStatus.SERVICE_UNAVAILABLE, said)
