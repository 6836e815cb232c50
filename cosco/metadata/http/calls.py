"""One request as a call of the metadata service: who makes it, and what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from cosco.errors import AccessDenied, ServiceUnavailable
from cosco.metadata.http.live import LiveFeed
from cosco.metadata.http.paging import DEFAULT_PAGE, LIMIT_MAX, MAX_CURSOR
from cosco.metadata.http.problems import Unknown
from cosco.metadata.http.sessions import Sessions, session_in
from cosco.metadata.http.size_turns import SizeTurns
from cosco.metadata.service.behind import Behind
from cosco.metadata.service.guard import Guard, Visit
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.service.polls import Polls
from cosco.metadata.state.access.rights import Caller
from cosco.metadata.state.event_history import EventHistory
from cosco.metadata.state.state import MetadataState
from cosco.process.http_endpoint import Resource
from cosco.protocol.peer import credential_of

_T = TypeVar("_T")
#: Answers of metrics that are made at a time.
MAX_AT_ONCE: Final = 4
#: The call of a method whose need is that of all who look at the cluster.
LOOK: Final = "Status"


@dataclass(frozen=True, slots=True)
class Inside:
    """The service behind the interface, and what only this shows of it. started_s: of the Unix
    clock."""

    behind: Behind
    feed: LiveFeed
    started_s: float

    @property
    def history(self) -> EventHistory:
        return self.behind.history

    @property
    def state(self) -> MetadataState:
        return self.behind.state

    @property
    def handlers(self) -> Handlers:
        return self.behind.handlers

    @property
    def guard(self) -> Guard:
        return self.behind.guard

    @property
    def polls(self) -> Polls:
        return self.behind.polls


class Desk:
    """What all routes share. `inside` is None until the service has restored its state."""

    def __init__(
        self,
        metrics: Resource,
        readiness: Callable[[], Sequence[str]],
        *,
        is_secure: bool,
        is_open: bool,
    ) -> None:
        """metrics: the resource of metrics. readiness: gives why the service would not serve.

        is_secure: by HTTPS. is_open: metrics are for whoever reaches them.
        """
        self.inside: Inside | None = None
        self.metrics = metrics
        self.readiness = readiness
        #: Who has the metrics made, in a thread.
        self.turn = asyncio.Semaphore(MAX_AT_ONCE)
        self.sizes = SizeTurns()
        self.is_secure = is_secure
        self.is_open = is_open
        self.sessions = Sessions()


class Call:
    """A request, by whoever has made it."""

    def __init__(self, desk: Desk, request: Request) -> None:
        self.desk = desk
        self._request = request

    @property
    def inside(self) -> Inside:
        """Return the service; raises ServiceUnavailable while its state is being restored."""
        if self.desk.inside is None:
            raise ServiceUnavailable("the state is being restored from the database: ask again")
        return self.desk.inside

    @property
    def session_id(self) -> str:
        """Return the id of the session that its cookie names; empty: none."""
        cookies = self._request.headers.get("cookie")
        return session_in(cookies, is_secure=self.desk.is_secure)

    @property
    def credential(self) -> str:
        """Return the token that was shown, or that the session stands for; empty: none."""
        header = self._request.headers.get("authorization")
        if header is not None:
            return credential_of(header.encode("latin-1"))
        return self.desk.sessions.credential(self.session_id, time.monotonic())

    async def caller(self, method: str = LOOK) -> Caller:
        """Return who calls, whatever he may; raises Unknown."""
        try:
            return await self.inside.guard.caller(self.credential, method)
        except AccessDenied as error:
            raise Unknown(_to_web(str(error))) from None

    async def answer(
        self, method: str, request: object, act: Callable[[Visit], Awaitable[_T]]
    ) -> _T:
        """Return what `act` gives, if the caller may make this call of the service.

        method, request: what the same over gRPC would be called, and name.

        Raises: what `act` does, Unknown, AccessDenied, or ServiceUnavailable.
        """

        async def admit() -> Visit:
            await self.caller(method)
            return await self.inside.guard.admit(self.credential, method, request)

        return await self.inside.handlers.answers.answer(admit, act)

    async def look(self, act: Callable[[Visit], _T], method: str = LOOK) -> _T:
        """Return what `act` gives, which names nothing and waits for nothing; see `answer`."""

        async def acts(visit: Visit) -> _T:
            return act(visit)

        return await self.answer(method, None, acts)


async def call_of(request: Request) -> Call:
    """Return the call that a request is."""
    return Call(request.app.state.desk, request)


def as_json(model: BaseModel, status: int = 200) -> Response:
    """Return an answer; what the service made itself is not checked again."""
    return Response(model.model_dump_json(), status, media_type="application/json")


def _to_web(text: str) -> str:
    """Return why a credential is missing, as a reader of the web can do something about it."""
    advice = ": name its file by COSCO_TOKEN_FILE, or give cosco.Connection(..., token_file=...)"
    return text.replace(advice, ": send it as Authorization: Bearer TOKEN, or begin a session")


Caller_ = Annotated[Call, Depends(call_of)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="at most this many on a page")]
Cursor = Annotated[
    str, Query(max_length=MAX_CURSOR, description="`next` of the page before; none: the first page")
]
LIMIT: Final = DEFAULT_PAGE
