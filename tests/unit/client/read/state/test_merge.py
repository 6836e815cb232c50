from __future__ import annotations

import pickle
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from support.packed import (
    EXCHANGE,
    blocks_of,
    merge_of,
    one_block,
    row_packer,
    rows_of,
    snapshot_of,
    verify,
)

from cosco.client.read.state.merge import MAX_REASONS, BareHeaders, PartitionMerge
from cosco.errors import DataCorrupted, DataLost
from cosco.format.block import HEADER_BYTES
from cosco.protocol.records import AttemptSums, ReadSnapshot

pytestmark = pytest.mark.usefixtures("read_mechanics")


def packed(
    rows: list[bytes], *, mapper: int = 4, attempt: int = 1, buffer_bytes: int = 2000
) -> tuple[list[bytes], AttemptSums]:
    """The blocks of one attempt that writes `rows` to partition 0, and its sums."""
    packer = row_packer(1, mapper=mapper, attempt=attempt, buffer_bytes=buffer_bytes)
    frames = []
    for row in rows:
        if packer.collect(0, row):
            frames += list(packer.drain())
    frames += list(packer.drain())
    return blocks_of(frames, 1)[0], packer.sums()


def numbered(count: int, tag: str = "") -> list[bytes]:
    return [f"{tag}row {i}".encode() for i in range(count)]


def feed(merge: PartitionMerge, *data: bytes) -> list[bytes]:
    return [row for one in data for row in rows_of(merge.feed(memoryview(one)))]


def one_mapper(rows: list[bytes]) -> tuple[list[bytes], ReadSnapshot]:
    blocks, sums = packed(rows)
    return blocks, snapshot_of(0, [(4, 1, sums)])


