"""Makes checksums right, as who means harm would: behind them a fuzzer would never come."""

from __future__ import annotations

import lz4.block

from cosco.errors import DataCorrupted
from cosco.format import block, frame
from cosco.format.block import HEADER_BYTES, BlockHeader, parse_header
from cosco.format.checksum import crc32
from cosco.format.frame import FRAME_HEADER_BYTES

_CRC_AT = 4
_COVERED_AT = 8
_DIGEST_AT = 56
_BODY_BYTES_AT = 40


def seal(data: bytearray, start: int, end: int) -> None:
    """Give what begins at `start`, with a CRC behind four bytes of magic, its CRC."""
    if start + _COVERED_AT <= end <= len(data):
        crc = crc32(data[start + _COVERED_AT : end])
        data[start + _CRC_AT : start + _COVERED_AT] = crc.to_bytes(4, "little")


def repair_blocks(data: bytearray, offset: int = 0) -> None:
    """Give all blocks from `offset` on, one behind the other, their magic, digest and CRC."""
    while len(data) - offset >= HEADER_BYTES:
        data[offset : offset + len(block.MAGIC)] = block.MAGIC
        try:
            header = parse_header(data, offset)
        except DataCorrupted:
            return
        end = offset + header.block_bytes
        if end > len(data):
            return
        digest = _digest(header, bytes(data[offset + HEADER_BYTES : end]))
        if digest is not None:
            data[offset + _DIGEST_AT : offset + HEADER_BYTES] = digest.to_bytes(8, "little")
        seal(data, offset, end)
        offset = end


def repair_frame(data: bytearray) -> None:
    """Do the same with a frame: with its header, which gets the right length, and its blocks."""
    if len(data) < FRAME_HEADER_BYTES:
        return
    data[: len(frame.MAGIC)] = frame.MAGIC
    body_bytes = len(data) - FRAME_HEADER_BYTES
    data[_BODY_BYTES_AT : _BODY_BYTES_AT + 4] = body_bytes.to_bytes(4, "little")
    seal(data, 0, FRAME_HEADER_BYTES)
    repair_blocks(data, FRAME_HEADER_BYTES)


def _digest(header: BlockHeader, stored: bytes) -> int | None:
    """Return the digest that a block should have; None if its content cannot be had."""
    content = stored
    if header.codec == block.CODEC_LZ4:
        try:
            content = lz4.block.decompress(stored, uncompressed_size=header.raw_bytes)
        except lz4.block.LZ4BlockError:
            return None
    return block.content_digest(header, content)
