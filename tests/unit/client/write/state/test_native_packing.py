"""The native packer makes the same frames as the portable one, byte for byte.

Compressed blocks are compared by what is in them: the versions of lz4 that the two have may differ
in how they compress.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed import opened
from support.packing_ways import PACKING_WAYS, packing_by

from cosco.client.write.state import framing
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import RowPacker
from cosco.format.block import HEADER_BYTES, MAX_CONTENT_BYTES, decode_content, walk_blocks
from cosco.protocol.records import PartitionRange

MIB = 1 << 20
RANGES = (PartitionRange(0, 0, 3), PartitionRange(1, 3, 1), PartitionRange(2, 4, 996))


class Found(NamedTuple):
    """What came of a packer."""

    frames: list[tuple[int, int, bytes, bool]]
    blocks: list[tuple[int, int, int, int, bytes]]
    sums: list[list[int]]


def found_of(frames: list[PackedFrame], packer: Any, *, has_codec: bool) -> Found:
    blocks = []
    for frame in frames:
        body = b"".join(frame.parts)
        assert len(body) == frame.body_bytes
        for offset, header in walk_blocks(memoryview(body)):
            stored = body[offset + HEADER_BYTES : offset + header.block_bytes]
            content = stored if header.is_mark else decode_content(header, stored)
            row = header.partition, header.position, header.rows, header.flags, content
            blocks.append(row)
    whole = [(one.range_index, one.blocks, b"".join(one.parts), one.has_mark) for one in frames]
    sums = packer.sums()
    every = [sums.partitions, sums.rows, sums.raw_bytes, sums.digests]
    if not has_codec:
        every.append(sums.stored_bytes)
    return Found([] if has_codec else whole, blocks, [one.tolist() for one in every])


def each_way(pack: Callable[[], Found]) -> None:
    """Check that all ways of packing come to the same."""
    expected: Found | None = None
    for way in PACKING_WAYS:
        with packing_by(way):
            found = pack()
        if expected is not None:
            assert found.sums == expected.sums
            assert found.blocks == expected.blocks
            assert found.frames == expected.frames
        expected = found


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    partitions=st.sampled_from([1, 5, 250, 1000]),
    buffer_bytes=st.sampled_from([1, 700, 5000, 300_000, 8 * MIB]),
    codec=st.sampled_from(["none", "lz4"]),
    frame_bytes=st.sampled_from([3000, 50_000, MIB]),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["collect", "array", "one"]),
            st.sampled_from(["list", "binary", "large"]),
            st.integers(0, 80),
            st.sampled_from([0, 12, 400, 30_000, 2 * MIB]),
        ),
        max_size=8,
    ),
    marks=st.booleans(),
)
def test_the_frames_of_rows_are_the_same(
    seed: int,
    partitions: int,
    buffer_bytes: int,
    codec: str,
    frame_bytes: int,
    calls: list[tuple[str, str, int, int]],
    marks: bool,
) -> None:
    def pack() -> Found:
        rng = random.Random(seed)
        ranges = RANGES if partitions == 1000 else ()
        packer = RowPacker(opened(partitions, ranges=ranges, codec=codec), buffer_bytes)
        frames: list[PackedFrame] = []
        for call, form, count, longest in calls:
            rows = [
                rng.randbytes(8) * (rng.randint(0, longest) // 8) if rng.random() < 0.9 else b""
                for _ in range(min(count, 6 * MIB // (longest + 1)))
            ]
            numbers: Any = np.array([rng.randrange(partitions) for _ in rows], np.int64)
            if call == "collect":
                for number, row in zip(numbers.tolist(), rows, strict=True):
                    if packer.collect(number, row):
                        frames += packer.join_pending()
                continue
            if call == "one":
                numbers = rng.randrange(partitions)
            kind = {"list": None, "binary": pa.binary(), "large": pa.large_binary()}[form]
            frames += packer.collect_batch(numbers, pa.array(rows, kind) if kind else rows)
        frames += packer.drain(marks=marks)
        packer.close()
        return found_of(frames, packer, has_codec=codec != "none")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(framing, "TARGET_FRAME_BYTES", frame_bytes)
        each_way(pack)


@pytest.mark.parametrize("partitions", [1, 2, 300, 70_000])
def test_the_frames_of_many_rows_are_the_same(partitions: int) -> None:
    rng = np.random.default_rng(partitions)
    lengths = rng.integers(0, 300, 60_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(rng.bytes(int(offsets[-1])))]
    rows = pa.Array.from_buffers(pa.binary(), len(lengths), buffers)
    numbers = rng.integers(0, partitions, len(rows))

    def pack() -> Found:
        packer = RowPacker(opened(partitions, codec="none"), 6 * MIB)
        frames = list(packer.collect_batch(numbers, rows))
        for first in range(0, len(rows), 1000):
            numbers_of = numbers[first : first + 1000]
            frames += packer.collect_batch(numbers_of, rows.slice(first, 1000))
        frames += packer.drain()
        packer.close()
        return found_of(frames, packer, has_codec=False)

    each_way(pack)


@pytest.mark.parametrize("rows", [
    [0, 0, 2 * MIB, 0, 5],
    [MAX_CONTENT_BYTES - 4, MAX_CONTENT_BYTES - 3, 1],
    [3 * MIB, 3 * MIB, 0, 3 * MIB],
    [0, MAX_CONTENT_BYTES - 4, 0],
])  # fmt: skip
@pytest.mark.parametrize("way", ["each", "one"])
def test_rows_about_as_long_as_a_block_are_cut_alike(rows: list[int], way: str) -> None:
    def pack() -> Found:
        packer = RowPacker(opened(1, codec="none"), 64 * MIB)
        numbers: Any = 0 if way == "one" else [0] * len(rows)
        given = [bytes([65 + i]) * length for i, length in enumerate(rows)]
        frames = [*packer.collect_batch(numbers, given), *packer.drain()]
        return found_of(frames, packer, has_codec=False)

    each_way(pack)


@pytest.mark.parametrize("frame_bytes", [155, 156, 157])
def test_a_frame_ends_when_it_has_just_the_length(frame_bytes: int) -> None:
    def pack() -> Found:
        packer = RowPacker(opened(40, codec="none"), MIB)
        frames = [*packer.collect_batch(range(40), [b"ten bytes."] * 40), *packer.drain()]
        assert max(frame.blocks for frame in frames) == (2 if frame_bytes <= 156 else 3)
        return found_of(frames, packer, has_codec=False)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(framing, "TARGET_FRAME_BYTES", frame_bytes)
        each_way(pack)
