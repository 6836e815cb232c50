"""Boards of marks, and what they may cost."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from support.mark_making import sums

from cosco.protocol.mark import Mark
from cosco.shuffle_service.state.buffers.mark_boards import MarkBoard, MarkBoards

TOP = 2**64 - 1


def board(mappers: int = 2) -> MarkBoard:
    return MarkBoard(mappers, 8)


def test_sums_are_those_of_the_first_marks_modulo_2_64():
    one = board()
    assert not one.is_complete
    assert list(one.done()) == []
    assert one.add(Mark(1, 70, sums(p0=(1, 10, TOP), p7=(5, 6, 7))))
    assert not one.add(Mark(1, 70, sums(p0=(1, 10, TOP))))  # sent again
    assert not one.add(Mark(1, 71, sums(p0=(9, 90, 9))))  # another attempt
    assert list(one.done()) == [1]
    assert not one.is_complete
    assert one.add(Mark(0, TOP, sums(p0=(2, 20, 5))))
    assert one.is_complete
    assert one.attempts().tolist() == [TOP, 70]
    assert one.sums(0) == (3, 30, 4)
    assert one.sums(7) == (5, 6, 7)
    assert one.sums(1) == (0, 0, 0)
    assert not one.add(Mark(0, 1, sums(p0=(2, 20, 5))))
    assert one.sums(0) == (3, 30, 4)


def test_sums_do_not_depend_on_the_order_of_marks():
    seed = random.randrange(2**32)
    print("seed", seed)
    made = np.random.default_rng(seed).integers(0, TOP, (4, 3, 8), dtype=np.uint64, endpoint=True)
    expected = made.sum(axis=0, dtype=np.uint64)
    for order in itertools.permutations(range(4)):
        one = board(4)
        for mapper in order:
            assert not one.is_complete
            one.add(Mark(mapper, mapper + 1, made[mapper]))
        assert one.attempts().tolist() == [1, 2, 3, 4]
        assert [one.sums(index) for index in range(8)] == list(map(tuple, expected.T.tolist()))


@pytest.mark.parametrize("how", ["complete", "end", "complete, then end"])
def test_who_waits_is_told_once(how):
    one, told = board(), []
    tells = [lambda n=n: told.append(n) for n in range(3)]
    for tell in tells:
        one.follow(tell)
    one.leave(tells[1])
    one.leave(tells[1])
    one.add(Mark(0, 1, sums()))
    assert told == []
    if "complete" in how:
        one.add(Mark(1, 1, sums()))
    if "end" in how:
        one.end()
        one.end()
    assert told == [0, 2]
    assert one.is_complete == ("complete" in how)


def test_no_mark_counts_after_the_end():
    one = board()
    one.add(Mark(0, 5, sums(p0=(1, 1, 1))))
    one.end()
    assert not one.add(Mark(1, 5, sums(p0=(1, 1, 1))))
    assert list(one.done()) == [0]
    assert not one.is_complete


def test_boards_and_who_waits_share_what_there_is():
    boards = MarkBoards(10_000)
    opened = list(itertools.takewhile(bool, (boards.open(16, 16) for _ in range(100))))
    assert 2 <= len(opened) < 20
    while boards.add_follower():
        pass
    followers = boards.followers
    assert boards.used_bytes <= 10_000
    assert boards.open(16, 16) is None
    boards.close(opened.pop())
    assert boards.add_follower()
    assert boards.followers == followers + 1
    for _ in range(followers + 1):
        boards.remove_follower()
    for one in opened:
        boards.close(one)
    assert boards.used_bytes == boards.followers == 0
    assert boards.open(1 << 16, 16) is None  # more mappers than there is room for
    assert boards.used_bytes == 0


def test_who_waits_at_a_board_that_is_closed_is_told():
    boards, told = MarkBoards(10_000), []
    one = boards.open(2, 8)
    one.follow(lambda: told.append(1))
    boards.close(one)
    assert told == [1]
