"""Write-ahead buffers: the chunks of one assignment, in memory and in the store.

A chunk is open (blocks are appended), then flushing (its bytes are being written), then
stored (its pages are free again). A reader's snapshot holds chunks, not pages: each piece is
copied from wherever its chunk is by then.

Pure bookkeeping over an arena of bytes that is passed in; no IO.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from cosco.format.chunk import (
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    encode_chunk_header,
    padded,
)
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.pool import Page, PagePool, round_up


class ChunkState(IntEnum):
    OPEN = 1
    FLUSHING = 2
    STORED = 3
    DROPPED = 4
    LOST = 5  # it was stored, and its file is gone


@dataclass(slots=True, eq=False)
class Chunk:
    """One chunk, wherever it is. `length` counts its header, not its padding."""

    buffer: PartitionBuffer
    state: ChunkState = ChunkState.OPEN
    pages: list[Page] = field(default_factory=list)
    capacity: int = 0
    length: int = CHUNK_HEADER_BYTES
    blocks: int = 0
    offset: int = 0  # in its file, once it is flushing

    @property
    def body_bytes(self) -> int:
        return self.length - CHUNK_HEADER_BYTES

    def is_dropped(self) -> bool:
        """Whether its exchange is closed; may change while something else is awaited."""
        return self.state is ChunkState.DROPPED

    def room_needed(self, length: int) -> int:
        """Return the bytes of pages to add before `length` bytes can be appended."""
        return round_up(max(0, self.length + length - self.capacity))

    def grow(self, pool: PagePool, need: int, extra: int) -> None:
        """Add pages of `need` bytes; `extra` more may be taken."""
        # Doubling keeps the segments few; what it takes ahead is bounded by `extra`.
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
        for segment in self._segments(arena, position, self.length):
            segment[:] = data[: len(segment)]
            data = data[len(segment) :]

    def _segments(self, arena: memoryview, start: int, end: int) -> Iterator[memoryview]:
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
        return list(self._segments(arena, start, end))


@dataclass(slots=True, eq=False)
class PartitionBuffer:
    """The chunks of one (assignment, partition), oldest first.

    path: of its file, from the first flush on: most buffers of small exchanges never have one.
    """

    key: AssignmentKey
    partition: int
    path: str = ""
    open: Chunk | None = None
    flushing: Chunk | None = None
    stored: list[Chunk] = field(default_factory=list)
    file_bytes: int = 0

    def chunks(self) -> list[Chunk]:
        """Return every chunk, each at its present length."""
        rest = [chunk for chunk in (self.flushing, self.open) if chunk is not None]
        return self.stored + rest

    def begin_flush(self, incarnation: int, arena: memoryview) -> tuple[Chunk, list[memoryview]]:
        """Close the open chunk. Returns it with its bytes, padded, header in place."""
        chunk = self.open
        assert chunk is not None
        assert self.flushing is None
        self.open, self.flushing = None, chunk
        chunk.state = ChunkState.FLUSHING
        return chunk, self._prepare(chunk, incarnation, arena)

    def restart_file(self, incarnation: int, arena: memoryview) -> list[memoryview]:
        """Have the flushing chunk begin the file anew, which is gone with its other chunks."""
        chunk = self.flushing
        assert chunk is not None
        for stored in self.stored:
            stored.state = ChunkState.LOST
        self.file_bytes = 0
        return self._prepare(chunk, incarnation, arena)

    def _prepare(self, chunk: Chunk, incarnation: int, arena: memoryview) -> list[memoryview]:
        """Write the chunk's header and padding. Returns all its bytes."""
        chunk.offset = self.file_bytes
        header = encode_chunk_header(
            ChunkHeader(
                exchange=self.key.number,
                incarnation=incarnation,
                offset=chunk.offset,
                range_index=self.key.range_index,
                epoch=self.key.epoch,
                partition=self.partition,
                blocks=chunk.blocks,
                body_bytes=chunk.body_bytes,
            )
        )
        end = padded(chunk.length)
        first = chunk.memory(arena, 0, CHUNK_HEADER_BYTES)[0]
        first[:] = header
        for segment in chunk.memory(arena, chunk.length, end):
            segment[:] = bytes(len(segment))
        return chunk.memory(arena, 0, end)

    def end_flush(self) -> Chunk:
        """Note that the flushing chunk is durable."""
        chunk = self.flushing
        assert chunk is not None
        self.flushing = None
        chunk.state = ChunkState.STORED
        self.stored.append(chunk)
        self.file_bytes = chunk.offset + padded(chunk.length)
        return chunk
