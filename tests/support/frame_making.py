"""Frames for the daemon's unit tests."""

from __future__ import annotations

from collections.abc import Iterable

from cosco.blocks import CODEC_NONE, encode_block
from cosco.frames import FrameHeader, encode_frame_header

EXCHANGE, INCARNATION = 7, 11


def block(partition, first_row, content=b"x", *, rows=1, mapper=1, attempt=1, exchange=EXCHANGE):
    header, stored, _ = encode_block(
        exchange=exchange, partition=partition, mapper=mapper, attempt=attempt,
        first_row=first_row, rows=rows, content=content, codec=CODEC_NONE,
    )  # fmt: skip
    return header + stored


def frame(blocks: Iterable[bytes], *, sequence=1, count=None, exchange=EXCHANGE, epoch=1) -> bytes:
    blocks = list(blocks)
    body = b"".join(blocks)
    header = FrameHeader(
        exchange=exchange,
        incarnation=INCARNATION,
        sequence=sequence,
        range_index=0,
        epoch=epoch,
        body_bytes=len(body),
        blocks=len(blocks) if count is None else count,
    )
    return encode_frame_header(header) + body
