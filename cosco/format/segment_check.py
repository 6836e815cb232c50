"""Checks a whole segment: every byte of it is covered by a checksum, or is zero."""

from __future__ import annotations

import re
from typing import Final

from cosco.errors import DataCorrupted
from cosco.format.block import walk_blocks
from cosco.format.chunk import CHUNK_HEADER_BYTES, ChunkHeader, parse_chunk_header
from cosco.format.segment import (
    ENTRY_BYTES,
    FOOTER_BYTES,
    SegmentId,
    SegmentName,
    index_place,
    parse_index,
    parse_segment_name,
)

#: {cluster}/{exchange}/{range}-{epoch}/{name}
_PATH: Final = re.compile(
    r"[^/]+/([1-9][0-9]{0,17})/(0|[1-9][0-9]{0,9})-([1-9][0-9]{0,9})/([^/]+)", re.ASCII
)
_ZEROS: Final = bytes(4096)


def parse_segment_path(path: str) -> tuple[SegmentId, SegmentName] | None:
    """Return which segment a path of a store names, and its name; None for what is none."""
    found = _PATH.fullmatch(path)
    name = parse_segment_name(found[4]) if found else None
    if found is None or name is None:
        return None
    numbers = int(found[1]), int(found[2]), int(found[3])
    return SegmentId(*numbers, name.incarnation, name.serial), name


def check_segment(path: str, data: memoryview) -> None:
    """Check the whole content of the segment that a path names.

    Raises: DataCorrupted, with what is wrong first, if a single bit is not as it was written.
    """
    parsed = parse_segment_path(path)
    if parsed is None:
        raise DataCorrupted(f"{path} is the path of no segment")
    segment, name = parsed
    place = index_place(segment, len(data), bytes(data[-FOOTER_BYTES:]))
    index = parse_index(bytes(data[place:]), place)
    if not index or (index.partitions[0], index.partitions[-1]) != (name.first, name.last):
        raise DataCorrupted("the index of a segment has other partitions than its name")
    _check_zeros(data, place + ENTRY_BYTES * len(index), len(data) - FOOTER_BYTES)
    end = 0
    for partition, blocks, offset, body_bytes in zip(
        index.partitions, index.blocks, index.offsets, index.body_bytes, strict=True
    ):
        _check_zeros(data, end, offset)
        expected = ChunkHeader(
            segment.exchange,
            segment.incarnation,
            offset,
            segment.range_index,
            segment.epoch,
            partition,
            blocks,
            body_bytes,
        )
        if parse_chunk_header(data[offset : offset + CHUNK_HEADER_BYTES]) != expected:
            raise DataCorrupted(f"the chunk at {offset} is another one than the index says")
        end = offset + CHUNK_HEADER_BYTES + body_bytes
        count = sum(1 for _ in walk_blocks(data[offset + CHUNK_HEADER_BYTES : end]))
        if count != blocks:
            raise DataCorrupted(f"the chunk at {offset} has {count} blocks, not {blocks}")
    _check_zeros(data, end, place)


def _check_zeros(data: memoryview, start: int, end: int) -> None:
    for at in range(start, end, len(_ZEROS)):
        stop = min(at + len(_ZEROS), end)
        if data[at:stop] != _ZEROS[: stop - at]:
            raise DataCorrupted(f"something was written into the padding at {at}")
