from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.client.content import Decoded
from cosco.client.content.byte_rows import BYTES_SCHEMA, block_cuts, iter_rows, rows_to_batch
from cosco.errors import DataCorrupted
from cosco.format.block import MAX_CONTENT_BYTES

pytestmark = pytest.mark.usefixtures("read_mechanics")


def decoded(rows: list[bytes]) -> Decoded:
    table = np.array(list(map(len, rows)), "<u4").tobytes()
    return Decoded(3, len(rows), table + b"".join(rows), lengths=True)


def long_row(row: bytes) -> Decoded:
    return Decoded(3, 1, row, lengths=False)


blocks = st.one_of(
    st.lists(st.binary(max_size=20), min_size=1).map(decoded), st.binary().map(long_row)
)


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=20), max_size=5))
def test_rows_come_back_in_order(groups: list[list[bytes]]) -> None:
    assert [list(iter_rows(decoded(rows))) for rows in groups] == groups
    batch = rows_to_batch([decoded(rows) for rows in groups])
    batch.validate(full=True)
    assert batch.schema == BYTES_SCHEMA
    assert batch.column("row").to_pylist() == list(itertools.chain(*groups))


@given(st.lists(blocks, max_size=6))
def test_both_ways_to_read_agree(items: list[Decoded]) -> None:
    rows = [row for item in items for row in iter_rows(item)]
    assert rows_to_batch(items).column("row").to_pylist() == rows


def test_rows_are_bytes_of_their_own() -> None:
    content = bytearray(decoded([b"one", b"two"]).content)
    item = Decoded(3, 2, memoryview(content), lengths=True)
    rows, batch = list(iter_rows(item)), rows_to_batch([item])
    content[:] = bytes(len(content))
    assert rows == [b"one", b"two"]
    assert batch.column("row").to_pylist() == [b"one", b"two"]


@pytest.mark.parametrize(
    "item",
    [
        Decoded(3, 1, b"\x02\x00\x00\x00a", lengths=True),
        Decoded(3, 1, b"\x00\x00\x00\x00a", lengths=True),
        Decoded(3, 2, b"\x00\x00\x00\x00", lengths=True),
        Decoded(3, 2, b"\xff\xff\xff\xff\xff\xff\xff\xff", lengths=True),
        Decoded(3, 2, b"ab", lengths=False),
        Decoded(3, 0, b"", lengths=False),
    ],
)
def test_a_table_that_does_not_fit_is_refused(item: Decoded) -> None:
    with pytest.raises(DataCorrupted, match="mapper 3"):
        iter_rows(item)
    with pytest.raises(DataCorrupted, match="mapper 3"):
        rows_to_batch([item])


def test_two_gibibytes_are_too_much_for_a_batch() -> None:
    item = long_row(bytes(1 << 30))
    with pytest.raises(ValueError, match="one batch holds at most"):
        rows_to_batch([item, item])


@given(st.lists(st.integers(0, 1000) | st.integers(0, 3 << 20), min_size=1, max_size=200))
def test_blocks_are_near_equal_and_never_too_long(lengths: list[int]) -> None:
    ends = 777 + np.cumsum(np.array(lengths, np.int64) + 4)
    cuts = list(block_cuts(ends, 777))
    assert [first for first, _ in cuts] == [0, *(end for _, end in cuts[:-1])]
    assert cuts[-1][1] == len(lengths)
    sizes = [sum(lengths[first:end]) + 4 * (end - first) for first, end in cuts]
    for (first, end), size in zip(cuts, sizes, strict=True):
        assert end > first
        assert size <= MAX_CONTENT_BYTES or end - first == 1
    if max(lengths) <= 1000 and len(sizes) > 1:
        assert min(sizes) >= MAX_CONTENT_BYTES // 2 - 2000


def test_small_rows_make_blocks_of_half_a_mebibyte_or_more() -> None:
    for total in (MAX_CONTENT_BYTES, MAX_CONTENT_BYTES + 104, 5 * MAX_CONTENT_BYTES // 2):
        ends = np.arange(104, total + 1, 104, dtype=np.int64)
        sizes = [104 * (end - first) for first, end in block_cuts(ends, 0)]
        assert len(sizes) == -(-int(ends[-1]) // MAX_CONTENT_BYTES)
        assert max(sizes) - min(sizes) <= 208


def test_no_rows_are_an_empty_batch() -> None:
    assert rows_to_batch([]).equals(
        pa.RecordBatch.from_arrays([pa.array([], pa.binary())], schema=BYTES_SCHEMA)
    )
