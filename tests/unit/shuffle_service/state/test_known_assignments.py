"""What one look-up says of other exchanges, and that nothing which ended is admitted by it."""

from __future__ import annotations

import random

import pytest
from support.mark_making import found

from cosco.protocol.keys import AssignmentKey
from cosco.shuffle_service.state import known_assignments as module
from cosco.shuffle_service.state.buffers.old_epochs import Going
from cosco.shuffle_service.state.known_assignments import AlikeAssignments

FIRST, SIZE = 100, 10


def key(number: int, epoch: int = 1) -> AssignmentKey:
    return AssignmentKey(number, 0, epoch)


def learnt(**options) -> AlikeAssignments:
    """What is known after a look-up of the first exchange of a block."""
    known = AlikeAssignments()
    look_up(known, **options)
    return known


def look_up(known: AlikeAssignments, first: int = FIRST, size: int = SIZE, **options) -> None:
    epoch = options.get("epoch", 1)
    known.begin_look_up(key(first, epoch))
    known.learn(key(first, epoch), found(first=first, size=size, **options))
    known.end_look_up(key(first, epoch))


def open_numbers(known: AlikeAssignments, epoch: int = 1) -> list[int]:
    return [n for n in range(FIRST - 5, FIRST + 40) if known.find(key(n, epoch))]


def test_an_answer_holds_for_its_numbers_range_and_epoch_alone():
    known = learnt(without=(3, 9))
    assert open_numbers(known) == [100, 101, 102, 104, 105, 106, 107, 108]
    assert known.find(AssignmentKey(101, 1, 1)) is None
    assert known.find(AssignmentKey(101, 0, 2)) is None
    assert known.find(key(101)).mappers == 2
    assert known.find(key(101)).alike is None


def test_an_answer_for_one_exchange_is_not_kept():
    known = AlikeAssignments()
    known.begin_look_up(key(FIRST))
    known.learn(key(FIRST), found())
    assert len(known) == 0


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("how", ["sealed", "dropped", "over"])
def test_what_ends_is_not_admitted_by_an_answer(how, when):
    """An answer may be as old as its question; one to a later question knows of the end."""
    known = AlikeAssignments()

    def end() -> None:
        if how == "sealed":
            known.sealed(key(105))
        elif how == "over":
            known.end(Going(105, {key(105).range_index: 2}))
        else:
            known.drop(105)

    if when == "before":
        end()
    known.begin_look_up(key(FIRST))
    if when == "during":
        end()
    known.learn(key(FIRST), found(first=FIRST, size=SIZE))
    if when == "after":
        end()
    known.end_look_up(key(FIRST))
    is_open = known.find(key(105)) is not None
    assert is_open == (when == "before" and how != "dropped")
    assert len(open_numbers(known)) == SIZE - (not is_open)


def test_what_is_sealed_in_one_epoch_is_open_in_the_next():
    known = learnt()
    look_up(known, epoch=2)
    known.sealed(key(105))
    assert known.find(key(105)) is None
    assert known.find(key(105, 2)) is not None
    known.drop(105)
    assert known.find(key(105, 2)) is None


def test_old_epochs_end_and_later_ones_do_not():
    known = learnt()
    look_up(known, epoch=2)
    known.begin_look_up(key(106))
    known.end(Going(105, {key(105).range_index: 2}))
    assert known.find(key(105)) is None
    assert known.find(key(105, 2)) is not None
    assert not known.was_sealed(key(106))
    known.end(Going(106, {key(106).range_index: 2}))
    assert known.was_sealed(key(106))


def test_an_end_during_a_second_look_up_is_remembered_for_the_first():
    known = AlikeAssignments()
    known.begin_look_up(key(101))
    known.begin_look_up(key(102))
    known.sealed(key(103))
    assert not known.was_sealed(key(101))
    known.end_look_up(key(102))
    known.learn(key(101), found(first=FIRST, size=SIZE))
    assert known.find(key(103)) is None
    assert known.find(key(104)) is not None


def test_the_key_that_is_looked_up_may_be_sealed_meanwhile():
    known = AlikeAssignments()
    known.begin_look_up(key(101))
    known.sealed(key(101))
    known.sealed(key(102))
    assert known.was_sealed(key(101))
    assert not known.was_sealed(key(102))
    known.end_look_up(key(101))
    assert not known.was_sealed(key(101))


