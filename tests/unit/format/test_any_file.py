"""Whatever bytes a file or a frame has: they are taken, or refused as damaged, and nothing else.

Checksums are made right again after a change, as who means harm would: so what is behind them is
looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.frame_making import block, frame
from support.segments import path_of, segment

from cosco.dfs.identity import new_identity, parse_identity, parsed_object
from cosco.errors import DataCorrupted
from cosco.format.block import HEADER_BYTES, decode_content, parse_header, walk_blocks
from cosco.format.checksum import crc32
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, parse_chunk_header
from cosco.format.frame import FRAME_HEADER_BYTES, parse_frame_header
from cosco.format.segment import ENTRY_BYTES, FOOTER_BYTES, SegmentId
from cosco.format.segment_check import check_segment
from cosco.protocol.mark import decode_mark
from cosco.protocol.records import PartitionRange

ID = SegmentId(exchange=7, range_index=2, epoch=3, incarnation=0xAB, serial=9)
PATH = path_of(ID, 4, 6)
BLOCK = block(4, 0, b"a row" * 9)
WHOLE = segment(ID, [(4, BLOCK), (6, block(6, 0))])
FRAME = frame([BLOCK, block(5, 1)])
#: Of all damage here: a header that was wrong by a byte, in its last place too.
NEAR = st.integers(0, 80) | st.integers(0, 1 << 14)


def sealed(data: bytearray, start: int, end: int) -> None:
    """Give what begins at `start`, with a CRC behind four bytes of magic, its CRC."""
    if start + 8 <= end <= len(data):
        data[start + 4 : start + 8] = crc32(data[start + 8 : end]).to_bytes(4, "little")


def as_segment(data: bytearray) -> None:
    footer = len(data) - FOOTER_BYTES
    place = int.from_bytes(data[footer + 48 : footer + 56], "little")
    chunks = int.from_bytes(data[footer + 40 : footer + 44], "little")
    for start in range(0, min(place, footer), ALIGNMENT):
        sealed(data, start, start + CHUNK_HEADER_BYTES)
    if place <= footer:
        entries = data[place : min(place + ENTRY_BYTES * chunks, footer)]
        crc = crc32(data[footer + 8 :], crc32(entries))
        data[footer + 4 : footer + 8] = crc.to_bytes(4, "little")


def check_blocks(data: memoryview) -> None:
    for offset, header in walk_blocks(data):
        stored = data[offset + HEADER_BYTES : offset + header.block_bytes]
        content = decode_content(header, stored)
        assert len(content) == header.raw_bytes
        decode_mark(header, stored, PartitionRange(0, 4, 2))


#: By name: what reads it, some that is whole, and what makes its checksums right.
KINDS: dict[str, tuple[Callable[[memoryview], object], bytes, Callable[[bytearray], None]]] = {
    "segment": (lambda data: check_segment(PATH, data), WHOLE, as_segment),
    "chunk": (parse_chunk_header, WHOLE[:80], lambda data: sealed(data, 0, CHUNK_HEADER_BYTES)),
    "frame": (parse_frame_header, FRAME, lambda data: sealed(data, 0, FRAME_HEADER_BYTES)),
    "block": (check_blocks, BLOCK, lambda data: sealed(data, 0, len(data))),
    "header": (parse_header, BLOCK, lambda data: None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("repairs", [False, True])
@settings(max_examples=100)
@given(st.lists(st.tuples(NEAR, st.booleans(), st.binary(min_size=1, max_size=4)), max_size=3))
def test_it_is_taken_or_refused(
    kind: str, repairs: bool, changes: list[tuple[int, bool, bytes]]
) -> None:
    read, whole, repair = KINDS[kind]
    data = bytearray(whole)
    for at, from_end, some in changes:
        start = (-at if from_end else at) % len(data)
        data[start : start + len(some)] = some
    if repairs:
        repair(data)
    with suppress(DataCorrupted):
        read(memoryview(bytes(data)))


@pytest.mark.parametrize("kind", ["segment", "chunk", "frame", "header"])
def test_what_is_whole_is_taken(kind: str) -> None:
    read, whole, repair = KINDS[kind]
    data = bytearray(whole)
    repair(data)
    assert data == whole  # which it is, as it was
    read(memoryview(whole))


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(min_size=1, max_size=200))
def test_anything_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(DataCorrupted):
        KINDS[kind][0](memoryview(data))


@given(st.binary(max_size=80))
def test_what_is_no_identity_is_none(data: bytes) -> None:
    assert parse_identity(data) is None


def test_an_identity_is_read_and_lists_without_end_are_none() -> None:
    assert parse_identity(new_identity().encode()) is not None
    assert parsed_object(b"[" * 4096) == {}  # as long as a file of it may be
    assert parsed_object(b'{"a":' * 800) == {}
