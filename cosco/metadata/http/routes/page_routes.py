"""The routes of the dashboard's files. They say nothing of the cluster: scripts ask for that."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response
from starlette.exceptions import HTTPException

router: Final = APIRouter(include_in_schema=False)
#: A browser keeps a file and asks each time whether it is still the same.
_CACHE: Final = "no-cache"


@router.get("/")
async def index(
    request: Request, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Answer with the page."""
    return await page_file(request, "index.html", if_none_match)


@router.get("/page/{path:path}")
async def page_file(
    request: Request, path: str, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Answer with a file that the page is made of."""
    found = request.app.state.page_files.get(path)
    if found is None:
        raise HTTPException(404)
    headers = {"ETag": found.tag, "Cache-Control": _CACHE}
    if found.is_known_by(if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media_type)
