"""Rows on their way to a reader are counted by the headers of blocks, wherever these are cut."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from support.frame_making import block
from support.mark_making import mark

from cosco.format.block import (
    CODEC_NONE,
    HEADER_BYTES,
    MAGIC,
    MAX_CONTENT_BYTES,
    encode_block,
)
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.mechanics_choice import NATIVE, PORTABLE, Mechanics

SEEDS = 300
#: Where a header has its magic, its rows and how long its stored bytes are.
MAGIC_AT, ROWS_AT, STORED_AT = 0, 40, 48


def fed(*feeds: Sequence[bytes], mechanics: Mechanics | None = None) -> list[int]:
    """What each feed of a section counted."""
    rows = (mechanics or mechanics_choice.CHOSEN).section_rows()
    return [rows.feed([memoryview(part) for part in parts]) for parts in feeds]


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + value.to_bytes(4, "little") + data[at + 4 :]


def fragment(number: int, *, last: bool = False) -> bytes:
    header, stored, _ = encode_block(
        exchange=1, partition=0, mapper=1, attempt=1, first_row=9, rows=int(last), content=b"part",
        codec=CODEC_NONE, fragment=number, last=last,
    )  # fmt: skip
    return header + stored


def test_rows_of_all_kinds_of_blocks() -> None:
    long = block(0, 0, b"x" * MAX_CONTENT_BYTES, rows=70_000)
    assert fed([long]) == [70_000]
    assert fed([block(0, 0, rows=5) + mark(1) + block(0, 5, b"", rows=2)]) == [7]
    assert fed([fragment(0), fragment(1), fragment(2, last=True)]) == [1]
    assert fed([changed(block(0, 0), ROWS_AT, 2**32 - 1)] * 3) == [3 * (2**32 - 1)]


def test_nothing_is_nothing() -> None:
    assert fed([], [b""], [b"", block(0, 0), b""], []) == [0, 0, 1, 0]


def test_rows_count_where_their_header_ends() -> None:
    """Wherever a section of two blocks is cut in two, and in three around the cut."""
    first, second = block(0, 0, b"x" * 90, rows=3), block(0, 3, rows=4)
    data = first + second
    ends = {HEADER_BYTES: 3, len(first) + HEADER_BYTES: 4}
    for at in range(len(data) + 1):
        before = sum(rows for end, rows in ends.items() if end <= at)
        assert fed([data[:at]], [data[at:]]) == [before, 7 - before], at
        assert fed([data[:at], data[at : at + 1], data[at + 1 :]]) == [7], at
    assert sum(fed(*([data[at : at + 1]] for at in range(len(data))))) == 7


@pytest.mark.parametrize(
    "damaged",
    [
        b"zeros" + bytes(HEADER_BYTES),
        bytes(3 * HEADER_BYTES),
        changed(block(0, 0), MAGIC_AT, 0),
        changed(block(0, 0), STORED_AT, MAX_CONTENT_BYTES + 1),
        changed(block(0, 0), STORED_AT, 2**32 - 1),
    ],
)
def test_what_is_no_header_ends_the_count(damaged: bytes) -> None:
    whole = block(0, 0, rows=2)
    assert fed([whole + damaged + whole], [whole], [whole, whole]) == [2, 0, 0]
    for at in range(HEADER_BYTES):  # also where it is cut
        assert fed([whole + damaged[:at]], [damaged[at:] + whole], [whole]) == [2, 0, 0], at


def test_what_ends_too_soon_counts_as_far_as_it_came() -> None:
    whole = block(0, 0, b"x" * 90, rows=2)
    assert fed([whole + whole[: HEADER_BYTES - 1]]) == [2]
    assert fed([whole + whole[:HEADER_BYTES]]) == [4]


def _section(chance: random.Random) -> bytes:
    """Blocks, of which one may be damaged in a place that the walk looks at, or anywhere."""
    made = b"".join(
        block(0, row, chance.randbytes(chance.choice([0, 1, 60, 200, 3000])), rows=row + 1)
        for row in range(chance.randint(0, 20))
    )
    if made and chance.random() < 0.4:
        at = chance.randrange(len(made))
        if chance.random() < 0.5:
            starts = [at for at in range(len(made)) if made.startswith(MAGIC, at)]
            at = chance.choice(starts) + chance.choice([0, 3, 40, 43, 48, 50, 51])
        made = made[:at] + chance.randbytes(1) + made[at + 1 :]
    return made


def _cut(chance: random.Random, data: bytes, most: int) -> list[bytes]:
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(0, most)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def test_both_implementations_count_the_same() -> None:
    first = random.SystemRandom().randrange(2**32)
    print(f"seeds from {first}")
    for seed in range(first, first + SEEDS):
        chance = random.Random(seed)
        data = _section(chance)
        feeds = [_cut(chance, piece, 6) for piece in _cut(chance, data, 8)]
        portable = fed(*feeds, mechanics=PORTABLE)
        assert fed(*feeds, mechanics=NATIVE or PORTABLE) == portable, f"seed {seed}"
        assert sum(portable) == fed([data], mechanics=PORTABLE)[0], f"seed {seed}"
