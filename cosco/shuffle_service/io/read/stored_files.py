"""Finds chunks in files that this process did not write: by walking their headers.

A walk knows two ends that are no fault: of the file, and of a *torn tail*, which is what a
daemon left that died while it appended. Nobody was told that a torn chunk is durable. A
header that does not check with data behind it is a fault, as rows may be lost with it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from pyroaring import BitMap

from cosco.dfs import Store, StoredFile
from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, ChunkHeader, parse_chunk_header
from cosco.protocol.keys import AssignmentKey

#: partition and incarnation; what else lies in the folder is nobody's.
_NAME: Final = re.compile(r"(0|[1-9]\d{0,9})-([0-9a-f]{16})")
_READ_BYTES: Final = 1 << 20
#: What is kept of a folder for one reader: it may have hundreds of thousands of files.
LISTED_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class FoundChunk:
    """Where a chunk is in its file, and the length of its blocks."""

    offset: int
    body_bytes: int


def body_end(chunk: FoundChunk) -> int:
    """Return where the blocks of a chunk end in its file."""
    return chunk.offset + CHUNK_HEADER_BYTES + chunk.body_bytes


class FilesOfOthers:
    """The files of some partitions in an assignment's folder, but for one incarnation's own.

    The folder is listed once for LISTED_AT_ONCE partitions, which are asked for ascending.
    """

    def __init__(self, store: Store, folder: str, partitions: BitMap, incarnation: int) -> None:
        self._store = store
        self._folder = folder
        self._partitions = partitions
        self._incarnation = incarnation
        self._listed = BitMap()
        self._found: dict[int, list[StoredFile]] = {}

    async def of(self, partition: int) -> list[StoredFile]:
        """Return the files of one of the partitions. Raises OSError."""
        if partition not in self._listed:
            await self._list(partition)
        return self._found.pop(partition, [])

    async def _list(self, partition: int) -> None:
        at = self._partitions.rank(partition) - 1
        self._listed = self._partitions[at : at + LISTED_AT_ONCE]
        self._found = {}
        prefix = self._folder if len(self._listed) > 1 else f"{self._folder}{partition}-"
        for file in await self._store.list(prefix):
            name = _NAME.fullmatch(file.path.removeprefix(self._folder))
            if name is None or int(name[2], 16) == self._incarnation:
                continue
            if (found := int(name[1])) in self._listed:
                self._found.setdefault(found, []).append(file)


async def chunks_of(
    store: Store, file: StoredFile, key: AssignmentKey, partition: int
) -> AsyncIterator[FoundChunk]:
    """Yield the chunks of a file in order, up to its end or its torn tail.

    Raises OSError, and DataCorrupted where what follows cannot be known.
    """
    offset = 0
    while file.size_bytes - offset >= ALIGNMENT:  # every write is a multiple of it
        data = await store.read(file.path, offset, CHUNK_HEADER_BYTES)
        try:
            header = _checked(data, offset, key, partition)
        except DataCorrupted as error:
            if await _is_zero(store, file, offset):
                return
            raise DataCorrupted(
                f"{file.path} at {offset}: {error}; nothing from there on can be read"
            ) from None
        if header.padded_bytes > file.size_bytes - offset:
            return
        yield FoundChunk(offset, header.body_bytes)
        offset += header.padded_bytes


def _checked(data: bytes, offset: int, key: AssignmentKey, partition: int) -> ChunkHeader:
    header = parse_chunk_header(data)
    found = (header.exchange, header.range_index, header.epoch, header.partition)
    if found != (*key, partition) or header.offset != offset:
        raise DataCorrupted("the header of a chunk of another place")
    return header


async def _is_zero(store: Store, file: StoredFile, offset: int) -> bool:
    """Whether there is nothing but zeros from `offset` on: space without a write."""
    while offset < file.size_bytes:
        data = await store.read(file.path, offset, _READ_BYTES)
        if any(data) or not data:  # nothing: it was cut since it was listed
            return False
        offset += len(data)
    return True
