"""Losses by themselves: who is told of them, who is in them, when they fail and end."""

from __future__ import annotations

import pytest
from pyroaring import BitMap

from cosco.errors import DataCorrupted, DataLost, RecomputeMismatch
from cosco.metadata.state.exchange.losses import MAX_TRIES, Losses, one_line
from cosco.metadata.state.records.changes import ChangeLog


def losses(changes: ChangeLog | None = None, *, callback: bool = True) -> Losses:
    return Losses(3, ChangeLog() if changes is None else changes, callback=callback)


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
    state.begin(0, BitMap([1, 2]), "gone")
    assert told(state) == [(1, [1, 2])]
    assert told(state) == [(1, [1, 2])]
    assert state.calls()[0].reason == "gone"
    state.answer([1], [])
    assert told(state) == []
    assert readable(state, 0, 1)


def test_mappers_that_are_back_are_not_called() -> None:
    state = losses()
    state.begin(0, BitMap([1, 2]), "gone")
    assert not state.repair(0, 1)
    assert told(state) == [(1, [2])]
    assert not state.repair(0, 1)
    assert not state.repair(1, 2)
    assert state.repair(0, 2)
    assert told(state) == []
    assert not state.pending(0)


def test_calls_are_copies() -> None:
    state = losses()
    state.begin(0, BitMap([1, 2]), "gone")
    [call] = state.calls()
    state.repair(0, 1)
    assert call.mappers == BitMap([1, 2])


def test_a_failed_callback_fails_its_loss_for_those_who_name_its_mappers() -> None:
    state = losses()
    state.begin(0, BitMap([1, 2]), "file gone")
    state.begin(1, BitMap([3]), "file gone")
    state.answer([], [(1, "no such\njob")])
    with pytest.raises(DataLost, match=r"file gone; .* callback failed: no such job") as caught:
        state.check_readable(0, BitMap([2, 9]), 4, "an id")
    assert caught.value.mappers == (1, 2)
    assert (caught.value.partition, caught.value.shuffle_id) == (4, "an id")
    assert readable(state, 0, 3)
    assert readable(state, 1, 1, 2, 3)
    state.answer([1], [])  # answered before, late
    assert not readable(state, 0, 1)
    state.repair(0, 1)
    state.repair(0, 2)
    assert readable(state, 0, 1, 2)


def test_answers_for_losses_that_are_no_more_are_passed_over() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    state.begin(0, BitMap([2]), "gone again")
    before = state.news
    state.answer([1, 77], [(1, "raised"), (78, "raised")])
    assert state.news == before
    assert told(state) == [(2, [1, 2])]


def test_a_loss_is_extended_until_it_is_told() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    state.join(0, 5, "joined")
    assert told(state) == [(1, [1, 5])]
    state.join(0, 6, "joined")
    state.join(0, 7, "joined")
    assert told(state) == [(1, [1, 5]), (2, [6, 7])]
    assert state.pending(0) == BitMap([1, 5, 6, 7])


def test_a_range_lost_again_has_one_new_loss() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    state.begin(1, BitMap([1]), "gone")
    state.calls()
    state.join(0, 2, "joined")
    state.answer([1], [])
    state.begin(0, BitMap([3]), "gone again")
    assert told(state) == [(2, [1]), (4, [1, 2, 3])]


def test_ids_are_used_once() -> None:
    state = losses()
    for _ in range(3):
        state.begin(0, BitMap([1]), "gone")
        assert state.repair(0, 1)
    state.begin(0, BitMap([1]), "gone")
    assert told(state) == [(4, [1])]


def test_without_a_callback_losses_fail_at_once_and_joiners_with_them() -> None:
    state = losses(callback=False)
    state.begin(0, BitMap([1]), "gone")
    state.join(0, 2, "joined")
    assert told(state) == []
    with pytest.raises(DataLost, match="has no callback") as caught:
        state.check_readable(0, BitMap([2]), 4, "an id")
    assert caught.value.mappers == (1, 2)
    assert not state.repair(0, 1)
    assert state.repair(0, 2)
    assert readable(state, 0, 1, 2)


def test_another_driver_is_told_of_every_loss_anew() -> None:
    state = losses(callback=False)
    state.begin(0, BitMap([1]), "gone")
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
    state.begin(0, BitMap([1, 2]), "gone")
    state.begin(1, BitMap([3]), "gone")
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
        state.try_again(9, attempt=5)  # was not called back
    assert readable(state, 0, 1)
    state.try_again(1, attempt=5)
    with pytest.raises(DataLost, match=f"mapper 1 ran {MAX_TRIES} times without a commit"):
        state.check_readable(0, BitMap([1]), 4, "an id")
    assert readable(state, 1, 3)
    state.repair(0, 1)
    assert readable(state, 0, 1)


