"""Rows by mapper and row id, however their blocks come."""

from __future__ import annotations

import random
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from support.packed import EXCHANGE, blocks_of, row_packer, rows_of, snapshot_of

from cosco.client.read.state import mapper_order as module
from cosco.client.read.state.mapper_order import HELD_BLOCK_BYTES, MapperOrder
from cosco.client.read.state.merge import CheckedBlock, StoredMerge
from cosco.errors import CapacityExceeded, DataCorrupted
from cosco.format.block import HEADER_BYTES, decode_content, encode_block, parse_header
from cosco.protocol.records import AttemptSums

pytestmark = pytest.mark.usefixtures("read_mechanics")

GIB = 1 << 30


def packed(mapper: int, attempt: int, rows: list[bytes]) -> tuple[list[bytes], AttemptSums]:
    """The blocks of an attempt that gives `rows` to partition 0, a few each, and its sums."""
    packer = row_packer(1, mapper=mapper, attempt=attempt, buffer_bytes=400)
    frames = []
    for row in rows:
        if packer.collect(0, row):
            frames += list(packer.drain())
    frames += list(packer.drain())
    return blocks_of(frames, 1)[0], packer.sums()


def numbered(mapper: int, count: int) -> list[bytes]:
    return [f"{mapper}/{row}".encode() for row in range(count)]


def checked(block: bytes) -> CheckedBlock:
    header = parse_header(block)
    content = decode_content(header, memoryview(block)[HEADER_BYTES:])
    return CheckedBlock(header, content, memoryview(block))


@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(0, 90), min_size=1, max_size=4),
    named=st.sets(st.integers(0, 3)),
    decoded_bytes=st.sampled_from([0, 300, 32 << 20]),
)
def test_any_order_of_blocks_gives_that_of_mappers(
    seed: int, counts: list[int], named: set[int], decoded_bytes: int
) -> None:
    rng = random.Random(seed)
    blocks, commits, wanted = [], [], []
    for mapper, count in enumerate(counts):
        rows = numbered(mapper, count)
        if count > 60:
            rows[count // 2] = rng.randbytes(3 << 20)  # comes in fragments
        made, sums = packed(mapper, 7, rows)
        blocks += made * rng.randint(1, 2)
        blocks += packed(mapper, 8, rows)[0]
        commits.append((mapper, 7, sums))
        wanted += rows if mapper in named else []
    rng.shuffle(blocks)
    merge = StoredMerge(
        snapshot_of(0, commits), exchange=EXCHANGE, partition=0, named=BitMap(named)
    )
    held = MapperOrder(GIB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DECODED_BYTES", decoded_bytes)
        for block in chain.from_iterable(merge.feed(memoryview(one)) for one in blocks):
            held.add(block)
    assert merge.complete()
    assert rows_of(held.rows()) == wanted
    assert rows_of(held.rows()) == []


def test_more_mappers_and_rows_than_half_a_word_counts() -> None:
    held = MapperOrder(GIB)
    places = [(mapper, row) for mapper in (0, 1, 2**31 - 1) for row in (0, 2**33, 2**47)]
    for mapper, row in random.Random(3).sample(places, len(places)):
        header, stored, _ = encode_block(
            exchange=1, partition=0, mapper=mapper, attempt=1, first_row=row, rows=1,
            content=f"{mapper} {row}".encode(), codec=0,
        )  # fmt: skip
        held.add(checked(header + stored))
    assert rows_of(held.rows()) == [f"{mapper} {row}".encode() for mapper, row in places]


def test_what_is_held_is_bounded_and_a_block_costs_more_than_its_bytes() -> None:
    blocks, _ = packed(1, 1, numbered(1, 200))
    cost = sum(len(block) + HELD_BLOCK_BYTES for block in blocks)
    for max_held_bytes in (cost, cost - 1):
        held = MapperOrder(max_held_bytes)
        for block in blocks[:-1]:
            held.add(checked(block))
        if max_held_bytes == cost:
            held.add(checked(blocks[-1]))
            assert rows_of(held.rows()) == numbered(1, 200)
        else:
            with pytest.raises(CapacityExceeded, match=f"max_held_bytes, {cost - 1} bytes: give"):
                held.add(checked(blocks[-1]))


@pytest.mark.parametrize("decoded_bytes", [0, 32 << 20])
def test_the_message_that_a_block_came_in_is_not_held(
    decoded_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DECODED_BYTES", decoded_bytes)
    held = MapperOrder(GIB)
    message = bytearray(packed(1, 1, numbered(1, 20))[0][0])
    whole = memoryview(message)
    header = parse_header(message)
    held.add(CheckedBlock(header, decode_content(header, whole[HEADER_BYTES:]), whole))
    whole.release()
    message.append(0)  # raises if anything looks at it


def test_a_block_that_changes_while_it_is_held_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECODED_BYTES", 0)
    held = MapperOrder(GIB)
    block = bytearray(packed(1, 1, numbered(1, 20))[0][0])
    whole = checked(bytes(block))
    block[-1] ^= 1
    held.add(whole._replace(whole=memoryview(block)))
    with pytest.raises(DataCorrupted):
        list(held.rows())
