"""Losses by themselves: who is told of them, who is in them, when they fail and end."""

from __future__ import annotations

import pytest
from pyroaring import BitMap

from cosco.errors import DataCorrupted, DataLost, RecomputeMismatch
from cosco.metadata.state.exchange.losses import MAX_TRIES, Losses, one_line
from cosco.metadata.state.records.changes import ChangeLog


def losses(changes: ChangeLog | None = None, *, callback: bool = True) -> Losses:
    return Losses(3, ChangeLog() if changes is None else changes, callback=callback)


def lose(state: Losses, lost: dict[int, list[int]], reason: str = "gone") -> None:
    """Builds of ranges end at once, to which these mappers wrote."""
    state.begin({index: BitMap(mappers) for index, mappers in lost.items()}, reason)


def told(state: Losses) -> list[tuple[int, list[int]]]:
    return [(call.loss_id, sorted(call.mappers)) for call in state.calls()]


def readable(state: Losses, index: int, *mappers: int) -> bool:
    try:
        state.check_readable(index, BitMap(mappers), 4, "an id")
    except DataLost:
        return False
    return True


def test_a_loss_is_told_until_it_is_answered() -> None:
    state = losses()
    lose(state, {0: [1, 2]}, "gone")
    assert told(state) == [(1, [1, 2])]
    assert told(state) == [(1, [1, 2])]
    assert state.calls()[0].reason == "gone"
    state.answer([1], [])
    assert told(state) == []
    assert readable(state, 0, 1)


def test_mappers_that_are_back_are_not_called() -> None:
    state = losses()
    lose(state, {0: [1, 2]}, "gone")
    assert not state.repair([0], 1)
    assert told(state) == [(1, [2])]
    assert not state.repair([0], 1)
    assert not state.repair([1], 2)
    assert state.repair([0], 2) == [0]
    assert told(state) == []
    assert not state.pending(0)


def test_calls_are_copies() -> None:
    state = losses()
    lose(state, {0: [1, 2]}, "gone")
    [call] = state.calls()
    state.repair([0], 1)
    assert call.mappers == BitMap([1, 2])


def test_a_failed_callback_fails_its_loss_for_those_who_name_its_mappers() -> None:
    state = losses()
    lose(state, {0: [1, 2]}, "file gone")
    lose(state, {1: [3]}, "file gone")
    state.answer([], [(1, "no such\njob")])
    with pytest.raises(DataLost, match=r"file gone; .* callback failed: no such job") as caught:
        state.check_readable(0, BitMap([2, 9]), 4, "an id")
    assert caught.value.mappers == (1, 2)
    assert (caught.value.partition, caught.value.shuffle_id) == (4, "an id")
    assert readable(state, 0, 3)
    assert readable(state, 1, 1, 2, 3)
    state.answer([1], [])  # answered before, late
    assert not readable(state, 0, 1)
    state.repair([0], 1)
    state.repair([0], 2)
    assert readable(state, 0, 1, 2)


def test_answers_for_losses_that_are_no_more_are_passed_over() -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    lose(state, {0: [2]}, "gone again")
    before = state.news
    state.answer([1, 77], [(1, "raised"), (78, "raised")])
    assert state.news == before
    assert told(state) == [(2, [1, 2])]


def test_a_loss_is_extended_until_it_is_told() -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    state.join([0], 5, "joined")
    assert told(state) == [(1, [1, 5])]
    state.join([0], 6, "joined")
    state.join([0], 7, "joined")
    assert told(state) == [(1, [1, 5]), (2, [6, 7])]
    assert state.pending(0) == BitMap([1, 5, 6, 7])


def test_ranges_lost_in_one_event_are_one_loss() -> None:
    state = losses()
    lose(state, {0: [1, 2], 3: [2, 5], 4: [1]})
    assert told(state) == [(1, [1, 2, 5])]
    assert state.ranges_of(2) == (0, 3)
    [shown] = state.shown(5)
    assert (shown.ranges, shown.ranges_count, shown.mappers) == ((0, 3, 4), 3, 3)
    assert state.repair([0, 3, 4], 1) == [4]
    assert state.repair([0, 3], 2) == [0]
    assert told(state) == [(1, [5])]
    assert state.repair([3], 5) == [3]
    assert told(state) == []


def test_what_is_lost_before_the_driver_knows_of_it_is_one_loss() -> None:
    state = losses()
    lose(state, {0: [1, 2]})
    lose(state, {1: [2, 3]}, "gone as well")
    assert told(state) == [(2, [1, 2, 3])]
    assert state.shown(5)[0].ranges == (0, 1)