def test_tries_are_counted_for_each_loss_and_from_the_last_commit() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    state.begin(1, BitMap([1]), "gone")
    for _ in range(2 * MAX_TRIES):
        state.try_again(1, attempt=5)
    assert readable(state, 0, 1)
    state.repair(0, 1)
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
    assert readable(state, 1, 1)
    state.try_again(1, attempt=5)
    assert not readable(state, 1, 1)


def test_a_new_driver_has_all_its_tries() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    for _ in range(MAX_TRIES + 1):
        state.try_again(1, attempt=5)
    assert not readable(state, 0, 1)
    state.take_over(callback=True)
    for _ in range(MAX_TRIES):
        state.try_again(1, attempt=5)
    assert readable(state, 0, 1)


def test_who_comes_in_vain_is_called_again_unless_a_later_attempt_runs() -> None:
    state = losses()
    state.begin(0, BitMap([1, 2, 3]), "gone")
    state.try_again(1, attempt=5)
    state.in_vain(0, 1, 5)  # the driver does not know of the loss yet
    assert told(state) == [(1, [1, 2, 3])]
    state.try_again(1, attempt=6)
    state.in_vain(0, 1, 5)
    assert told(state) == [(1, [1, 2, 3])]
    state.in_vain(0, 1, 6)  # its callback may be about to count on this one
    assert told(state) == [(1, [2, 3]), (2, [1])]
    state.answer([1, 2], [])
    state.in_vain(0, 3, 9)
    state.in_vain(0, 1, 6)
    assert told(state) == [(3, [1, 3])]
    assert sorted(state.pending(0)) == [1, 2, 3]
    for mapper in (1, 2, 3):
        state.repair(0, mapper)
    assert told(state) == []


def test_who_comes_in_vain_does_not_mend_a_failure() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    told(state)
    state.answer([], [(1, "no")])
    state.in_vain(0, 1, 5)
    assert told(state) == []
    assert not readable(state, 0, 1)


@pytest.mark.parametrize("error", [DataCorrupted, RecomputeMismatch])
def test_a_condemned_range_calls_nobody_back(
    error: type[DataCorrupted] | type[RecomputeMismatch],
) -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    state.begin(1, BitMap([1]), "gone")
    state.condemn(0, error, "it is bad")
    assert told(state) == [(2, [1])]
    assert state.condemned(0)
    with pytest.raises(error, match="it is bad; run its stage again"):
        state.check_readable(0, BitMap(), 4, "an id")
    assert readable(state, 1, 1)


def test_a_generation_ends_the_losses_of_ranges() -> None:
    state = losses()
    state.begin(0, BitMap([1]), "gone")
    state.begin(None, BitMap([1, 2]), "all anew")
    assert told(state) == [(2, [1, 2])]
    assert (state.pending(0), state.pending(None)) == (BitMap(), BitMap([1, 2]))
    state.answer([], [(2, "raised")])
    assert not readable(state, 0, 1)
    assert not readable(state, 1, 2)
    assert state.repair(None, 1) is False
    assert state.repair(None, 2) is True
    assert readable(state, 0, 1, 2)


def test_what_changes_for_others_is_news() -> None:
    state = losses()
    seen = [state.news]

    def grew() -> bool:
        seen.append(state.news)
        return seen[-1] > seen[-2]

    state.begin(0, BitMap([1, 2]), "gone")
    assert grew()
    state.join(0, 3, "joined")
    assert grew()
    state.calls()
    assert not grew()
    state.join(0, 4, "joined")
    assert grew()
    state.answer([], [(1, "raised")])
    assert grew()
    state.answer([], [(1, "raised")])
    assert not grew()
    state.take_over(callback=True)
    assert grew()
    for mapper in (1, 2, 3, 4):
        state.repair(0, mapper)
    assert grew()
    state.condemn(0, DataCorrupted, "bad")
    assert grew()


def test_a_loss_leaves_no_rows_behind() -> None:
    changes = ChangeLog()
    state = losses(changes)
    state.begin(0, BitMap([1, 2]), "gone")
    state.join(0, 3, "joined")
    state.try_again(1, attempt=5)
    rows = {change[:2] for change in changes.pop_all() if change.row is not None}
    assert rows == {("losses", (3, 1)), ("tries", (3, 1))}
    for mapper in (1, 2, 3):
        state.repair(0, mapper)
    assert {change[:2] for change in changes.pop_all() if change.row is None} == rows


def test_a_loss_is_not_extended_after_a_restart() -> None:
    changes = ChangeLog()
    state = losses(changes)
    state.begin(0, BitMap([1]), "gone")
    [change] = changes.pop_all()
    assert change.row is not None
    restored = losses()
    restored.highest = state.highest
    restored.restore(1, *change.row)
    restored.join(0, 2, "joined")  # the driver may have been told of the other
    assert told(restored) == [(1, [1]), (2, [2])]


def test_reasons_are_one_line() -> None:
    assert one_line("a\n b\t c ") == "a b c"
    assert len(one_line("x" * 5000)) == 300
