"""What readers of several partitions are told: for each what a reader of it alone is told."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from support.committing import (
    OWNER,
    PARTITIONS,
    PRIMARY,
    await_commits,
    commit_of,
    exchange,
    lose,
    run,
)

from cosco.errors import (
    CoscoError,
    DataCorrupted,
    DataLost,
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    RecomputeMismatch,
)
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.exchange.reader_answers import MAX_RANGES
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import (
    Assignment,
    CommitWait,
    ExchangeSpec,
    PartitionRange,
    RangesWait,
    ReadSnapshot,
)

ALL = {partition: partition + 1 for partition in range(PARTITIONS)}


def await_ranges(
    state: ExchangeState,
    partitions: Sequence[int],
    mappers: Sequence[int] = (),
    generation: int = 0,
) -> RangesWait:
    asked = np.array(partitions, dtype=np.uint32)
    return state.await_ranges(BitMap(mappers), asked, generation, lambda _: (PRIMARY,))


def snapshots(wait: RangesWait) -> dict[int, ReadSnapshot]:
    return {partition: one for each in wait.ranges for partition, one in each.snapshots()}


def plain(snapshot: ReadSnapshot) -> tuple[object, ...]:
    """It without arrays, so that it can be compared."""
    return (
        snapshot.version, snapshot.generation, snapshot.build, snapshot.mappers.tolist(),
        snapshot.attempts.tolist(), snapshot.rows, snapshot.raw_bytes, snapshot.digest,
        snapshot.sources,
    )  # fmt: skip


def check_as_one_by_one(
    state: ExchangeState, partitions: Sequence[int], mappers: list[int]
) -> None:
    """Compare with what readers of each of the partitions alone are told."""
    alone: dict[int, CommitWait] = {}
    errors: dict[int, CoscoError] = {}
    for partition in partitions:
        try:
            alone[partition] = await_commits(state, partition, mappers)
        except CoscoError as error:
            errors[partition] = error
    ready = {p: wait.snapshot for p, wait in alone.items() if wait.snapshot is not None}
    if errors and not ready:
        with pytest.raises(type(errors[min(errors)])) as caught:
            await_ranges(state, partitions, mappers)
        assert str(caught.value) == str(errors[min(errors)])
        assert caught.value.partition == min(errors)
        return
    found = await_ranges(state, partitions, mappers)
    told = snapshots(found)
    assert {p: plain(one) for p, one in told.items()} == {p: plain(s) for p, s in ready.items()}
    assert list(told) == sorted(ready)
    waiting = alone.keys() - ready
    assert found.waiting == BitMap(waiting) | BitMap(errors)
    assert found.missing == BitMap().union(*(alone[p].missing for p in waiting))
    assert found.recompute == any(alone[p].recompute for p in waiting)
    assert found.failed == bool(errors)


# --- answers ------------------------------------------------------------------------------


def test_nothing_is_ready_before_every_named_mapper_has_committed() -> None:
    state = exchange()
    run(state, 1, ALL)
    wait = await_ranges(state, [0, 2, 6], [1, 2])
    assert wait == RangesWait(waiting=BitMap([0, 2, 6]), missing=BitMap([2]))
    run(state, 2, {2: 5})
    found = await_ranges(state, [0, 2, 6], [1, 2])
    assert not found.waiting
    assert [one.partitions.tolist() for one in found.ranges] == [[0], [2], [6]]
    assert [one.rows for one in snapshots(found).values()] == [1, 8, 7]
    assert found.ranges[0].common.mappers.tolist() == [1]  # those that wrote to it
    assert found.ranges[1].common.mappers.tolist() == [1, 2]


def test_a_lost_range_does_not_keep_the_others_away() -> None:
    state = exchange()
    run(state, 1, ALL)
    run(state, 2, {0: 1, 6: 1})
    lose(state, 3)
    found = await_ranges(state, range(PARTITIONS), [1, 2])
    assert [one.partitions.tolist() for one in found.ranges] == [[0, 1], [4, 5, 6]]
    assert (found.waiting, found.missing) == (BitMap([2, 3]), BitMap([1]))
    assert (found.recompute, found.failed) == (True, False)
    run(state, 1, ALL)
    again = await_ranges(state, range(PARTITIONS), [1, 2])
    assert not again.waiting
    assert [one.common.build for one in again.ranges] == [1, 2, 1]


def test_a_failed_range_is_among_those_that_wait_until_it_is_alone() -> None:
    state = exchange(callback=False)
    run(state, 1, ALL)
    lose(state, 2)
    found = await_ranges(state, [1, 2, 3, 4], [1])
    assert list(snapshots(found)) == [1, 4]
    assert (found.waiting, found.missing, found.failed) == (BitMap([2, 3]), BitMap(), True)
    with pytest.raises(DataLost, match="no callback") as caught:
        await_ranges(state, [2, 3], [1])
    assert caught.value.partition == 2
    run(state, 1, ALL)  # somebody ran it all the same
    assert list(snapshots(await_ranges(state, [2, 3], [1]))) == [2, 3]


def test_a_range_that_was_sent_other_rows_again_has_failed_for_good() -> None:
    state = exchange()
    run(state, 1, ALL)
    lose(state, 2)
    run(state, 1, {2: 9})
    found = await_ranges(state, range(PARTITIONS), [1])
    assert list(snapshots(found)) == [0, 1, 4, 5, 6]
    assert (found.waiting, found.missing, found.failed) == (BitMap([2, 3]), BitMap(), True)
    with pytest.raises(RecomputeMismatch) as caught:
        await_ranges(state, [3], [1])
    assert caught.value.partition == 3


def test_a_failed_range_is_told_at_once_where_all_others_wait() -> None:
    state = exchange(callback=False)
    run(state, 1, ALL)
    lose(state, 2)
    lose(state, 0)
    run(state, 2, {6: 1})
    with pytest.raises(DataLost) as caught:
        await_ranges(state, range(PARTITIONS), [1, 2, 3])
    assert caught.value.partition == 0


def test_a_generation_that_ended_ends_it_for_all_ranges() -> None:
    state = exchange(deterministic=False)
    run(state, 1, ALL)
    run(state, 2, {0: 1})
    lose(state, 3)
    found = await_ranges(state, [0, 6], [1, 2])
    assert (found.waiting, found.missing) == (BitMap([0, 6]), BitMap([1, 2]))
    assert found.recompute
    with pytest.raises(GenerationChanged):
        await_ranges(state, [0, 6], [1, 2], generation=1)


def test_a_contradicted_mapper_cannot_be_read_in_any_range() -> None:
    state = exchange()
    attempt = state.open_attempt(1).attempt
    state.commit(commit_of(1, attempt, ALL))
    with pytest.raises(DataCorrupted):
        state.commit(commit_of(1, attempt, {0: 9}))
    with pytest.raises(DataCorrupted, match="committed twice") as caught:
        await_ranges(state, [2, 6], [1])
    assert (caught.value.mappers, caught.value.partition) == ((1,), 2)
    assert list(snapshots(await_ranges(state, [2, 6], []))) == [2, 6]


@pytest.mark.parametrize("partitions", [[], [1, 1], [3, 2]])
def test_partitions_that_are_none_or_do_not_ascend_are_refused(partitions: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="do not ascend"):
        await_ranges(exchange(), partitions)


def test_a_partition_that_is_none_is_refused() -> None:
    with pytest.raises(PartitionOutOfRange) as caught:
        await_ranges(exchange(), [0, PARTITIONS])
    assert caught.value.partition == PARTITIONS


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 3), st.sets(st.integers(0, PARTITIONS - 1))),
        st.tuples(st.just("lose"), st.integers(0, PARTITIONS - 1)),
        st.tuples(st.just("fail")),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(_STEPS, st.sets(st.integers(0, PARTITIONS - 1), min_size=1), st.sets(st.integers(1, 3)))
def test_they_are_told_what_readers_of_each_are_told(
    steps: list[tuple[object, ...]], partitions: set[int], mappers: set[int]
) -> None:
    state = exchange()
    wrote: dict[int, dict[int, int]] = {}
    for step in steps:
        match step:
            case ("run", int(mapper), set(written)):
                rows = wrote.setdefault(mapper, {int(str(p)): mapper for p in written})
                run(state, mapper, rows)
            case ("lose", int(partition)):
                lose(state, partition)
            case _:
                failed = [(call.loss_id, "no") for call in state.losses.calls()]
                state.losses.answer([], failed[:1])
        check_as_one_by_one(state, sorted(partitions), sorted(mappers))


# --- bounds and costs ---------------------------------------------------------------------


def wide(ranges: int, count: int) -> ExchangeState:
    """An exchange of so many ranges with `count` partitions each."""
    cut = tuple(PartitionRange(i, i * count, count) for i in range(ranges))
    placed = [[Placed(Assignment(r.index, 1, 1, PRIMARY), "store")] for r in cut]
    spec = ExchangeSpec("wide", ranges * count)
    return ExchangeState(3, spec, OWNER, cut, placed, ChangeLog(), callback=True)


def test_an_answer_has_so_many_ranges_and_the_others_are_asked_for_again() -> None:
    state = wide(MAX_RANGES + 10, 2)
    left = list(range(1, 2 * (MAX_RANGES + 10)))
    found = snapshots(await_ranges(state, left))
    assert list(found) == left[: 2 * MAX_RANGES - 1]
    rest = await_ranges(state, left[len(found) :])
    assert [*found, *snapshots(rest)] == left
    assert not rest.waiting


def test_4096_partitions_cost_less_than_ten_milliseconds() -> None:
    state = wide(64, 64)
    for mapper in range(20):
        attempt = state.open_attempt(mapper).attempt
        everywhere = [(index, 1) for index in range(64)]
        rows = dict.fromkeys(range(64 * 64), 3)
        state.commit(commit_of(mapper, attempt, rows, acknowledged=everywhere))
    asked, mappers = np.arange(64 * 64, dtype=np.uint32), BitMap(range(20))

    def seconds() -> float:
        began = time.process_time()
        found = state.await_ranges(mappers, asked, 1, lambda _: (PRIMARY,))
        assert sum(len(one.partitions) for one in found.ranges) == 64 * 64
        return time.process_time() - began

    assert min(seconds() for _ in range(5)) < 0.01