@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(0, 120), min_size=1, max_size=4),
    named=st.sets(st.integers(0, 3)),
)
def test_any_order_and_any_copies_give_each_row_once(
    seed: int, counts: list[int], named: set[int]
) -> None:
    rng = random.Random(seed)
    pieces: list[bytes] = []
    commits, wanted = [], []
    for mapper, count in enumerate(counts):
        rows = numbered(count, f"{mapper}/")
        if count > 3:
            rows[count // 2] = rng.randbytes(3 << 20)  # comes in fragments
        blocks, sums = packed(rows, mapper=mapper, attempt=7)
        pieces += blocks * rng.randint(1, 2)
        pieces += packed(numbered(count, "lost/"), mapper=mapper, attempt=8)[0]
        commits.append((mapper, 7, sums))
        wanted += rows if mapper in named else []
    pieces += packed(numbered(5, "unknown/"), mapper=50, attempt=7)[0]
    rng.shuffle(pieces)
    merge = merge_of(snapshot_of(0, commits), 0, named)
    found = []
    while pieces:
        run = [pieces.pop() for _ in range(min(len(pieces), rng.randint(1, 9)))]
        found += feed(merge, b"".join(run))
    verify(merge)
    assert merge.complete()
    assert not merge.bad
    assert sorted(found) == sorted(wanted)


def test_copies_are_dropped() -> None:
    blocks, snapshot = one_mapper(numbered(200))
    merge = merge_of(snapshot, 0, [4])
    assert feed(merge, *blocks) == numbered(200)
    assert feed(merge, *blocks) == []
    assert len(blocks) > 1
    assert (merge.count.rows, merge.refusals) == (200, 0)


def test_a_missing_block_is_a_loss() -> None:
    blocks, snapshot = one_mapper(numbered(200))
    for missing in range(len(blocks)):
        merge = merge_of(snapshot, 0, [4])
        feed(merge, *blocks[:missing], *blocks[missing + 1 :])
        assert not merge.complete()
        with pytest.raises(DataLost, match=r"found \d+ of 200 committed rows") as raised:
            verify(merge)
        error = pickle.loads(pickle.dumps(raised.value))
        assert (error.shuffle_id, error.partition, error.mappers) == (None, None, (4,))


def test_nothing_was_committed_and_nothing_is_there() -> None:
    merge = merge_of(snapshot_of(0, []), 0, [1, 2])
    assert feed(merge, b"") == []
    verify(merge)


@pytest.mark.parametrize("named", [[4], []])
def test_a_flipped_byte_is_caught_and_another_copy_makes_up_for_it(named: list[int]) -> None:
    blocks, snapshot = one_mapper(numbered(60))
    good = b"".join(blocks)
    for place in range(0, len(good), 5):
        bad = bytearray(good)
        bad[place] ^= 0x10
        merge = merge_of(snapshot, 0, named)
        found = feed(merge, bytes(bad))
        assert merge.bad
        with pytest.raises(DataCorrupted):
            verify(merge)
        found += feed(merge, good)
        verify(merge)
        assert found == (numbered(60) if named else [])


def test_what_follows_a_broken_block_is_left_to_other_copies() -> None:
    blocks, snapshot = one_mapper(numbered(200))
    merge = merge_of(snapshot, 0, [4])
    broken = blocks[1][:-1] + bytes([blocks[1][-1] ^ 1])
    rows = feed(merge, blocks[0] + broken + b"".join(blocks[2:]))
    assert 0 < len(rows) < 200
    assert len(merge.bad) == 1
    rows += feed(merge, b"".join(blocks))
    verify(merge)
    assert sorted(rows) == sorted(numbered(200))


@pytest.mark.parametrize("changes", [{"exchange": EXCHANGE + 1}, {"partition": 1}])
def test_blocks_of_another_place_are_bad_and_do_not_end_the_walk(changes: dict[str, int]) -> None:
    blocks, snapshot = one_mapper(numbered(10))
    merge = merge_of(snapshot, 0, [4])
    assert feed(merge, one_block(**changes) + b"".join(blocks)) == numbered(10)
    assert "lies among those of exchange 9, partition 0" in merge.bad[0]
    verify(merge)


def test_overlapping_rows_are_bad() -> None:
    blocks, snapshot = one_mapper(numbered(3))
    merge = merge_of(snapshot, 0, [4])
    feed(merge, *blocks, one_block(first_row=2, rows=2, content=bytes(8)))
    assert "overlaps" in merge.bad[0]
    verify(merge)


@pytest.mark.parametrize("named", [[4], []])
def test_rows_that_nobody_committed_contradict_the_sums(named: list[int]) -> None:
    blocks, snapshot = one_mapper(numbered(3))
    merge = merge_of(snapshot, 0, named)
    feed(merge, *blocks, one_block(first_row=3))
    with pytest.raises(DataCorrupted, match="contradicts the committed sums"):
        verify(merge)


def test_the_digest_sum_decides_when_rows_and_bytes_agree() -> None:
    blocks, snapshot = one_mapper(numbered(3))
    merge = merge_of(replace(snapshot, digest=snapshot.digest ^ 1), 0, [4])
    feed(merge, *blocks)
    with pytest.raises(DataCorrupted, match="found 3 of 3 committed rows"):
        verify(merge)


def test_fragments_of_a_row_come_in_any_order_and_none_may_be_missing() -> None:
    row = random.Random(5).randbytes(5 << 20)
    blocks, snapshot = one_mapper([b"before", row, b"after"])
    fragments = [b for b in blocks if len(b) > 1 << 19]
    assert len(fragments) == 5
    rest = [b for b in blocks if b not in fragments]
    for missing in range(5):
        merge = merge_of(snapshot, 0, [4])
        order = fragments[missing + 1 :] + fragments[:missing]
        assert feed(merge, *order, *order, *rest) == [b"before", b"after"]
        with pytest.raises(DataLost):
            verify(merge)
        assert feed(merge, fragments[missing]) == [row]
        verify(merge)


def test_other_rows_at_the_same_position_never_pass() -> None:
    """Whichever comes first: the other is dropped as a copy, and the sums tell."""
    blocks, snapshot = one_mapper([b"x"])
    other = one_block(content=b"\x01\0\0\0y")
    merge = merge_of(snapshot, 0, [4])
    assert feed(merge, other, *blocks) == [b"y"]
    assert (merge.count.rows, merge.refusals) == (1, 0)
    with pytest.raises(DataCorrupted, match="contradicts the committed sums"):
        verify(merge)
    merge = merge_of(snapshot, 0, [4])
    assert feed(merge, *blocks, other) == [b"x"]
    verify(merge)


def test_what_is_kept_of_seen_blocks_grows_with_gaps() -> None:
    blocks, snapshot = one_mapper(numbered(2000))
    assert len(blocks) > 10
    merge = merge_of(snapshot, 0, [4])
    feed(merge, *blocks[::2])
    assert merge.count.intervals == len(blocks[::2])
    feed(merge, *blocks, *blocks[1::2])
    assert merge.count.intervals == 1


def test_reasons_are_bounded() -> None:
    merge = merge_of(snapshot_of(0, []), 0, [])
    for _ in range(3 * MAX_REASONS):
        feed(merge, one_block(partition=1))
    assert len(merge.bad) == MAX_REASONS
    assert merge.refusals == 3 * MAX_REASONS


# --- headers --------------------------------------------------------------------------------------


def two_mappers() -> tuple[list[bytes], list[bytes], ReadSnapshot]:
    """The blocks of mapper 4, those of mapper 5, and what was committed."""
    blocks, sums = packed(numbered(120), mapper=4)
    rows = numbered(120, "other ")
    rows[60] = random.Random(1).randbytes(3 << 20)  # comes in fragments
    others, other_sums = packed(rows, mapper=5)
    assert len(others) > 4
    return blocks, others, snapshot_of(0, [(4, 1, sums), (5, 1, other_sums)])


def bare(*blocks: bytes) -> BareHeaders:
    return BareHeaders(memoryview(b"".join(block[:HEADER_BYTES] for block in blocks)))


@pytest.mark.parametrize("seed", range(5))
def test_headers_of_others_make_the_sums_whole_once(seed: int) -> None:
    blocks, others, snapshot = two_mappers()
    merge = merge_of(snapshot, 0, [4])
    assert merge.to_name == BitMap([4])
    rng = random.Random(seed)
    pieces = [*blocks, *blocks, *map(bare, others), *map(bare, others), *others]
    rng.shuffle(pieces)
    found = []
    for piece in pieces:
        if isinstance(piece, BareHeaders):
            merge.feed_headers(piece)
        else:
            found += feed(merge, piece)
    assert sorted(found) == sorted(numbered(120))
    assert merge.complete()
    assert not merge.bad


@pytest.mark.parametrize("named", [[4, 5], [4, 5, 6]])
def test_nobody_is_named_where_no_others_wrote(named: list[int]) -> None:
    assert merge_of(two_mappers()[2], 0, named).to_name == BitMap()


def test_a_missing_header_is_missed() -> None:
    blocks, others, snapshot = two_mappers()
    for missing in range(len(others)):
        merge = merge_of(snapshot, 0, [4])
        feed(merge, *blocks)
        merge.feed_headers(bare(*others[:missing], *others[missing + 1 :]))
        assert not merge.complete()


def test_headers_are_forgotten_and_made_up_for_by_blocks() -> None:
    blocks, others, snapshot = two_mappers()
    merge = merge_of(snapshot, 0, [4])
    torn = bytearray(bare(*others).data)
    torn[HEADER_BYTES + 40] ^= 1  # the rows of one
    merge.feed_headers(BareHeaders(memoryview(torn)))
    found = feed(merge, *blocks, others[2])
    merge.feed_headers(bare(*others))
    assert not merge.complete()
    merge.forget_headers()
    assert not merge.complete()
    found += feed(merge, *others)
    assert merge.complete()
    assert found == numbered(120)
    merge.forget_headers()
    assert merge.complete()


def test_what_is_no_header_of_others_is_bad() -> None:
    blocks, others, snapshot = two_mappers()
    merge = merge_of(snapshot, 0, [4])
    for block, reason in (
        (blocks[0], "a block of mapper 4 came as its header alone"),
        (bytes(HEADER_BYTES), "no block begins"),
        (one_block(mapper=5, partition=1), "lies among those of"),
    ):
        merge.feed_headers(bare(block, *others))
        assert reason in merge.bad[-1]
    assert merge.refusals == 3
    feed(merge, *blocks)
    assert merge.complete()


def test_a_mark_among_blocks_is_bad() -> None:
    blocks, snapshot = one_mapper(numbered(10))
    merge = merge_of(snapshot, 0, [4])
    mark = one_block(rows=0, content=b"", lengths=False, mark=True)
    assert feed(merge, mark, *blocks, mark) == numbered(10)
    assert merge.refusals == 2
    assert "a mark of mapper 4" in merge.bad[0]
    assert merge.complete()
