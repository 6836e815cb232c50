"""Readers of several partitions at the metadata service, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap
from support.metadata_service import LONG_S, OWNER, Service, run, running

from cosco.errors import (
    ExchangeClosed,
    InvalidArgument,
    PartitionOutOfRange,
    RecomputeMismatch,
)
from cosco.protocol import wire
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    ExchangeSpec,
    LossCause,
    LossReport,
    RangesWait,
    pairs_array,
)
from cosco.protocol.wire import mpb


def rows(wait: RangesWait) -> dict[int, int]:
    """Rows by partition that is ready."""
    return {p: one.rows for each in wait.ranges for p, one in each.snapshots()}


async def create(service: Service) -> None:
    """Four partitions in two ranges, of a driver that can have mappers run again."""
    spec = ExchangeSpec("a", partitions=4, replicas=1)
    request = mpb.CreateExchangeRequest(spec=wire.to_pb(spec), owner=OWNER, callback=True)
    await service.call("CreateExchange", request)


async def begin_reading(
    service: Service, mappers: Iterable[int], partitions: Iterable[int]
) -> RangesWait | None:
    request = mpb.DescribeExchangeRequest(shuffle_id="a")
    request.reading.mappers = BitMap(mappers).serialize()
    request.reading.partitions = BitMap(partitions).serialize()
    reply = await service.call("DescribeExchange", request)
    assert reply.number == 1
    return wire.from_pb(RangesWait, reply.commits) if reply.HasField("commits") else None


async def lose(service: Service, partition: int) -> None:
    report = LossReport(1, 1, 1, partition, LossCause.GONE, "the file is gone")
    await service.call("ReportLoss", wire.to_pb(report))


def test_one_call_waits_for_all_partitions(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            await service.write(0, 0, 1, 3)
            assert rows(await service.wait_for_several([0], [0, 2, 3])) == {0: 1, 2: 0, 3: 1}
            at_once = await service.wait_for_several([0, 5], range(4))
            assert at_once == RangesWait(waiting=BitMap(range(4)), missing=BitMap([5]))
            calls = [
                asyncio.create_task(service.wait_for_several([0, 5], [1, 3], LONG_S)),
                asyncio.create_task(service.wait_for_several([0, 5, 6], range(4), LONG_S)),
                asyncio.create_task(service.wait([0, 5], 3, LONG_S)),
            ]
            await waiting(3)
            await service.write(5, 3)
            assert rows(await calls[0]) == {1: 1, 3: 2}
            alone = await calls[2]
            assert alone.snapshot is not None
            assert alone.snapshot.rows == 2
            await waiting(1)
            await service.write(6)
            assert rows(await calls[1]) == {0: 1, 1: 1, 2: 0, 3: 2}

    run(test)


def test_a_reader_that_begins_is_told_of_several_partitions_in_the_same_call(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await create(service)
            assert await begin_reading(service, [0], range(4)) is None
            await service.write(0, 0, 3)
            told = await begin_reading(service, [0], range(4))
            asked = await service.wait_for_several([0], range(4))
            assert repr(told) == repr(asked)  # of arrays
            assert rows(asked) == {0: 1, 1: 0, 2: 0, 3: 1}
            assert await begin_reading(service, [0], [4]) is None  # there is none
            await lose(service, 1)
            told = await begin_reading(service, [0], range(4))
            assert told is not None
            assert rows(told) == {2: 0, 3: 1}
            assert told.waiting == BitMap([0, 1])

    run(test)


def test_a_loss_and_what_becomes_of_it_wake_readers_of_several_ranges(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await create(service)
            await service.write(0, 0, 3)
            await service.write(1, 2)
            await lose(service, 1)
            ready = await service.wait_for_several([0, 1], range(4))
            assert rows(ready) == {2: 1, 3: 1}
            assert (ready.waiting, ready.missing) == (BitMap([0, 1]), BitMap([0, 1]))
            assert ready.recompute
            both = asyncio.create_task(service.wait_for_several([0, 1], [1, 3], LONG_S))
            lost = asyncio.create_task(service.wait_for_several([0, 1], [0, 1], LONG_S))
            await waiting(2)
            # Without any of the rows that they had: the range fails when the last one is back.
            for mapper in (0, 1):
                opened = await service.open_attempt(mapper)
                assert (opened.partial, opened.ranges) == (True, (0,))
                nothing = np.zeros(0, dtype=np.uint64)
                sums = AttemptSums(np.zeros(0, dtype=np.uint32), nothing, nothing, nothing, nothing)
                commit = CommitRequest(
                    1, mapper, opened.attempt, 1, pairs_array([]), sums, partial=True, ranges=(0,)
                )
                assert (await service.call("Commit", wire.to_pb(commit))).won
            told = await both
            assert rows(told) == {3: 1}
            assert (told.waiting, told.failed) == (BitMap([1]), True)
            with pytest.raises(RecomputeMismatch) as caught:
                await lost
            assert caught.value.partition == 0

    run(test)


def test_closing_wakes_readers_of_several_partitions(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            call = asyncio.create_task(service.wait_for_several([1], range(4), LONG_S))
            await waiting(1)
            await service.close()
            with pytest.raises(ExchangeClosed):
                await call

    run(test)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            with pytest.raises(PartitionOutOfRange) as caught:
                await service.wait_for_several([], [0, 4])
            assert caught.value.partition == 4
            for bad, message in (
                (mpb.AwaitCommitsRequest(number=1, partitions=b"garbage"), "no roaring bitmap"),
                (
                    mpb.AwaitCommitsRequest(number=1, partitions=BitMap([2**20]).serialize()),
                    "below",
                ),
                (
                    mpb.AwaitCommitsRequest(
                        number=1, partition=1, partitions=BitMap([1]).serialize()
                    ),
                    "one partition, and several",
                ),
            ):
                with pytest.raises(InvalidArgument, match=message):
                    await service.call("AwaitCommits", bad)

    run(test)
