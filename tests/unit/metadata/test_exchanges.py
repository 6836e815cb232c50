from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from cosco.errors import (
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    SchemaMismatch,
)
from cosco.metadata.changes import ChangeLog
from cosco.metadata.exchanges import CLIENT_ATTEMPTS, ExchangeState
from cosco.metadata.placement import cut_ranges
from cosco.metadata.rows import Placed
from cosco.records import (
    MAX_MAPPER,
    Assignment,
    AttemptSums,
    CommitRequest,
    DaemonRef,
    ExchangeSpec,
    ReadSnapshot,
    RowKind,
    Source,
)

OWNER = bytes(16)
PARTITIONS = 7
RANGES = cut_ranges(PARTITIONS, 3)  # [0, 1], [2, 3], [4, 5, 6]
PRIMARY = DaemonRef(5, "host:5")


def exchange(schema: bytes = b"", changes: ChangeLog | None = None) -> ExchangeState:
    placed = [[Placed(Assignment(r.index, 1, 1, PRIMARY), "store")] for r in RANGES]
    spec = ExchangeSpec("an id", PARTITIONS, schema=schema)
    return ExchangeState(3, spec, OWNER, RANGES, placed, changes or ChangeLog())


def sums_of(rows: Mapping[int, int]) -> AttemptSums:
    """Rows by partition; bytes and digests follow from them."""
    partitions = np.array(sorted(rows), dtype=np.uint32)
    counts = np.array([rows[p] for p in sorted(rows)], dtype=np.uint64)
    digests = counts * np.uint64(0x9E3779B97F4A7C15)
    return AttemptSums(partitions, counts, counts * np.uint64(10), counts * np.uint64(4), digests)


def commit_of(
    mapper: int,
    attempt: int,
    rows: Mapping[int, int],
    *,
    generation: int = 1,
    acknowledged: Sequence[tuple[int, int]] | None = None,
) -> CommitRequest:
    if acknowledged is None:
        touched = {r.index for r in RANGES for p in rows if r.first <= p < r.first + r.count}
        acknowledged = [(index, 1) for index in sorted(touched)]
    return CommitRequest(3, mapper, attempt, generation, tuple(acknowledged), sums_of(rows))


def snapshot(
    state: ExchangeState, partition: int, mappers: Sequence[int] = (), generation: int = 1
) -> ReadSnapshot:
    wait = state.await_commits(BitMap(mappers), partition, generation, lambda _: (PRIMARY,))
    assert wait.snapshot is not None
    return wait.snapshot


def open_and_commit(state: ExchangeState, mapper: int, rows: Mapping[int, int]) -> bool:
    return state.commit(commit_of(mapper, state.open_attempt(mapper).attempt, rows))


# --- attempts -----------------------------------------------------------------------------


def test_attempts_are_counted_over_all_mappers() -> None:
    state = exchange()
    opened = [state.open_attempt(mapper) for mapper in (4, 4, 9)]
    assert [(o.mapper, o.attempt) for o in opened] == [(4, 1), (4, 2), (9, 3)]
    assert opened[0].info == state.info()


def test_chosen_mappers_were_never_opened() -> None:
    state = exchange()
    state.open_attempt(0)
    state.open_attempt(2)
    assert [state.open_attempt(None).mapper for _ in range(3)] == [1, 3, 4]
    state.open_attempt(MAX_MAPPER)
    assert state.open_attempt(None).mapper == 5


@given(st.sets(st.integers(0, 40)))
def test_the_lowest_free_mapper_is_chosen(opened: set[int]) -> None:
    state = exchange()
    for mapper in opened:
        state.open_attempt(mapper)
    assert state.open_attempt(None).mapper == min(set(range(42)) - opened)


def test_a_mapper_out_of_range_opens_nothing() -> None:
    state = exchange()
    with pytest.raises(InvalidArgument, match="mapper is 2147483648"):
        state.open_attempt(MAX_MAPPER + 1)
    assert state.open_attempt(0).attempt == 1


# --- commits ------------------------------------------------------------------------------


def test_the_first_commit_of_a_mapper_wins() -> None:
    state = exchange()
    first, second = state.open_attempt(1).attempt, state.open_attempt(1).attempt
    assert state.commit(commit_of(1, second, {0: 5, 6: 1}))
    assert not state.commit(commit_of(1, first, {0: 7}))
    assert state.commit(commit_of(1, second, {0: 5, 6: 1}))
    assert not state.commit(commit_of(1, first, {0: 7}))
    assert state.progress().partition_rows.tolist() == [5, 0, 0, 0, 0, 0, 1]
    assert state.progress().mappers_committed == 1
    assert snapshot(state, 0).attempts.tolist() == [second]


def test_sums_add_up_modulo_two_to_the_64() -> None:
    state = exchange()
    for mapper in range(5):
        assert open_and_commit(state, mapper, {2: mapper + 1, 3: 1})
    progress = state.progress()
    assert (progress.rows, progress.bytes_raw, progress.bytes_stored) == (20, 200, 80)
    assert progress.partition_bytes.tolist() == [0, 0, 150, 50, 0, 0, 0]
    seen = snapshot(state, 2)
    assert (seen.rows, seen.raw_bytes) == (15, 150)
    assert seen.digest == 15 * 0x9E3779B97F4A7C15 % 2**64


def test_an_empty_mapper_commits() -> None:
    state = exchange()
    assert open_and_commit(state, 1, {})
    assert snapshot(state, 0, [1]).mappers.tolist() == []
    assert state.progress().mappers_committed == 1


