"""Which buffer to flush next: of a sealed assignment, of the oldest frames when forwards stall,
a full one, or under pressure the largest there is.

Pure bookkeeping; no IO.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict

from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, PartitionBuffer
from cosco.shuffle_service.state.replication.replication_log import ReplicationLog


class FlushOrder:
    """The buffers of one daemon that have something to flush."""

    def __init__(self, replication: ReplicationLog) -> None:
        self._replication = replication
        self._ready: OrderedDict[PartitionBuffer, None] = OrderedDict()  # chunk_bytes or more
        self._open: dict[PartitionBuffer, None] = {}
        self._largest: list[Chunk] = []  # candidates of the last search
        self._urgent: OrderedDict[PartitionBuffer, None] = OrderedDict()  # sealed

    def __len__(self) -> int:
        return len(self._ready) + len(self._open) + len(self._urgent)

    def opened(self, buffer: PartitionBuffer) -> None:
        """It has an open chunk."""
        self._open[buffer] = None

    def filled(self, buffer: PartitionBuffer) -> None:
        """Its open chunk has reached the chunk size, and none of its is being written."""
        self._ready[buffer] = None

    def hurry(self, buffer: PartitionBuffer) -> None:
        """Its open chunk, if it has one, is to be stored now."""
        if buffer.open is not None:
            self._urgent[buffer] = None

    def forget(self, buffer: PartitionBuffer) -> None:
        """It has no open chunk any more."""
        for queue in (self._urgent, self._ready, self._open):
            queue.pop(buffer, None)

    def take(self, *, pressed: bool) -> PartitionBuffer | None:
        """The next one, which is forgotten. `pressed`: any, since memory is short."""
        buffer = None
        if self._urgent:
            buffer = next(iter(self._urgent))
        elif (chunk := self._replication.oldest_chunk()) is not None:
            buffer = chunk.buffer
        elif self._ready:
            buffer = next(iter(self._ready))
        elif pressed:
            buffer = self._pick()
        if buffer is not None:
            self.forget(buffer)
        return buffer

    def _pick(self) -> PartitionBuffer | None:
        """The largest, or one half as large with the oldest forwarded frames: frames share chunks
        with their neighbours, so their copies go when chunks are flushed in turn."""
        largest, oldest = self._pick_largest(), self._replication.oldest_chunk(pressed=False)
        if largest is None or oldest is None or largest.open is None:
            return largest
        return oldest.buffer if 2 * oldest.length >= largest.open.length else largest

    def _pick_largest(self) -> PartitionBuffer | None:
        """One search serves many picks: sizes change little while they are used up."""
        for _ in range(2):
            while self._largest:
                chunk = self._largest.pop()
                buffer = chunk.buffer
                if buffer.open is chunk and buffer.flushing is None:
                    return buffer
            candidates = (b.open for b in self._open if b.flushing is None and b.open)
            self._largest = heapq.nlargest(64, candidates, key=lambda chunk: chunk.length)
            self._largest.reverse()
        return None