def test_who_was_called_back_and_has_not_begun_brings_back_what_is_lost_meanwhile() -> None:
    state = losses()
    lose(state, {0: [1, 2, 3]})
    told(state)
    state.try_again(1, attempt=5)  # it is told of range 0 alone
    lose(state, {1: [1, 2, 4]}, "gone as well")
    assert told(state) == [(1, [2, 3]), (2, [1, 4])]
    state.answer([1, 2], [])
    lose(state, {2: [2, 4]}, "and again")
    assert told(state) == []
    assert [state.ranges_of(mapper) for mapper in (1, 2, 4)] == [(0, 1), (0, 1, 2), (1, 2)]
    state.try_again(4, attempt=6)
    lose(state, {3: [1, 4]}, "and again")
    assert told(state) == [(3, [4])]  # mapper 1 has not begun since it was called again


def test_a_range_lost_again_calls_back_who_has_come_back() -> None:
    state = losses()
    lose(state, {0: [1, 2]})
    told(state)
    state.try_again(1, attempt=5)
    state.repair([0], 1)
    state.answer([1], [])
    lose(state, {0: [1]}, "gone again")
    assert told(state) == [(2, [1])]
    assert state.pending(0) == BitMap([1, 2])


def test_who_was_not_to_be_had_is_asked_for_again() -> None:
    state = losses()
    lose(state, {0: [1, 2]})
    state.answer([], [(1, "no")])
    assert not readable(state, 0, 1)
    lose(state, {1: [1]})
    assert told(state) == [(2, [1])]
    assert readable(state, 0, 1)
    assert not readable(state, 0, 2)


def test_nobody_is_called_back_for_a_range_that_was_built_too_often() -> None:
    state = losses()
    lost = {0: BitMap([1, 2]), 1: BitMap([2, 3])}
    state.begin(lost, "gone", {0: "it was built 8 times anew"})
    assert told(state) == [(1, [2, 3])]
    with pytest.raises(DataLost, match="it was built 8 times anew") as caught:
        state.check_readable(0, BitMap([1]), 4, "an id")
    assert caught.value.mappers == (1, 2)
    assert readable(state, 0, 2)  # it runs for the other range
    assert readable(state, 1, 1, 2, 3)
    state.join([0], 7, "joined")
    assert not readable(state, 0, 7)
    state.join([0, 1], 8, "joined")
    assert told(state) == [(1, [2, 3]), (3, [8])]


def test_a_mapper_that_commits_late_to_several_lost_ranges_is_called_back_once() -> None:
    state = losses()
    lose(state, {0: [1], 1: [1]})
    told(state)
    state.join([0, 1], 9, "late")
    assert told(state) == [(1, [1]), (2, [9])]
    state.try_again(9, attempt=5)
    state.in_vain(9, 5)
    state.in_vain(9, 5)
    assert told(state) == [(1, [1]), (3, [9])]
    assert state.ranges_of(9) == (0, 1)


def test_ids_are_used_once() -> None:
    state = losses()
    for _ in range(3):
        lose(state, {0: [1]}, "gone")
        assert state.repair([0], 1) == [0]
    lose(state, {0: [1]}, "gone")
    assert told(state) == [(4, [1])]


def test_without_a_callback_losses_fail_at_once_and_joiners_with_them() -> None:
    state = losses(callback=False)
    lose(state, {0: [1]}, "gone")
    state.join([0], 2, "joined")
    assert told(state) == []
    with pytest.raises(DataLost, match="has no callback") as caught:
        state.check_readable(0, BitMap([2]), 4, "an id")
    assert caught.value.mappers == (1, 2)
    assert not state.repair([0], 1)
    assert state.repair([0], 2) == [0]
    assert readable(state, 0, 1, 2)


def test_another_driver_is_told_of_every_loss_anew() -> None:
    state = losses(callback=False)
    lose(state, {0: [1]}, "gone")
    state.take_over(callback=True)
    assert told(state) == [(1, [1])]
    assert readable(state, 0, 1)
    state.answer([1], [])
    state.take_over(callback=True)
    assert told(state) == [(1, [1])]
    state.take_over(callback=False)
    assert told(state) == []
    assert not readable(state, 0, 1)


def test_a_mapper_that_keeps_failing_fails_its_losses() -> None:
    state = losses()
    lose(state, {0: [1, 2]}, "gone")
    lose(state, {1: [3]}, "gone")
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
        state.try_again(9, attempt=5)  # was not called back
    assert readable(state, 0, 1)
    state.try_again(1, attempt=5)
    with pytest.raises(DataLost, match=f"mapper 1 ran {MAX_TRIES} times without a commit"):
        state.check_readable(0, BitMap([1]), 4, "an id")
    assert readable(state, 1, 3)
    assert readable(state, 0, 2)
    assert told(state) == [(1, [2]), (2, [3])]
    state.repair([0], 1)
    assert readable(state, 0, 1)


