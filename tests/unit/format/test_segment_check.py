"""Every bit of a segment is checked before it is copied."""

from __future__ import annotations

import random

import pytest
from support.segments import path_of, segment

from cosco.errors import DataCorrupted
from cosco.format.block import CODEC_NONE, encode_block
from cosco.format.segment import SegmentId, SegmentName
from cosco.format.segment_check import check_segment, parse_segment_path

ID = SegmentId(exchange=7, range_index=2, epoch=3, incarnation=0xAB, serial=9)
PATH = path_of(ID, 4, 6)


def blocks(partition: int) -> bytes:
    header, stored, _ = encode_block(
        exchange=7,
        partition=partition,
        mapper=1,
        attempt=1,
        first_row=0,
        rows=1,
        content=bytes([partition]) * 500,
        codec=CODEC_NONE,
    )
    return header + stored


WHOLE = segment(ID, [(4, blocks(4)), (6, blocks(6))])


def test_a_whole_segment_passes() -> None:
    check_segment(PATH, memoryview(WHOLE))


def test_every_byte_is_checked() -> None:
    rng = random.Random(1)
    for at in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises(DataCorrupted):
            check_segment(PATH, memoryview(damaged))


@pytest.mark.parametrize("length", [0, 1, 64, 4096, len(WHOLE) - 4096, len(WHOLE) - 1])
def test_one_that_is_cut_short_does_not(length: int) -> None:
    with pytest.raises(DataCorrupted):
        check_segment(PATH, memoryview(WHOLE)[:length])


@pytest.mark.parametrize(
    "path",
    [
        path_of(ID, 4, 5),
        path_of(ID, 3, 6),
        path_of(SegmentId(8, 2, 3, 0xAB, 9), 4, 6),
        path_of(SegmentId(7, 2, 3, 0xAB, 8), 4, 6),
        path_of(SegmentId(7, 1, 3, 0xAB, 9), 4, 6),
    ],
)
def test_one_of_another_name_does_not(path: str) -> None:
    with pytest.raises(DataCorrupted):
        check_segment(path, memoryview(WHOLE))


def test_paths_are_taken_apart() -> None:
    assert parse_segment_path(PATH) == (ID, SegmentName(4, 6, 0xAB, 9))


@pytest.mark.parametrize(
    "path",
    ["", "c", PATH + "/x", PATH[1:], "c/0/2-3/" + PATH.rpartition("/")[2], "c/7/2-3/x", "c/7/2/x"],
)
def test_what_is_the_path_of_no_segment(path: str) -> None:
    assert parse_segment_path(path) is None
    with pytest.raises(DataCorrupted, match="the path of no segment"):
        check_segment(path, memoryview(WHOLE))
