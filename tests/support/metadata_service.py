"""The metadata service in this process, and its calls as records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pyroaring import BitMap

from cosco.config import MetadataConfig
from cosco.metadata.server import serve
from cosco.protocol import wire
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonHeartbeat,
    DaemonOrders,
    DaemonRef,
    DaemonRegistration,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    RangesWait,
    RenewedAssignments,
    pairs_array,
)
from cosco.protocol.wire import mpb

OWNER = b"o" * 16
#: Longer than any test may wait.
LONG_S = 25.0


class Service:
    """A running service, and its calls as records."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel

    async def call(self, method: str, request: Any, timeout_s: float = 30.0) -> Any:
        """The reply; raises the error that the service meant."""
        _, reply_type = wire.METADATA_METHODS[method]
        stub: Any = self.channel.unary_unary(
            f"/{wire.METADATA_SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply_type.FromString,
        )
        try:
            return await stub(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            for key, value in error.trailing_metadata() or ():
                if key == wire.ERROR_KEY:
                    assert isinstance(value, bytes)
                    raise wire.error_from_bytes(value) from None
            raise

    async def register(
        self, incarnation: int = 1, exchanges: Iterable[int] = (), address: str = ""
    ) -> DaemonOrders:
        registration = DaemonRegistration(
            incarnation, address or f"host:{incarnation}", f"host-{incarnation}", "store",
            1 << 30, 1 << 30, exchanges=tuple(exchanges),
        )  # fmt: skip
        reply = await self.call("RegisterDaemon", wire.to_pb(registration))
        return wire.from_pb(DaemonOrders, reply)

    async def beat(self, incarnation: int = 1, *dropped: int) -> DaemonOrders:
        heartbeat = wire.to_pb(DaemonHeartbeat(incarnation, 1 << 30, dropped))
        return wire.from_pb(DaemonOrders, await self.call("Heartbeat", heartbeat))

    async def create(self, shuffle_id: str = "a", **options: Any) -> ExchangeInfo:
        spec = ExchangeSpec(shuffle_id, **({"partitions": 4, "replicas": 1} | options))
        request = mpb.CreateExchangeRequest(spec=wire.to_pb(spec), owner=OWNER)
        return wire.from_pb(ExchangeInfo, await self.call("CreateExchange", request))

    async def describe(self, shuffle_id: str = "a", owner: bytes = b"") -> ExchangeInfo:
        request = mpb.DescribeExchangeRequest(shuffle_id=shuffle_id, owner=owner)
        return wire.from_pb(ExchangeInfo, await self.call("DescribeExchange", request))

    async def close(self, shuffle_id: str = "a") -> None:
        await self.call("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=shuffle_id))

    async def open_attempt(self, mapper: int | None, shuffle_id: str = "a") -> OpenedAttempt:
        request = mpb.OpenAttemptRequest(shuffle_id=shuffle_id, mapper=mapper)
        return wire.from_pb(OpenedAttempt, await self.call("OpenAttempt", request))

    async def commit(self, opened: OpenedAttempt, *partitions: int, generation: int = 1) -> bool:
        """Commit one row of 10 bytes in each of the partitions."""
        ones, ten = np.ones(len(partitions), dtype=np.uint64), np.uint64(10)
        request = CommitRequest(
            opened.info.number,
            opened.mapper,
            opened.attempt,
            generation,
            pairs_array([(part.index, 1) for part in opened.info.ranges]),
            AttemptSums(
                np.array(partitions, dtype=np.uint32),
                ones,
                ones * ten,
                ones * ten,
                ones << np.uint64(63),
            ),
        )
        return bool((await self.call("Commit", wire.to_pb(request))).won)

    async def write(self, mapper: int | None, *partitions: int) -> bool:
        return await self.commit(await self.open_attempt(mapper), *partitions)

    async def wait(
        self, mappers: Iterable[int], partition: int = 0, wait_s: float = 0.0
    ) -> CommitWait:
        request = mpb.AwaitCommitsRequest(
            number=1,
            mappers=BitMap(mappers).serialize(),
            partition=partition,
            generation=1,
            wait_s=wait_s,
        )
        return wire.from_pb(CommitWait, await self.call("AwaitCommits", request))

    async def wait_for_several(
        self, mappers: Iterable[int], partitions: Iterable[int], wait_s: float = 0.0
    ) -> RangesWait:
        request = mpb.AwaitCommitsRequest(
            number=1,
            mappers=BitMap(mappers).serialize(),
            partitions=BitMap(partitions).serialize(),
            generation=1,
            wait_s=wait_s,
        )
        return wire.from_pb(RangesWait, await self.call("AwaitCommits", request))

    async def begin_reading(
        self, mappers: Iterable[int], partition: int = 0, shuffle_id: str = "a"
    ) -> CommitWait | None:
        """What a reader is told beside the exchange."""
        request = mpb.DescribeExchangeRequest(shuffle_id=shuffle_id)
        request.reading.mappers = BitMap(mappers).serialize()
        request.reading.partition = partition
        reply = await self.call("DescribeExchange", request)
        return wire.from_pb(CommitWait, reply.commits) if reply.HasField("commits") else None

    async def report(self, daemon: DaemonRef, reporter: int = 0, insist: bool = False) -> bool:
        request = mpb.ReportDaemonRequest(
            daemon=wire.to_pb(daemon), reporter=reporter, insist=insist
        )
        return bool((await self.call("ReportDaemon", request)).alive)

    async def renew(
        self,
        *stale: tuple[int, int],
        suspect: DaemonRef | None = None,
        insist: bool = False,
        wait_s: float = 0.0,
    ) -> RenewedAssignments:
        request = mpb.RenewAssignmentsRequest(
            number=1,
            generation=1,
            stale=[mpb.RangeEpoch(range_index=index, epoch=epoch) for index, epoch in stale],
            suspect=None if suspect is None else wire.to_pb(suspect),
            insist=insist,
            wait_s=wait_s,
        )
        return wire.from_pb(RenewedAssignments, await self.call("RenewAssignments", request))

    async def poll(self, owner: bytes = OWNER, wait_s: float = 0.0) -> None:
        request = mpb.PollDriverRequest(number=1, owner=owner, wait_s=wait_s)
        await self.call("PollDriver", request)


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[Service]:
    """The service on the database in `directory`; it must stop cleanly and soon."""
    config = MetadataConfig(
        listen="127.0.0.1:0", store=f"sqlite:///{directory}/metadata.db", **options
    )
    stop = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(config, ready=address.set_result, stop=stop))
    await asyncio.wait((task, address), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    async with grpc.aio.insecure_channel(await address) as channel:
        try:
            yield Service(await address, channel)
        finally:
            stop.set()
            await asyncio.wait_for(task, 5.0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())
