"""The routes of a browser's session, and of the server-sent events that it is for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cosco.errors import AccessDenied, CoscoError
from cosco.metadata.http import models
from cosco.metadata.http.calls import LOOK, Call, Caller_, as_json
from cosco.metadata.http.live import Listener, last_sequence, message
from cosco.metadata.http.problems import Unknown
from cosco.metadata.http.sessions import set_cookie
from cosco.metadata.state.access.rights import Caller
from cosco.protocol.peer import is_credential

router: Final = APIRouter(prefix="/api/v1", tags=["session"])


@router.get("/session", response_model=models.Who, summary="who calls")
async def session(call: Caller_) -> Response:
    caller = await call.caller()
    if caller.permit is not None:
        raise AccessDenied(_SEES_NOTHING)
    return as_json(_who(call, caller))


@router.post("/session", response_model=models.Who, summary="begin a session by a token")
async def begin_session(call: Caller_, body: models.Token) -> Response:
    """The answer sets a cookie, which stands for the token from then on, for eight hours at most
    or until the token is revoked. Where nobody needs a token no session is begun."""
    if not call.inside.guard.asks:
        return as_json(_who(call, await call.caller()))
    if not is_credential(body.token):
        raise Unknown("the token is none: it has to be as it was printed")
    try:
        caller = await call.inside.guard.caller(body.token, LOOK)
    except AccessDenied as error:
        raise Unknown(str(error)) from None
    if caller.principal is None:
        raise Unknown(_SEES_NOTHING)
    sessions, now = call.desk.sessions, time.monotonic()
    sessions.end(call.session_id)
    answer = as_json(_who(call, caller))
    session_id = sessions.begin(body.token, now)
    answer.headers["Set-Cookie"] = set_cookie(session_id, is_secure=call.desk.is_secure)
    return answer


@router.delete("/session", status_code=204, summary="end the session")
async def end_session(call: Caller_) -> Response:
    call.desk.sessions.end(call.session_id)
    answer = Response(status_code=204)
    answer.headers["Set-Cookie"] = set_cookie("", is_secure=call.desk.is_secure)
    return answer


@router.get(
    "/live",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    summary="what changes, as server-sent events",
)
async def live(
    call: Caller_,
    last_event_id: Annotated[
        str | None, Header(description="the last event that is known: what followed comes first")
    ] = None,
) -> Response:
    """First `snapshot`, {"figures", "last_event"}; then `figures`, those that have changed, once a
    second at most, and `event`, each as `events` has it. It ends with `end` if the token is not
    good any more."""

    sees = await call.look(lambda visit: visit.caller.sees)
    listener = call.inside.feed.listen(sees, last_sequence(last_event_id))
    return _Live(call, listener)


class _Live(StreamingResponse):
    """Tells a listener what there is until its client goes, which may be before the first word."""

    def __init__(self, call: Call, listener: Listener) -> None:
        super().__init__(_told(call, listener), media_type="text/event-stream")
        self._leave = partial(call.inside.feed.leave, listener)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _told(call: Call, listener: Listener) -> AsyncIterator[str]:
    while text := await listener.next():
        try:
            caller = await call.caller()
        except CoscoError as error:
            yield message("end", {"detail": str(error)})
            return
        if caller.sees != listener.tenant:
            yield message("end", {"detail": "the token is of another tenant now"})
            return
        yield text


def _who(call: Call, caller: Caller) -> models.Who:
    who = caller.principal
    if who is None:
        return models.Who(asks=call.inside.guard.asks, name="", tenant="", role=_ROLE_OF_NOBODY)
    return models.Who(asks=True, name=who.name, tenant=who.tenant, role=models.role_name(who.role))


#: Where nobody needs a token, everybody may do everything.
_ROLE_OF_NOBODY: Final = "admin"
_SEES_NOTHING: Final = "a capability is no token: it lets a task write and read, and see nothing"
