"""Frames of an attempt that ends with marks: one for each range, last, and right."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from support.packed import arrow_packer, row_packer

from cosco.client.write.state import framing
from cosco.client.write.state.framing import PackedFrame
from cosco.format.block import HEADER_BYTES, MAX_CONTENT_BYTES, walk_blocks
from cosco.format.frame import FRAME_HEADER_BYTES, MAX_FRAME_BYTES
from cosco.protocol.mark import Mark, decode_mark
from cosco.protocol.records import AttemptSums, PartitionRange

pytestmark = pytest.mark.usefixtures("packing_way")
RANGES = (PartitionRange(0, 0, 3), PartitionRange(1, 3, 1), PartitionRange(2, 4, 4))


def marks_of(frames: list[PackedFrame]) -> dict[int, Mark]:
    """The mark of each range, none of which has anything of its range behind it."""
    marks: dict[int, Mark] = {}
    for frame in frames:
        assert frame.range_index not in marks, "a frame behind the mark of its range"
        body = memoryview(b"".join(frame.parts))
        assert len(body) == frame.body_bytes <= MAX_FRAME_BYTES - FRAME_HEADER_BYTES
        blocks = list(walk_blocks(body))
        assert len(blocks) == frame.blocks
        for number, (offset, header) in enumerate(blocks):
            if header.is_mark:
                assert number == len(blocks) - 1, "a block behind the mark"
                stored = body[offset + HEADER_BYTES :]
                marks[frame.range_index] = decode_mark(header, stored, RANGES[frame.range_index])
    assert marks.keys() == {0, 1, 2}
    return marks


def check_sums(marks: dict[int, Mark], sums: AttemptSums) -> None:
    expected = np.zeros((3, 8), np.uint64)
    expected[:, sums.partitions] = sums.rows, sums.raw_bytes, sums.digests
    found = np.concatenate([marks[index].sums for index in range(3)], axis=1)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_every_range_ends_with_its_mark(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(framing, "TARGET_FRAME_BYTES", rng.choice([300, 3000, 1 << 20]))
    packer = row_packer(8, ranges=RANGES, buffer_bytes=rng.choice([500, 1 << 20]))
    used = rng.sample(range(8), rng.randint(0, 8))
    frames: list[PackedFrame] = []
    for _ in range(rng.randint(0, 5)):
        count = rng.randint(0, 40)
        rows = [rng.randbytes(rng.choice([0, 10, 400])) for _ in range(count)]
        if used:
            frames += packer.collect_batch(rng.choices(used, k=count), rows)
    frames += packer.drain(marks=True)
    check_sums(marks_of(frames), packer.sums())


def test_a_long_row_is_whole_before_the_mark() -> None:
    packer = row_packer(8, ranges=RANGES, buffer_bytes=1 << 20)
    frames = list(packer.collect_batch([5], [bytes(2 * MAX_CONTENT_BYTES + 7)]))
    frames += packer.drain(marks=True)
    check_sums(marks_of(frames), packer.sums())


def test_arrow_rows_end_with_marks_too() -> None:
    schema = pa.schema([("key", pa.int64())])
    packer = arrow_packer(schema, 8, ranges=RANGES, buffer_bytes=1 << 20)
    batch = pa.record_batch([pa.array(range(100))], schema=schema)
    frames = list(packer.collect_batch([7] * 50 + [0] * 50, batch))
    frames += packer.drain(marks=True)
    check_sums(marks_of(frames), packer.sums())


def test_small_rows_and_their_mark_are_one_frame_a_range() -> None:
    packer = row_packer(8, ranges=RANGES, buffer_bytes=1 << 20)
    frames = list(packer.collect_batch([0, 3, 4, 7], [b"a", b"b", b"c", b"d"]))
    frames += packer.drain(marks=True)
    by_range: defaultdict[int, int] = defaultdict(int)
    for frame in frames:
        by_range[frame.range_index] += 1
    assert by_range == {0: 1, 1: 1, 2: 1}


def test_without_marks_there_are_none() -> None:
    packer = row_packer(8, ranges=RANGES, buffer_bytes=1 << 20)
    frames = list(packer.collect_batch([0, 7], [b"a", b"b"]))
    frames += packer.drain()
    assert [frame.blocks for frame in frames] == [1, 1]
    assert len(list(row_packer(8, ranges=RANGES, buffer_bytes=1 << 20).drain())) == 0
