from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap
from support.committing import (
    OWNER,
    PARTITIONS,
    PRIMARY,
    await_commits,
    commit_of,
    current,
    exchange,
    lose,
    move_on,
    run,
    snapshot,
    take_report,
)

from cosco.errors import (
    DataCorrupted,
    DataLost,
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    RecomputeMismatch,
    SchemaMismatch,
)
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.losses import MAX_BUILDS, MAX_TRIES
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.api_limits import MAX_MAPPER
from cosco.protocol.records import (
    FIRST_OWN_ATTEMPT,
    Assignment,
    CommitRequest,
    LossCause,
    LossReport,
    RowKind,
    Source,
)


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


def test_no_mapper_opens_but_those_that_the_driver_has_said() -> None:
    state = exchange(mappers=2)
    assert [state.open_attempt(None).mapper for _ in range(2)] == [0, 1]
    with pytest.raises(InvalidArgument, match="each of the 2 mappers was opened"):
        state.open_attempt(None)
    with pytest.raises(InvalidArgument, match="mapper is 2, it must be 0 to 1"):
        state.open_attempt(2)
    assert state.open_attempt(1).attempt == 3


# --- commits ------------------------------------------------------------------------------


def test_the_first_commit_of_a_mapper_wins() -> None:
    state = exchange()
    first, second = state.open_attempt(1).attempt, state.open_attempt(1).attempt
    assert state.commit(commit_of(1, second, {0: 5, 6: 1}))
    assert not state.commit(commit_of(1, first, {0: 7}))
    assert state.commit(commit_of(1, second, {0: 5, 6: 1}))
    assert not state.commit(commit_of(1, first, {0: 7}))
    assert state.progress(2).partition_rows.tolist() == [5, 0, 0, 0, 0, 0, 1]
    assert state.progress(2).mappers_committed == 1
    assert snapshot(state, 0).attempts.tolist() == [second]


def test_sums_add_up_modulo_two_to_the_64() -> None:
    state = exchange()
    for mapper in range(5):
        assert open_and_commit(state, mapper, {2: mapper + 1, 3: 1})
    progress = state.progress(2)
    assert (progress.rows, progress.bytes_raw, progress.bytes_stored) == (20, 200, 80)
    assert progress.partition_bytes.tolist() == [0, 0, 150, 50, 0, 0, 0]
    seen = snapshot(state, 2)
    assert (seen.rows, seen.raw_bytes) == (15, 150)
    assert seen.digest == 15 * 0x9E3779B97F4A7C15 % 2**64


def test_an_empty_mapper_commits() -> None:
    state = exchange()
    assert open_and_commit(state, 1, {})
    assert snapshot(state, 0, [1]).mappers.tolist() == []
    assert state.progress(2).mappers_committed == 1


def test_writers_of_groups_may_make_their_attempt_ids() -> None:
    state = exchange()
    with pytest.raises(InvalidArgument, match="was never opened"):
        state.commit(commit_of(1, FIRST_OWN_ATTEMPT + 5, {0: 1}))
    state.join_group(3)
    with pytest.raises(InvalidArgument, match="mapper is 3, it must be 0 to 2"):
        state.commit(commit_of(3, FIRST_OWN_ATTEMPT + 5, {0: 1}))
    assert state.commit(commit_of(1, FIRST_OWN_ATTEMPT + 5, {0: 1}))
    assert snapshot(state, 0, [1]).attempts.tolist() == [FIRST_OWN_ATTEMPT + 5]
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
        (commit_of(1, 0, {0: 1}), InvalidArgument, "attempt 0 of mapper 1 was never opened"),
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
    changes.pop_all()
    with pytest.raises(error, match=message):
        state.commit(request_)
    assert not changes
    assert state.progress(2).mappers_committed == 0
    assert state.progress(2).rows == 0


def test_an_old_generation_is_refused() -> None:
    state = exchange()
    state.open_attempt(1)
    state.attempts.begin_generation()
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


