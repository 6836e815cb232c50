from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import DataCorrupted
from cosco.format.chunk import (
    ALIGNMENT,
    CHUNK_HEADER_BYTES,
    ChunkHeader,
    encode_chunk_header,
    padded,
    parse_chunk_header,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
HEADER = ChunkHeader(
    exchange=1, incarnation=2, offset=3 * ALIGNMENT, range_index=4, epoch=5, partition=6,
    blocks=7, body_bytes=5000,
)  # fmt: skip

headers = st.builds(
    ChunkHeader,
    exchange=U64,
    incarnation=U64,
    offset=st.integers(0, 2**50).map(lambda n: n * ALIGNMENT),
    range_index=U32,
    epoch=U32,
    partition=U32,
    blocks=U32,
    body_bytes=U64,
)


@given(headers, st.sampled_from([bytes, bytearray, memoryview]))
def test_what_is_encoded_is_parsed(header: ChunkHeader, kind: type) -> None:
    data = encode_chunk_header(header)
    assert len(data) == CHUNK_HEADER_BYTES
    assert parse_chunk_header(kind(data + b"blocks")) == header


def test_every_flipped_bit_is_caught() -> None:
    good = encode_chunk_header(HEADER)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataCorrupted):
            parse_chunk_header(bad)


def test_every_cut_is_caught() -> None:
    good = encode_chunk_header(HEADER)
    for length in range(len(good)):
        with pytest.raises(DataCorrupted, match="cut short"):
            parse_chunk_header(good[:length])


def test_padding_of_a_file_is_no_chunk() -> None:
    with pytest.raises(DataCorrupted, match="checksum"):
        parse_chunk_header(bytes(ALIGNMENT))


def test_an_unaligned_offset_is_refused() -> None:
    header = ChunkHeader(1, 2, ALIGNMENT + 512, 4, 5, 6, 7, 5000)
    with pytest.raises(DataCorrupted, match="unaligned offset 4608"):
        parse_chunk_header(encode_chunk_header(header))


@given(st.integers(0, 1 << 40))
def test_padding_is_the_least_that_aligns(length: int) -> None:
    assert padded(length) % ALIGNMENT == 0
    assert 0 <= padded(length) - length < ALIGNMENT


def test_a_chunk_is_padded_with_its_header() -> None:
    assert HEADER.padded_bytes == 2 * ALIGNMENT
    full = ChunkHeader(1, 2, 0, 4, 5, 6, 7, ALIGNMENT - CHUNK_HEADER_BYTES)
    assert full.padded_bytes == ALIGNMENT
