"""A daemon's parts without its server, for unit tests."""

from __future__ import annotations

from typing import Any

from support.frame_making import EXCHANGE, INCARNATION

from cosco.dfs import Store
from cosco.errors import CoscoError
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import fetch_reply
from cosco.shuffle_service.io.flusher import Flusher
from cosco.shuffle_service.io.lookups import Lookups
from cosco.shuffle_service.io.membership import MetadataLink
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.page_waiters import PageWaiters
from cosco.shuffle_service.io.push.push_stream import GrantBoards
from cosco.shuffle_service.io.push.take_copies import Copies
from cosco.shuffle_service.io.push.take_in import TakeIn
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.buffers.partition_buffer import AssignmentKey
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES, Page
from cosco.shuffle_service.state.core import DaemonCore

KEY = (EXCHANGE, 0, 1)


class DaemonParts:
    """Make it in a running loop; `link` stands for the metadata service, which is not there."""

    def __init__(self, store: Store, *, pages: int = 16, link: Any = None) -> None:
        self.core = DaemonCore(
            arena=memoryview(bytearray(pages * MAX_PAGE_BYTES)),
            incarnation=INCARNATION,
            chunk_bytes=64 << 10,
        )
        self.core.cluster_id = "c"
        self.core.admit(
            EXCHANGE, Assignment(0, 1, 1, DaemonRef(INCARNATION, "a")), PartitionRange(0, 0, 9)
        )
        self.metrics = DaemonMetrics()
        self.waiters = PageWaiters()
        self.flusher = Flusher(self.core, store, self.waiters, self.metrics, writers=2)
        self.link = link or MetadataLink("127.0.0.1:1")
        self.lookups = Lookups(self.core, self.link)
        self.take_in = TakeIn(
            self.core, self.lookups, self.flusher, self.waiters, self.metrics, full_store_wait_s=5.0
        )
        self.copies = Copies(self.core, self.lookups, self.flusher, self.waiters, 5.0)
        self.fetch = FetchService(
            self.core,
            store,
            ReadMemory(memoryview(bytearray(4 << 20))),
            self.metrics,
            self.copies.settle,
        )
        self.pool_pages: list[Page] = []

    def boards(self, budget_bytes: int) -> GrantBoards:
        return GrantBoards(budget_bytes, self.metrics)

    async def take(self, frame: CheckedFrame, data: bytes) -> AssignmentKey:
        """Take a frame of a single copy in; it is acknowledged when this returns."""
        settled: list[CoscoError | None] = []
        key, forward = await self.take_in.take(frame, memoryview(data), settled.append)
        assert forward is None
        assert settled == [None]
        return key

    async def read(self, partition: int) -> bytes:
        """The blocks of a partition, as a reader gets them."""
        replies = [fetch_reply(m) async for m in self.fetch.serve(KEY, partition)]
        return b"".join(bytes(r) for r in replies if isinstance(r, memoryview))
