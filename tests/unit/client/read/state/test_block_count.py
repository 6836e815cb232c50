"""What is counted of any bytes: the same by each implementation, down to the texts of errors."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packed import EXCHANGE, one_block

from cosco.client.content import byte_rows
from cosco.client.read.state import block_count, block_splitter, merge
from cosco.errors import CoscoError
from cosco.format.block import CODEC_LZ4, CODEC_NONE, FLAG_FRAGMENT, FLAG_LAST, HEADER_BYTES
from cosco.format.block import parse_header as parsed

pytestmark = pytest.mark.usefixtures("read_mechanics")

SEEDS = st.integers(0, 2**32)
#: Of mapper 0 the last attempt counts; that of 1 is not the one of most blocks; 3 did not commit; 2
#: is not named.
MAPPERS, ATTEMPTS, NAMED = (7, 0, 1, 2, 0), (1, 2, 2, 1, 1), (0, 1, 3, 7)


def attempts_of(counting: Any) -> Any:
    return counting.Attempts(
        np.array(MAPPERS, np.uint32).tobytes(),
        np.array(ATTEMPTS, np.uint64).tobytes(),
        np.array(NAMED, np.uint32).tobytes(),
    )


def sealed(block: bytearray) -> bytes:
    """A block as if whoever changed it had known that it has a checksum."""
    block[4:8] = zlib.crc32(block[8:]).to_bytes(4, "little")
    return bytes(block)


def a_block(rng: random.Random) -> bytes:
    """A block of few mappers and rows, so that many are alike or overlap; some are damaged."""
    rows = rng.randint(1, 3)
    content = bytes(4 * rows) + rng.randbytes(rng.choice([0, 1, 40])) + b"ab" * rng.choice([0, 90])
    fields: dict[str, Any] = {
        "mapper": rng.choice([0, 0, 1, 2, 3, 7, 1 << 31]),
        "attempt": rng.choice([1, 1, 1, 2]),
        "first_row": rng.choice([0, 1, 2, 3, 4, (1 << 48) - 4]),
        "rows": rows,
        "content": content,
        "codec": rng.choice([CODEC_LZ4, CODEC_NONE]),
        "lengths": rng.random() < 0.5,
    }
    kind = rng.random()
    if kind < 0.2:
        last = rng.random() < 0.5
        fragment = {"fragment": rng.randint(0, 3), "last": last, "rows": int(last)}
        fields |= {"lengths": False, **fragment}
    elif kind < 0.25:
        fields |= {"mark": True, "rows": 0, "first_row": 0, "lengths": False, "content": b""}
    elif kind < 0.3:
        fields |= rng.choice([{"exchange": EXCHANGE + 1}, {"partition": 1}])
    block = bytearray(one_block(**fields))
    damage = rng.random()
    if damage < 0.1:
        block[rng.randrange(len(block))] ^= 1 << rng.randrange(8)  # found by its checksum
    elif damage < 0.2:
        block[56 + rng.randrange(len(block) - 56)] ^= 1 << rng.randrange(8)  # by its digest, or lz4
        return sealed(block)
    elif damage < 0.3:
        block[rng.randrange(8, 56)] ^= 1 << rng.randrange(8)  # what it says of itself
        return sealed(block)
    return bytes(block)


def a_run(rng: random.Random) -> bytes:
    blocks = [a_block(rng) for _ in range(rng.randint(0, 12))]
    blocks += rng.sample(blocks, rng.randint(0, len(blocks)))
    rng.shuffle(blocks)
    run = b"".join(blocks)
    return run[: rng.randint(0, len(run))] if rng.random() < 0.2 else run


def figures(count: Any) -> tuple[int, ...]:
    return count.rows, count.row_bytes, count.digest, count.intervals


@given(SEEDS)
def test_any_blocks_are_counted_alike(seed: int) -> None:
    rng = random.Random(seed)
    counts = [
        counting.BlockCount(EXCHANGE, 0, attempts_of(counting))
        for counting in (block_count, merge.COUNTING)
    ]
    for _ in range(4):
        run = a_run(rng)
        data, offset = memoryview(run), 0
        if rng.random() < 0.3:
            headers = memoryview(run[: len(run) - len(run) % HEADER_BYTES])
            bare = [count.feed_headers(headers) for count in counts]
            assert bare[0] == bare[1]
        while offset < len(data):
            most = rng.choice([1, 100, 1 << 20])
            told = [count.feed(data, offset, most) for count in counts]
            assert told[0] == told[1]
            assert offset < told[0][0] <= len(data)
            offset = told[0][0]
        assert figures(counts[0]) == figures(counts[1])
        if rng.random() < 0.3:
            for count in counts:
                count.forget_headers()
            assert figures(counts[0]) == figures(counts[1])


def test_such_blocks_are_of_every_kind() -> None:
    """Or the test above would say little."""
    rng = random.Random(5)
    found: list[block_count.Found] = []
    bad: set[str] = set()
    for _ in range(300):
        count = block_count.BlockCount(EXCHANGE, 0, attempts_of(block_count))
        data, offset = memoryview(a_run(rng)), 0
        while offset < len(data):
            offset, some, reasons = count.feed(data, offset, 1 << 20)
            found += some
            bad.update(reasons)
    flags = {one[3] for one in found}
    assert {FLAG_FRAGMENT, FLAG_FRAGMENT | FLAG_LAST, 0, 4} <= flags
    for reason in (
        "checksum of a block", "digest of a block", "does not decompress", "overlaps another one",
        "lies among blocks", "lies among those of", "cut short", "no block begins at byte",
        "impossible block lengths", "unknown block codec", "row ids beyond their range",
        "begins inside a row", "a fragment with", "a length table of", "a mark with",
    ):  # fmt: skip
        assert any(reason in one for one in bad), reason


def test_a_step_ends_with_the_block_that_fills_it() -> None:
    data = memoryview(b"".join(one_block(first_row=row, mapper=0) for row in range(3)))
    length = len(data) // 3
    count = merge.COUNTING.BlockCount(EXCHANGE, 0, attempts_of(merge.COUNTING))
    ends = [count.feed(data, 0, most)[0] for most in (1, 5, 6, 10, 11, 1 << 20)]
    assert ends == [length, length, 2 * length, 2 * length, 3 * length, 3 * length]
    assert count.rows == 3  # the others had been seen


def test_of_two_blocks_of_one_place_in_a_step_the_good_one_counts() -> None:
    good = one_block(mapper=0, content=b"\x08\0\0\0" + b"x" * 8)
    bad = bytearray(good)
    bad[56] ^= 1
    for blocks in ((good, sealed(bad)), (sealed(bad), good)):
        count = merge.COUNTING.BlockCount(EXCHANGE, 0, attempts_of(merge.COUNTING))
        end, found, reasons = count.feed(memoryview(b"".join(blocks)), 0, 1 << 20)
        assert [(one[1], one[4]) for one in found] == [(0, b"\x08\0\0\0" + b"x" * 8)]
        assert end == 2 * len(good)
        assert reasons in ([], ["digest of a block of mapper 0, partition 0, row 0 does not match"])
        assert figures(count) == (1, 8, parsed(good).digest, 1)


def outcome(call: Any, *arguments: Any) -> Any:
    """What a call gives, or raises."""
    try:
        return call(*arguments)
    except (CoscoError, ValueError) as error:
        return type(error), str(error)


@given(SEEDS)
def test_whole_blocks_end_alike(seed: int) -> None:
    rng = random.Random(seed)
    run = memoryview(a_run(rng))
    for offset in {0, rng.randint(0, len(run))}:
        told = [
            outcome(call, run, offset)
            for call in (block_splitter.whole_blocks, block_splitter.WHOLE_BLOCKS)
        ]
        assert told[0] == told[1]


def a_decoded(rng: random.Random) -> merge.Decoded:
    lengths = [rng.choice([0, 1, 30, 300]) for _ in range(rng.choice([0, 1, 1, 5, 150]))]
    table = np.array(lengths, "<u4").tobytes()
    content = table + rng.randbytes(sum(lengths))
    rows = len(lengths)
    if rng.random() < 0.2:
        return merge.Decoded(3, rng.choice([1, 1, 1, 2]), content, lengths=False)
    wrong = rng.random()
    if wrong < 0.04:
        rows += rng.choice([1, -1, 2**31]) if rows else 1
    elif wrong < 0.08:
        content += b"x"
    elif wrong < 0.1:
        content = content[:-1]
    return merge.Decoded(rng.randrange(1 << 32), rows, content, lengths=True)


@given(SEEDS)
def test_rows_are_joined_alike(seed: int) -> None:
    rng = random.Random(seed)
    decoded = [a_decoded(rng) for _ in range(rng.randint(0, 8))]
    told = [outcome(call, decoded) for call in (byte_rows.join_rows, byte_rows.JOIN_ROWS)]
    assert told[0] == told[1]
    for one in decoded:
        told = [outcome(call, one) for call in (byte_rows.split_rows, byte_rows.SPLIT_ROWS)]
        assert told[0] == told[1]


def test_more_rows_than_an_array_holds_are_refused_alike() -> None:
    gib = memoryview(bytearray(1 << 30))
    decoded = [merge.Decoded(1, 1, gib, lengths=False)] * 2
    with pytest.raises(ValueError, match=r"^2147483648 bytes of rows, one batch holds at most"):
        byte_rows.JOIN_ROWS(decoded)
