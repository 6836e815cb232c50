"""Finds chunks in segments: by the index at their end or, where there is none, by their headers.

A walk by headers knows two ends that are no fault: of the file, and of a *torn tail*, which is
what a daemon left that died while it wrote. Nobody was told that a torn segment is durable. A
header that does not check with data behind it is a fault, as rows may be lost with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from pyroaring import BitMap

from cosco.dfs import Store
from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT, ChunkHeader, parse_chunk_header
from cosco.format.segment import (
    FOOTER_BYTES,
    SegmentId,
    SegmentIndex,
    index_bytes,
    index_place,
    parse_index,
    parse_segment_name,
)
from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state.buffers.stored_segment import StoredSegment
from cosco.shuffle_service.state.segments.segment_indexes import KeptIndexes

#: What is read of the end of a segment: most indexes are no longer.
_TAIL_BYTES: Final = 16 << 10
#: What is read at a time of a segment that is walked.
_WALK_BYTES: Final = 256 << 10
#: For how long what a walk found is believed: another daemon may still be writing.
_WALKED_S: Final = 5.0
#: Indexes that are read at once for one reader.
_AT_ONCE: Final = 16
#: What walks that are remembered may take up together.
_WALKED_BYTES: Final = 1 << 20


class SegmentsOfOthers:
    """The segments of some partitions in an assignment's folder, but for one incarnation's own.

    The folder is listed once, when the first is asked for.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        key: AssignmentKey,
        partitions: BitMap,
        incarnation: int,
    ) -> None:
        self._store = store
        self._folder = folder
        self._key = key
        self._partitions = partitions
        self._incarnation = incarnation
        self._found: list[StoredSegment] | None = None

    async def of(self, partition: int) -> list[StoredSegment]:
        """Return the segments that may have chunks of a partition, each daemon's oldest first.

        Raises: OSError.
        """
        if self._found is None:
            self._found = await self._list()
        return [one for one in self._found if one.first <= partition <= one.last]

    async def _list(self) -> list[StoredSegment]:
        number, range_index, epoch = self._key
        found: list[StoredSegment] = []
        for file in await self._store.list(self._folder):
            name = parse_segment_name(file.path.removeprefix(self._folder))
            if name is None or name.incarnation == self._incarnation:
                continue
            if self._partitions.range_cardinality(name.first, name.last + 1):
                segment_id = SegmentId(number, range_index, epoch, name.incarnation, name.serial)
                found.append(
                    StoredSegment(segment_id, file.path, file.size_bytes, name.first, name.last)
                )
        # By names a reader would get rows as they were written last, and hold more to order them.
        found.sort(key=lambda one: (one.id.incarnation, one.id.serial))
        return found


class SegmentIndexes:
    """Gives indexes of segments: those that are kept, or what the store has.

    now: a clock, in seconds.
    """

    def __init__(
        self, store: Store, kept: KeptIndexes, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._kept = kept
        self._now = now
        self._walked: dict[StoredSegment, tuple[float, SegmentIndex]] = {}

    async def of(
        self, segments: Sequence[StoredSegment]
    ) -> AsyncIterator[tuple[StoredSegment, SegmentIndex | OSError]]:
        """Yield the indexes of segments, in order; for one that cannot be read the error.

        Raises: TimeoutError.
        """
        for first in range(0, len(segments), _AT_ONCE):
            batch = segments[first : first + _AT_ONCE]
            found: dict[StoredSegment, SegmentIndex | OSError] = {}
            for segment in batch:
                if (kept := self._kept.get(segment.path, segment.size_bytes)) is not None:
                    found[segment] = kept
            away = [segment for segment in batch if segment not in found]
            if away:
                read = await asyncio.gather(*map(self._get, away))
                found |= zip(away, read, strict=True)
            for segment in batch:
                if isinstance(index := found[segment], TimeoutError):
                    raise index
                yield segment, index

    def has(self, segment: StoredSegment) -> bool:
        """Whether its index is kept, so that `of` does not wait for it."""
        return self._kept.get(segment.path, segment.size_bytes) is not None

    async def _get(self, segment: StoredSegment) -> SegmentIndex | OSError:
        walked = self._walked.get(segment)
        if walked is not None and self._now() - walked[0] < _WALKED_S:
            return walked[1]
        try:
            try:
                index = await self._read(segment)
            except DataCorrupted:
                index = await _walk(self._store, segment)
                self._remember(segment, index)
            else:
                self._kept.put(segment.path, segment.size_bytes, index)
        except OSError as error:
            return error
        return index

    async def _read(self, segment: StoredSegment) -> SegmentIndex:
        size_bytes = segment.size_bytes
        start = max(0, size_bytes - _TAIL_BYTES)
        tail = await self._store.read(segment.path, start, size_bytes - start)
        place = index_place(segment.id, size_bytes, tail[-FOOTER_BYTES:])
        if place < start:
            tail = await self._store.read(segment.path, place, size_bytes - place)
            start = place
        return parse_index(tail[place - start :], place)

    def _remember(self, segment: StoredSegment, index: SegmentIndex) -> None:
        self._walked.pop(segment, None)
        self._walked[segment] = self._now(), index
        while sum(kept.cost_bytes for _, kept in self._walked.values()) > _WALKED_BYTES:
            del self._walked[next(iter(self._walked))]


async def _walk(store: Store, segment: StoredSegment) -> SegmentIndex:
    """Return the chunks of a segment by their headers, up to its index, its end or its torn tail.

    Raises: OSError.
    """
    index, window = SegmentIndex(), _Window(store, segment.path)
    offset, size_bytes = 0, segment.size_bytes
    while size_bytes - offset >= ALIGNMENT:  # every chunk is a multiple of it
        data = await window.at(offset)
        try:
            header = _checked(data, offset, segment.id)
            if header.padded_bytes > size_bytes - offset:
                break
            index.add(header.partition, header.blocks, offset, header.body_bytes)
        except DataCorrupted as error:
            is_index = size_bytes - offset == index_bytes(len(index))
            if not (is_index or await _is_zero(window, offset, size_bytes)):
                index.damage = (
                    f"{segment.path} at {offset}: {error}; nothing from there on can be read"
                )
            break
        offset += header.padded_bytes
    return index


def _checked(data: bytes | memoryview, offset: int, id: SegmentId) -> ChunkHeader:
    header = parse_chunk_header(data)
    found = header.exchange, header.range_index, header.epoch, header.incarnation
    if found != (id.exchange, id.range_index, id.epoch, id.incarnation) or header.offset != offset:
        raise DataCorrupted("the header of a chunk of another place")
    return header


async def _is_zero(window: _Window, offset: int, size_bytes: int) -> bool:
    """Whether there is nothing but zeros from `offset` on: space without a write."""
    while offset < size_bytes:
        data = await window.at(offset)
        if any(data) or not data:  # nothing: it was cut since it was listed
            return False
        offset += len(data)
    return True


class _Window:
    """A part of a file in memory, which moves to where it is asked for."""

    def __init__(self, store: Store, path: str) -> None:
        self._store = store
        self._path = path
        self._start = 0
        self._data = b""

    async def at(self, offset: int) -> memoryview:
        """Return what is in memory from `offset` on: one aligned piece at least, if there is."""
        at = offset - self._start
        if not 0 <= at <= len(self._data) - ALIGNMENT:
            self._data = await self._store.read(self._path, offset, _WALK_BYTES)
            self._start, at = offset, 0
        return memoryview(self._data)[at:]
