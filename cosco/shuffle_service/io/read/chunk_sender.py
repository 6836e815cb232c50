"""Makes the replies of a fetch out of chunks, each as sections of whole blocks.

A reply is copied out of pages, or out of what was read from the store, between two awaits and never
across one: a chunk may become stored or be dropped, and a slow reader's piece be taken back, while
this waits. What cannot be read is an error of its own section, and the next one follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from pyroaring import BitMap

from cosco.errors import DataCorrupted
from cosco.format.block import HEADER_BYTES
from cosco.protocol.fetch_records import Reference
from cosco.protocol.wire import fetch_data, fetch_failure, fetch_reference, fetch_section
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.chunk_body import HeldBody, StoredBody
from cosco.shuffle_service.state.block_choice import BlockChoice, Chosen
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.section_rows import SectionRows
from cosco.shuffle_service.state.reply_pack import ReplyPack

log = logging.getLogger(__name__)

#: What stands around the data of one section, at most.
_AROUND_BYTES: Final = 64
_ZEROS: Final = memoryview(bytes(64 << 10))

Body = StoredBody | HeldBody


class ChunkSender:
    """Sends what one reader is given, in order; for one task."""

    def __init__(
        self,
        number: int,
        mappers: BitMap,
        pack: ReplyPack,
        metrics: DaemonMetrics,
        message_bytes: Callable[[], int],
        check_open: Callable[[], None],
    ) -> None:
        """Begin with nothing.

        number: of the exchange. mappers: whose rows are wanted; empty: everybody's. message_bytes:
        the length of a message, at present. check_open: raises ExchangeClosed.
        """
        self._number = number
        self._mappers = mappers
        self._pack = pack
        self._metrics = metrics
        self._message_bytes = message_bytes
        self._check_open = check_open
        self._now = asyncio.get_running_loop().time

    # --- messages -------------------------------------------------------------------------

    def add(self, reply: bytes) -> None:
        """Have a reply sent, with others or by itself."""
        self._pack.add(reply, self._now())

    def full(self, length: int = _AROUND_BYTES) -> list[bytes]:
        """Return what must be sent before a reply of `length` bytes is made: nothing if it fits."""
        has_room = self._pack.has_room(length, self._message_bytes())
        return [] if has_room else self._pack.pop()

    def due(self) -> list[bytes]:
        """Return what must be sent before something is waited for, as it has waited itself."""
        return self._pack.pop() if self._pack.is_due(self._now()) else []

    def rest(self) -> list[bytes]:
        """Return what is still to be sent."""
        return self._pack.pop()

    def unreadable(self, reason: str) -> bytes:
        """Return an error section; raises ExchangeClosed if that is why."""
        self._check_open()
        log.warning("%s", reason)
        self._metrics.fetch_failures.inc()
        return fetch_failure(reason)

    # --- chunks ---------------------------------------------------------------------------

    def has_room_for_all(self, length: int, chunks: int) -> bool:
        """Whether some chunks, of `length` bytes of blocks, can be sent with what waits, whole."""
        length += chunks * _AROUND_BYTES
        limit = self._message_bytes()
        return not self._mappers and length <= limit and self._pack.has_room(length, limit)

    def add_blocks(self, blocks: Sequence[memoryview], offset: int) -> None:
        """Send a chunk that is in memory with what waits: there is room for it.

        Small partitions come by the hundred, and what awaits costs more than their rows.
        """
        length = sum(map(len, blocks))
        if length:
            self.add(fetch_section(length, offset, stored=False))
            self._add_blocks(blocks, length, mechanics_choice.CHOSEN.section_rows())

    def add_reference(self, body_bytes: int, offset: int, reference: Reference) -> list[bytes]:
        """Have the reader read a chunk from the store itself.

        Returns: the messages that are full before.
        """
        reply = fetch_reference(body_bytes, offset, reference)
        full = self.full(len(reply))
        self.add(reply)
        self._metrics.bytes_referenced.inc(body_bytes)
        return full

    async def send(self, body: Body, partition: int) -> AsyncGenerator[bytes, None]:
        """Yield the messages that are full on the way through a chunk's blocks."""
        if not self._mappers:
            sent = self._whole(body, 0, body.body_bytes)
        else:
            sent = self._chosen(body, BlockChoice(self._number, partition, self._mappers))
        async with aclosing(sent):
            async for message in sent:
                yield message

    async def _whole(self, body: Body, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Send bytes [start, end) of a chunk's blocks as one section.

        The section is made after the first read, so that a file that is gone or was cut is an
        error. What fails after that is zeros to the end of the section, which no reader takes for
        blocks, and then an error.
        """
        sent, rows = start, mechanics_choice.CHOSEN.section_rows()
        while sent < end:
            length = min(self._message_bytes(), end - sent)
            if (full := self.full(length + _AROUND_BYTES)) or (full := self._due_for(body, sent)):
                for message in full:
                    yield message
                continue  # it may have been stored meanwhile
            stored = body.is_stored
            try:
                data = await body.at(sent, length)
            except TimeoutError:
                raise
            except (OSError, DataCorrupted) as error:
                reason = self.unreadable(f"{body.where}: {error}")
                for zeros in _zeros(end - sent if sent > start else 0):
                    for message in self.full(len(zeros)):
                        yield message
                    self.add(zeros)
                self.add(reason)
                return
            if sent == start:
                self.add(fetch_section(end - start, body.offset, stored=stored))
            length = sum(map(len, data))
            self._add_blocks(data, length, rows)
            sent += length

    async def _chosen(self, body: Body, choice: BlockChoice) -> AsyncGenerator[bytes, None]:
        """Send the blocks that are wanted, and the headers of the others.

        What does not parse, and all that follows it in the chunk, is sent as it is: the reader
        judges it.
        """
        position, end = 0, body.body_bytes
        while position < end:
            length = min(self._message_bytes(), end - position)
            if (full := self.full(length + 2 * _AROUND_BYTES)) or (
                full := self._due_for(body, position)
            ):
                for message in full:
                    yield message
                continue
            try:
                views = await body.at(position, length)
                chosen = choice.look_at(views, end - position)
                if chosen.taken:
                    self._add_chosen(body, chosen)
                    position += chosen.taken
                    continue
                header = await _header(body, position)
                length, is_wanted = choice.one(header, end - position)
            except TimeoutError:
                raise
            except DataCorrupted:
                length, is_wanted = end - position, True
            except OSError as error:
                self.add(self.unreadable(f"{body.where}: {error}"))
                return
            if not is_wanted:
                self._add_chosen(body, Chosen(length, [], 0, header))
            else:
                whole = self._whole(body, position, position + length)
                async with aclosing(whole):
                    async for message in whole:
                        yield message
            position += length

    def _add_chosen(self, body: Body, chosen: Chosen) -> None:
        if chosen.headers:
            length = len(chosen.headers)
            section = fetch_section(length, body.offset, stored=body.is_stored, headers=True)
            self.add(section)
            self._add_data([memoryview(chosen.headers)], length)
        if chosen.wanted:
            self.add(fetch_section(chosen.wanted_bytes, body.offset, stored=body.is_stored))
            rows = mechanics_choice.CHOSEN.section_rows()
            self._add_blocks(chosen.wanted, chosen.wanted_bytes, rows)

    def _add_blocks(self, parts: Sequence[memoryview], length: int, rows: SectionRows) -> None:
        """Send what comes next of a section of blocks, whose rows are counted by `rows`."""
        self._add_data(parts, length)
        self._metrics.rows_fetched.inc(rows.feed(parts))

    def _add_data(self, parts: Sequence[memoryview], length: int) -> None:
        self.add(fetch_data(parts))
        self._metrics.bytes_fetched.inc(length)

    def _due_for(self, body: Body, position: int) -> list[bytes]:
        return [] if body.is_at_hand(position) else self.due()


async def _header(body: Body, position: int) -> bytes:
    """Return the header of the block at `position`, of which a part was not at hand."""
    if body.body_bytes - position < HEADER_BYTES:
        raise DataCorrupted("a block header is cut short at the end of its chunk")
    header = b""
    while len(header) < HEADER_BYTES:
        parts = await body.at(position + len(header), HEADER_BYTES - len(header))
        header += b"".join(parts)
    return header


def _zeros(length: int) -> Iterator[bytes]:
    for first in range(0, length, len(_ZEROS)):
        yield fetch_data([_ZEROS[: length - first]])
