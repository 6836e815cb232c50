"""Groups over gRPC: the client's calls against the real service, and the daemon's look-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pyroaring import BitMap
from support.metadata_service import LONG_S, OWNER, Service, run, running

from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import (
    CoscoError,
    DataLost,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    InvalidArgument,
    PartitionOutOfRange,
)
from cosco.protocol import wire
from cosco.protocol.group_records import (
    Alike,
    CommitResult,
    FoundAssignment,
    GroupAnswer,
    GroupPart,
)
from cosco.protocol.records import (
    FIRST_OWN_ATTEMPT,
    AttemptSums,
    CommitRequest,
    CommitWait,
    ExchangeSpec,
    LossCause,
    LossReport,
    pairs_array,
)
from cosco.protocol.wire import mpb
from cosco.shuffle_service.io.membership import MetadataLink

SPEC = ExchangeSpec("g", partitions=4, replicas=1)
_T = TypeVar("_T")


class Client:
    """A `MetadataClient` whose calls are made in threads."""

    def __init__(self, service: Service) -> None:
        self.scope = Scope("a test", "g")
        self.metadata = MetadataClient(service.address, self.scope, 5.0)

    async def call(self, method: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        return await asyncio.to_thread(method, *arguments, **options)

    async def make(
        self, size: int = 3, first: int = 0, *, mappers: int = 2, owner: bytes = OWNER
    ) -> GroupPart:
        return await self.call(
            self.metadata.create_group, SPEC,
            mappers=mappers, size=size, first=first, owner=owner, callback=True,
        )  # fmt: skip

    async def poll(self, *answers: GroupAnswer, wait_s: float = 0.0) -> Any:
        poll = self.metadata.poll_group
        return await self.call(poll, "g", OWNER, wait_s=wait_s, answers=answers)

    async def wait(self, number: int, *mappers: int, wait_s: float = 0.0) -> CommitWait:
        mine = BitMap(mappers)
        return await self.call(self.metadata.await_commits, number, mine, 0, 0, wait_s=wait_s)

    async def commit(self, *commits: CommitRequest) -> tuple[CommitResult, ...]:
        return await self.call(self.metadata.commit_batch, commits, try_s=LONG_S)

    async def release(self, indexes: BitMap) -> None:
        await self.call(self.metadata.release_exchanges, "g", indexes, try_s=LONG_S)

    async def report(self, number: int, *mappers: int) -> None:
        await self.call(self.metadata.report_uncommitted, number, BitMap(mappers), "dead")


@asynccontextmanager
async def client_of(path: Path, *, registers: bool = True) -> AsyncIterator[tuple[Service, Client]]:
    async with running(path) as service:
        if registers:
            await service.register()
        client = Client(service)
        try:
            yield service, client
        finally:
            client.scope.close()
            client.metadata.close()


def commit_of(
    number: int, mapper: int, attempt: int = FIRST_OWN_ATTEMPT + 3, partition: int = 0
) -> CommitRequest:
    """One row in a partition of the only range."""
    one = np.ones(1, dtype=np.uint64)
    sums = AttemptSums(np.array([partition], dtype=np.uint32), one, one, one, one)
    return CommitRequest(number, mapper, attempt, 1, pairs_array([(0, 1)]), sums)


def test_a_group_from_its_creation_to_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with client_of(tmp_path) as (service, client):
            block = await client.make()
            assert await client.make() == block
            assert (await client.make(size=2, first=3)).info.number == 4
            assert (await service.describe("g/4")).number == 5
            link = MetadataLink(service.address)
            found = await link.lookup(4, 0, 1, 1)
            part, assignment = block.info.ranges[0], block.info.assignments[0]
            assert found == FoundAssignment(assignment, part, 2, Alike(4, 2))
            assert await link.lookup(4, 0, 1, 9) is None
            await client.release(BitMap([0, 4]))
            assert (await service.beat()).drop == (1, 5)
            found = await link.lookup(4, 0, 1, 1)
            assert found is not None
            assert found.alike == Alike(4, 2, BitMap([1]))
            await link.close()
            assert await client.poll() == ()
        async with client_of(tmp_path, registers=False) as (service, client):
            await service.register()
            assert await client.poll() == ()
            await service.close("g/1")
            with pytest.raises(ExchangeClosed):
                await service.describe("g/1")
            for _ in range(2):
                await client.call(client.metadata.close_group, "g")
            assert (await service.beat()).drop == (1, 2, 3, 4, 5)
            await service.beat(1, 1, 2, 3, 4, 5)
            with pytest.raises(ExchangeClosed):
                await service.describe("g/4")
            with pytest.raises(ExchangeNotFound):
                await service.describe("g/5")
            with pytest.raises(ExchangeExists):
                await service.create("g/4")
            assert (await service.create("g/5")).number > 5  # by the clock after a start

    run(test)


def test_errors_of_groups_arrive_as_they_were_meant(tmp_path: Path) -> None:
    async def test() -> None:
        async with client_of(tmp_path) as (service, client):
            metadata = client.metadata

            async def refused(
                error: type[CoscoError], call: Any, message: str | None = None
            ) -> None:
                with pytest.raises(error, match=message):
                    await call

            await refused(InvalidArgument, client.make(size=0), "a group of 0 exchanges")
            await refused(InvalidArgument, client.make(size=10_001), "a group of 10001 exchanges")
            await refused(InvalidArgument, client.make(mappers=0), "a group of 0 mappers")
            await refused(InvalidArgument, client.make(first=(1 << 31) - 1), "it has 2147483648 at")
            await refused(ExchangeNotFound, client.make(first=3), "there is no group 'g'")
            await refused(ExchangeNotFound, client.poll())
            await refused(ExchangeNotFound, client.release(BitMap([0])))
            await refused(ExchangeNotFound, client.call(metadata.close_group, "g"))
            await service.create("g/1")
            await refused(ExchangeExists, client.make(), "'g/1' exists or existed, and group 'g'")
            await service.close("g/1")
            await service.beat(1, 1)
            await refused(ExchangeExists, client.make(), "'g/1' exists or existed, and group 'g'")
            await refused(ExchangeNotFound, client.report(2, 0))
            garbage = mpb.ReleaseExchangesRequest(group_id="g", indexes=b"garbage")
            await refused(InvalidArgument, service.call("ReleaseExchanges", garbage), "indexes")
            report = mpb.ReportUncommittedRequest(number=1, mappers=b"garbage")
            await refused(InvalidArgument, service.call("ReportUncommitted", report), "mappers")

    run(test)


def test_a_group_that_ended_a_moment_ago_is_known(tmp_path: Path) -> None:
    async def test() -> None:
        async with client_of(tmp_path) as (service, client):
            await client.make()
            close = mpb.CloseGroupRequest(group_id="g")
            poll = mpb.PollGroupRequest(group_id="g", owner=OWNER)
            calls = [("CloseGroup", close), ("PollGroup", poll), ("CloseGroup", close)]
            answers = await asyncio.gather(
                *(service.call(name, request) for name, request in calls), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [
                mpb.CloseGroupReply, ExchangeClosed, mpb.CloseGroupReply,
            ]  # fmt: skip

    run(test)


def test_each_commit_of_a_batch_is_for_itself(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with client_of(tmp_path) as (service, client):
            single = (await service.create("a")).number
            number = (await client.make()).info.number
            await client.release(BitMap([1]))
            reader = asyncio.create_task(client.wait(number, 0, 1, wait_s=LONG_S))
            await waiting(1)
            last = FIRST_OWN_ATTEMPT * 2 - 1
            results = await client.commit(
                commit_of(number, 0),
                commit_of(number, 1, partition=4),
                commit_of(number, 2),
                commit_of(number + 1, 0),
                commit_of(99, 0),
                commit_of(single, 0),
                commit_of(number, 0, 1),
                commit_of(number, 0, FIRST_OWN_ATTEMPT + 9),
                commit_of(number, 0),
                commit_of(number, 1, last),
                commit_of(number + 2, 0),
            )
            assert [(type(r.error), r.won) for r in results] == [
                (type(None), True),
                (PartitionOutOfRange, False),
                (InvalidArgument, False),  # no such mapper
                (ExchangeClosed, False),
                (ExchangeNotFound, False),
                (InvalidArgument, False),  # of no group: an attempt that was never opened
                (InvalidArgument, False),  # nor was this one
                (type(None), False),  # another one won
                (type(None), True),  # a repetition
                (type(None), True),
                (type(None), True),
            ]
            snapshot = (await reader).snapshot
            assert snapshot is not None
            assert snapshot.attempts.tolist() == [FIRST_OWN_ATTEMPT + 3, last]
            good = wire.to_pb(commit_of(number + 2, 1))
            bad = mpb.CommitRequest(number=number + 2, mapper=1, attempt=1, digests=b"odd")
            request = mpb.CommitBatchRequest(commits=[bad, good, mpb.CommitRequest(), good])
            reply = await service.call("CommitBatch", request)
            assert [r.error.kind for r in reply.results] == [
                "InvalidArgument", "", "InvalidArgument", "",
            ]  # fmt: skip
            assert await client.commit() == ()
            many = [commit_of(number + 2, mapper) for mapper in (0, 1) * 100]
            assert all(result.won for result in await client.commit(*many))
        async with client_of(tmp_path) as (_, client):
            snapshot = (await client.wait(number, 0, 1)).snapshot
            assert snapshot is not None
            assert snapshot.attempts.tolist() == [FIRST_OWN_ATTEMPT + 3, last]

    run(test)


def test_what_was_not_committed_is_called_back_and_repaired(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with client_of(tmp_path) as (_, client):
            number = (await client.make()).info.number
            await client.commit(commit_of(number + 1, 0))
            driver = asyncio.create_task(client.poll(wait_s=LONG_S))
            reader = asyncio.create_task(client.wait(number + 1, 0, 1, wait_s=LONG_S))
            await waiting(2)
            await client.report(number + 1, 0, 1)
            [call] = await driver
            assert (call.index, call.call.mappers, call.call.reason) == (1, BitMap([1]), "dead")
            assert (await client.wait(number + 1, 0, 1)).recompute
            answer = GroupAnswer(1, call.call.loss_id, "no workers")
            assert await client.poll(answer) == ()
            with pytest.raises(DataLost, match="no workers"):
                await reader
            await client.commit(commit_of(number + 1, 1))
            assert (await client.wait(number + 1, 0, 1)).snapshot is not None

    run(test)


def test_a_loss_wakes_the_driver_of_the_group(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with client_of(tmp_path) as (_, client):
            number = (await client.make()).info.number
            await client.commit(commit_of(number + 2, 0))
            driver = asyncio.create_task(client.poll(wait_s=LONG_S))
            await waiting(1)
            report = LossReport(number + 2, 1, 1, 0, LossCause.GONE, "the file is gone")
            await client.call(client.metadata.report_loss, report)
            [call] = await driver
            assert (call.index, call.call.mappers) == (2, BitMap([0]))
            assert await client.poll(GroupAnswer(2, call.call.loss_id)) == ()
            driver = asyncio.create_task(client.poll(wait_s=LONG_S))
            await waiting(1)
            await client.call(client.metadata.close_group, "g")
            with pytest.raises(ExchangeClosed):
                await driver

    run(test)