def test_a_schema_is_refined_by_whoever_has_seen_the_present_one() -> None:
    state = exchange()
    state.fix_row_kind(RowKind.ARROW, b"first", b"")
    state.fix_row_kind(RowKind.ARROW, b"another's", b"")  # which was slower
    assert state.info().schema == b"first"
    state.fix_row_kind(RowKind.ARROW, b"finer", b"first")
    assert state.info().schema == b"finer"
    state.fix_row_kind(RowKind.ARROW, b"finer", b"first")  # repeated
    state.fix_row_kind(RowKind.ARROW, b"another's", b"first")
    assert state.info().schema == b"finer"
    state.fix_row_kind(RowKind.ARROW, b"finest", b"finer")
    state.fix_row_kind(RowKind.ARROW, b"finer", b"first")  # late: it was applied, and then refined
    assert state.info().schema == b"finest"
    assert state.spec.schema == b""


def test_a_declared_schema_is_refined_as_well() -> None:
    state = exchange(schema=b"declared")
    state.fix_row_kind(RowKind.ARROW, b"finer", b"declared")
    assert (state.info().schema, state.spec.schema) == (b"finer", b"declared")


def test_the_kind_of_rows_never_changes() -> None:
    state = exchange()
    state.fix_row_kind(RowKind.BYTES, b"", b"")
    state.fix_row_kind(RowKind.ARROW, b"schema", b"")
    assert state.info().kind is RowKind.BYTES
    state = exchange(schema=b"schema")
    state.fix_row_kind(RowKind.BYTES, b"", b"schema")
    assert (state.info().kind, state.info().schema) == (RowKind.ARROW, b"schema")


def test_a_refined_schema_outlives_a_generation() -> None:
    state = exchange(deterministic=False)
    state.fix_row_kind(RowKind.ARROW, b"first", b"")
    open_and_commit(state, 0, {0: 1})
    lose(state, 0)
    assert state.generation == 2
    assert state.info().schema == b"first"
    state.fix_row_kind(RowKind.ARROW, b"finer", b"first")
    assert state.info().schema == b"finer"


def test_what_the_rows_of_a_group_are_is_said_when_it_is_made() -> None:
    """Its handles know it from then on, and ask nobody."""
    state = exchange(schema=b"declared")
    state.join_group(3)
    state.fix_row_kind(RowKind.ARROW, b"declared", b"declared")
    with pytest.raises(SchemaMismatch, match="the schema it was created with"):
        state.fix_row_kind(RowKind.ARROW, b"finer", b"declared")
    assert state.info().schema == b"declared"


def test_a_schema_given_at_creation_is_fixed() -> None:
    state = exchange(schema=b"schema")
    assert (state.info().kind, state.info().schema) == (RowKind.ARROW, b"schema")
    with pytest.raises(SchemaMismatch):
        state.fix_row_kind(RowKind.BYTES, b"")


def test_only_the_current_driver_polls() -> None:
    state = exchange()
    state.check_driver(OWNER)
    state.take_over(b"b" * 16, False)
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


# --- losses, builds, generations: by the numbers of docs/architecture/failures.md ---------

ROWS = {0: 3, 2: 4, 6: 1}


def calls_of(state: ExchangeState) -> list[tuple[int, list[int]]]:
    return [(call.loss_id, sorted(call.mappers)) for call in state.losses.calls()]


def test_1_a_report_of_another_build_or_generation_does_nothing() -> None:
    state = exchange()
    run(state, 1, ROWS)
    lose(state, 0)
    run(state, 1, ROWS)
    before = (state.version, state.losses.news)
    for generation, build in ((1, 1), (1, 3), (2, 2), (0, 2)):
        report = LossReport(3, generation, build, 1, LossCause.GONE, "late")
        assert take_report(state, report) == []
    assert (state.version, state.losses.news, calls_of(state)) == (*before, [])


def test_1_a_report_of_a_partition_that_is_none() -> None:
    with pytest.raises(PartitionOutOfRange):
        exchange().reported(LossReport(3, 1, 1, PARTITIONS, LossCause.GONE, "x"))


