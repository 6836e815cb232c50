"""Nothing of a frame is believed before it is checked."""

from __future__ import annotations

import pytest
from support.daemon_mechanics import check_frame
from support.frame_making import EXCHANGE, block, frame
from support.mark_making import mark

from cosco.errors import DataCorrupted
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.protocol.keys import MapperAttempt

MAPPER_ATTEMPT = MapperAttempt(1, 1)


def check(data: bytes):
    return check_frame(memoryview(data), EXCHANGE, MAPPER_ATTEMPT)


def test_neighbouring_blocks_of_a_partition_are_one_run():
    blocks = [block(3, 0), block(3, 1, b"yy"), block(4, 0), block(3, 2)]
    checked = check(frame(blocks))
    assert checked.partitions() == [3, 4, 3]
    assert checked.run_count == 3
    positions = [checked.positions(run) for run in range(3)]
    assert positions == [[(0, 1 << 16), (1 << 16, 2 << 16)], [(0, 1 << 16)], [(2 << 16, 3 << 16)]]


def test_every_flipped_bit_is_refused():
    good = frame([block(3, 0, b"abc"), block(4, 0)])
    # The sequence and the rest of the header are under its checksum as well.
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataCorrupted):
            check(bytes(bad))


def test_every_shortened_frame_is_refused():
    good = frame([block(3, 0, b"abc"), block(4, 0)])
    for length in range(len(good)):
        with pytest.raises(DataCorrupted):
            check(good[:length])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (frame([block(3, 0)]) + b"\0", "glued"),
        (frame([block(3, 0)], count=2), "blocks"),
        (frame([block(3, 0)], exchange=EXCHANGE + 1), "on a stream of exchange"),
        (frame([block(3, 0, exchange=EXCHANGE + 1)]), "a block of exchange"),
        (frame([block(3, 0, mapper=2)]), "mapper 2"),
        (frame([block(3, 0, attempt=2)]), "attempt 2"),
        (frame([], count=1), "names 1 blocks"),
        (b"\0" * (MAX_FRAME_BYTES + 1), "limit"),
    ],
)
def test_a_frame_of_something_else_is_refused_with_the_reason(data, what):
    with pytest.raises(DataCorrupted, match=what):
        check(data)


@pytest.mark.parametrize("blocks", [[], [block(3, 0), block(4, 0)]], ids=["alone", "after rows"])
def test_a_mark_is_in_no_run(blocks):
    data = frame([*blocks, mark(1)])
    checked = check(data)
    assert checked.partitions() == [3, 4][: len(blocks)]
    assert sum(len(checked.positions(run)) for run in range(checked.run_count)) == len(blocks)
    header, stored = checked.mark
    assert header.is_mark
    assert data.endswith(bytes(stored))
    assert len(stored) == header.stored_bytes > 0
    assert check(frame([block(3, 0)])).mark is None


@pytest.mark.parametrize(
    "blocks",
    [
        [mark(1), block(3, 0)],
        [mark(1), mark(1)],
        [block(3, 0), mark(2)],
        [block(3, 0), mark(1, attempt=2)],
        [mark(1, exchange=EXCHANGE + 1)],
    ],
    ids=["not last", "two", "of another mapper", "of another attempt", "of another exchange"],
)
def test_a_mark_that_is_out_of_place_is_refused(blocks):
    with pytest.raises(DataCorrupted):
        check(frame(blocks))
