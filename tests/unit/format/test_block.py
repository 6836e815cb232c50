from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import DataCorrupted
from cosco.format.block import (
    CODEC_LZ4,
    CODEC_NONE,
    FLAG_FRAGMENT,
    FLAG_LAST,
    FLAG_LENGTHS,
    HEADER_BYTES,
    MAX_CONTENT_BYTES,
    MAX_ROWS,
    BlockHeader,
    check_block,
    content_digest,
    decode_content,
    encode_block,
    parse_header,
    walk_blocks,
)

IDENTITY = {"exchange": 7, "partition": 5, "mapper": 3, "attempt": 2, "first_row": 11}


def make(content: bytes = b"content " * 8, **changes: Any) -> bytes:
    """One block as bytes."""
    header, stored, _ = encode_block(
        **{"rows": 2, "content": content, "codec": CODEC_LZ4, **IDENTITY, **changes}
    )
    return header + stored


def reseal(block: bytes, offset: int, layout: str, value: int) -> memoryview:
    """The block with a header field changed and its CRC right again."""
    data = bytearray(block)
    struct.pack_into(layout, data, offset, value)
    struct.pack_into("<I", data, 4, zlib.crc32(data[8:]))
    return memoryview(data)


def read_one(data: memoryview) -> bytes:
    """The content of the single block that `data` is."""
    [(offset, header)] = walk_blocks(data)
    return decode_content(header, data[offset + HEADER_BYTES :])


@given(
    content=st.binary(max_size=300) | st.binary(min_size=1, max_size=4).map(lambda b: b * 500),
    codec=st.sampled_from([CODEC_NONE, CODEC_LZ4]),
    numbers=st.tuples(*[st.integers(0, 2**32 - 1)] * 2, *[st.integers(0, 2**64 - 1)] * 2),
    first_row=st.integers(0, MAX_ROWS - 3),
    fragment=st.none() | st.tuples(st.integers(0, 2**16 - 1), st.booleans()),
)
def test_what_is_encoded_is_decoded(
    content: bytes,
    codec: int,
    numbers: tuple[int, int, int, int],
    first_row: int,
    fragment: tuple[int, bool] | None,
) -> None:
    partition, mapper, exchange, attempt = numbers
    rows = 3 if fragment is None else int(fragment[1])
    header_bytes, stored, digest = encode_block(
        exchange=exchange,
        partition=partition,
        mapper=mapper,
        attempt=attempt,
        first_row=first_row,
        rows=rows,
        content=content,
        codec=codec,
        fragment=None if fragment is None else fragment[0],
        last=fragment is not None and fragment[1],
    )
    data = memoryview(header_bytes + stored)
    [(offset, header)] = walk_blocks(data)
    assert offset == 0
    assert len(header_bytes) == HEADER_BYTES
    assert (header.partition, header.mapper, header.exchange, header.attempt) == numbers
    assert (header.first_row, header.rows, header.digest) == (first_row, rows, digest)
    assert header.raw_bytes == header.row_bytes == len(content)
    assert header.block_bytes == len(data) <= HEADER_BYTES + len(content)
    assert header.position >> 16 == first_row
    assert decode_content(header, data[HEADER_BYTES:]) == content
    assert content_digest(header, content) == digest


def test_positions_cover_rows_and_fragments_without_gaps_or_overlaps() -> None:
    def span(**changes: Any) -> tuple[int, int]:
        header = parse_header(make(**changes))
        return header.position, header.end

    assert span(first_row=4, rows=3) == (4 << 16, 7 << 16)
    assert span(first_row=7, rows=0, fragment=0) == (7 << 16, (7 << 16) + 1)
    assert span(first_row=7, rows=0, fragment=1) == ((7 << 16) + 1, (7 << 16) + 2)
    assert span(first_row=7, rows=1, fragment=2, last=True) == ((7 << 16) + 2, 8 << 16)