def test_tries_are_counted_from_the_last_call_back() -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    lose(state, {1: [1]}, "gone")
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
    state.calls()
    lose(state, {2: [1]}, "gone")
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
    assert readable(state, 2, 1)
    state.try_again(1, attempt=5)
    assert not readable(state, 2, 1)


def test_a_new_driver_has_all_its_tries() -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    for _ in range(MAX_TRIES + 1):
        state.try_again(1, attempt=5)
    assert not readable(state, 0, 1)
    state.take_over(callback=True)
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
    assert readable(state, 0, 1)


def test_who_comes_in_vain_is_called_again_unless_a_later_attempt_runs() -> None:
    state = losses()
    lose(state, {0: [1, 2, 3]}, "gone")
    state.try_again(1, attempt=5)
    state.in_vain(1, 5)  # the driver does not know of the loss yet
    assert told(state) == [(1, [1, 2, 3])]
    state.try_again(1, attempt=6)
    state.in_vain(1, 5)
    assert told(state) == [(1, [1, 2, 3])]
    state.in_vain(1, 6)  # its callback may be about to count on this one
    assert told(state) == [(1, [2, 3]), (2, [1])]
    state.answer([1, 2], [])
    state.in_vain(3, 9)
    state.in_vain(1, 6)
    assert told(state) == [(3, [1, 3])]
    assert sorted(state.pending(0)) == [1, 2, 3]
    for mapper in (1, 2, 3):
        state.repair([0], mapper)
    assert told(state) == []


def test_who_comes_in_vain_does_not_mend_a_failure() -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    told(state)
    state.answer([], [(1, "no")])
    state.in_vain(1, 5)
    assert told(state) == []
    assert not readable(state, 0, 1)


@pytest.mark.parametrize("error", [DataCorrupted, RecomputeMismatch])
def test_a_condemned_range_calls_nobody_back(
    error: type[DataCorrupted] | type[RecomputeMismatch],
) -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    lose(state, {1: [1]}, "gone")
    state.condemn(0, error, "it is bad")
    assert told(state) == [(2, [1])]
    assert 0 in state.verdicts
    with pytest.raises(error, match="it is bad; run its stage again"):
        state.check_readable(0, BitMap(), 4, "an id")
    assert readable(state, 1, 1)


def test_a_generation_ends_the_losses_of_ranges() -> None:
    state = losses()
    lose(state, {0: [1]}, "gone")
    state.begin_generation(BitMap([1, 2]), "all anew")
    assert told(state) == [(2, [1, 2])]
    assert (state.pending(0), state.pending(None)) == (BitMap(), BitMap([1, 2]))
    state.answer([], [(2, "raised")])
    assert not readable(state, 0, 1)
    assert not readable(state, 1, 2)
    assert state.repair([None], 1) == []
    assert state.repair([None], 2) == [None]
    assert readable(state, 0, 1, 2)


def test_what_changes_for_others_is_news() -> None:
    state = losses()
    seen = [state.news]

    def grew() -> bool:
        seen.append(state.news)
        return seen[-1] > seen[-2]

    lose(state, {0: [1, 2]}, "gone")
    assert grew()
    state.join([0], 3, "joined")
    assert grew()
    state.calls()
    assert not grew()
    state.join([0], 4, "joined")
    assert grew()
    state.answer([], [(1, "raised")])
    assert grew()
    state.answer([], [(1, "raised")])
    assert not grew()
    state.take_over(callback=True)
    assert grew()
    for mapper in (1, 2, 3, 4):
        state.repair([0], mapper)
    assert grew()
    state.condemn(0, DataCorrupted, "bad")
    assert grew()


def test_a_loss_leaves_no_rows_behind() -> None:
    changes = ChangeLog()
    state = losses(changes)
    lose(state, {0: [1, 2]}, "gone")
    state.join([0], 3, "joined")
    state.try_again(1, attempt=5)
    rows = {change[:2] for change in changes.pop_all() if change.row is not None}
    assert rows == {("losses", (3, 1)), ("pending", (3, 0)), ("tries", (3, 1))}
    for mapper in (1, 2, 3):
        state.repair([0], mapper)
    assert {change[:2] for change in changes.pop_all() if change.row is None} == rows


def test_a_loss_is_not_extended_after_a_restart() -> None:
    changes = ChangeLog()
    state = losses(changes)
    lose(state, {0: [1]}, "gone")
    rows = {change.table: change.row or () for change in changes.pop_all()}
    restored = losses()
    restored.highest = state.highest
    restored.restore(1, *rows["losses"])
    restored.restore_pending(0, *rows["pending"])
    restored.join([0], 2, "joined")  # the driver may have been told of the other
    assert told(restored) == [(1, [1]), (2, [2])]


def test_reasons_are_one_line() -> None:
    assert one_line("a\n b\t c ") == "a b c"
    assert len(one_line("x" * 5000)) == 300
