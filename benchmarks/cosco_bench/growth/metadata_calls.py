"""Clients of the metadata service that do nothing else: what `metadata_scale` puts on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import numpy as np
from pyroaring import BitMap

from cosco.errors import DataCorrupted
from cosco.local.workers import Link
from cosco.process.grpc_settings import CHANNEL_OPTIONS
from cosco.protocol import wire
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonRegistration,
    ExchangeInfo,
    pairs_array,
)
from cosco.protocol.wire import mpb

#: Rows of every mapper in every partition.
ROWS: Final = 10
_RAW_BYTES: Final = 100 * ROWS
_STORED_BYTES: Final = 60 * ROWS
_HEARTBEAT_S: Final = 1.0
_MEMORY_BYTES: Final = 1 << 40
#: Calls under way of one process.
_CALLS: Final = 32
_TIMEOUT_S: Final = 60.0

_Call = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def _calls(metadata: str) -> AsyncIterator[Callable[[str], _Call]]:
    """Yield what gives the call of a method of the service; requests are bytes."""
    async with grpc.aio.insecure_channel(metadata, options=CHANNEL_OPTIONS) as channel:

        def call_of(method: str) -> _Call:
            call: _Call = channel.unary_unary(
                f"/{wire.METADATA_SERVICE}/{method}",
                response_deserializer=wire.METADATA_METHODS[method][1].FromString,
            )
            return call

        yield call_of


async def _each(items: Iterable[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    """Have `work` done on every item, on _CALLS of them at a time."""
    iterator = iter(items)

    async def take_turns() -> None:
        for item in iterator:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLS):
            group.create_task(take_turns())


def be_daemons(link: Link, metadata: str, count: int) -> None:
    """Register `count` daemons, each a host of its own, and be alive until this is ended."""
    asyncio.run(_be_daemons(link, metadata, count))


async def _be_daemons(link: Link, metadata: str, count: int) -> None:
    async with _calls(metadata) as call_of:
        register, heartbeat = call_of("RegisterDaemon"), call_of("Heartbeat")
        registrations = [
            DaemonRegistration(
                # Nobody calls these addresses: no rows go there.
                i, f"127.0.0.1:{i}", f"scale-{i}", "scale", _MEMORY_BYTES, _MEMORY_BYTES
            )
            for i in range(1, count + 1)
        ]  # fmt: skip

        async def live(registration: DaemonRegistration) -> None:
            beat = DaemonHeartbeat(registration.incarnation, _MEMORY_BYTES)
            while True:
                await asyncio.sleep(_HEARTBEAT_S)
                reply = await heartbeat(wire.to_pb(beat).SerializeToString(), timeout=_TIMEOUT_S)
                if not reply.known:  # the service was started again
                    await register(wire.to_pb(registration).SerializeToString())

        for registration in registrations:
            await register(wire.to_pb(registration).SerializeToString())
        await asyncio.to_thread(link.wait_for_start)
        async with asyncio.TaskGroup() as group:
            for registration in registrations:
                group.create_task(live(registration))


def open_attempts(
    link: Link, metadata: str, shuffle_id: str, mappers: range
) -> list[tuple[int, int]]:
    """Open an attempt of each mapper and return them: (mapper, attempt)."""
    opened: list[tuple[int, int]] = []

    async def run() -> None:
        async with _calls(metadata) as call_of:
            call = call_of("OpenAttempt")

            async def open_one(mapper: int) -> None:
                request = mpb.OpenAttemptRequest(shuffle_id=shuffle_id, mapper=mapper)
                reply = await call(request.SerializeToString(), timeout=_TIMEOUT_S)
                opened.append((mapper, reply.attempt))
                link.progress(1)

            await _each(mappers, open_one)

    asyncio.run(run())
    return opened


def commit_attempts(
    link: Link, metadata: str, info: ExchangeInfo, attempts: list[tuple[int, int]]
) -> None:
    """Commit attempts, each with rows in every partition."""
    # Two messages one after the other are one with the fields of both.
    common = common_part(info)

    async def run() -> None:
        async with _calls(metadata) as call_of:
            call = call_of("Commit")

            async def commit_one(identity: tuple[int, int]) -> None:
                mapper, attempt = identity
                own = mpb.CommitRequest(mapper=mapper, attempt=attempt).SerializeToString()
                reply = await call(common + own, timeout=_TIMEOUT_S)
                if not reply.won:
                    raise DataCorrupted(f"mapper {mapper} committed before it did")
                link.progress(1)

            await _each(attempts, commit_one)

    asyncio.run(run())


def common_part(info: ExchangeInfo) -> bytes:
    """Return what all commits have in common, serialized: all but mapper and attempt."""
    partitions = info.spec.partitions

    def all_of(value: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.full(partitions, value, dtype=np.uint64)

    sums = AttemptSums(
        np.arange(partitions, dtype=np.uint32),
        all_of(ROWS),
        all_of(_RAW_BYTES),
        all_of(_STORED_BYTES),
        np.random.default_rng(0).integers(0, 1 << 64, partitions, dtype=np.uint64),
    )
    acknowledged = pairs_array([(a.range_index, a.epoch) for a in info.assignments])
    request = CommitRequest(info.number, 0, 0, info.generation, acknowledged, sums)
    body: bytes = wire.to_pb(request).SerializeToString()
    return body


def await_all(
    _link: Link, metadata: str, info: ExchangeInfo, mappers: int, reads: int
) -> list[float]:
    """Ask for `reads` partitions, as a reader of all mappers; return the seconds of each."""
    named = BitMap(range(mappers)).serialize()
    seconds = []

    async def run() -> None:
        async with _calls(metadata) as call_of:
            call = call_of("AwaitCommits")
            for read in range(reads):
                request = mpb.AwaitCommitsRequest(
                    number=info.number,
                    mappers=named,
                    partition=info.spec.partitions * read // reads,
                    generation=info.generation,
                    wait_s=0.0,
                ).SerializeToString()
                began = time.perf_counter()
                reply = await call(request, timeout=_TIMEOUT_S)
                seconds.append(time.perf_counter() - began)
                snapshot = wire.from_pb(CommitWait, reply).snapshot
                if snapshot is None or snapshot.rows != mappers * ROWS:
                    raise DataCorrupted("a reader is told of other rows than were committed")

    asyncio.run(run())
    return seconds