def test_1_a_range_nobody_wrote_to_lost_nothing() -> None:
    state = exchange()
    run(state, 1, {0: 1})
    assert lose(state, 2) == []
    assert state.build(1) == 1


def test_2_the_build_ends_and_its_mappers_are_pending() -> None:
    state = exchange()
    run(state, 1, ROWS)
    run(state, 2, {1: 5})
    run(state, 3, {2: 5})
    assert lose(state, 1, move=False) == [0]
    assert [state.build(index) for index in range(3)] == [2, 1, 1]
    assert state.placed[0][-1].assignment.build == 1  # nobody moved it yet
    wait = await_commits(state, 0, [1, 2, 3, 4])
    assert (wait.missing, wait.recompute) == (BitMap([1, 2, 4]), True)
    wait = await_commits(state, 0, [3, 4])
    assert (wait.missing, wait.recompute) == (BitMap([4]), False)
    assert state.progress(2).partition_rows.tolist() == [0, 0, 9, 0, 0, 0, 1]
    seen = snapshot(state, 0, [3])  # it lost nothing in this range
    assert (seen.build, seen.rows, seen.digest, seen.sources) == (2, 0, 0, ())
    assert snapshot(state, 2, [1, 2, 3]).rows == 9
    move_on(state, [0])
    assert snapshot(state, 0, [3]).sources == (Source(0, 2, (PRIMARY,)),)
    assert state.info().assignments[0].build == 2


def test_3_the_driver_is_called_until_it_answers() -> None:
    state = exchange()
    run(state, 1, ROWS)
    run(state, 2, {1: 5})
    lose(state, 0)
    [call] = state.losses.calls()
    assert call.mappers == BitMap([1, 2])
    assert call.reason == "partition range 0 (partitions 0 to 1) lost rows: file gone"
    run(state, 1, ROWS)
    assert calls_of(state) == [(1, [2])]
    state.losses.answer([1], [])
    assert calls_of(state) == []
    assert await_commits(state, 0, [2]).recompute


def test_3_without_anybody_to_call_rows_are_lost_until_their_mappers_run() -> None:
    state = exchange(callback=False)
    run(state, 1, ROWS)
    run(state, 2, {1: 5})
    assert lose(state, 0) == [0]
    with pytest.raises(DataLost, match="no callback") as caught:
        await_commits(state, 0, [2])
    assert (caught.value.mappers, caught.value.retriable) == ((1, 2), False)
    assert await_commits(state, 0, []).snapshot is not None
    run(state, 2, {1: 5})
    assert snapshot(state, 1, [2]).rows == 5
    with pytest.raises(DataLost):
        await_commits(state, 0, [1, 2])
    run(state, 1, ROWS)
    assert snapshot(state, 0, [1, 2]).rows == 3


def test_4_an_attempt_of_a_pending_mapper_sends_the_lost_ranges_only() -> None:
    state = exchange()
    run(state, 1, ROWS)
    first = snapshot(state, 0).attempts.tolist()
    lose(state, 0)
    lose(state, 6)
    opened = state.open_attempt(1)
    assert (opened.partial, opened.ranges) == (True, (0, 2))
    assert not state.open_attempt(2).partial
    request = commit_of(
        1, opened.attempt, {0: 3}, acknowledged=current(state, {0}), ranges=opened.ranges
    )
    assert state.commit(replace(request, ranges=(0,)))
    seen = snapshot(state, 0, [1])
    assert (seen.rows, seen.mappers.tolist(), seen.attempts.tolist()) == (3, [1], [opened.attempt])
    assert snapshot(state, 2, [1]).attempts.tolist() == first
    assert await_commits(state, 6, [1]).missing == BitMap([1])
    assert state.commit(replace(request, ranges=(0,)))  # the answer was late
    assert snapshot(state, 0, [1]).rows == 3
    assert state.open_attempt(1).ranges == (2,)


