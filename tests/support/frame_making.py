"""Blocks and frames as writers and primaries would make them."""

from __future__ import annotations

from collections.abc import Iterable

from cosco.format.block import CODEC_NONE, encode_block
from cosco.format.frame import FrameHeader, encode_frame_header

EXCHANGE, INCARNATION = 7, 11


def block(
    partition: int,
    first_row: int,
    content: bytes = b"x",
    *,
    rows: int = 1,
    mapper: int = 1,
    attempt: int = 1,
    exchange: int = EXCHANGE,
) -> bytes:
    header, stored, _ = encode_block(
        exchange=exchange, partition=partition, mapper=mapper, attempt=attempt,
        first_row=first_row, rows=rows, content=content, codec=CODEC_NONE,
    )  # fmt: skip
    return header + stored


def frame(
    blocks: Iterable[bytes],
    *,
    sequence: int = 1,
    count: int | None = None,
    exchange: int = EXCHANGE,
    incarnation: int = INCARNATION,
    range_index: int = 0,
    epoch: int = 1,
) -> bytes:
    """`count`: of blocks, as its header tells it, if that is not so."""
    blocks = list(blocks)
    body = b"".join(blocks)
    header = FrameHeader(
        exchange=exchange,
        incarnation=incarnation,
        sequence=sequence,
        range_index=range_index,
        epoch=epoch,
        body_bytes=len(body),
        blocks=len(blocks) if count is None else count,
    )
    return encode_frame_header(header) + body
