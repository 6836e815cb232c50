"""Serves readers: one look at each partition at its turn, then its chunks, one after another.

How a chunk is sent is in `cosco.shuffle_service.io.read.chunk_sender`, how it is found in a
segment in `cosco.shuffle_service.io.read.segment_files`.

Generators are closed by whoever iterates over them (`aclosing`), so that the memory of a
reader that leaves is free at once, not when the interpreter finds the generator.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from cosco.dfs import Store
from cosco.errors import ExchangeClosed, InvalidArgument, ServiceUnavailable
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.format.segment import FoundChunk, SegmentIndex
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.wire import fetch_end
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.chunk_body import HeldBody, StoredBody
from cosco.shuffle_service.io.read.chunk_sender import ChunkSender
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.io.read.segment_files import SegmentIndexes, SegmentsOfOthers
from cosco.shuffle_service.io.read.store_access import StoreAccess
from cosco.shuffle_service.io.read.store_reader import Extent, StoreReader
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.reply_pack import ReplyPack
from cosco.shuffle_service.state.snapshots import Piece

log = logging.getLogger(__name__)

#: Readers served at a time; more wait for their turn.
MAX_FETCHES: Final = 256
#: What all of them may hold together in messages: each one that is sent, and one made ahead.
_BUFFERED_BYTES: Final = 32 << 20
_MESSAGE_MIN_BYTES: Final = 64 << 10
_MESSAGE_MAX_BYTES: Final = 1 << 20
#: Chunks with shorter bodies are sent also to a reader that can read from the store itself.
DIRECT_MIN_BYTES: Final = 16 << 10


class FetchService:
    """The reading half of the daemon.

    `absorb` puts the copies of an assignment, if there are any, through the buffers.
    `timeout_s`: a read of the store that takes longer ends the call of its reader, who asks other
    daemons and comes again. That is no loss: nobody knows that anything is gone.
    """

    def __init__(
        self,
        core: DaemonCore,
        store: Store,
        reads: ReadMemory,
        metrics: DaemonMetrics,
        absorb: Callable[[AssignmentKey], Awaitable[None]],
        timeout_s: float = math.inf,
    ) -> None:
        self._timeout_s = timeout_s
        self._core = core
        self._store = store
        self._reads = reads
        self._indexes = SegmentIndexes(store, core.indexes)
        self._urls = StoreAccess(store)
        self._metrics = metrics
        self._absorb = absorb
        self._turns = asyncio.Semaphore(MAX_FETCHES)
        self._active = 0

    async def serve(self, request: FetchRequest) -> AsyncGenerator[bytes, None]:
        """Yield the messages of one Fetch call.

        Raises ExchangeClosed if what it is of is dropped meanwhile, or was before: the exchange, or
        an old epoch. Either way the metadata service knows what there is to read.

        Of segments that others wrote a part is sent what it asks for, and in any case by a daemon
        that is not the assignment's primary. Raises InvalidArgument for partitions that are not of
        the range of their part, where that is known.
        """
        async with self._turns:
            self._active += 1
            try:
                messages = _read_ahead(self._messages(request))
                async with aclosing(messages):
                    async for message in messages:
                        yield message
            except TimeoutError as error:
                raise self._hangs(error) from None
            finally:
                self._active -= 1

    async def _messages(self, request: FetchRequest) -> AsyncGenerator[bytes, None]:
        direct = request.direct
        parts = [_Part(_key_of(request, part), part, direct=direct) for part in request.parts]
        self._check_there(request.number, parts)
        if request.several:
            for part in parts:
                self._check_range(part)
        sender = ChunkSender(
            request.number,
            request.mappers,
            ReplyPack(packs=request.several or request.direct),
            self._metrics,
            self._message_bytes,
            lambda: self._check_there(request.number, parts),
        )
        try:
            async with aclosing(self._each(request, parts, sender)) as sent:
                async for message in sent:
                    yield message
        except TimeoutError:  # the store hangs: what was read before is whole
            for message in sender.rest():
                yield message
            raise
        for message in sender.rest():
            yield message

    async def _each(
        self, request: FetchRequest, parts: Sequence[_Part], sender: ChunkSender
    ) -> AsyncGenerator[bytes, None]:
        """Send one partition of one part after another; yield the messages that are full."""
        for partition, index in _in_order(request.parts):
            part = parts[index]
            if not part.is_ready:
                for message in sender.due():
                    yield message
                await self._prepare(part)
            if not self._sends_at_once(part, partition, sender):
                async with aclosing(self._partition(part, partition, sender)) as sent:
                    async for message in sent:
                        yield message
            self._check_there(request.number, (part,))  # or what is gone looks like nothing
            if request.several:
                for message in sender.full():
                    yield message
                sender.add(fetch_end(index, partition))

    def _check_range(self, part: _Part) -> None:
        held, found = self._core.assignment(part.key), part.asked.partitions
        if held is None:
            return
        span = held.partition_range
        if found.min() < span.first or found.max() >= span.end:
            raise InvalidArgument(
                f"a fetch of partitions {found.min()} to {found.max()} of range {span.index}, "
                f"which has {span.first} to {span.end - 1}"
            )

    async def _prepare(self, part: _Part) -> None:
        """Have what is asked for of an assignment where it can be looked at."""
        # In this order: a copy that goes meanwhile does so because its rows are in a file.
        await self._absorb(part.key)
        part.is_ready = True
        held = self._core.assignment(part.key)
        if part.asked.files or held is None or held.copied_from:
            part.files = SegmentsOfOthers(
                self._store,
                self._core.folder(part.key),
                part.key,
                part.asked.partitions,
                self._core.incarnation,
            )

    def _sends_at_once(self, part: _Part, partition: int, sender: ChunkSender) -> bool:
        """Send a partition without waiting for anything, if all of it is in memory and small."""
        if part.files is not None:
            return False
        snapshot = self._core.snapshot(part.key, partition)
        if snapshot is None:
            return True
        pieces = snapshot.pieces
        length = sum(piece.body_bytes for piece in pieces)
        if snapshot.segments or not sender.has_room_for_all(length, len(pieces)):
            return False
        for piece in pieces:
            end = CHUNK_HEADER_BYTES + piece.body_bytes
            blocks = piece.chunk.memory(self._core.arena, CHUNK_HEADER_BYTES, end)
            sender.add_blocks(blocks, piece.chunk.offset)
        return True

    async def _partition(
        self, part: _Part, partition: int, sender: ChunkSender
    ) -> AsyncGenerator[bytes, None]:
        """Send what there is of a partition at one look; yield the messages that are full."""
        snapshot = self._core.snapshot(part.key, partition)
        if snapshot is not None:
            if snapshot.segments:
                found = self._from_segments(part, snapshot.segments, partition, sender)
                async with aclosing(found):
                    async for message in found:
                        yield message
            for piece in snapshot.pieces:
                found = self._from_chunk(piece, partition, sender)
                async with aclosing(found):
                    async for message in found:
                        yield message
        if part.files is not None:
            found = self._from_files(part, partition, sender)
            async with aclosing(found):
                async for message in found:
                    yield message

    def _check_there(self, number: int, parts: Sequence[_Part]) -> None:
        """Check that nothing of a request was dropped; costs nothing a part, as nearly always
        there are no old epochs."""
        core = self._core
        if core.is_dropped(number):
            raise ExchangeClosed("the exchange is closed, or was while it was read")
        if core.old_epochs:
            for part in parts:
                if part.key in core.old_epochs:
                    raise ExchangeClosed(f"{part.key} is over: its rows were written anew since")

    def _message_bytes(self) -> int:
        share = _BUFFERED_BYTES // (2 * max(1, self._active))
        return min(max(share, _MESSAGE_MIN_BYTES), _MESSAGE_MAX_BYTES)

    async def _from_chunk(
        self, piece: Piece, partition: int, sender: ChunkSender
    ) -> AsyncGenerator[bytes, None]:
        body = HeldBody(piece.chunk, piece.body_bytes, self._core.arena, self._reader)
        try:
            async with aclosing(sender.send(body, partition)) as messages:
                async for message in messages:
                    yield message
        finally:
            body.close()

    async def _from_segments(
        self, part: _Part, segments: Sequence[StoredSegment], partition: int, sender: ChunkSender
    ) -> AsyncGenerator[bytes, None]:
        """Send the chunks of a partition that are in some segments, or where to read them."""
        if not all(map(self._indexes.has, segments)):
            for message in sender.due():
                yield message
        extents: list[Extent] = []
        problems: list[str] = []
        async for segment, index in self._indexes.of(segments):
            if isinstance(index, OSError):
                problems.append(f"the index of {segment.path} cannot be read: {index}")
                continue
            if (found := index.find(partition)) is not None:
                full = await self._referred(part, segment, index, found, sender)
                if full is None:
                    length = CHUNK_HEADER_BYTES + found.body_bytes
                    extents.append(Extent(segment.path, found.offset, length))
                for message in full or ():
                    yield message
            if index.damage:
                problems.append(index.damage)
        reader = self._reader(extents)
        try:
            for place in range(len(extents)):
                body = StoredBody(reader, place)
                async with aclosing(sender.send(body, partition)) as messages:
                    async for message in messages:
                        yield message
        finally:
            reader.close()
        for problem in problems:
            sender.add(sender.unreadable(problem))

    async def _referred(
        self,
        part: _Part,
        segment: StoredSegment,
        index: SegmentIndex,
        found: FoundChunk,
        sender: ChunkSender,
    ) -> list[bytes] | None:
        """Have the reader read a chunk itself, if that can be and is worth a read of its own.

        A segment of which an index was read is whole: what is torn has none.

        Returns: the messages that are full; None if the reader is to be sent the chunk.
        """
        if not part.direct or index.crc is None or found.body_bytes < DIRECT_MIN_BYTES:
            return None
        url = await self._urls.url(segment.path)
        if url is None:
            return None
        reference = Reference(url, segment.path, segment.size_bytes, index.crc)
        return sender.add_reference(found.body_bytes, found.offset, reference)

    async def _from_files(
        self, part: _Part, partition: int, sender: ChunkSender
    ) -> AsyncGenerator[bytes, None]:
        """Send the chunks of segments that this process did not write."""
        assert part.files is not None
        for message in sender.due():
            yield message
        try:
            segments = await part.files.of(partition)
        except TimeoutError:
            raise
        except OSError as error:
            folder = self._core.folder(part.key)
            sender.add(sender.unreadable(f"{folder} cannot be listed: {error}"))
            return
        if segments:
            found = self._from_segments(part, segments, partition, sender)
            async with aclosing(found):
                async for message in found:
                    yield message

    def _reader(self, extents: Sequence[Extent]) -> StoreReader:
        return StoreReader(self._store, self._reads, extents, self._timeout_s)

    def _hangs(self, error: TimeoutError) -> ServiceUnavailable:
        """Return what a reader is told who waits for a store that hangs."""
        log.warning("a reader is told to come again: %s", error.strerror or error)
        self._metrics.fetch_failures.inc()
        return ServiceUnavailable(error.strerror or str(error))


@dataclass(slots=True, eq=False)
class _Part:
    """One part of a request. `files`: where to find those of others; None: they are not sent.

    direct: chunks may be sent as references. is_ready: its copies are absorbed.
    """

    key: AssignmentKey
    asked: FetchPart
    direct: bool = False
    is_ready: bool = False
    files: SegmentsOfOthers | None = None


def _key_of(request: FetchRequest, part: FetchPart) -> AssignmentKey:
    return AssignmentKey(request.number, part.range_index, part.epoch)


def _in_order(parts: Sequence[FetchPart]) -> Iterator[tuple[int, int]]:
    """Yield (partition, index of its part): ascending by partition, then by part."""
    each = (zip(part.partitions, repeat(index)) for index, part in enumerate(parts))
    return heapq.merge(*each)


async def _read_ahead(messages: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the same messages; while one is sent, the next is read already."""
    ahead = asyncio.ensure_future(anext(messages, None))
    try:
        while (message := await ahead) is not None:
            ahead = asyncio.ensure_future(anext(messages, None))
            yield message
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)
        await messages.aclose()