def test_4_a_full_attempt_counts_for_what_it_sent_to_the_present_build() -> None:
    state = exchange()
    slow, other = (state.open_attempt(1).attempt for _ in range(2))
    run(state, 1, ROWS)
    lose(state, 0)
    lose(state, 2)
    mixed = commit_of(1, slow, ROWS, acknowledged=[(0, 1), (0, 2), (1, 2), (2, 1)])
    assert state.commit(mixed)
    assert await_commits(state, 0, [1]).missing == BitMap([1])
    assert snapshot(state, 2, [1]).attempts.tolist() == [slow]
    assert snapshot(state, 6, [1]).attempts.tolist() == [3]
    assert state.progress(2).partition_rows.tolist() == [0, 0, 4, 0, 0, 0, 1]
    late = commit_of(1, other, ROWS, acknowledged=[(0, 2), (1, 2), (2, 1)])
    assert state.commit(late)
    assert snapshot(state, 0, [1]).attempts.tolist() == [other]
    assert snapshot(state, 2, [1]).attempts.tolist() == [slow]
    assert state.progress(2).partition_rows.tolist() == [3, 0, 4, 0, 0, 0, 1]
    assert state.commit(mixed)
    assert state.progress(2).rows == 8


def test_4_one_of_two_attempts_repairs_a_range() -> None:
    state = exchange()
    run(state, 1, ROWS)
    lose(state, 0)
    first, second = (state.open_attempt(1).attempt for _ in range(2))
    request = commit_of(1, first, {0: 3}, acknowledged=current(state, {0}), ranges=[0])
    assert state.commit(request)
    assert not state.commit(replace(request, attempt=second))
    assert state.commit(request)
    assert snapshot(state, 0, [1]).rows == 3


def test_4_what_was_lost_again_meanwhile_does_not_count() -> None:
    state = exchange()
    run(state, 1, ROWS)
    lose(state, 0)
    attempt = state.open_attempt(1).attempt
    request = commit_of(1, attempt, {0: 3}, acknowledged=current(state, {0}), ranges=[0])
    run(state, 1, ROWS)
    lose(state, 0)
    assert not state.commit(request)
    assert await_commits(state, 0, [1]).missing == BitMap([1])
    run(state, 1, ROWS)
    assert snapshot(state, 0, [1]).rows == 3


def test_4_a_rerun_that_came_in_vain_is_not_waited_for_for_ever() -> None:
    """The driver had nothing run for the second loss, as an attempt was running already."""
    state = exchange()
    run(state, 1, ROWS)
    lose(state, 0)
    assert calls_of(state) == [(1, [1])]
    state.losses.answer([1], [])
    opened = state.open_attempt(1)
    vain = commit_of(1, opened.attempt, {0: 3}, acknowledged=current(state, {0}), ranges=[0])
    run(state, 2, {0: 1})
    lose(state, 0)
    assert calls_of(state) == [(2, [1, 2])]
    state.losses.answer([2], [])
    run(state, 2, {0: 1})
    assert calls_of(state) == []
    news = state.losses.news
    assert not state.commit(vain)
    assert state.losses.news > news
    assert calls_of(state) == [(3, [1])]
    run(state, 1, ROWS)
    assert snapshot(state, 0, [1, 2]).rows == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranges": (1,)}, "partition range 0, and its attempt was for others"),
        ({"ranges": ()}, "partition range 0, and its attempt was for others"),
        ({"mapper": 2}, "which has not committed"),
    ],
)
def test_4_an_impossible_partial_commit(change: dict[str, Any], message: str) -> None:
    changes = ChangeLog()
    state = exchange(changes=changes)
    run(state, 1, ROWS)
    lose(state, 0)
    attempt = state.open_attempt(1).attempt
    state.open_attempt(2)
    changes.pop_all()
    request = commit_of(1, attempt, {0: 3}, acknowledged=current(state, {0}), ranges=[0])
    with pytest.raises(InvalidArgument, match=message):
        state.commit(replace(request, **change))
    assert not changes


