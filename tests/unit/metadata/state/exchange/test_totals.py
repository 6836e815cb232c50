"""What a re-run is compared by: the same rows are the same totals, however they were cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.committing import PARTITIONS, await_commits, exchange, lose, ranges_with
from support.packed import arrow_packer, row_packer

from cosco.client.write.state import framing, packing_parts, sorting
from cosco.errors import RecomputeMismatch
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.protocol.records import AttemptSums, CommitRequest, RowKind, pairs_array

CATEGORY = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string()), ("kind", CATEGORY)])
MAPPER = 4
#: Rows of these lengths are cut into fragments, with the limit of a block that tests set.
MAX_CONTENT = 300

Row = tuple[int, bytes]


@st.composite
def rows_and_cuts(draw: st.DrawFn) -> tuple[list[Row], list[tuple[list[int], int, Any]]]:
    """Rows with their partitions, and two ways to collect them: batches, buffer, and order."""
    lengths = st.one_of(st.integers(0, 30), st.integers(MAX_CONTENT - 8, 3 * MAX_CONTENT))
    row = st.tuples(st.integers(0, PARTITIONS - 1), lengths.map(lambda n: bytes([n % 251]) * n))
    rows = draw(st.lists(row, min_size=1, max_size=40))
    ways = []
    for _ in range(2):
        cuts = sorted(draw(st.sets(st.integers(1, len(rows)), max_size=6)))
        order = draw(st.permutations(range(len(rows))))
        ways.append((cuts, draw(st.sampled_from([400, 5_000, 1 << 20])), order))
    return rows, ways


def batches(rows: Sequence[Row], cuts: Iterable[int]) -> list[list[Row]]:
    bounds = [0, *cuts, len(rows)]
    return [list(rows[a:b]) for a, b in itertools.pairwise(bounds) if a < b]


def bytes_sums(rows: Sequence[Row], cuts: Iterable[int], buffer_bytes: int) -> AttemptSums:
    """Batches of one row are collected alone."""
    packer = row_packer(PARTITIONS, buffer_bytes=buffer_bytes)
    for batch in batches(rows, cuts):
        numbers = np.array([partition for partition, _ in batch])
        for _ in packer.collect_batch(numbers, [row for _, row in batch]):
            pass
    for _ in packer.drain():
        pass
    return packer.sums()


def arrow_sums(rows: Sequence[Row], cuts: Iterable[int], buffer_bytes: int) -> AttemptSums:
    packer = arrow_packer(SCHEMA, PARTITIONS, buffer_bytes=max(buffer_bytes, 5_000))
    for batch in batches(rows, cuts):
        texts = pa.array([row.hex() for _, row in batch])
        keys = pa.array([len(row) for _, row in batch], pa.int64())
        columns = [keys, texts, texts.dictionary_encode()]
        for _ in packer.collect_batch(
            np.array([partition for partition, _ in batch]),
            pa.RecordBatch.from_arrays(columns, schema=SCHEMA),
        ):
            pass
    for _ in packer.drain():
        pass
    return packer.sums()


def commit(state: ExchangeState, sums: AttemptSums) -> None:
    """An attempt that sends what it is to send to the epochs there are."""
    opened = state.open_attempt(MAPPER)
    partitions = sums.partitions.tolist()
    if opened.partial:
        kept = np.array([ranges_with([p]) <= set(opened.ranges) for p in partitions], bool)
        sums = AttemptSums(
            *(getattr(sums, name)[kept] for name in AttemptSums.__slots__)  # type: ignore[attr-defined]
        )
        partitions = sums.partitions.tolist()
    epochs = [(i, state.current(i).epoch) for i in sorted(ranges_with(partitions))]
    assert state.commit(
        CommitRequest(
            3,
            MAPPER,
            opened.attempt,
            1,
            pairs_array(epochs),
            sums,
            partial=opened.partial,
            ranges=opened.ranges,
        )
    )


def run_again(kind: RowKind, before: AttemptSums, after: AttemptSums) -> str:
    """What readers are told once all that was written is lost and sent again; empty: the rows."""
    state = exchange()
    state.fix_row_kind(kind, b"a schema" if kind is RowKind.ARROW else b"")
    commit(state, before)
    written = before.partitions.tolist()
    for index in sorted(ranges_with(written)):
        lose(state, next(p for p in written if ranges_with([p]) == {index}))
    commit(state, after)
    try:
        for partition in range(PARTITIONS):
            assert await_commits(state, partition, [MAPPER]).snapshot is not None
    except RecomputeMismatch as error:
        return str(error)
    return ""


@given(rows_and_cuts())
@settings(max_examples=25, deadline=None)
def test_the_same_rows_are_never_a_mismatch(
    found: tuple[list[Row], list[tuple[list[int], int, Any]]],
) -> None:
    rows, ways = found
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing_parts, "NATIVE", None)  # which cuts where the format says
        for module in (framing, sorting):
            patched.setattr(module, "MAX_CONTENT_BYTES", MAX_CONTENT)
        of_bytes = [
            bytes_sums([rows[i] for i in order], cuts, buffer_bytes)
            for cuts, buffer_bytes, order in ways
        ]
    of_columns = [
        arrow_sums([rows[i] for i in order], cuts, buffer_bytes)
        for cuts, buffer_bytes, order in ways
    ]
    for first, second in (of_bytes, of_columns):
        assert first.partitions.tolist() == second.partitions.tolist()
        assert first.rows.tolist() == second.rows.tolist()
    lengths = np.zeros(PARTITIONS, int)
    for partition, row in rows:
        lengths[partition] += len(row)
    for sums in of_bytes:
        assert sums.spread(sums.raw_bytes, PARTITIONS).tolist() == lengths.tolist()
    assert not run_again(RowKind.BYTES, *of_bytes)
    assert not run_again(RowKind.ARROW, *of_columns)


@given(rows_and_cuts(), st.data())
@settings(max_examples=20, deadline=None)
def test_other_numbers_of_rows_and_other_lengths_are_always_a_mismatch(
    found: tuple[list[Row], list[tuple[list[int], int, Any]]], data: st.DataObject
) -> None:
    rows, ways = found
    (cuts, buffer_bytes, _), (others, *_) = ways
    at = data.draw(st.integers(0, len(rows) - 1))
    partition, row = rows[at]
    twice, longer = [*rows, rows[at]], [*rows[:at], (partition, row + b"x"), *rows[at + 1 :]]
    for wrong in (twice, longer):
        before, after = bytes_sums(rows, cuts, buffer_bytes), bytes_sums(wrong, others, 1 << 20)
        assert "mappers ran again and sent other rows" in run_again(RowKind.BYTES, before, after)
    before, after = arrow_sums(rows, cuts, buffer_bytes), arrow_sums(twice, others, 1 << 20)
    assert f"partition {partition} had" in run_again(RowKind.ARROW, before, after)
