"""Write-ahead buffers: what of one assignment is in memory.

A chunk is open (blocks are appended), then flushing (its segment is being written), then
stored (its pages are free again). A reader's snapshot holds chunks, not pages: each piece is
copied from wherever its chunk is by then.

Pure bookkeeping over an arena of bytes that is passed in; no IO.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from cosco.format.chunk import (
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    encode_chunk_header,
    padded,
)
from cosco.format.segment import SegmentIndex
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.pool import Page, PagePool, round_up


class ChunkState(IntEnum):
    OPEN = 1
    FLUSHING = 2
    STORED = 3
    DROPPED = 4


@dataclass(slots=True, eq=False)
class Chunk:
    """One chunk, wherever it is. `length` counts its header, not its padding.

    path, offset: its segment and its place there, once it is flushing. is_durable: whether that
    is, once it is stored.
    """

    buffer: PartitionBuffer
    state: ChunkState = ChunkState.OPEN
    pages: list[Page] = field(default_factory=list)
    capacity: int = 0
    length: int = CHUNK_HEADER_BYTES
    blocks: int = 0
    path: str = ""
    offset: int = 0
    is_durable: bool = False

    @property
    def body_bytes(self) -> int:
        return self.length - CHUNK_HEADER_BYTES

    def is_dropped(self) -> bool:
        """Whether nobody wants it any more; may change while something else is awaited."""
        return self.state is ChunkState.DROPPED

    def release(self, pool: PagePool) -> None:
        """Give its pages back."""
        pool.free(self.pages)
        self.pages = []
        self.capacity = 0

    def room_needed(self, length: int) -> int:
        """Return the bytes of pages to add before `length` bytes can be appended."""
        return round_up(max(0, self.length + length - self.capacity))

    def grow(self, pool: PagePool, need: int, extra: int) -> None:
        """Add pages of `need` bytes; `extra` more may be taken."""
        # Doubling keeps the pages few; what it takes ahead is bounded by `extra`.
        ahead = min(extra, max(0, self.capacity - need)) // need * need
        for page in pool.allocate(need + ahead):
            self.pages.append(page)
            self.capacity += page.size

    def append(self, arena: memoryview, data: memoryview) -> None:
        """Copy `data` to the end, where there is room for it."""
        position, length = self.length, len(data)
        self.length = position + length
        page = self.pages[-1]
        begin = position - self.capacity + page.size
        if begin >= 0:  # all of it goes to the last page
            begin += page.offset
            arena[begin : begin + length] = data
            return
        for span in self._spans(arena, position, self.length):
            span[:] = data[: len(span)]
            data = data[len(span) :]

    def _spans(self, arena: memoryview, start: int, end: int) -> Iterator[memoryview]:
        """Yield the memory of bytes [start, end) of this chunk, page by page."""
        # Appends go to the last pages, so the search begins at the end.
        first, base = len(self.pages), self.capacity
        while base > start:
            first -= 1
            base -= self.pages[first].size
        for page in self.pages[first:]:
            if base >= end:
                return
            low = max(start - base, 0)
            high = min(end - base, page.size)
            yield arena[page.offset + low : page.offset + high]
            base += page.size

    def memory(self, arena: memoryview, start: int, end: int) -> list[memoryview]:
        """Return bytes [start, end) of the chunk, while it has pages."""
        return list(self._spans(arena, start, end))

    def place(self, arena: memoryview, incarnation: int, path: str, offset: int) -> int:
        """Give it its place in a segment: put its header and its padding into its pages.

        Returns: its length in the segment.
        """
        self.path, self.offset = path, offset
        key = self.buffer.key
        header = encode_chunk_header(
            ChunkHeader(
                exchange=key.number,
                incarnation=incarnation,
                offset=offset,
                range_index=key.range_index,
                epoch=key.epoch,
                partition=self.buffer.partition,
                blocks=self.blocks,
                body_bytes=self.body_bytes,
            )
        )
        page = self.pages[0]
        arena[page.offset : page.offset + CHUNK_HEADER_BYTES] = header
        end = padded(self.length)
        for span in self._spans(arena, self.length, end):
            span[:] = bytes(len(span))
        return end


@dataclass(slots=True, eq=False)
class PartitionBuffer:
    """The chunks of one (assignment, partition) that are in memory.

    At most one is being written, so that they become durable in order.

    waiting: chunks that are stored and not durable, or an earlier one is not; oldest first. Only
    where there are copies that must not go before.
    """

    key: AssignmentKey
    partition: int
    open: Chunk | None = None
    flushing: Chunk | None = None
    waiting: deque[Chunk] = field(default_factory=deque)

    def chunks(self) -> list[Chunk]:
        """Return them, the older one first, each at its present length."""
        return [chunk for chunk in (self.flushing, self.open) if chunk is not None]

    def begin_flush(self) -> Chunk:
        """Close the open chunk, and return it."""
        chunk = self.open
        assert chunk is not None
        assert self.flushing is None
        self.open, self.flushing = None, chunk
        chunk.state = ChunkState.FLUSHING
        return chunk

    def end_flush(self) -> None:
        """Note that the flushing chunk is durable, or that nobody needs it any more."""
        chunk = self.flushing
        assert chunk is not None
        self.flushing = None
        if not chunk.is_dropped():
            chunk.state = ChunkState.STORED


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunks as they lie in a segment.

    parts: their bytes, in pages. end: their length together. capacity: bytes of the pages.
    """

    chunks: list[Chunk]
    parts: list[memoryview]
    index: SegmentIndex
    end: int
    capacity: int


def lay_out(
    buffers: Sequence[PartitionBuffer], arena: memoryview, incarnation: int, path: str
) -> Layout:
    """Close the open chunks of some buffers of one assignment, ascending, and lay them out."""
    chunks, index, end = [], SegmentIndex(), 0
    parts: list[memoryview] = []
    for buffer in buffers:
        chunk = buffer.begin_flush()
        chunks.append(chunk)
        length = chunk.place(arena, incarnation, path, end)
        parts += chunk.memory(arena, 0, length)
        index.add(buffer.partition, chunk.blocks, end, chunk.body_bytes)
        end += length
    return Layout(chunks, parts, index, end, sum(chunk.capacity for chunk in chunks))


def end_flush(chunks: Sequence[Chunk], pool: PagePool) -> list[PartitionBuffer]:
    """Free the pages of chunks that are durable, or that nobody needs any more.

    Returns: those of their buffers that have an open chunk.
    """
    for chunk in chunks:
        chunk.buffer.end_flush()
        chunk.release(pool)
    return [chunk.buffer for chunk in chunks if chunk.buffer.open is not None]
