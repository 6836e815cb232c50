"""Serves readers: one look at a partition, then its chunks as sections of whole blocks.

A piece is copied out of pages, or read from the store, between two awaits and never across
one: a chunk may become stored, or be dropped, whenever this waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from cosco.chunks import CHUNK_HEADER_BYTES, ChunkHeader, parse_chunk_header
from cosco.dfs import Store
from cosco.errors import DataCorrupted, ExchangeClosed
from cosco.shuffle_service.buffers import AssignmentKey, Chunk, ChunkState
from cosco.shuffle_service.core import DaemonCore
from cosco.shuffle_service.metrics import DaemonMetrics
from cosco.wire import fetch_data, spb

#: Readers served at a time; more wait for their turn.
MAX_FETCHES: Final = 256
#: What all of them may hold together: each one read or message that is sent, one made ahead.
_BUFFERED_BYTES: Final = 64 << 20
#: One read of the store; a chunk of the usual size is one.
_READ_MIN_BYTES: Final = 64 << 10
_READ_MAX_BYTES: Final = 1 << 20
_MESSAGE_MAX_BYTES: Final = 1 << 20


class FetchService:
    """The reading half of the daemon."""

    def __init__(self, core: DaemonCore, store: Store, metrics: DaemonMetrics) -> None:
        self._core = core
        self._store = store
        self._metrics = metrics
        self._turns = asyncio.Semaphore(MAX_FETCHES)
        self._active = 0

    async def serve(self, key: AssignmentKey, partition: int) -> AsyncIterator[bytes]:
        """The messages of one Fetch call; raises ExchangeClosed if it is dropped meanwhile."""
        async with self._turns:
            self._active += 1
            try:
                async for message in _read_ahead(self._messages(key, partition)):
                    yield message
            finally:
                self._active -= 1

    async def _messages(self, key: AssignmentKey, partition: int) -> AsyncGenerator[bytes, None]:
        pieces = self._core.snapshot(key, partition)
        if pieces is None:
            async for message in self._from_files(key, partition):
                yield message
            return
        for piece in pieces:
            async for message in self._from_chunk(piece.chunk, piece.body_bytes):
                yield message

    def _read_bytes(self) -> int:
        share = _BUFFERED_BYTES // (2 * max(1, self._active))
        return min(max(share, _READ_MIN_BYTES), _READ_MAX_BYTES)

    async def _from_chunk(self, chunk: Chunk, body_bytes: int) -> AsyncIterator[bytes]:
        if chunk.state is ChunkState.LOST:
            yield _lost(chunk)
            return
        yield _section(body_bytes, chunk.offset, stored=chunk.state is ChunkState.STORED)
        sent = 0
        while sent < body_bytes:
            if chunk.is_dropped():
                raise ExchangeClosed("the exchange was closed while it was read")
            start = CHUNK_HEADER_BYTES + sent
            if chunk.state in {ChunkState.STORED, ChunkState.LOST}:
                end = chunk.offset + CHUNK_HEADER_BYTES + body_bytes
                path = chunk.buffer.path
                async for message in self._from_store(path, chunk.offset + start, end):
                    yield message
                return
            length = min(self._read_bytes(), _MESSAGE_MAX_BYTES, body_bytes - sent)
            message = fetch_data(chunk.memory(self._core.arena, start, start + length))
            sent += length
            self._metrics.bytes_fetched.inc(length)
            yield message

    async def _from_files(self, key: AssignmentKey, partition: int) -> AsyncIterator[bytes]:
        """The chunks of files that this process did not write, found by their headers."""
        for file in await self._store.list(f"{self._core.folder(key)}{partition}-"):
            offset = 0
            while offset < file.size_bytes:
                header = await self._header_at(file.path, offset, key, partition)
                if header is None or offset + header.padded_bytes > file.size_bytes:
                    break  # a torn tail, which was never called durable
                yield _section(header.body_bytes, offset, stored=True)
                start = offset + CHUNK_HEADER_BYTES
                async for message in self._from_store(file.path, start, start + header.body_bytes):
                    yield message
                offset += header.padded_bytes

    async def _header_at(
        self, path: str, offset: int, key: AssignmentKey, partition: int
    ) -> ChunkHeader | None:
        try:
            header = parse_chunk_header(await self._store.read(path, offset, CHUNK_HEADER_BYTES))
        except DataCorrupted:
            return None
        found = (header.exchange, header.range_index, header.epoch, header.partition)
        return header if found == (*key, partition) and header.offset == offset else None

    async def _from_store(self, path: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes [start, end) of a file in large reads, cut into messages."""
        while start < end:
            length = min(self._read_bytes(), end - start)
            data = await self._store.read(path, start, length)
            if len(data) != length:
                raise DataCorrupted(
                    f"{path} has {len(data)} of {length} bytes at {start}: the file was cut short"
                )
            start += length
            self._metrics.bytes_fetched.inc(length)
            view = memoryview(data)
            for first in range(0, length, _MESSAGE_MAX_BYTES):
                yield fetch_data([view[first : first + _MESSAGE_MAX_BYTES]])


async def _read_ahead(messages: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The same messages; while one is sent, the next is read already."""
    ahead = asyncio.ensure_future(anext(messages, None))
    try:
        while (message := await ahead) is not None:
            ahead = asyncio.ensure_future(anext(messages, None))
            yield message
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)
        await messages.aclose()


def _section(body_bytes: int, offset: int, *, stored: bool) -> bytes:
    section = spb.Section(body_bytes=body_bytes, offset=offset, stored=stored)
    return spb.FetchReply(section=section).SerializeToString()


def _lost(chunk: Chunk) -> bytes:
    section = spb.Section(error=f"the chunk at {chunk.offset} of {chunk.buffer.path} is gone")
    return spb.FetchReply(section=section).SerializeToString()
