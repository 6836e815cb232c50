"""The chunk: what one flush of a write-ahead buffer stores.

Chunks lie one after another in a segment (`cosco.format.segment`), each at a multiple of ALIGNMENT
as direct IO wants it, and describe themselves: whoever has the segment can find every chunk in
it by walking the headers, without its index and without the daemon that wrote it.

Layout of a chunk, little-endian:

    offset size field
         0    4 magic        b"CCK1"
         4    4 crc          CRC-32 (zlib) of bytes 8..63
         8    8 exchange     number of the exchange
        16    8 incarnation  of the daemon that wrote it
        24    8 offset       of this chunk in its segment
        32    4 range_index
        36    4 epoch
        40    4 partition
        44    4 blocks       their number
        48    8 body_bytes   length of the blocks
        56    8 zero
        64      the blocks, then zeros up to a multiple of ALIGNMENT

Blocks carry their own checksums. A walk ends at the index, at the end of the file, at a header
that does not check, or at a body that reaches past the end: a torn tail, which no one was told of.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cosco.errors import DataCorrupted
from cosco.format.checksum import crc32

MAGIC: Final = b"CCK1"
CHUNK_HEADER_BYTES: Final = 64
ALIGNMENT: Final = 4096

_HEADER = struct.Struct("<4sIQQQIIIIQQ")
_AFTER_CRC = struct.Struct("<QQQIIIIQQ")


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The parsed header of a chunk."""

    exchange: int
    incarnation: int
    offset: int
    range_index: int
    epoch: int
    partition: int
    blocks: int
    body_bytes: int

    @property
    def padded_bytes(self) -> int:
        """Length in the segment: header, blocks and padding."""
        return padded(CHUNK_HEADER_BYTES + self.body_bytes)


def padded(length: int) -> int:
    """Return `length` rounded up to a multiple of ALIGNMENT."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def encode_chunk_header(header: ChunkHeader) -> bytes:
    """Return the 64 bytes that come before a chunk's blocks."""
    tail = _AFTER_CRC.pack(
        header.exchange,
        header.incarnation,
        header.offset,
        header.range_index,
        header.epoch,
        header.partition,
        header.blocks,
        header.body_bytes,
        0,
    )
    return MAGIC + crc32(tail).to_bytes(4, "little") + tail


def parse_chunk_header(data: bytes | bytearray | memoryview) -> ChunkHeader:
    """Parse and check a chunk's header.

    Raises: DataCorrupted.
    """
    if len(data) < CHUNK_HEADER_BYTES:
        raise DataCorrupted(f"a chunk header is cut short after {len(data)} bytes")
    magic, crc, *fields, zero = _HEADER.unpack_from(data)
    if magic != MAGIC or crc32(memoryview(data)[8:CHUNK_HEADER_BYTES]) != crc or zero:
        raise DataCorrupted("the header of a chunk fails its checksum")
    header = ChunkHeader(*fields)
    if header.offset % ALIGNMENT:
        raise DataCorrupted(f"a chunk that names an unaligned offset {header.offset}")
    return header
