"""In which order a call is answered, whatever it came by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cosco.errors import CoscoError, ServiceUnavailable
from cosco.metadata.service.guard import Visit
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.limits.tenant_calls import TenantCalls
from cosco.metadata.service.polls import Polls

_T = TypeVar("_T")


class DurableAnswers:
    """Makes calls whose answers, or errors, leave once all that was changed by then is durable."""

    def __init__(self, polls: Polls, journal: Journal, calls: TenantCalls) -> None:
        """calls: counts those of each tenant while they are under way."""
        self._calls = calls
        self._polls = polls
        self._journal = journal

    async def answer(
        self, admit: Callable[[], Awaitable[Visit]], act: Callable[[Visit], Awaitable[_T]]
    ) -> _T:
        """Return what `act` gives for the caller that `admit` lets in.

        Raises: what either does; ServiceUnavailable if the database fails.
        """
        failure: CoscoError | None = None
        try:
            await self._journal.usable()
            visit = await admit()
            with self._calls.count(visit.caller, visit.method):
                answer = await act(visit)
        except CoscoError as error:
            failure = error
        self._polls.changed()
        if not isinstance(failure, ServiceUnavailable):
            await self._journal.durable_or_told()
        if failure is not None:
            raise failure
        return answer
