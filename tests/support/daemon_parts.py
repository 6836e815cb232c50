"""A daemon's parts without its server, for unit tests."""

from __future__ import annotations

from support.frame_making import EXCHANGE, INCARNATION

from cosco.dfs import Store
from cosco.records import Assignment, DaemonRef, PartitionRange
from cosco.shuffle_service.core import DaemonCore
from cosco.shuffle_service.fetch import FetchService
from cosco.shuffle_service.flusher import Flusher
from cosco.shuffle_service.membership import MetadataLink
from cosco.shuffle_service.memory import PageWaiters
from cosco.shuffle_service.metrics import DaemonMetrics
from cosco.shuffle_service.pool import MAX_PAGE_BYTES, Page
from cosco.shuffle_service.take_in import TakeIn
from cosco.wire import fetch_reply

KEY = (EXCHANGE, 0, 1)


class DaemonParts:
    """Make it in a running loop; `link` stands for the metadata service, which is not there."""

    def __init__(self, store: Store, *, pages: int = 16, link: object = None) -> None:
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
        self.take_in = TakeIn(
            self.core, self.link, self.flusher, self.waiters, self.metrics, full_store_wait_s=5.0
        )
        self.fetch = FetchService(self.core, store, self.metrics)
        self.pool_pages: list[Page] = []

    async def read(self, partition: int) -> bytes:
        """The blocks of a partition, as a reader gets them."""
        replies = [fetch_reply(m) async for m in self.fetch.serve(KEY, partition)]
        return b"".join(bytes(r) for r in replies if isinstance(r, memoryview))
