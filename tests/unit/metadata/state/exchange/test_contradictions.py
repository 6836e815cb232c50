"""An attempt that counts commits again: nothing if it says the same, the end of what can be said
of its mapper if it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.committing import (
    await_commits,
    commit_of,
    current,
    exchange,
    lose,
    run,
    snapshot,
    sums_of,
)

from cosco.errors import DataCorrupted, DataLost, GenerationChanged
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.restore import restore_exchanges
from cosco.protocol.records import FIRST_OWN_ATTEMPT, CommitRequest

ROWS = {0: 3, 2: 4, 6: 1}
TWICE = "mapper 1 committed twice, with different sums"


def restarted(changes: ChangeLog) -> ExchangeState:
    """The exchange as its rows of the database have it."""
    tables: dict[str, list[Any]] = {}
    for table, key, row in changes.pop_all():
        if row is not None:  # what is deleted was never written
            tables.setdefault(table, []).append((*key, *row))
    [state] = restore_exchanges(tables, ChangeLog()).values()
    return state


def committed(state: ExchangeState) -> CommitRequest:
    """The commit of mapper 1, which has won."""
    commit = commit_of(1, state.open_attempt(1).attempt, ROWS)
    assert state.commit(commit)
    return commit


@pytest.mark.parametrize(
    "other",
    [
        {"sums": sums_of({0: 3, 2: 4, 6: 2})},
        {"sums": sums_of({0: 3, 2: 4})},
        {"sums": sums_of({})},
        {"partial": True, "ranges": (0, 1, 2)},
    ],
    ids=["other rows", "a partition less", "no rows", "partial"],
)
def test_another_commit_of_the_winner_is_an_error_for_all(other: dict[str, Any]) -> None:
    state = exchange()
    commit = committed(state)
    run(state, 2, ROWS)
    news = state.losses.news
    with pytest.raises(DataCorrupted, match=TWICE) as told:
        state.commit(replace(commit, **other))
    assert (told.value.mappers, told.value.retriable) == ((1,), False)
    assert state.losses.news > news  # who waits looks again
    for partition in range(7):  # in which the two differ is not known
        with pytest.raises(DataCorrupted, match=TWICE) as read:
            await_commits(state, partition, [1, 2])
        assert (read.value.mappers, read.value.partition) == ((1,), partition)
    assert snapshot(state, 0, [2]).rows == 6  # what others wrote is not in question


def test_whoever_came_first_is_told_as_well() -> None:
    state = exchange()
    commit = committed(state)
    with pytest.raises(DataCorrupted):
        state.commit(replace(commit, sums=sums_of({})))
    with pytest.raises(DataCorrupted, match=TWICE):
        state.commit(commit)
    with pytest.raises(DataCorrupted, match=TWICE):
        run(state, 1, ROWS)  # its next run would be told that another one has won


def test_repeating_it_changes_nothing_more() -> None:
    changes = ChangeLog()
    state = exchange(changes=changes)
    commit = committed(state)
    changes.pop_all()
    with pytest.raises(DataCorrupted):
        state.commit(replace(commit, sums=sums_of({})))
    assert [change.table for change in changes.pop_all()] == ["mappers"]
    news = state.losses.news
    for rows in range(20):
        with pytest.raises(DataCorrupted):
            state.commit(replace(commit, sums=sums_of({0: rows + 1})))
    assert not changes
    assert state.losses.news == news
    assert not state.losses.calls()  # nobody is made to run again by it


def test_another_attempt_may_say_what_it_likes() -> None:
    state = exchange()
    commit = committed(state)
    other = state.open_attempt(1).attempt
    assert not state.commit(commit_of(1, other, {0: 9}))
    assert not state.commit(commit_of(1, other, {0: 8}))
    assert state.commit(commit)


def test_attempts_of_groups_may_be_side_by_side() -> None:
    state = exchange()
    state.join_group(4)
    one, other = FIRST_OWN_ATTEMPT + 1, FIRST_OWN_ATTEMPT + 2
    assert state.commit(commit_of(1, one, ROWS))
    assert not state.commit(commit_of(1, other, {0: 9}))
    assert state.commit(commit_of(1, one, ROWS))
    with pytest.raises(DataCorrupted, match=TWICE):
        state.commit(commit_of(1, one, {0: 9}))


def test_an_honest_repeat_is_harmless_after_a_restart() -> None:
    changes = ChangeLog()
    state = exchange(changes=changes)
    state.put_all()
    commit = committed(state)
    state = restarted(changes)
    assert state.commit(commit)
    assert snapshot(state, 0, [1]).rows == 3
    with pytest.raises(DataCorrupted, match=TWICE):
        state.commit(replace(commit, sums=sums_of({})))


def test_what_was_contradicted_stays_so_after_a_restart() -> None:
    changes = ChangeLog()
    state = exchange(changes=changes)
    state.put_all()
    commit = committed(state)
    with pytest.raises(DataCorrupted):
        state.commit(replace(commit, sums=sums_of({})))
    state = restarted(changes)
    with pytest.raises(DataCorrupted, match=TWICE):
        await_commits(state, 0, [1])
    with pytest.raises(DataCorrupted, match=TWICE):
        state.commit(commit)


def test_an_honest_repeat_is_harmless_after_a_rebuild() -> None:
    state = exchange()
    commit = committed(state)
    lose(state, 0)
    assert state.commit(commit)  # of the build before: it counts no second time
    assert await_commits(state, 0, [1]).missing
    run(state, 1, ROWS)
    assert state.commit(commit)
    assert (snapshot(state, 0, [1]).rows, snapshot(state, 6, [1]).rows) == (3, 1)


def test_an_honest_repeat_is_harmless_after_a_partial_run() -> None:
    state = exchange()
    first = committed(state)
    lose(state, 0)
    opened = state.open_attempt(1)
    again = commit_of(
        1, opened.attempt, {0: 3}, acknowledged=current(state, {0}), ranges=opened.ranges
    )
    for commit in (again, again, first, again):
        assert state.commit(commit)
    assert snapshot(state, 0, [1]).rows == 3
    with pytest.raises(DataCorrupted, match=TWICE):
        state.commit(replace(again, sums=sums_of({0: 4})))
    with pytest.raises(DataCorrupted, match=TWICE):
        await_commits(state, 0, [1])


def test_a_partial_run_is_compared_after_a_restart_too() -> None:
    changes = ChangeLog()
    state = exchange(changes=changes)
    state.put_all()
    committed(state)
    lose(state, 0)
    opened = state.open_attempt(1)
    again = commit_of(
        1, opened.attempt, {0: 3}, acknowledged=current(state, {0}), ranges=opened.ranges
    )
    assert state.commit(again)
    state = restarted(changes)
    assert state.commit(again)
    with pytest.raises(DataCorrupted, match=TWICE):
        state.commit(replace(again, sums=sums_of({0: 4})))


def test_a_contradicted_mapper_still_brings_back_what_others_read() -> None:
    state = exchange()
    commit = committed(state)
    run(state, 2, ROWS)
    with pytest.raises(DataCorrupted):
        state.commit(replace(commit, sums=sums_of({})))
    lose(state, 0)
    assert run(state, 1, ROWS)
    assert run(state, 2, ROWS)
    assert snapshot(state, 0, [2]).rows == 6
    with pytest.raises(DataCorrupted, match=TWICE):
        await_commits(state, 0, [1])


def test_a_generation_begins_without_it() -> None:
    state = exchange(deterministic=False)
    commit = committed(state)
    with pytest.raises(DataCorrupted):
        state.commit(replace(commit, sums=sums_of({})))
    lose(state, 0)
    with pytest.raises(GenerationChanged):
        state.commit(commit)  # of the generation before, whatever it says
    assert run(state, 1, ROWS)
    assert snapshot(state, 0, [1], generation=2).rows == 3


def test_a_loss_that_failed_is_told_to_those_who_read_others() -> None:
    state = exchange(callback=False)
    commit = committed(state)
    run(state, 2, ROWS)
    with pytest.raises(DataCorrupted):
        state.commit(replace(commit, sums=sums_of({})))
    lose(state, 0)
    with pytest.raises(DataLost):
        await_commits(state, 0, [2])
    with pytest.raises(DataCorrupted, match=TWICE):
        await_commits(state, 0, [1, 2])
