"""Blocks of some mappers, out of memory that is cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from support.frame_making import EXCHANGE, block

from cosco.errors import DataCorrupted
from cosco.format.block import HEADER_BYTES
from cosco.shuffle_service.state.block_choice import MAX_BLOCKS, BlockChoice, Chosen


def cut(data: bytes, at: Sequence[int]) -> list[memoryview]:
    bounds = [0, *sorted({a % (len(data) + 1) for a in at}), len(data)]
    return [memoryview(data)[low:high] for low, high in pairwise(bounds)]


def choice(*mappers: int, partition: int = 0) -> BlockChoice:
    return BlockChoice(EXCHANGE, partition, BitMap(mappers))


def found(chosen: Chosen) -> tuple[int, bytes, bytes]:
    wanted = b"".join(chosen.wanted)
    assert chosen.wanted_bytes == len(wanted)
    return chosen.taken, wanted, chosen.headers


def blocks_of(mappers: Sequence[int], length: int = 100) -> list[bytes]:
    return [block(0, n, bytes([n % 251]) * length, mapper=m) for n, m in enumerate(mappers)]


def test_wanted_blocks_come_whole_and_others_as_headers() -> None:
    blocks = blocks_of([3, 3, 5, 3, 6])
    body = b"".join(blocks)
    taken, wanted, headers = found(choice(3).look_at([memoryview(body)], len(body)))
    assert taken == len(body)
    assert wanted == blocks[0] + blocks[1] + blocks[3]
    assert headers == blocks[2][:HEADER_BYTES] + blocks[4][:HEADER_BYTES]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=12),
    st.sets(st.integers(0, 3)),
    st.lists(st.integers(0, 5000), max_size=8),
    st.integers(1, 5000),
)
def test_wherever_memory_is_cut_every_block_is_dealt_with_once(
    made: list[tuple[int, int]], mappers: set[int], cuts: list[int], window: int
) -> None:
    blocks = [block(0, n, bytes(length), mapper=m) for n, (m, length) in enumerate(made)]
    body = b"".join(blocks)
    chosen = BlockChoice(EXCHANGE, 0, BitMap(mappers))
    wanted = headers = b""
    position = 0
    while position < len(body):
        views = cut(body[position : position + window], cuts)
        taken, some, others = found(chosen.look_at(views, len(body) - position))
        if not taken:  # its first block is not there as a whole
            header = body[position : position + HEADER_BYTES]
            taken, is_wanted = chosen.one(header, len(body) - position)
            assert window < (taken if is_wanted else HEADER_BYTES)
            some = body[position : position + taken] if is_wanted else b""
            others = b"" if is_wanted else header
        wanted, headers, position = wanted + some, headers + others, position + taken
    assert position == len(body)
    of_mappers = [(m in mappers, one) for (m, _), one in zip(made, blocks, strict=True)]
    assert wanted == b"".join(one for is_wanted, one in of_mappers if is_wanted)
    assert headers == b"".join(one[:HEADER_BYTES] for is_wanted, one in of_mappers if not is_wanted)


def test_what_is_left_out_need_not_be_looked_at() -> None:
    blocks = blocks_of([5, 3], length=1000)
    body = b"".join(blocks)
    taken, wanted, headers = found(choice(3).look_at([memoryview(body)[:80]], len(body)))
    assert (taken, wanted, headers) == (len(blocks[0]), b"", blocks[0][:HEADER_BYTES])


def test_what_lies_behind_the_chunk_is_not_looked_at() -> None:
    blocks = blocks_of([5, 3, 3])
    views = [memoryview(b"".join(blocks))]
    taken, wanted, headers = found(choice(3).look_at(views, len(blocks[0] + blocks[1])))
    assert (taken, wanted) == (len(blocks[0] + blocks[1]), blocks[1])
    assert headers == blocks[0][:HEADER_BYTES]


def test_a_look_ends() -> None:
    body = b"".join(blocks_of([3, 5] * MAX_BLOCKS, length=1))
    taken, wanted, headers = found(choice(3).look_at([memoryview(body)], len(body)))
    assert len(headers) == len(wanted) // 65 * HEADER_BYTES == MAX_BLOCKS // 2 * HEADER_BYTES
    assert taken == len(body) // 2


def damaged(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"CBK2"),
        (8, bytes([EXCHANGE + 1])),
        (32, b"\1"),  # another partition
        (44, b"\0"),  # raw_bytes below stored_bytes
        (44, b"\1\0\x10\0"),  # more than a block has
        (48, b"\xff\xff\0\0"),  # stored_bytes
    ],
)
def test_what_cannot_be_a_block_ends_the_look_before_it(at: int, value: bytes) -> None:
    blocks = blocks_of([5, 3, 5])
    bad = damaged(blocks[1], at, value)
    body = blocks[0] + bad + blocks[2]
    taken, wanted, headers = found(choice(3).look_at([memoryview(body)], len(body)))
    assert (taken, wanted, headers) == (len(blocks[0]), b"", blocks[0][:HEADER_BYTES])
    rest = memoryview(body)[taken:]
    with pytest.raises(DataCorrupted):
        choice(3).look_at([rest], len(rest))
    with pytest.raises(DataCorrupted):
        choice(3).one(rest[:HEADER_BYTES], len(rest))


def test_a_block_that_is_longer_than_its_chunk_is_none() -> None:
    [one] = blocks_of([5])
    with pytest.raises(DataCorrupted):
        choice(3).look_at([memoryview(one)[:-1]], len(one) - 1)
    assert choice(3).look_at([memoryview(one)], len(one)).taken == len(one)
