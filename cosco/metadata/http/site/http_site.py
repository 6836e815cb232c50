"""The HTTP interface as a whole: its application, and where it is served."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from cosco.config import MetadataConfig, is_loopback, is_wildcard
from cosco.errors import CoscoError
from cosco.metadata.http.calls import Desk, Inside
from cosco.metadata.http.document.examples import with_examples
from cosco.metadata.http.listener import Listener
from cosco.metadata.http.live import LiveFeed
from cosco.metadata.http.outer import Outer
from cosco.metadata.http.problems import PROBLEM_TYPE, Problem, encoded, problem, problem_of
from cosco.metadata.http.request_checks import HostNames
from cosco.metadata.http.routes import (
    action_routes,
    cluster_routes,
    exchange_routes,
    operator_routes,
    page_routes,
    session_routes,
)
from cosco.metadata.http.site.page_files import page_files
from cosco.metadata.service.behind import Behind
from cosco.process.http_endpoint import Resource
from cosco.process.tls.tls_files import TlsFiles
from cosco.protocol.api_limits import printable

_TITLE: Final = "Cosco metadata service"
_ABOUT: Final = (
    "What the cluster has and does, and the few things that people change by hand. Errors are "
    "problem+json. Where tokens are asked for, send one as Authorization: Bearer TOKEN, or begin a "
    "session. POST takes application/json alone. Ids in paths have a slash as %2F."
)
#: The version of the interface, which is in its paths; the service has its own.
_VERSION: Final = "1"
_MAX_FAULTS: Final = 5


class HttpSite:
    """Serves the interface from its making to `close`; `address` is where it really listens.

    Until `attach` it says that the service is not ready.
    """

    def __init__(
        self,
        config: MetadataConfig,
        tls: TlsFiles | None,
        metrics: Resource,
        readiness: Callable[[], Sequence[str]],
    ) -> None:
        """tls: of the service; None: it has none. metrics: its resource of metrics. readiness:
        gives why it would not serve.

        Raises: InvalidArgument if it cannot listen there.
        """
        listen = config.http_listen
        is_near = is_loopback(listen)
        used = None if is_near else tls
        self._desk = Desk(
            metrics,
            readiness,
            is_secure=used is not None,
            is_open=is_near or not config.needs_tokens,
        )
        app = application(self._desk)
        # Where it listens on all addresses, it has no other name of its own.
        own = (socket.gethostname(),) if is_wildcard(listen) else ()
        names = HostNames(listen, (*config.http_hosts, *own))
        self._listener = Listener(
            listen,
            Outer(app, names),
            used,
            requires_client_cert=not config.lets_in_strangers,
            option=f"--http {config.http}",
        )
        self._feeding: asyncio.Task[None] | None = None
        self.address = self._listener.address
        self.url = f"{'http' if used is None else 'https'}://{self.address}"

    def attach(self, behind: Behind) -> None:
        """Serve what a service has."""
        feed = LiveFeed(behind.state, behind.history, lambda: len(behind.polls.waiting))
        self._feeding = asyncio.create_task(feed.run(), name="http-live")
        self._desk.inside = Inside(behind, feed, round(time.time(), 3))

    async def close(self) -> None:
        """End what is under way, and stop."""
        if self._desk.inside is not None:
            self._desk.inside.feed.stop()
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
        await self._listener.close()


def application(desk: Desk) -> FastAPI:
    """Return the application of the interface, without what is around all routes."""
    app = FastAPI(
        title=_TITLE,
        version=_VERSION,
        description=_ABOUT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={
            "default": {
                "description": "why it failed",
                "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
        },
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={
            CoscoError: _failed,
            HTTPException: _not_routed,
            RequestValidationError: _not_valid,
        },
    )
    app.state.desk = desk
    for router in (
        cluster_routes.router,
        exchange_routes.router,
        action_routes.router,
        session_routes.router,
        operator_routes.router,
        page_routes.router,
    ):
        app.include_router(router)
    app.openapi = lambda: app.openapi_schema or _document(app)  # type: ignore[method-assign]
    app.state.page_files = page_files()
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = found["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    found["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": "cosco_session"},
    }
    found["security"] = [{}, {"token": []}, {"session": []}]
    app.openapi_schema = with_examples(found)
    return app.openapi_schema


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, CoscoError)
    return _answer(*problem_of(error))


async def _not_routed(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return _answer(problem(status, error.detail), dict(error.headers or {}))


async def _not_valid(_: Request, error: Exception) -> Response:
    """Say which parameters are wrong and why, without what was sent."""
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
        for fault in error.errors()[:_MAX_FAULTS]
    ]
    detail = printable("; ".join(faults))[:1000]
    return _answer(problem(HTTPStatus.BAD_REQUEST, detail, "InvalidArgument"), {})


def _answer(of: Problem, headers: dict[str, str]) -> Response:
    return Response(encoded(of), of.status, headers, media_type=PROBLEM_TYPE)
