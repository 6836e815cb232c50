"""The calls of the metadata service that are about groups; see
`cosco.metadata.service.handlers`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from cosco.errors import CoscoError
from cosco.metadata.service.polls import POLLS_PER_LEASE, Polls, bounded_s
from cosco.metadata.state.state import MetadataState
from cosco.protocol import wire
from cosco.protocol.api_limits import check_part
from cosco.protocol.group_records import CommitResult, GroupAnswer, GroupPart
from cosco.protocol.records import CommitRequest, ExchangeSpec
from cosco.protocol.wire import mpb

#: After so many commits of a batch, other calls have their turn.
_COMMITS_AT_ONCE: Final = 64


class UsedIds(Protocol):
    """What the database knows of ids that are not in memory; each raises ServiceUnavailable."""

    async def was_used(self, shuffle_id: str) -> bool:
        """Whether there ever was an exchange of this id."""
        ...

    async def was_group(self, group_id: str) -> bool:
        """Whether there ever was a group of this id."""
        ...

    async def used_in_group(self, group_id: str) -> str | None:
        """An id ever used that such a group would take for its own."""
        ...


class GroupHandlers:
    """Messages in, one call of the state or one a commit, messages out."""

    def __init__(self, state: MetadataState, polls: Polls, used_ids: UsedIds) -> None:
        self._state = state
        self._groups = state.groups
        self._polls = polls
        self._used_ids = used_ids

    def methods(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """By the name of the call."""
        return {
            "CreateGroup": self.create_group,
            "PollGroup": self.poll_group,
            "ReleaseExchanges": self.release_exchanges,
            "CloseGroup": self.close_group,
            "CommitBatch": self.commit_batch,
            "ReportUncommitted": self.report_uncommitted,
        }

    async def create_group(self, request: mpb.CreateGroupRequest) -> GroupPart:
        spec = wire.from_pb(ExchangeSpec, request.spec)
        check_part(request.first, request.size, request.mappers)
        used = await self._used(spec.shuffle_id)
        taken = None
        if not (request.first or used or self._groups.knows(spec.shuffle_id)):
            taken = await self._used_ids.used_in_group(spec.shuffle_id)
        return self._groups.create(
            spec,
            request.mappers,
            request.size,
            request.first,
            request.owner,
            time.monotonic(),
            callback=request.callback,
            used=used,
            taken=taken,
        )

    async def poll_group(self, request: mpb.PollGroupRequest) -> mpb.PollGroupReply:
        group_id, owner = request.group_id, request.owner
        used = await self._used(group_id)
        answers = [wire.from_pb(GroupAnswer, answer) for answer in request.answers]
        self._told(self._groups.answer(group_id, owner, answers, used=used))
        wait_s = min(bounded_s(request.wait_s), self._groups.lease_s(group_id) / POLLS_PER_LEASE)
        calls = await self._polls.poll(
            lambda: self._groups.poll(group_id, owner, time.monotonic(), used=True),
            bool,
            lambda _, waiter: self._polls.waiting.add_group(group_id, waiter),
            wait_s,
        )
        return mpb.PollGroupReply(calls=map(wire.to_pb, calls))

    async def release_exchanges(self, request: mpb.ReleaseExchangesRequest) -> None:
        indexes = wire.bitmap_from_bytes(request.indexes, "indexes")
        used = await self._used(request.group_id)
        self._told(self._groups.release(request.group_id, indexes, used=used))

    async def close_group(self, request: mpb.CloseGroupRequest) -> None:
        used = await self._used(request.group_id)
        self._told(self._groups.close(request.group_id, used=used))
        self._polls.wake(self._polls.waiting.group(request.group_id))

    async def commit_batch(self, request: mpb.CommitBatchRequest) -> mpb.CommitBatchReply:
        results = []
        for at, commit in enumerate(request.commits, 1):
            results.append(wire.to_pb(self._commit(commit)))
            if at % _COMMITS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return mpb.CommitBatchReply(results=results)

    def _commit(self, request: mpb.CommitRequest) -> CommitResult:
        try:
            commit = wire.from_pb(CommitRequest, request)
            with self._polls.telling(commit.number):
                won = self._state.commit(commit)
        except CoscoError as error:
            return CommitResult(won=False, error=error)
        self._polls.wake(self._polls.waiting.committed(request.number, request.mapper))
        return CommitResult(won)

    async def report_uncommitted(self, request: mpb.ReportUncommittedRequest) -> None:
        mappers = wire.bitmap_from_bytes(request.mappers, "mappers")
        with self._polls.telling(request.number):
            self._groups.report_uncommitted(
                request.number, mappers, request.reason, time.monotonic()
            )

    async def _used(self, group_id: str) -> bool:
        """What the state wants to know of a group that it does not hold."""
        return not self._groups.knows(group_id) and await self._used_ids.was_group(group_id)

    def _told(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._polls.wake(self._polls.waiting.exchange(number))
