from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import DataCorrupted
from cosco.format.frame import (
    FRAME_HEADER_BYTES,
    MAX_FRAME_BYTES,
    FrameHeader,
    encode_frame_header,
    parse_frame_header,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


def frame(body_bytes: int = 200, blocks: int = 3) -> bytes:
    header = FrameHeader(
        exchange=1, incarnation=2, sequence=3, range_index=4, epoch=5,
        body_bytes=body_bytes, blocks=blocks,
    )  # fmt: skip
    return encode_frame_header(header) + bytes(body_bytes)


@given(U64, U64, U64, U32, U32, st.integers(1, 5))
def test_what_is_encoded_is_parsed(
    exchange: int, incarnation: int, sequence: int, range_index: int, epoch: int, blocks: int
) -> None:
    header = FrameHeader(exchange, incarnation, sequence, range_index, epoch, 64 * blocks, blocks)
    data = encode_frame_header(header)
    assert len(data) == FRAME_HEADER_BYTES
    assert parse_frame_header(memoryview(data + bytes(64 * blocks))) == header


def test_every_flipped_bit_of_the_header_is_caught() -> None:
    good = frame()
    for bit in range(8 * FRAME_HEADER_BYTES):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataCorrupted):
            parse_frame_header(memoryview(bad))


def test_cut_short_and_glued_frames_are_caught() -> None:
    good = frame()
    for length in range(len(good)):
        with pytest.raises(DataCorrupted):
            parse_frame_header(memoryview(good)[:length])
    with pytest.raises(DataCorrupted, match="cut short or glued"):
        parse_frame_header(memoryview(good + b"x"))
    with pytest.raises(DataCorrupted, match="cut short or glued"):
        parse_frame_header(memoryview(good + good))


@pytest.mark.parametrize("blocks", [0, 4, 2**32 - 1])
def test_a_number_of_blocks_that_does_not_fit_is_refused(blocks: int) -> None:
    with pytest.raises(DataCorrupted, match=f"names {blocks} blocks"):
        parse_frame_header(memoryview(frame(blocks=blocks)))


def test_a_frame_has_a_limit() -> None:
    largest = MAX_FRAME_BYTES - FRAME_HEADER_BYTES
    assert parse_frame_header(memoryview(frame(largest))).body_bytes == largest
    with pytest.raises(DataCorrupted, match="the limit is"):
        parse_frame_header(memoryview(frame(largest + 1)))


def test_the_magic_is_not_covered_by_the_crc_and_checked_itself() -> None:
    data = bytearray(frame())
    assert struct.unpack_from("<I", data, 4)[0] == zlib.crc32(data[8:FRAME_HEADER_BYTES])
    data[:4] = b"CFR2"
    with pytest.raises(DataCorrupted, match="checksum"):
        parse_frame_header(memoryview(data))
