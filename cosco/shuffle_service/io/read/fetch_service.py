"""Serves readers: one look at a partition, then its chunks as sections of whole blocks.

A message is copied out of pages, or out of what was read from the store, between two awaits
and never across one: a chunk may become stored or be dropped, and a slow reader's piece be
taken back, whenever this waits. What cannot be read is an error of its own section, and the
next one follows. Chunks that lie one behind the other in a file are read as one.

Generators are closed by whoever iterates over them (`aclosing`), so that the memory of a
reader that leaves is free at once, not when the interpreter finds the generator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from typing import Final

from cosco.dfs import Store
from cosco.errors import DataCorrupted, ExchangeClosed
from cosco.format.chunk import CHUNK_HEADER_BYTES, padded
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.wire import fetch_data, spb
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.io.read.store_reader import StoreReader
from cosco.shuffle_service.io.read.stored_files import FoundChunk, chunks_of, files_of_others
from cosco.shuffle_service.state.buffers.partition_buffer import Chunk, ChunkState
from cosco.shuffle_service.state.core import DaemonCore, Piece

log = logging.getLogger(__name__)

#: Readers served at a time; more wait for their turn.
MAX_FETCHES: Final = 256
#: What all of them may hold together in messages: each one that is sent, and one made ahead.
_BUFFERED_BYTES: Final = 32 << 20
_MESSAGE_MIN_BYTES: Final = 64 << 10
_MESSAGE_MAX_BYTES: Final = 1 << 20
_ZEROS: Final = memoryview(bytes(_MESSAGE_MIN_BYTES))


class FetchService:
    """The reading half of the daemon.

    `absorb` puts the copies of an assignment, if there are any, through the buffers.
    """

    def __init__(
        self,
        core: DaemonCore,
        store: Store,
        reads: ReadMemory,
        metrics: DaemonMetrics,
        absorb: Callable[[AssignmentKey], Awaitable[None]],
    ) -> None:
        self._core = core
        self._store = store
        self._reads = reads
        self._metrics = metrics
        self._absorb = absorb
        self._turns = asyncio.Semaphore(MAX_FETCHES)
        self._active = 0

    async def serve(
        self, key: AssignmentKey, partition: int, *, files: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the messages of one Fetch call; raises ExchangeClosed if it is dropped meanwhile.

        `files`: also of files that others wrote. They are sent in any case by a daemon that
        is not the assignment's primary.
        """
        async with self._turns:
            self._active += 1
            try:
                messages = _read_ahead(self._messages(key, partition, files))
                async with aclosing(messages):
                    async for message in messages:
                        yield message
            finally:
                self._active -= 1

    async def _messages(
        self, key: AssignmentKey, partition: int, files: bool
    ) -> AsyncGenerator[bytes, None]:
        self._check_open(key)
        # In this order: a copy that goes meanwhile does so because its rows are in a file.
        await self._absorb(key)
        pieces = self._core.snapshot(key, partition)
        held = self._core.assignment(key)
        is_primary = held is not None and not held.copied_from
        done = 0
        while pieces and done < len(pieces):
            run = _stored_run(pieces, done)
            done += max(1, len(run))
            if len(run) > 1:
                path = pieces[done - 1].chunk.buffer.path
                found = self._from_store(key, path, run)
            else:
                piece = pieces[done - 1]
                found = self._from_chunk(piece.chunk, piece.body_bytes)
            async with aclosing(found):
                async for message in found:
                    yield message
        if files or not is_primary:
            async with aclosing(self._from_files(key, partition)) as found:
                async for message in found:
                    yield message
        self._check_open(key)  # or what is gone looks like nothing

    def _check_open(self, key: AssignmentKey) -> None:
        if self._core.is_dropped(key.number):
            raise _closed()

    def _message_bytes(self) -> int:
        share = _BUFFERED_BYTES // (2 * max(1, self._active))
        return min(max(share, _MESSAGE_MIN_BYTES), _MESSAGE_MAX_BYTES)

    # --- chunks of this process -----------------------------------------------------------

    async def _from_chunk(self, chunk: Chunk, body_bytes: int) -> AsyncGenerator[bytes, None]:
        buffer = chunk.buffer  # whose path may come only when the chunk is flushed
        if chunk.state is ChunkState.LOST:
            yield _failed(f"the chunk at {chunk.offset} of {buffer.path} is gone")
            return
        sent, announced = 0, False
        while sent < body_bytes:
            if chunk.is_dropped():
                raise _closed()
            if chunk.state in {ChunkState.STORED, ChunkState.LOST}:
                rest = [FoundChunk(chunk.offset, body_bytes)]
                stored = self._from_store(buffer.key, buffer.path, rest, sent, announced)
                async with aclosing(stored):
                    async for message in stored:
                        yield message
                return
            if not announced:
                announced = True
                yield _section(body_bytes, chunk.offset, stored=False)
                continue  # it may have been stored meanwhile
            start = CHUNK_HEADER_BYTES + sent
            length = min(self._message_bytes(), body_bytes - sent)
            message = fetch_data(chunk.memory(self._core.arena, start, start + length))
            sent += length
            self._metrics.bytes_fetched.inc(length)
            yield message

    # --- the store ------------------------------------------------------------------------

    async def _from_files(self, key: AssignmentKey, partition: int) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of files that this process did not write, found by their headers."""
        folder = self._core.folder(key)
        try:
            files = await files_of_others(self._store, folder, partition, self._core.incarnation)
        except OSError as error:
            yield self._unreadable(key, f"{folder} cannot be listed: {error}")
            return
        for file in files:
            try:
                async for found in chunks_of(self._store, file, key, partition):
                    async with aclosing(self._from_store(key, file.path, [found])) as messages:
                        async for message in messages:
                            yield message
            except (OSError, DataCorrupted) as error:
                yield self._unreadable(key, str(error))

    async def _from_store(
        self,
        key: AssignmentKey,
        path: str,
        chunks: Sequence[FoundChunk],
        sent: int = 0,
        announced: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """Yield stored chunks that follow each other in a file.

        The first one begins after byte `sent`; its section may have been announced.

        A section is sent after the first read, so that a file that is gone or was cut is an
        error. What fails after that is zeros to the end of the section, which no reader
        takes for blocks, and then an error.
        """
        reader = StoreReader(self._store, self._reads, path)
        try:
            for chunk in chunks:
                while sent < chunk.body_bytes:
                    try:
                        data = await self._read(reader, chunk, sent, _end(chunks[-1]))
                    except (OSError, DataCorrupted) as error:
                        where = f"the chunk at {chunk.offset} of {path}"
                        reason = self._unreadable(key, f"{where}: {error}")
                        if announced:
                            for message in _zeros(chunk.body_bytes - sent):
                                yield message
                        yield reason
                        break
                    message = fetch_data(data)
                    if not announced:
                        announced = True
                        yield _section(chunk.body_bytes, chunk.offset, stored=True)
                    length = sum(map(len, data))
                    sent += length
                    self._metrics.bytes_fetched.inc(length)
                    yield message
                sent, announced = 0, False
        finally:
            reader.close()

    async def _read(
        self, reader: StoreReader, chunk: FoundChunk, sent: int, run_end: int
    ) -> list[memoryview]:
        """Return the next bytes of a chunk's body, valid until the next await."""
        position, end = chunk.offset + CHUNK_HEADER_BYTES + sent, _end(chunk)
        length = min(self._message_bytes(), chunk.body_bytes - sent)
        try:
            return await reader.at(position, length, end, run_end)
        except (OSError, DataCorrupted):
            if run_end == end:
                raise
            # What could not be read may be of the chunks behind it only.
            return await reader.at(position, length, end, end)

    def _unreadable(self, key: AssignmentKey, reason: str) -> bytes:
        """Return an error section; raises ExchangeClosed if that is why."""
        self._check_open(key)
        log.warning("%s", reason)
        self._metrics.fetch_failures.inc()
        return _failed(reason)


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


def _stored_run(pieces: Sequence[Piece], first: int) -> list[FoundChunk]:
    """Return those of pieces[first:] that are stored and follow each other in one file."""
    run: list[FoundChunk] = []
    for piece in pieces[first:]:
        chunk = piece.chunk
        follows = not run or padded(_end(run[-1])) == chunk.offset
        if chunk.state is not ChunkState.STORED or not follows:
            break
        run.append(FoundChunk(chunk.offset, piece.body_bytes))
    return run


def _end(chunk: FoundChunk) -> int:
    """Return where the blocks of a chunk end in its file."""
    return chunk.offset + CHUNK_HEADER_BYTES + chunk.body_bytes


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
