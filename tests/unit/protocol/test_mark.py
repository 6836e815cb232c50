"""The mark as a block: round trip, and everything that is none."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.errors import DataCorrupted
from cosco.format.block import CODEC_NONE, HEADER_BYTES, encode_block, walk_blocks
from cosco.protocol.mark import Mark, decode_mark, encode_mark
from cosco.protocol.records import PartitionRange

PART = PartitionRange(index=3, first=8, count=4)
SUMS = np.array([[3, 0, 1, 2], [30, 0, 10, 20], [2**64 - 1, 0, 7, 9]], np.uint64)


def block(part: PartitionRange = PART) -> bytes:
    return b"".join(encode_mark(Mark(5, 2**63 + 11, SUMS), 77, part))


def decoded(data: bytes, part: PartitionRange = PART) -> Mark:
    view = memoryview(data)
    ((_, header),) = walk_blocks(view)
    return decode_mark(header, view[HEADER_BYTES:], part)


def test_a_mark_comes_back_as_it_was() -> None:
    found = decoded(block())
    assert (found.mapper, found.attempt) == (5, 2**63 + 11)
    assert found.sums.tolist() == SUMS.tolist()


def test_a_mark_has_no_rows_and_covers_nothing() -> None:
    ((_, header),) = walk_blocks(memoryview(block()))
    assert (header.exchange, header.partition, header.rows, header.is_mark) == (77, 8, 0, True)
    assert header.position == header.end == 0


def test_a_mark_keeps_nothing_of_the_message() -> None:
    data = bytearray(block())
    view = memoryview(data)
    ((_, header),) = walk_blocks(view)
    found = decode_mark(header, view[HEADER_BYTES:], PART)
    data[:] = bytes(len(data))
    assert found.sums.tolist() == SUMS.tolist()


def test_every_flipped_bit_is_noticed() -> None:
    data = block()
    for at in range(8 * len(data)):
        broken = bytearray(data)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises(DataCorrupted):
            decoded(bytes(broken))


def test_a_block_of_rows_is_no_mark() -> None:
    header, stored, _ = encode_block(
        exchange=77, partition=8, mapper=5, attempt=1, first_row=0, rows=1, content=b"row",
        codec=CODEC_NONE,
    )  # fmt: skip
    with pytest.raises(DataCorrupted, match="no mark of range 3"):
        decoded(header + stored)


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (PartitionRange(2, 0, 4), "no mark of range 2"),
        (PartitionRange(3, 8, 5), "for 5 partitions"),
        (PartitionRange(3, 8, 3), "for 3 partitions"),
    ],
)
def test_a_mark_of_another_range_is_refused(part: PartitionRange, match: str) -> None:
    with pytest.raises(DataCorrupted, match=match):
        decoded(block(), part)


def test_sums_of_another_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="for 5 partitions"):
        block(PartitionRange(3, 8, 5))


@pytest.mark.parametrize(("rows", "first_row"), [(1, 0), (0, 1)])
def test_a_mark_with_rows_or_a_place_is_refused(rows: int, first_row: int) -> None:
    header, stored, _ = encode_block(
        exchange=77, partition=8, mapper=5, attempt=1, first_row=first_row, rows=rows,
        content=SUMS.tobytes(), codec=CODEC_NONE, mark=True,
    )  # fmt: skip
    with pytest.raises(DataCorrupted, match="a mark with"):
        decoded(header + stored)
