"""What is to go, and which epochs are known to be over."""

from __future__ import annotations

import pytest

from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import PartitionRange
from cosco.shuffle_service.state.buffers.assignments import AssignmentBuffers
from cosco.shuffle_service.state.buffers.held_assignments import HeldAssignments
from cosco.shuffle_service.state.buffers.old_epochs import Going, OldEpochs


def key(range_index: int, epoch: int, number: int = 7) -> AssignmentKey:
    return AssignmentKey(number, range_index, epoch)


@pytest.mark.parametrize(
    ("found", "of_exchange", "of_epochs"),
    [
        (key(0, 1), True, True),
        (key(0, 2), True, True),
        (key(0, 3), True, False),
        (key(1, 1), True, False),
        (key(2, 1), True, False),  # of which nothing was said
        (key(0, 1, 8), False, False),
        ((7, 0, 1), False, False),
    ],
)
def test_what_goes(found: object, of_exchange: bool, of_epochs: bool) -> None:
    assert (found in Going(7)) is of_exchange
    assert (found in Going(7, {0: 3, 1: 1})) is of_epochs
    assert found not in Going(7, {})


def test_what_is_over_stays_over_until_its_exchange_is_forgotten() -> None:
    old = OldEpochs()
    assert key(0, 1) not in old
    old.add(Going(7, {0: 3, 1: 2}))
    old.add(Going(7, {0: 2, 2: 5}))  # an order that comes again, or late
    assert [key(0, epoch) in old for epoch in (1, 2, 3)] == [True, True, False]
    assert key(1, 1) in old
    assert key(2, 4) in old
    assert key(3, 1) not in old
    assert key(0, 1, 8) not in old
    assert len(old) == 3
    old.forget(8)
    old.forget(7)
    assert len(old) == 0
    assert key(0, 1) not in old


def test_what_is_remembered_is_bounded() -> None:
    old = OldEpochs(max_ranges=4)
    for number in range(1, 4):
        old.add(Going(number, {0: 2, 1: 2}))
    assert len(old) == 4
    assert [key(0, 1, number) in old for number in range(1, 4)] == [False, True, True]
    old.add(Going(9, dict.fromkeys(range(9), 2)))  # more than there is room for
    assert len(old) == 0


def test_what_nothing_is_held_of_is_forgotten() -> None:
    old = OldEpochs()
    for number in (1, 2, 3):
        old.add(Going(number, {0: 2}))
    old.keep({2, 9})
    assert [key(0, 1, number) in old for number in (1, 2, 3)] == [False, True, False]
    assert len(old) == 1
    old.keep(())
    assert len(old) == 0


def test_assignments_go_by_exchange_or_by_epoch() -> None:
    table = HeldAssignments()
    for one in (key(0, 1), key(0, 2), key(1, 1), key(0, 1, 8)):
        table.add(AssignmentBuffers(one, PartitionRange(one.range_index, 0, 4)))
    assert [held.key for held in table.pop(Going(7, {0: 2}))] == [key(0, 1)]
    assert key(0, 1) not in table
    assert table.get(key(0, 1)) is None
    assert [held.key for held in table.values()] == [key(0, 2), key(1, 1), key(0, 1, 8)]
    assert set(table.numbers()) == {7, 8}
    assert table.pop(Going(9)) == []
    assert len(table.pop(Going(7))) == 2
    assert set(table.numbers()) == {8}
    assert len(table) == 1
