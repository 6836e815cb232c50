"""The routes of operators' programs: metrics, health, and the document of all routes."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from cosco.metadata.http.calls import Call
from cosco.metadata.http.document.api_page import STYLE, page
from cosco.process.exposition import METRICS_PATH
from cosco.process.http_endpoint import Answer
from cosco.process.http_endpoint import Request as Asked

_TEXT: Final = "text/plain; charset=utf-8"
_CONTENT: Final = {"text/plain": {"schema": {"type": "string"}}}
_Responses = dict[int | str, dict[str, Any]]
_IN_TEXT: Final[_Responses] = {200: {"content": _CONTENT}}
_UNREADY: Final[_Responses] = {503: {"description": "Not ready", "content": _CONTENT}}


router: Final = APIRouter(tags=["operators"])


@router.get(
    METRICS_PATH, response_class=Response, responses=_IN_TEXT, summary="metrics for Prometheus"
)
async def get_metrics(request: Request) -> Response:
    """Open on this machine, and where nobody needs a token; else with any token: there are
    sums over all tenants, and no ids."""
    call = Call(request.app.state.desk, request)
    if not call.desk.is_open:
        await call.look(lambda _: None)
    asked = Asked(request.url.path, request.url.query, request.headers.get)
    async with call.desk.turn:
        answer: Answer = await asyncio.to_thread(call.desk.metrics, asked)
    found = Response(answer.body, answer.status, media_type=None)
    found.headers["Content-Type"] = answer.content_type
    for name, value in answer.headers:
        found.headers[name] = value
    return found


@router.get(
    "/healthz", response_class=Response, responses=_IN_TEXT, summary="whether the service lives"
)
async def healthz() -> Response:
    """Its event loop answers; if that stands still, nobody does."""
    return Response("alive\n", media_type=_TEXT)


@router.get(
    "/readyz",
    response_class=Response,
    responses={**_IN_TEXT, **_UNREADY},
    summary="whether the service would serve",
)
async def readyz(request: Request) -> Response:
    """If it would not, it says why, a reason a line; to this machine alone where tokens are
    asked for."""
    reasons = request.app.state.desk.readiness()
    if not reasons:
        return Response("ready\n", media_type=_TEXT)
    shown = reasons if request.app.state.desk.is_open else ["not ready"]
    return Response("\n".join(shown) + "\n", 503, media_type=_TEXT)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    document = await asyncio.to_thread(request.app.openapi)  # the first time it has to be made
    return Response(json.dumps(document), media_type="application/json")


@router.get("/api", include_in_schema=False)
async def api(request: Request) -> Response:
    return Response(
        page(await asyncio.to_thread(request.app.openapi)), media_type="text/html; charset=utf-8"
    )


@router.get("/api/style.css", include_in_schema=False)
async def style() -> Response:
    return Response(STYLE, media_type="text/css; charset=utf-8")
