"""The call for what operators were told lately, which waits for what follows."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from typing import Final

from cosco.errors import InvalidArgument, ServiceUnavailable
from cosco.metadata.service.guard import Visit
from cosco.metadata.state.event_history import EventHistory, ToldEvent
from cosco.protocol.events import Severity
from cosco.protocol.wire import mpb

MAX_EVENTS: Final = 1000
MAX_WAIT_S: Final = 30.0
#: Calls that wait for events at a time; one more is told to try again.
MAX_WAITING: Final = 256
#: Those of one tenant, and those that only who sees everything may have.
MAX_OF_ONE: Final = 64
KEPT_FOR_ADMINS: Final = 64


class EventHandlers:
    """Handlers as those of `cosco.metadata.service.handlers`, which finds them here."""

    def __init__(self, history: EventHistory) -> None:
        self._history = history
        self._news = asyncio.Event()
        self._waiting: Counter[str | None] = Counter()
        history.listeners.append(self._wake)

    async def list_events(
        self, request: mpb.ListEventsRequest, visit: Visit
    ) -> mpb.ListEventsReply:
        _check(request)
        sees, least = visit.caller.sees, Severity(request.severity)
        if not request.after:
            found = self._history.newest(request.limit, sees, least)
            return _reply(found, self._history.last)
        deadline, last = time.monotonic() + request.wait_s, request.after
        while True:
            news = self._news  # before it is looked what there is
            found, last = self._history.after(last, request.limit, sees, least)
            has_more = last < self._history.last  # whoever asks goes on, so that others have turns
            left_s = deadline - time.monotonic()
            if found or has_more or not await self._comes(news, left_s, sees):
                return _reply(found, last)

    async def _comes(self, news: asyncio.Event, left_s: float, sees: str | None) -> bool:
        """Wait for news. Returns whether there are any. sees: whose events; None: all."""
        if left_s <= 0:
            return False
        waiting, in_all = self._waiting, self._waiting.total()
        most = MAX_WAITING if sees is None else MAX_WAITING - KEPT_FOR_ADMINS
        if in_all >= most or (sees is not None and waiting[sees] >= MAX_OF_ONE):
            raise ServiceUnavailable(f"{in_all} calls wait for events already: try again")
        waiting[sees] += 1
        try:
            async with asyncio.timeout(left_s):
                await news.wait()
        except TimeoutError:
            return False
        finally:
            waiting[sees] -= 1
            if not waiting[sees]:
                del waiting[sees]
        return True

    def _wake(self, _: ToldEvent) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _check(request: mpb.ListEventsRequest) -> None:
    if not 1 <= request.limit <= MAX_EVENTS:
        raise InvalidArgument(f"limit is {request.limit}, it must be 1 to {MAX_EVENTS}")
    if not (math.isfinite(request.wait_s) and 0 <= request.wait_s <= MAX_WAIT_S):
        raise InvalidArgument(f"wait_s is {request.wait_s}, it must be 0 to {MAX_WAIT_S:g}")
    if request.severity not in {int(one) for one in Severity}:
        raise InvalidArgument(f"severity is {request.severity}, which is none")


def _reply(found: list[ToldEvent], last: int) -> mpb.ListEventsReply:
    return mpb.ListEventsReply(
        events=[
            mpb.ToldEvent(
                sequence=told.sequence,
                time_s=told.at_s,
                severity=int(told.event.kind.severity),
                fields=json.dumps(told.event.shown()),
            )
            for told in found
        ],
        last=last,
    )