def test_a_client_may_make_its_attempt_ids() -> None:
    state = exchange()
    assert state.commit(commit_of(1, CLIENT_ATTEMPTS + 5, {0: 1}))
    assert snapshot(state, 0, [1]).attempts.tolist() == [CLIENT_ATTEMPTS + 5]
    assert state.open_attempt(None).mapper == 0
    assert state.open_attempt(None).mapper == 2


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (commit_of(1, 1, {PARTITIONS: 1}, acknowledged=[(2, 1)]), PartitionOutOfRange, "0 to 6"),
        (commit_of(1, 1, {0: 1}, generation=2), InvalidArgument, "no generation 2"),
        (commit_of(1, 1, {0: 1}, generation=0), InvalidArgument, "no generation 0"),
        (commit_of(1, 2, {0: 1}), InvalidArgument, "attempt 2 of mapper 1 was never opened"),
        (commit_of(2, 1, {0: 1}), InvalidArgument, "attempt 1 of mapper 2 was never opened"),
        (commit_of(1, 1, {0: 1}, acknowledged=[(0, 2)]), InvalidArgument, "no epoch 2 of part"),
        (commit_of(1, 1, {0: 1}, acknowledged=[(3, 1)]), InvalidArgument, "partition range 3"),
        (
            commit_of(1, 1, {0: 1, 2: 1}, acknowledged=[(0, 1)]),
            InvalidArgument,
            "range 1 that no daemon acknowledged",
        ),
    ],
)
def test_an_impossible_commit_changes_nothing(
    request_: CommitRequest, error: type[Exception], message: str
) -> None:
    changes = ChangeLog()
    state = exchange(changes=changes)
    state.open_attempt(1)
    changes.take()
    with pytest.raises(error, match=message):
        state.commit(request_)
    assert not changes
    assert state.progress().mappers_committed == 0
    assert state.progress().rows == 0


def test_an_old_generation_is_refused() -> None:
    state = exchange()
    state.open_attempt(1)
    state.generation = 2
    with pytest.raises(GenerationChanged, match="at generation 2, not 1"):
        state.commit(commit_of(1, 1, {0: 1}))
    with pytest.raises(GenerationChanged):
        snapshot(state, 0, generation=1)
    assert snapshot(state, 0, generation=0).generation == 2


# --- readers ------------------------------------------------------------------------------


def test_readers_learn_who_is_missing() -> None:
    state = exchange()
    open_and_commit(state, 1, {0: 1})
    wait = state.await_commits(BitMap([1, 2, 3]), 0, 1, lambda _: (PRIMARY,))
    assert (wait.snapshot, wait.missing) == (None, BitMap([2, 3]))


def test_a_snapshot_names_the_writers_of_the_range_only() -> None:
    state = exchange()
    open_and_commit(state, 8, {0: 1})
    open_and_commit(state, 3, {1: 1, 4: 1})
    open_and_commit(state, 5, {6: 2})
    seen = snapshot(state, 0, [8])
    assert (seen.mappers.tolist(), seen.attempts.tolist()) == ([3, 8], [2, 1])
    assert (seen.rows, seen.build, seen.generation) == (1, 1, 1)
    assert seen.sources == (Source(0, 1, (PRIMARY,)),)
    assert snapshot(state, 5).mappers.tolist() == [3, 5]
    assert snapshot(state, 2).mappers.tolist() == []


def test_a_later_snapshot_has_later_commits() -> None:
    state = exchange()
    open_and_commit(state, 1, {0: 1})
    before = snapshot(state, 0)
    open_and_commit(state, 2, {0: 1})
    after = snapshot(state, 0)
    assert after.version > before.version
    assert (before.mappers.tolist(), after.mappers.tolist()) == ([1], [1, 2])


@pytest.mark.parametrize("partition", [PARTITIONS, 1 << 31])
def test_a_partition_out_of_range(partition: int) -> None:
    with pytest.raises(PartitionOutOfRange, match="has partitions 0 to 6") as caught:
        snapshot(exchange(), partition)
    assert caught.value.partition == partition
    assert caught.value.shuffle_id == "an id"


# --- rows and drivers ---------------------------------------------------------------------


def test_the_first_kind_of_rows_is_fixed() -> None:
    state = exchange()
    assert state.info().kind is RowKind.UNDECIDED
    state.fix_row_kind(RowKind.ARROW, b"schema")
    state.fix_row_kind(RowKind.ARROW, b"schema")
    assert (state.info().kind, state.info().schema) == (RowKind.ARROW, b"schema")
    with pytest.raises(SchemaMismatch, match="carries Arrow rows of another schema"):
        state.fix_row_kind(RowKind.ARROW, b"other")
    with pytest.raises(SchemaMismatch, match="carries ARROW rows, not BYTES rows"):
        state.fix_row_kind(RowKind.BYTES, b"")


def test_a_schema_given_at_creation_is_fixed() -> None:
    state = exchange(schema=b"schema")
    assert (state.info().kind, state.info().schema) == (RowKind.ARROW, b"schema")
    with pytest.raises(SchemaMismatch):
        state.fix_row_kind(RowKind.BYTES, b"")


def test_only_the_current_driver_polls() -> None:
    state = exchange()
    state.check_driver(OWNER)
    state.take_over(b"b" * 16)
    state.check_driver(b"b" * 16)
    with pytest.raises(InvalidArgument, match="own=True"):
        state.check_driver(OWNER)


def test_assignments_are_found_until_they_are_sealed() -> None:
    state = exchange()
    found = state.assignment(1, 1)
    assert found is not None
    assert found.primary == PRIMARY
    assert state.assignment(1, 2) is None
    assert state.assignment(3, 1) is None
    state.placed[1] = [Placed(Assignment(1, 1, 1, PRIMARY, sealed=True), "store")]
    assert state.assignment(1, 1) is None
