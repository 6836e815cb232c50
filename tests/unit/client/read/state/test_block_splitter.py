"""Whole blocks, and whole headers, out of pieces that are cut anywhere."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packed import EXCHANGE, one_block

from cosco.client.read.state.block_splitter import BlockSplitter, HeaderSplitter
from cosco.errors import DataCorrupted
from cosco.format.block import CODEC_LZ4, HEADER_BYTES, encode_block

pytestmark = pytest.mark.usefixtures("read_mechanics")


@given(st.lists(st.binary(max_size=90), max_size=8), st.randoms(use_true_random=False))
def test_pieces_cut_anywhere_become_whole_blocks(contents: list[bytes], rng: random.Random) -> None:
    blocks = [one_block(content=c, lengths=False, first_row=i) for i, c in enumerate(contents)]
    data = memoryview(b"".join(blocks))
    edges = set(_ends(blocks))
    splitter = BlockSplitter()
    out, offset = b"", 0
    while offset < len(data):
        step = rng.choice([1, 7, 64, 200, 1000])
        for run in splitter.feed(data[offset : offset + step]):
            out += run
            assert len(out) in edges
        offset += step
        # Whatever is whole has been given out.
        assert len(out) == max((e for e in edges if e <= min(offset, len(data))), default=0)
    splitter.finish()
    assert out == data


def _ends(blocks: list[bytes]) -> list[int]:
    return [sum(map(len, blocks[: i + 1])) for i in range(len(blocks))]


def test_blocks_inside_a_piece_are_not_copied() -> None:
    piece = bytearray(one_block() + one_block(first_row=1) + b"CBK1")
    [run] = BlockSplitter().feed(memoryview(piece))
    piece[0] ^= 1
    assert run[0] == piece[0]
    run.release()


def test_an_end_inside_a_block_is_corruption() -> None:
    whole = memoryview(one_block())
    for length in range(1, len(whole)):
        splitter = BlockSplitter()
        assert splitter.feed(whole[:length]) == []
        with pytest.raises(DataCorrupted, match=f"{length} bytes of one are left"):
            splitter.finish()


@pytest.mark.parametrize("cut", [0, 10, HEADER_BYTES, 100])
def test_an_impossible_header_is_corruption(cut: int) -> None:
    data = memoryview(one_block() + bytes(HEADER_BYTES))
    splitter = BlockSplitter()
    with pytest.raises(DataCorrupted, match="no block begins"):
        splitter.feed(data[:cut])
        splitter.feed(data[cut:])


def test_a_block_that_comes_byte_by_byte_takes_little_more_than_its_bytes() -> None:
    header, stored, _ = encode_block(
        exchange=EXCHANGE, partition=0, mapper=0, attempt=1, first_row=0, rows=1,
        content=random.Random(7).randbytes(64 << 10), codec=CODEC_LZ4,
    )  # fmt: skip
    block, splitter = header + stored, BlockSplitter()
    tracemalloc.start()
    try:
        for at in range(len(block) - 1):
            assert not splitter.feed(memoryview(block[at : at + 1]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(block)
    assert [bytes(run) for run in splitter.feed(memoryview(block[-1:]))] == [block]


@given(st.integers(0, 5), st.randoms(use_true_random=False))
def test_headers_cut_anywhere_become_whole_ones(count: int, rng: random.Random) -> None:
    data = memoryview(rng.randbytes(count * HEADER_BYTES))
    splitter = HeaderSplitter()
    out, offset = b"", 0
    while offset < len(data):
        step = rng.choice([1, 7, 63, 64, 65, 200])
        for headers in splitter.feed(data[offset : offset + step]):
            assert len(headers.data) % HEADER_BYTES == 0
            out += headers.data
        offset += step
    splitter.finish()
    assert out == data


def test_an_end_inside_a_header_is_corruption() -> None:
    splitter = HeaderSplitter()
    assert len(splitter.feed(memoryview(bytes(HEADER_BYTES + 5)))) == 1
    with pytest.raises(DataCorrupted, match="5 bytes of one are left"):
        splitter.finish()