def test_flags_say_what_the_content_is() -> None:
    assert parse_header(make(lengths=True)).flags == FLAG_LENGTHS
    assert parse_header(make(lengths=True)).row_bytes == 64 - 2 * 4
    assert parse_header(make(rows=0, fragment=0)).flags == FLAG_FRAGMENT
    assert parse_header(make(rows=1, fragment=0, last=True)).flags == FLAG_FRAGMENT | FLAG_LAST


def test_incompressible_content_is_stored_as_it_is() -> None:
    content = bytes(range(256))
    header = parse_header(make(content))
    assert (header.codec, header.stored_bytes) == (CODEC_NONE, 256)


def test_content_has_a_limit() -> None:
    assert parse_header(make(bytes(MAX_CONTENT_BYTES))).raw_bytes == MAX_CONTENT_BYTES
    with pytest.raises(ValueError, match="limit"):
        make(bytes(MAX_CONTENT_BYTES + 1))


@pytest.mark.parametrize("content", [b"abcdefgh" * 8, bytes(range(40)), b""])
def test_every_flipped_bit_is_caught(content: bytes) -> None:
    good = make(content)
    assert read_one(memoryview(good)) == content
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataCorrupted):
            read_one(memoryview(bad))


def test_every_cut_is_caught() -> None:
    good = memoryview(make())
    for length in range(1, len(good)):
        with pytest.raises(DataCorrupted, match="cut short"):
            list(walk_blocks(good[:length]))
    assert list(walk_blocks(good[:0])) == []


def test_a_walk_finds_every_block_and_stops_at_garbage() -> None:
    blocks = [make(bytes([i]) * i * 10, first_row=i) for i in range(1, 6)]
    data = b"".join(blocks)
    found = list(walk_blocks(memoryview(data)))
    assert [header.first_row for _, header in found] == [1, 2, 3, 4, 5]
    assert [data[o : o + h.block_bytes] for o, h in found] == blocks
    walk = walk_blocks(memoryview(blocks[0] + b"x" * HEADER_BYTES))
    assert next(walk)[0] == 0
    with pytest.raises(DataCorrupted, match="no block begins"):
        next(walk)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason"),
    [
        (40, "<I", 0, "without rows"),
        (24, "<Q", 11 << 16 | 1, "inside a row"),
        (24, "<Q", (MAX_ROWS - 1) << 16, "beyond their range"),
        (44, "<I", MAX_CONTENT_BYTES + 1, "impossible block lengths"),
        (48, "<I", 65, "impossible block lengths"),
        (52, "<B", 2, "unknown block codec"),
        (53, "<B", FLAG_LAST, "unknown block codec"),
        (53, "<B", FLAG_FRAGMENT, "a fragment with 2 rows"),
        (53, "<B", 16, "unknown block codec"),
        (54, "<H", 1, "unknown block codec"),
    ],
)
def test_an_impossible_header_is_refused_although_its_crc_matches(
    offset: int, layout: str, value: int, reason: str
) -> None:
    with pytest.raises(DataCorrupted, match=reason):
        parse_header(reseal(make(), offset, layout, value))


def test_a_length_table_longer_than_the_content_is_refused() -> None:
    with pytest.raises(DataCorrupted, match="length table of 17 rows"):
        parse_header(reseal(make(lengths=True), 40, "<I", 17))


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(8, "<Q", 8), (16, "<Q", 1), (32, "<I", 6), (36, "<I", 4), (40, "<I", 3), (44, "<I", 63),
     (44, "<I", 65), (52, "<B", CODEC_NONE), (56, "<Q", 1)],
)  # fmt: skip
def test_the_digest_covers_identity_and_content(offset: int, layout: str, value: int) -> None:
    data = reseal(make(), offset, layout, value)
    header = parse_header(data)
    check_block(data, 0, header)
    with pytest.raises(DataCorrupted):
        decode_content(header, data[HEADER_BYTES:])


def test_an_empty_lz4_block_does_not_decompress() -> None:
    header = parse_header(make(b""))._replace(codec=CODEC_LZ4)
    assert isinstance(header, BlockHeader)
    with pytest.raises(DataCorrupted, match="does not decompress"):
        decode_content(header, b"")