def test_5_a_first_commit_of_an_ended_build_joins_the_loss() -> None:
    state = exchange()
    run(state, 1, {0: 2})
    attempt = state.open_attempt(2).attempt
    lose(state, 0)
    assert calls_of(state) == [(1, [1])]
    run(state, 1, {0: 2})
    late = commit_of(2, attempt, ROWS, acknowledged=[(0, 1), (0, 2), (1, 1), (2, 1)])
    for _ in range(2):
        assert state.commit(late)
        assert calls_of(state) == [(2, [2])]
    assert snapshot(state, 2, [2]).rows == 4
    assert snapshot(state, 0, [1]).rows == 2
    assert await_commits(state, 0, [2]).recompute
    run(state, 2, ROWS)
    assert snapshot(state, 0, [1, 2]).rows == 5
    assert state.progress(2).partition_rows.tolist() == [5, 0, 4, 0, 0, 0, 1]


def test_5_a_joiner_must_send_the_same_rows_again() -> None:
    state = exchange()
    run(state, 1, {0: 2})
    attempt = state.open_attempt(2).attempt
    lose(state, 0)
    state.commit(commit_of(2, attempt, {0: 5}, acknowledged=[(0, 1)]))
    run(state, 1, {0: 2})
    run(state, 2, {0: 4})
    with pytest.raises(RecomputeMismatch, match=r"had 7 rows .* and 6 rows"):
        await_commits(state, 0)


def test_6_other_rows_are_a_mismatch() -> None:
    state = exchange()
    run(state, 1, ROWS)
    run(state, 2, {1: 5})
    lose(state, 0)
    run(state, 2, {1: 4, 0: 1})
    run(state, 1, ROWS)
    for named in ([], [1], [1, 2, 3]):
        with pytest.raises(RecomputeMismatch, match=r"partition 0 had 3 rows \(30 bytes\)"):
            await_commits(state, 1, named)
    assert lose(state, 0) == []
    assert snapshot(state, 2, [1]).rows == 4


@pytest.mark.parametrize(
    ("kind", "matters"), [(RowKind.BYTES, True), (RowKind.ARROW, False), (RowKind.OPAQUE, False)]
)
def test_6_lengths_are_compared_of_rows_of_bytes(kind: RowKind, matters: bool) -> None:
    state = exchange()
    state.fix_row_kind(kind, b"schema" if kind is RowKind.ARROW else b"")
    run(state, 1, {0: 3})
    lose(state, 0)
    attempt = state.open_attempt(1).attempt
    request = commit_of(1, attempt, {0: 3}, acknowledged=current(state, {0}), ranges=[0])
    sums = replace(request.sums, raw_bytes=request.sums.raw_bytes + np.uint64(1))
    assert state.commit(replace(request, sums=sums))
    if matters:
        with pytest.raises(RecomputeMismatch, match=r"\(30 bytes\) .* \(31 bytes\) now"):
            await_commits(state, 0, [1])
    else:
        assert snapshot(state, 0, [1]).raw_bytes == 31


def test_6_no_rows_where_there_were_some_are_a_mismatch() -> None:
    state = exchange()
    run(state, 1, {0: 3})
    lose(state, 0)
    assert run(state, 1, {})
    with pytest.raises(RecomputeMismatch):
        await_commits(state, 0, [1])


def test_6_first_commits_during_a_rebuild_are_no_part_of_the_comparison() -> None:
    state = exchange()
    run(state, 1, {0: 3})
    lose(state, 0)
    run(state, 2, {0: 5})
    run(state, 1, {0: 3})
    assert snapshot(state, 0, [1, 2]).rows == 8


def test_7_rows_missing_from_whole_files_are_rebuilt_like_others_until_it_is_enough() -> None:
    state = exchange()
    run(state, 1, ROWS)
    for build in range(MAX_BUILDS):
        cause = LossCause.MISSING if build % 2 else LossCause.GONE
        assert lose(state, 0, cause) == [0]
        run(state, 1, ROWS)
    assert lose(state, 2, LossCause.MISSING) == [1]
    assert lose(state, 0, LossCause.MISSING) == []
    with pytest.raises(DataCorrupted, match=f"built {MAX_BUILDS} times anew"):
        await_commits(state, 0)
    assert lose(state, 0) == []
    run(state, 1, ROWS)
    assert snapshot(state, 2, [1]).rows == 4


