"""A daemon's parts without its server, for unit tests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from support.fetching import one_partition
from support.frame_making import EXCHANGE, INCARNATION, frame

from cosco.dfs import Store
from cosco.errors import CoscoError
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.push.answers import Answer
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.receiver import PushReceiver
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_reply
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.membership import MetadataLink
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.push.copy_keeper import CopyKeeper
from cosco.shuffle_service.io.push.push_stream import PushStream
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES, Page
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.intake import Intakes, WriterIntake

KEY = AssignmentKey(EXCHANGE, 0, 1)


class DaemonParts:
    """Make it in a running loop; `link` stands for the metadata service, which is not there."""

    def __init__(self, store: Store, *, pages: int = 16, link: Any = None) -> None:
        self.core = DaemonCore(
            arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            segment_bytes=64 << 10,
            full_store_wait_s=5.0,
        )
        self.core.cluster_id = "c"
        self.core.admit(
            EXCHANGE, Assignment(0, 1, 1, DaemonRef(INCARNATION, "a")), PartitionRange(0, 0, 9)
        )
        self.metrics = DaemonMetrics()
        self.flusher = Flusher(self.core, store, self.metrics, writers=2)
        self.link = link or MetadataLink("127.0.0.1:1")
        self.lookups = Lookups(self.core, self.link)
        self.intakes = Intakes(self.core, self.metrics.count, self.lookups.look_up)
        self.copies = CopyKeeper(self.core, self.intakes)
        self.fetch = FetchService(
            self.core,
            store,
            ReadMemory(memoryview(bytearray(4 << 20))),
            self.metrics,
            self.copies.absorb,
        )
        self.pool_pages: list[Page] = []

    def receiver(self, budgets: FrameBudgets | None = None) -> PushReceiver:
        """The daemon's half of a push stream."""
        return PushReceiver(INCARNATION, budgets or FrameBudgets(8 << 20), self.intakes.open)

    def push_stream(self, context: Any, budgets: FrameBudgets) -> PushStream:
        return PushStream(context, self.receiver(budgets), self.metrics)

    async def push(
        self,
        data: bytes,
        answer: Answer,
        mapper_attempt: MapperAttempt = MapperAttempt(1, 1),  # noqa: B008
        number: int = EXCHANGE,
    ) -> WriterIntake:
        """A writer's only frame comes; returns when it is in buffers, or refused."""
        taken_in, stream = asyncio.Event(), self.receiver()
        stream.wake = taken_in.set
        intake = WriterIntake(self.intakes, number, mapper_attempt, stream)
        if not intake.take_in(memoryview(data), answer, time.monotonic()):
            await taken_in.wait()
        intake.settle(time.monotonic())
        return intake

    async def take(self, *blocks: bytes) -> None:
        """Take a frame of a single copy in; raises what it is refused for."""
        answers: list[CoscoError | None] = []
        await self.push(frame(blocks), answers.append)
        for error in answers:
            if error is not None:
                raise error
        assert answers

    async def read(self, partition: int) -> bytes:
        """The blocks of a partition, as a reader gets them."""
        replies = [fetch_reply(m) async for m in self.fetch.serve(one_partition(KEY, partition))]
        return b"".join(bytes(r) for r in replies if isinstance(r, memoryview))
