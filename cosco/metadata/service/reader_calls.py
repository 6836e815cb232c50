"""The calls of readers: what is committed of one partition, or of several."""

from __future__ import annotations

import time

from pyroaring import BitMap

from cosco.errors import InvalidArgument
from cosco.metadata.service.encoded_pieces import EncodedPieces
from cosco.metadata.service.polls import Polls, Waiter, bounded_s
from cosco.metadata.state.state import MetadataState
from cosco.metadata.state.waiting_calls import memory_bytes
from cosco.protocol import wire
from cosco.protocol.api_limits import check_named_count
from cosco.protocol.records import CommitWait, RangesWait, ReadSnapshot
from cosco.protocol.wire import mpb


class ReaderCalls:
    """Answers readers, whose calls may wait for commits.

    Readers of a range, and often of all ranges, are told of the same mappers: these are encoded
    once.
    """

    def __init__(self, state: MetadataState, polls: Polls, pieces: EncodedPieces) -> None:
        self._state = state
        self._polls = polls
        self._pieces = pieces

    def ready(self, number: int, reading: mpb.AwaitCommitsRequest, now: float) -> bytes:
        """Return what a reader that begins is told if it need not wait; nothing if it must."""
        mappers, partitions = _read_by(reading)
        if partitions:
            array = wire.bitmap_array(partitions)
            ranges = self._state.await_ranges(number, mappers, array, 0, now)
            return self._ranges_reply(ranges) if ranges.ranges else b""
        wait = self._state.await_commits(number, mappers, reading.partition, 0, now)
        return self._wait_reply(wait) if wait.snapshot is not None else b""

    async def await_commits(self, request: mpb.AwaitCommitsRequest) -> bytes:
        """Answer when every named mapper has committed for all that is read, or in time."""
        number, partition = request.number, request.partition
        mappers, partitions = _read_by(request)
        if partitions:
            return await self._await_ranges(request, mappers, partitions)

        def look() -> CommitWait:
            return self._state.await_commits(
                number, mappers, partition, request.generation, time.monotonic()
            )

        def add(wait: CommitWait, waiter: Waiter) -> None:
            rebuilt = partition if wait.recompute else None
            self._polls.waiting.add_reader(number, mappers, wait.missing, waiter, rebuilt)

        found = await self._polls.poll(
            look,
            lambda wait: wait.snapshot is not None,
            add,
            bounded_s(request.wait_s),
            held_bytes=request.ByteSize() + memory_bytes(mappers),
        )
        return self._wait_reply(found)

    async def _await_ranges(
        self, request: mpb.AwaitCommitsRequest, mappers: BitMap, partitions: BitMap
    ) -> bytes:
        number = request.number

        def look() -> RangesWait:
            # Not kept while it waits: two bytes may stand for 65,536 partitions.
            array = wire.bitmap_array(partitions)
            return self._state.await_ranges(
                number, mappers, array, request.generation, time.monotonic()
            )

        def add(wait: RangesWait, waiter: Waiter) -> None:
            rebuilt = partitions if wait.recompute else None
            self._polls.waiting.add_reader(number, mappers, wait.missing, waiter, rebuilt)

        found = await self._polls.poll(
            look,
            lambda wait: wait.failed or not wait.waiting,
            add,
            bounded_s(request.wait_s),
            held_bytes=request.ByteSize() + memory_bytes(mappers) + memory_bytes(partitions),
        )
        return self._ranges_reply(found)

    def _wait_reply(self, wait: CommitWait) -> bytes:
        mappers = b"" if wait.snapshot is None else self._mappers_of(wait.snapshot)
        return wire.wait_reply(wait, mappers)

    def _ranges_reply(self, wait: RangesWait) -> bytes:
        return wire.ranges_reply(wait, self._mappers_of)

    def _mappers_of(self, snapshot: ReadSnapshot) -> bytes:
        return self._pieces.get(
            snapshot.mappers, lambda: wire.snapshot_mappers(snapshot.mappers, snapshot.attempts)
        )


def _read_by(request: mpb.AwaitCommitsRequest) -> tuple[BitMap, BitMap]:
    """Return the mappers that a reader names, and its partitions if it may have several."""
    mappers = wire.bitmap_from_bytes(request.mappers, "mappers")
    check_named_count(len(mappers))
    partitions = wire.partitions_from_bytes(request.partitions, "partitions")
    if partitions and request.partition:
        raise InvalidArgument("a reader that names one partition, and several")
    return mappers, partitions
