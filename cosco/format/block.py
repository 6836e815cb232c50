"""The block: rows of one (mapper, attempt, partition), packed and compressed once.

A block is the unit that is pushed, replicated, deduplicated, stored and read. It is made by
a writer and undone by a reader; what lies between checks it and never looks inside.

Layout, little-endian, 64 bytes of header and then the stored bytes:

    offset size field
         0    4 magic        b"CBK1"
         4    4 crc          CRC-32 (zlib) of bytes 8..63 and the stored bytes
         8    8 exchange     number of the exchange
        16    8 attempt      attempt id of the mapper's run
        24    8 position     first row id << 16 | fragment number
        32    4 partition
        36    4 mapper
        40    4 rows         whole rows that end in this block
        44    4 raw_bytes    length of the content before compression
        48    4 stored_bytes length of the stored bytes
        52    1 codec        0 none, 1 lz4 block
        53    1 flags        bit 0 fragment, bit 1 last fragment, bit 2 length table, bit 3 mark
        54    2 zero
        56    8 digest       XXH3-64 of bytes 8..47, flags and the content

*Position* orders rows and pieces of rows on one line, so that one set of intervals per (mapper,
attempt, partition) knows what is held: a block of whole rows covers
[row << 16, (row + rows) << 16). A row (or an Arrow batch of one row) that is too long for a block
is cut into fragments: fragment i covers the single position row << 16 | i, has `rows` 0, and the
last one covers everything up to the next row and has `rows` 1. A mark has no rows and covers
nothing: see `cosco.protocol.mark`.

The content is opaque here; `cosco.client.content.byte_rows` and `cosco.client.content.arrow` define
it. All that is known of it is whether it begins with a table of its rows' lengths (four bytes a
row), so that the bytes of rows can be counted without it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import lz4.block
import xxhash

from cosco.errors import DataCorrupted
from cosco.format.checksum import crc32

Buffer = bytes | bytearray | memoryview

MAGIC: Final = b"CBK1"
HEADER_BYTES: Final = 64
#: A writer cuts content at this length; a daemon refuses what is longer.
MAX_CONTENT_BYTES: Final = 1 << 20
#: Incompressible content is stored as it is, so nothing stored is longer.
MAX_BLOCK_BYTES: Final = HEADER_BYTES + MAX_CONTENT_BYTES
POSITION_SHIFT: Final = 16
MAX_FRAGMENTS: Final = 1 << POSITION_SHIFT
MAX_ROWS: Final = 1 << (64 - POSITION_SHIFT)

CODEC_NONE: Final = 0
CODEC_LZ4: Final = 1
CODECS: Final = {"none": CODEC_NONE, "lz4": CODEC_LZ4}

FLAG_FRAGMENT: Final = 1
FLAG_LAST: Final = 2
FLAG_LENGTHS: Final = 4
FLAG_MARK: Final = 8
LENGTH_BYTES: Final = 4

_FLAGS = frozenset({0, FLAG_LENGTHS, FLAG_FRAGMENT, FLAG_FRAGMENT | FLAG_LAST, FLAG_MARK})
_HEADER = struct.Struct("<4sIQQQIIIIIBBHQ")
_AFTER_CRC = struct.Struct("<QQQIIIIIBBHQ")
_IDENTITY = struct.Struct("<QQQIIIIB")
# On half-random rows the fast setting costs less CPU than the bytes it saves cost later.
_LZ4_ACCELERATION: Final = 8


class BlockHeader(NamedTuple):
    """The parsed header of a block; lengths in bytes.

    A named tuple, as one is made per block on the daemon's hot path.
    """

    crc: int
    exchange: int
    attempt: int
    position: int
    partition: int
    mapper: int
    rows: int
    raw_bytes: int
    stored_bytes: int
    codec: int
    flags: int
    digest: int

    @property
    def block_bytes(self) -> int:
        """Length of the whole block, header included."""
        return HEADER_BYTES + self.stored_bytes

    @property
    def first_row(self) -> int:
        return self.position >> POSITION_SHIFT

    @property
    def end(self) -> int:
        """The position after the last one this block covers."""
        if not self.flags & FLAG_FRAGMENT:  # nearly always; it begins with a whole row
            return self.position + (self.rows << POSITION_SHIFT)
        if not self.flags & FLAG_LAST:
            return self.position + 1
        return (self.first_row + self.rows) << POSITION_SHIFT

    @property
    def row_bytes(self) -> int:
        """Length of the content without its length table, if it has one."""
        if self.flags & FLAG_LENGTHS:
            return self.raw_bytes - LENGTH_BYTES * self.rows
        return self.raw_bytes

    @property
    def is_fragment(self) -> bool:
        return bool(self.flags & FLAG_FRAGMENT)

    @property
    def is_mark(self) -> bool:
        return self.flags == FLAG_MARK


def content_digest(header: BlockHeader, content: Buffer) -> int:
    """Return the XXH3-64 of the identity in the header and of the uncompressed content."""
    return _digest(
        _IDENTITY.pack(
            header.exchange,
            header.attempt,
            header.position,
            header.partition,
            header.mapper,
            header.rows,
            header.raw_bytes,
            header.flags,
        ),
        content,
    )


def _digest(identity: bytes, content: Buffer) -> int:
    hasher = xxhash.xxh3_64(identity)
    hasher.update(content)
    return int(hasher.intdigest())


def encode_block(
    *,
    exchange: int,
    partition: int,
    mapper: int,
    attempt: int,
    first_row: int,
    rows: int,
    content: Buffer,
    codec: int,
    lengths: bool = False,
    fragment: int | None = None,
    last: bool = False,
    mark: bool = False,
) -> tuple[bytes, bytes, int]:
    """Make a block.

    `content` is at most MAX_CONTENT_BYTES long. `fragment` is the number of a fragment of
    row `first_row`; of those only the one with `last` has `rows` 1, the others 0. `lengths`
    says that the content begins with a length table; a fragment has none. `mark`: of no rows.

    Returns: the header, the stored bytes and the digest.
    """
    raw_bytes = len(content)
    if raw_bytes > MAX_CONTENT_BYTES:
        raise ValueError(f"block content of {raw_bytes} bytes, the limit is {MAX_CONTENT_BYTES}")
    flags = FLAG_LENGTHS if lengths else 0
    if fragment is not None:
        flags = FLAG_FRAGMENT | (FLAG_LAST if last else 0)
    if mark:
        flags = FLAG_MARK
    position = first_row << POSITION_SHIFT | (fragment or 0)
    digest = _digest(
        _IDENTITY.pack(exchange, attempt, position, partition, mapper, rows, raw_bytes, flags),
        content,
    )
    stored: bytes | None = None
    if codec == CODEC_LZ4:
        stored = lz4.block.compress(
            content, mode="fast", acceleration=_LZ4_ACCELERATION, store_size=False
        )
        if len(stored) >= raw_bytes:
            stored, codec = None, CODEC_NONE
    if stored is None:
        stored = bytes(content)
    tail = _AFTER_CRC.pack(
        exchange, attempt, position, partition, mapper, rows, raw_bytes, len(stored),
        codec, flags, 0, digest,
    )  # fmt: skip
    crc = crc32(stored, crc32(tail))
    return MAGIC + crc.to_bytes(4, "little") + tail, stored, digest


def parse_header(data: Buffer, offset: int = 0) -> BlockHeader:
    """Parse and range-check the header at `offset`.

    The CRC is not checked here: see `check_block`.

    Raises: DataCorrupted.
    """
    if len(data) - offset < HEADER_BYTES:
        raise DataCorrupted(f"a block header is cut short at byte {len(data)}")
    (magic, crc, exchange, attempt, position, partition, mapper, rows, raw_bytes,
     stored_bytes, codec, flags, zero, digest) = _HEADER.unpack_from(data, offset)  # fmt: skip
    if magic != MAGIC:
        raise DataCorrupted(f"no block begins at byte {offset}")
    if raw_bytes > MAX_CONTENT_BYTES or stored_bytes > raw_bytes:
        raise DataCorrupted(f"impossible block lengths: raw {raw_bytes}, stored {stored_bytes}")
    if codec > CODEC_LZ4 or flags not in _FLAGS or zero:
        raise DataCorrupted(f"unknown block codec {codec} or flags {flags}")
    if flags & FLAG_FRAGMENT:
        if rows != (1 if flags & FLAG_LAST else 0):
            raise DataCorrupted(f"a fragment with {rows} rows")
    elif flags == FLAG_MARK:
        if rows or position:
            raise DataCorrupted(f"a mark with {rows} rows, or one that is not at the beginning")
    elif rows == 0 or position & (MAX_FRAGMENTS - 1):
        raise DataCorrupted("a block without rows, or one that begins inside a row")
    elif flags & FLAG_LENGTHS and rows * LENGTH_BYTES > raw_bytes:
        raise DataCorrupted(f"a length table of {rows} rows in {raw_bytes} bytes")
    if (position >> POSITION_SHIFT) + rows > MAX_ROWS:
        raise DataCorrupted("row ids beyond their range")
    return BlockHeader(
        crc, exchange, attempt, position, partition, mapper, rows, raw_bytes,
        stored_bytes, codec, flags, digest,
    )  # fmt: skip


def check_block(data: memoryview, offset: int, header: BlockHeader) -> None:
    """Raise DataCorrupted unless the whole block lies in `data` and its CRC matches."""
    end = offset + HEADER_BYTES + header.stored_bytes
    if end > len(data):
        raise DataCorrupted(f"a block of {header.block_bytes} bytes is cut short")
    if crc32(data[offset + 8 : end]) != header.crc:
        raise DataCorrupted(f"checksum of {_place_of(header)} does not match")


def walk_blocks(data: memoryview) -> Iterator[tuple[int, BlockHeader]]:
    """Yield (offset, header) of every block in `data`, each checked.

    Raises: DataCorrupted.
    """
    offset, end = 0, len(data)
    while offset < end:
        header = parse_header(data, offset)
        check_block(data, offset, header)
        yield offset, header
        offset += HEADER_BYTES + header.stored_bytes


def decode_content(header: BlockHeader, stored: Buffer) -> bytes:
    """Decompress a block's stored bytes, and check the digest.

    Raises: DataCorrupted.
    """
    content: bytes | None
    if header.codec == CODEC_LZ4:
        try:
            content = lz4.block.decompress(stored, uncompressed_size=header.raw_bytes)
        except lz4.block.LZ4BlockError:  # which cannot be pickled, and says what nobody can use
            content = None
    else:
        content = bytes(stored)
    if content is None:
        raise DataCorrupted(f"{_place_of(header)} does not decompress")
    if len(content) != header.raw_bytes or content_digest(header, content) != header.digest:
        raise DataCorrupted(f"digest of {_place_of(header)} does not match")
    return content


def _place_of(header: BlockHeader) -> str:
    return (
        f"a block of mapper {header.mapper}, partition {header.partition}, row {header.first_row}"
    )