def test_7_a_late_commit_to_a_condemned_range_calls_nobody() -> None:
    state = exchange()
    run(state, 1, {0: 1})
    attempt = state.open_attempt(2).attempt
    for _ in range(MAX_BUILDS):
        lose(state, 0, LossCause.MISSING)
        run(state, 1, {0: 1})
    lose(state, 0, LossCause.MISSING)
    assert state.commit(commit_of(2, attempt, ROWS))
    assert calls_of(state) == []
    assert not state.open_attempt(2).partial
    assert snapshot(state, 2, [2]).rows == 4


def test_7_a_range_is_rebuilt_so_many_times() -> None:
    state = exchange()
    run(state, 1, ROWS)
    for _ in range(MAX_BUILDS):
        assert lose(state, 0) == [0]
        assert len(calls_of(state)) == 1
        run(state, 1, ROWS)
    assert snapshot(state, 0, [1]).rows == 3
    assert lose(state, 0) == [0]
    assert calls_of(state) == []
    with pytest.raises(DataLost, match=f"built {MAX_BUILDS} times anew") as caught:
        await_commits(state, 0, [1])
    assert caught.value.mappers == (1,)
    run(state, 1, ROWS)  # by hand
    assert snapshot(state, 0, [1]).rows == 3


def test_a_loss_during_a_rebuild() -> None:
    state = exchange()
    for mapper in (1, 2, 3):
        run(state, mapper, {0: mapper, 1: 1})
    lose(state, 0)
    run(state, 1, {0: 1, 1: 1})  # sent again
    run(state, 4, {0: 4})  # committed first
    lose(state, 1)
    assert await_commits(state, 0, [1, 2, 3, 4]).missing == BitMap([1, 2, 3, 4])
    assert calls_of(state) == [(2, [1, 2, 3, 4])]
    for mapper in (4, 3, 2):
        run(state, mapper, {0: mapper, 1: 1} if mapper < 4 else {0: 4})
    assert await_commits(state, 0, [1, 2, 3, 4]).missing == BitMap([1])
    run(state, 1, {0: 1, 1: 1})
    seen = snapshot(state, 0, [1, 2, 3, 4])
    assert (seen.rows, seen.build, snapshot(state, 1).rows) == (10, 3, 3)


def test_a_mapper_lost_twice_at_once_is_called_back_once() -> None:
    state = exchange()
    run(state, 1, ROWS)
    lose(state, 0)
    lose(state, 2)
    assert calls_of(state) == [(2, [1])]
    run(state, 1, ROWS)
    assert calls_of(state) == []
    assert snapshot(state, 0, [1]).rows == 3
    assert snapshot(state, 2, [1]).rows == 4


def test_a_mapper_that_keeps_failing_ends_in_data_lost() -> None:
    state = exchange()
    run(state, 1, ROWS)
    lose(state, 0)
    before = state.losses.news
    for _ in range(MAX_TRIES):
        state.open_attempt(1)
    assert await_commits(state, 0, [1]).recompute
    assert state.losses.news == before
    state.open_attempt(1)
    assert state.losses.news > before
    with pytest.raises(DataLost, match="mapper 1 ran 16 times without a commit"):
        await_commits(state, 0, [1])
    run(state, 1, ROWS)
    assert snapshot(state, 0, [1]).rows == 3


def test_another_driver_is_called_for_what_is_lost() -> None:
    state = exchange(callback=False)
    run(state, 1, ROWS)
    lose(state, 0)
    with pytest.raises(DataLost):
        await_commits(state, 0, [1])
    state.take_over(b"b" * 16, True)
    assert calls_of(state) == [(1, [1])]
    state.losses.answer([1], [])
    state.take_over(b"b" * 16, True)  # its call, repeated
    assert calls_of(state) == []
    assert await_commits(state, 0, [1]).recompute


