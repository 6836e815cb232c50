"""The frame: many blocks of one assignment in one message of a push stream.

Layout, little-endian, 48 bytes of header and then the blocks one after another:

    offset size field
         0    4 magic        b"CFR1"
         4    4 crc          CRC-32 (zlib) of bytes 8..47
         8    8 exchange     number of the exchange
        16    8 incarnation  of the primary it is meant for
        24    8 sequence     1, 2, … on its stream; an acknowledgement names it
        32    4 range_index  the partition range
        36    4 epoch        of the range's assignment
        40    4 body_bytes   length of the blocks
        44    4 blocks       their number, 1 or more

Each block has a CRC of its own, so the frame's covers its header only.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cosco.errors import DataCorrupted
from cosco.format.block import HEADER_BYTES, MAX_BLOCK_BYTES
from cosco.format.checksum import crc32

MAGIC: Final = b"CFR1"
FRAME_HEADER_BYTES: Final = 48
#: A writer closes a frame once it is this long.
TARGET_FRAME_BYTES: Final = 1 << 20
#: A daemon refuses a longer one. A frame of the target length takes one more block.
MAX_FRAME_BYTES: Final = FRAME_HEADER_BYTES + TARGET_FRAME_BYTES + MAX_BLOCK_BYTES

_HEADER = struct.Struct("<4sIQQQIIII")
_AFTER_CRC = struct.Struct("<QQQIIII")
_SEQUENCE = struct.Struct("<Q")


class FrameHeader(NamedTuple):
    """The parsed header of a frame. A named tuple, as one is made for each frame."""

    exchange: int
    incarnation: int
    sequence: int
    range_index: int
    epoch: int
    body_bytes: int
    blocks: int


def encode_frame_header(header: FrameHeader) -> bytes:
    """Return the 48 bytes that come before the blocks."""
    tail = _AFTER_CRC.pack(
        header.exchange,
        header.incarnation,
        header.sequence,
        header.range_index,
        header.epoch,
        header.body_bytes,
        header.blocks,
    )
    return MAGIC + crc32(tail).to_bytes(4, "little") + tail


def parse_frame_header(data: memoryview) -> FrameHeader:
    """Parse and check the header of a whole frame.

    Raises: DataCorrupted.
    """
    if len(data) < FRAME_HEADER_BYTES:
        raise DataCorrupted(f"a frame of {len(data)} bytes is shorter than its header")
    if len(data) > MAX_FRAME_BYTES:
        raise DataCorrupted(f"a frame of {len(data)} bytes, the limit is {MAX_FRAME_BYTES}")
    magic, crc, *fields = _HEADER.unpack_from(data)
    if magic != MAGIC or crc32(data[8:FRAME_HEADER_BYTES]) != crc:
        raise DataCorrupted("the header of a frame fails its checksum")
    header = FrameHeader(*fields)
    if header.body_bytes != len(data) - FRAME_HEADER_BYTES:
        raise DataCorrupted(
            f"a frame has {len(data) - FRAME_HEADER_BYTES} bytes of blocks and names "
            f"{header.body_bytes}: it was cut short or glued"
        )
    if not 0 < header.blocks <= header.body_bytes // HEADER_BYTES:
        raise DataCorrupted(f"a frame of {header.body_bytes} bytes names {header.blocks} blocks")
    return header


def sequence_of(data: memoryview) -> int:
    """Return the sequence a frame names, broken or not, so that its sender knows which; or 0."""
    if len(data) < 32:
        return 0
    sequence: int = _SEQUENCE.unpack_from(data, 24)[0]
    return sequence