def test_after_more_ends_than_can_be_remembered_an_answer_speaks_for_nobody_else(monkeypatch):
    monkeypatch.setattr(module, "MAX_ENDED", 3)
    known = AlikeAssignments()
    known.begin_look_up(key(FIRST))
    known.sealed(key(105))
    for number in range(1, 4):
        known.drop(number)
    known.learn(key(FIRST), found(first=FIRST, size=SIZE))
    assert len(known) == 0
    known.end_look_up(key(FIRST))
    look_up(known)
    assert len(known) == 1


def test_a_drop_is_remembered_for_the_look_up_that_is_under_way(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED_DROPS", 2)
    known = AlikeAssignments()
    known.begin_look_up(key(FIRST))
    for number in (FIRST, 1, 2, 3):
        known.drop(number)
    assert not known.is_dropped(FIRST)
    assert known.was_sealed(key(FIRST))  # so that its answer admits nothing that takes rows
    known.end_look_up(key(FIRST))


def test_a_drop_is_remembered_with_the_answer_longer_than_by_itself(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED_DROPS", 3)
    known = learnt()
    known.drop(105)
    for number in range(1, 10):
        known.drop(number)
    assert not known.is_dropped(105)
    assert known.is_dropped(9)
    assert known.find(key(105)) is None


def test_a_newer_answer_opens_nothing_that_has_ended():
    known = learnt()
    known.sealed(key(105))
    look_up(known)
    assert known.find(key(105)) is None
    look_up(known, first=FIRST + 2, size=20)  # which no service would answer
    assert known.find(key(105)) is None
    assert known.find(key(106)) is not None
    assert len(known) == 1


@pytest.mark.parametrize("how", ["sealed", "dropped", "answered so"])
def test_an_answer_of_which_nothing_is_left_goes(how):
    known = learnt(without=tuple(range(SIZE)) if how == "answered so" else ())
    for number in range(FIRST, FIRST + SIZE):
        known.sealed(key(number)) if how == "sealed" else known.drop(number)
    assert len(known) == 0
    assert not known._firsts


def test_the_least_used_answer_is_forgotten():
    known = AlikeAssignments(records_max=3)
    for first in (100, 200, 300):
        look_up(known, first=first)
    assert known.find(key(100))
    look_up(known, first=400)
    assert known.find(key(200)) is None
    assert all(known.find(key(first)) for first in (100, 300, 400))
    assert len(known) == 3


def test_against_a_service_that_remembers_everything():
    """Whatever the order of look-ups, answers, seals and drops: what ended is never open."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(200):
        known, ended, under_way = AlikeAssignments(records_max=3), set(), {}
        for _ in range(60):
            number = rng.randrange(40)
            one = AssignmentKey(number, rng.randrange(2), rng.randrange(1, 3))
            match rng.randrange(5):
                case 0 if one not in under_way:
                    under_way[one] = set(ended)  # what the answer will know of
                    known.begin_look_up(one)
                case 1 if under_way:
                    asked = rng.choice(list(under_way))
                    knew = under_way.pop(asked)
                    first = asked.number // 10 * 10
                    alike = [asked._replace(number=first + n) for n in range(10)]
                    without = tuple(n for n in range(10) if alike[n] in knew)
                    known.learn(asked, found(first=first, size=10, without=without))
                    known.end_look_up(asked)
                case 2:
                    ended.add(one)
                    known.sealed(one)
                case 3 if rng.random() < 0.3:
                    ended |= {AssignmentKey(number, r, e) for r in range(2) for e in (1, 2)}
                    known.drop(number)
            for one in ended:
                assert known.find(one) is None
        for asked in under_way:
            known.end_look_up(asked)
        assert not known._under_way
        assert not known._looked_up


def test_who_registers_again_forgets_all_answers_and_those_that_are_under_way():
    """Exchanges may have ended without a word to a daemon that was taken for dead."""
    known = learnt()
    known.begin_look_up(key(FIRST + SIZE))
    known.forget()
    known.learn(key(FIRST + SIZE), found(first=FIRST + SIZE, size=SIZE))
    known.end_look_up(key(FIRST + SIZE))
    assert len(known) == 0
    assert open_numbers(known) == []
    look_up(known)
    assert open_numbers(known) == list(range(FIRST, FIRST + SIZE))