def test_8_a_loss_without_determinism_begins_a_generation() -> None:
    state = exchange(deterministic=False)
    run(state, 1, ROWS)
    run(state, 2, {6: 5})
    old = state.open_attempt(3).attempt
    assert lose(state, 0) == [0, 1, 2]
    assert [state.build(index) for index in range(3)] == [2, 2, 2]
    assert (state.generation, state.progress(2).mappers_committed) == (2, 0)
    assert state.progress(2).rows == 0
    [call] = state.losses.calls()
    assert call.mappers == BitMap([1, 2, 3])
    assert "generation 2 begins, finished reducers must run again" in call.reason
    for attempt in (old, FIRST_OWN_ATTEMPT):
        with pytest.raises(GenerationChanged):
            state.commit(commit_of(3, attempt, ROWS))
    with pytest.raises(GenerationChanged):
        await_commits(state, 6, [2], generation=1)
    wait = await_commits(state, 6, [1, 2, 9])
    assert (wait.missing, wait.recompute) == (BitMap([1, 2, 9]), True)
    assert not state.open_attempt(1).partial
    assert state.open_attempt(None).mapper == 0  # who was opened stays so
    run(state, 1, {6: 2})  # other rows than before
    assert calls_of(state) == [(1, [2, 3])]
    run(state, 2, {6: 1})
    run(state, 3, {})
    seen = snapshot(state, 6, [1, 2, 3], generation=2)
    assert (seen.rows, seen.build, seen.sources) == (3, 2, (Source(2, 2, (PRIMARY,)),))
    assert calls_of(state) == []


def test_8_an_attempt_that_wrote_to_an_ended_build_is_refused() -> None:
    state = exchange(deterministic=False)
    run(state, 1, ROWS)
    lose(state, 0, move=False)
    attempt = state.open_attempt(1).attempt  # is told the epochs that failover is to seal
    with pytest.raises(GenerationChanged, match="run it again"):
        state.commit(commit_of(1, attempt, ROWS, generation=2))
    assert state.progress(2).rows == 0
    move_on(state, [0, 1, 2])
    assert run(state, 1, ROWS)
    assert snapshot(state, 0, [1], generation=2).rows == 3


def test_8_generations_fail_as_ranges_do() -> None:
    state = exchange(deterministic=False, callback=False)
    run(state, 1, ROWS)
    lose(state, 0)
    for partition in (0, 6):
        with pytest.raises(DataLost) as caught:
            await_commits(state, partition, [1, 2])
        assert caught.value.mappers == (1,)
    run(state, 1, ROWS)
    assert snapshot(state, 0, [1], generation=2).rows == 3
    for _ in range(MAX_BUILDS - 1):
        lose(state, 0, LossCause.MISSING)
        run(state, 1, ROWS)
    assert lose(state, 0, LossCause.MISSING) == []
    with pytest.raises(DataCorrupted):
        await_commits(state, 0, [1])
    assert snapshot(state, 6, [1], generation=MAX_BUILDS + 1).rows == 1


def test_a_commit_that_counts_makes_a_newer_version() -> None:
    state = exchange()
    versions = [state.version]
    for step in (
        lambda: run(state, 1, ROWS),
        lambda: lose(state, 0, move=False),
        lambda: state.seal(0),
        lambda: state.begin_epoch(0, PRIMARY, (), "store"),
        lambda: run(state, 1, ROWS),
    ):
        step()
        versions.append(state.version)
    assert versions == sorted(set(versions))
    state.seal(0)
    assert state.current(0).sealed
    again = state.version
    state.seal(0)
    assert state.version == again


def test_sources_are_the_epochs_of_the_present_build() -> None:
    state = exchange()
    run(state, 1, ROWS)
    move_on(state, [0])
    assert snapshot(state, 0).sources == (
        Source(0, 1, (PRIMARY,), sealed=True),
        Source(0, 2, (PRIMARY,)),
    )
    assert state.assignment(0, 1) is None
    assert state.assignment(0, 2) == state.info().assignments[0]
    late = state.open_attempt(2).attempt
    assert state.commit(commit_of(2, late, {0: 1}, acknowledged=[(0, 1), (0, 2)]))
    assert snapshot(state, 0, [1, 2]).rows == 4
    lose(state, 0)
    assert [s.epoch for s in snapshot(state, 0).sources] == [3]
