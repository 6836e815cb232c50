"""Serves readers: one look at a partition, then its chunks as sections of whole blocks.

A piece is copied out of pages, or read from the store, between two awaits and never across
one: a chunk may become stored, or be dropped, whenever this waits. What cannot be read is
an error of its own section, and the next one follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from cosco.chunks import CHUNK_HEADER_BYTES
from cosco.dfs import Store
from cosco.errors import DataCorrupted, ExchangeClosed
from cosco.shuffle_service.buffers import AssignmentKey, Chunk, ChunkState
from cosco.shuffle_service.core import DaemonCore
from cosco.shuffle_service.metrics import DaemonMetrics
from cosco.shuffle_service.stored_files import chunks_of, files_of_others
from cosco.wire import fetch_data, spb

log = logging.getLogger(__name__)

#: Readers served at a time; more wait for their turn.
MAX_FETCHES: Final = 256
#: What all of them may hold together: each one read or message that is sent, one made ahead.
_BUFFERED_BYTES: Final = 64 << 20
#: One read of the store; a chunk of the usual size is one.
_READ_MIN_BYTES: Final = 64 << 10
_READ_MAX_BYTES: Final = 1 << 20
_MESSAGE_MAX_BYTES: Final = 1 << 20
_ZEROS: Final = memoryview(bytes(_READ_MIN_BYTES))


class FetchService:
    """The reading half of the daemon.

    `settle` puts the copies of an assignment, if there are any, through the buffers.
    """

    def __init__(
        self,
        core: DaemonCore,
        store: Store,
        metrics: DaemonMetrics,
        settle: Callable[[AssignmentKey], Awaitable[None]],
    ) -> None:
        self._core = core
        self._store = store
        self._metrics = metrics
        self._settle = settle
        self._turns = asyncio.Semaphore(MAX_FETCHES)
        self._active = 0

    async def serve(
        self, key: AssignmentKey, partition: int, *, files: bool = False
    ) -> AsyncIterator[bytes]:
        """The messages of one Fetch call; raises ExchangeClosed if it is dropped meanwhile.

        `files`: also of files that others wrote. They are sent in any case by a daemon that
        is not the assignment's primary.
        """
        async with self._turns:
            self._active += 1
            try:
                async for message in _read_ahead(self._messages(key, partition, files)):
                    yield message
            finally:
                self._active -= 1

    async def _messages(
        self, key: AssignmentKey, partition: int, files: bool
    ) -> AsyncGenerator[bytes, None]:
        self._check_open(key)
        # In this order: a copy that goes meanwhile does so because its rows are in a file.
        await self._settle(key)
        pieces = self._core.snapshot(key, partition)
        held = self._core.assignment(key)
        is_primary = held is not None and not held.copied_from
        for piece in pieces or ():
            async for message in self._from_chunk(piece.chunk, piece.body_bytes):
                yield message
        if files or not is_primary:
            async for message in self._from_files(key, partition):
                yield message
        self._check_open(key)  # or what is gone looks like nothing

    def _check_open(self, key: AssignmentKey) -> None:
        if self._core.is_dropped(key[0]):
            raise _closed()

    def _read_bytes(self) -> int:
        share = _BUFFERED_BYTES // (2 * max(1, self._active))
        return min(max(share, _READ_MIN_BYTES), _READ_MAX_BYTES)

    # --- chunks of this process -----------------------------------------------------------

    async def _from_chunk(self, chunk: Chunk, body_bytes: int) -> AsyncIterator[bytes]:
        key, path = chunk.buffer.key, chunk.buffer.path
        if chunk.state is ChunkState.LOST:
            yield _failed(f"the chunk at {chunk.offset} of {path} is gone")
            return
        sent, announced = 0, False
        while sent < body_bytes:
            if chunk.is_dropped():
                raise _closed()
            if chunk.state in {ChunkState.STORED, ChunkState.LOST}:
                stored = self._from_store(key, path, chunk.offset, body_bytes, sent, announced)
                async for message in stored:
                    yield message
                return
            if not announced:
                announced = True
                yield _section(body_bytes, chunk.offset, stored=False)
                continue  # it may have been stored meanwhile
            start = CHUNK_HEADER_BYTES + sent
            length = min(self._read_bytes(), _MESSAGE_MAX_BYTES, body_bytes - sent)
            message = fetch_data(chunk.memory(self._core.arena, start, start + length))
            sent += length
            self._metrics.bytes_fetched.inc(length)
            yield message

    # --- the store ------------------------------------------------------------------------

    async def _from_files(self, key: AssignmentKey, partition: int) -> AsyncIterator[bytes]:
        """The chunks of files that this process did not write, found by their headers."""
        folder = self._core.folder(key)
        try:
            files = await files_of_others(self._store, folder, partition, self._core.incarnation)
        except OSError as error:
            yield self._unreadable(key, f"{folder} cannot be listed: {error}")
            return
        for file in files:
            try:
                async for found in chunks_of(self._store, file, key, partition):
                    chunk = self._from_store(key, file.path, found.offset, found.body_bytes)
                    async for message in chunk:
                        yield message
            except (OSError, DataCorrupted) as error:
                yield self._unreadable(key, str(error))

    async def _from_store(
        self,
        key: AssignmentKey,
        path: str,
        offset: int,
        body_bytes: int,
        sent: int = 0,
        announced: bool = False,
    ) -> AsyncIterator[bytes]:
        """A stored chunk in large reads, cut into messages; all of it from byte `sent` on.

        Its section is sent after the first read, so that a file that is gone or was cut is
        an error. What fails after that is zeros to the end of the section, which no reader
        takes for blocks, and then an error.
        """
        while sent < body_bytes:
            length = min(self._read_bytes(), body_bytes - sent)
            try:
                data = await self._read(path, offset + CHUNK_HEADER_BYTES + sent, length)
            except (OSError, DataCorrupted) as error:
                reason = self._unreadable(key, f"the chunk at {offset} of {path}: {error}")
                if announced:
                    for message in _zeros(body_bytes - sent):
                        yield message
                yield reason
                return
            if not announced:
                announced = True
                yield _section(body_bytes, offset, stored=True)
            sent += length
            self._metrics.bytes_fetched.inc(length)
            view = memoryview(data)
            for first in range(0, length, _MESSAGE_MAX_BYTES):
                yield fetch_data([view[first : first + _MESSAGE_MAX_BYTES]])

    async def _read(self, path: str, start: int, length: int) -> bytes:
        data = await self._store.read(path, start, length)
        if len(data) != length:
            raise DataCorrupted(f"the file was cut short at {start + len(data)}")
        return data

    def _unreadable(self, key: AssignmentKey, reason: str) -> bytes:
        """An error section; raises ExchangeClosed if that is why."""
        self._check_open(key)
        log.warning("%s", reason)
        self._metrics.fetch_failures.inc()
        return _failed(reason)


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


def _closed() -> ExchangeClosed:
    return ExchangeClosed("the exchange is closed, or was while it was read")


def _section(body_bytes: int, offset: int, *, stored: bool) -> bytes:
    section = spb.Section(body_bytes=body_bytes, offset=offset, stored=stored)
    return spb.FetchReply(section=section).SerializeToString()


def _failed(reason: str) -> bytes:
    return spb.FetchReply(section=spb.Section(error=reason)).SerializeToString()


def _zeros(length: int) -> Iterator[bytes]:
    for first in range(0, length, len(_ZEROS)):
        yield fetch_data([_ZEROS[: length - first]])
