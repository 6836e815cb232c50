"""The blocks of one chunk, wherever they are by the time they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cosco.errors import ExchangeClosed
from cosco.format.chunk import CHUNK_HEADER_BYTES
from cosco.shuffle_service.io.read.store_reader import Extent, StoreReader
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, ChunkState

IN_MEMORY: Final = frozenset({ChunkState.OPEN, ChunkState.FLUSHING})


class StoredBody:
    """A chunk in the store: one of the extents of `reader`."""

    is_stored = True

    def __init__(self, reader: StoreReader, index: int) -> None:
        self.reader = reader
        self._index = index
        self._path, self.offset, length = reader.extents[index]
        self.body_bytes = length - CHUNK_HEADER_BYTES

    @property
    def where(self) -> str:
        """Return which chunk it is, for messages."""
        return f"the chunk at {self.offset} of {self._path}"

    def is_at_hand(self, position: int) -> bool:
        """Whether the bytes at `position` are there without a wait."""
        return self.reader.has(self._index, CHUNK_HEADER_BYTES + position)

    async def at(self, position: int, length: int) -> list[memoryview]:
        """Return up to `length` bytes of the blocks from `position` on, one or more.

        There must be as many. They are valid until the next await. Raises OSError, DataCorrupted or
        ExchangeClosed.
        """
        return await self.reader.at(self._index, CHUNK_HEADER_BYTES + position, length)


class HeldBody:
    """A chunk of this process, at its length when a reader looked.

    It may be stored while it is sent: it goes on from its segment, so a slow reader holds no page.
    """

    def __init__(
        self,
        chunk: Chunk,
        body_bytes: int,
        arena: memoryview,
        open_reader: Callable[[Sequence[Extent]], StoreReader],
    ) -> None:
        """open_reader: of some extents; `close` must follow."""
        self._chunk = chunk
        self._arena = arena
        self._open_reader = open_reader
        self._in_segment: StoredBody | None = None
        self.body_bytes = body_bytes

    def close(self) -> None:
        """Give back what was read."""
        if self._in_segment is not None:
            self._in_segment.reader.close()

    @property
    def offset(self) -> int:
        return self._chunk.offset

    @property
    def is_stored(self) -> bool:
        """Whether it is no longer in memory."""
        return self._chunk.state not in IN_MEMORY

    @property
    def where(self) -> str:
        """Return which chunk it is, for messages."""
        return f"the chunk at {self.offset} of {self._chunk.path}"

    def is_at_hand(self, position: int) -> bool:
        """Whether the bytes at `position` are there without a wait."""
        if not self.is_stored:
            return True
        return self._in_segment is not None and self._in_segment.is_at_hand(position)

    async def at(self, position: int, length: int) -> list[memoryview]:
        """Return up to `length` bytes of the blocks from `position` on, as `StoredBody.at`."""
        chunk = self._chunk
        if chunk.is_dropped():
            raise ExchangeClosed("it was dropped while it was read: with its exchange, or epoch")
        if not self.is_stored:
            start = CHUNK_HEADER_BYTES + position
            return chunk.memory(self._arena, start, start + length)
        return await self._stored().at(position, length)

    def _stored(self) -> StoredBody:
        if self._in_segment is None:
            extent = Extent(self._chunk.path, self.offset, CHUNK_HEADER_BYTES + self.body_bytes)
            self._in_segment = StoredBody(self._open_reader([extent]), 0)
        return self._in_segment
