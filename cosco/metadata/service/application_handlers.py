"""The calls of applications: messages in, one call of the state, messages out."""

from __future__ import annotations

import time

from cosco.metadata.service.guard import Visit
from cosco.metadata.service.polls import POLLS_PER_LEASE, Polls, bounded_s, held_by
from cosco.metadata.state.state import MetadataState
from cosco.protocol import wire
from cosco.protocol.application_records import ApplicationAnswer
from cosco.protocol.wire import mpb


class ApplicationHandlers:
    """Handlers as those of `cosco.metadata.service.handlers`, which finds them here."""

    def __init__(self, state: MetadataState, polls: Polls) -> None:
        self._applications = state.applications
        self._polls = polls

    async def create_application(
        self, request: mpb.CreateApplicationRequest, visit: Visit
    ) -> mpb.CreateApplicationReply:
        made = self._applications.create(
            request.name,
            request.owner,
            request.lease_s,
            time.monotonic(),
            tenant=visit.caller.tenant,
        )
        return mpb.CreateApplicationReply(application_id=made)

    async def poll_application(
        self, request: mpb.PollApplicationRequest
    ) -> mpb.PollApplicationReply:
        application_id, owner = request.application_id, request.owner
        answers = [wire.from_pb(ApplicationAnswer, answer) for answer in request.answers]
        self._polls.told(self._applications.answer(application_id, owner, answers))
        lease_s = self._applications.lease_s(application_id)
        calls = await self._polls.poll(
            lambda: self._applications.poll(application_id, owner, time.monotonic()),
            bool,
            lambda _, waiter: self._polls.waiting.add_application(application_id, waiter),
            min(bounded_s(request.wait_s), lease_s / POLLS_PER_LEASE),
            held_bytes=held_by(request),
        )
        return mpb.PollApplicationReply(calls=map(wire.to_pb, calls))

    async def close_application(
        self, request: mpb.CloseApplicationRequest
    ) -> mpb.CloseApplicationReply:
        closed = self._applications.close(request.application_id, request.owner)
        self._polls.told(closed or ())
        self._polls.wake(self._polls.waiting.application(request.application_id))
        return mpb.CloseApplicationReply(was_open=closed is not None)
