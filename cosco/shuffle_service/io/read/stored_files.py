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

from cosco.dfs import Store, StoredFile
from cosco.errors import DataCorrupted
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, ChunkHeader, parse_chunk_header
from cosco.protocol.keys import AssignmentKey

#: partition and incarnation; what else lies in the folder is nobody's.
_NAME: Final = re.compile(r"(\d{1,10})-([0-9a-f]{16})")
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FoundChunk:
    """Where a chunk is in its file, and the length of its blocks."""

    offset: int
    body_bytes: int


async def files_of_others(
    store: Store, folder: str, partition: int, incarnation: int
) -> list[StoredFile]:
    """List the files of a partition in an assignment's folder, but for this incarnation's own.

    Raises OSError.
    """
    found = []
    for file in await store.list(f"{folder}{partition}-"):
        name = _NAME.fullmatch(file.path.removeprefix(folder))
        if name is not None and int(name[2], 16) != incarnation:
            found.append(file)
    return found


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
