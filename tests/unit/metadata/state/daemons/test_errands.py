from __future__ import annotations

from cosco.metadata.state.daemons.errands import MAX_FENCE_KEYS, Fence, Fences, Suspicions
from cosco.protocol.keys import AssignmentKey as Key
from cosco.protocol.records import DaemonRef

A, B = DaemonRef(1, "a:1"), DaemonRef(2, "b:1")


def test_one_call_a_daemon_at_a_time() -> None:
    fences = Fences()
    fences.add(A, Key(1, 0, 1))
    fences.add(A, Key(1, 1, 1))
    fences.add(A, Key(1, 0, 1))
    fences.add(B, Key(1, 0, 1))
    assert fences
    assert fences.pop_all() == [Fence(A, (Key(1, 0, 1), Key(1, 1, 1))), Fence(B, (Key(1, 0, 1),))]
    fences.add(A, Key(2, 0, 1))
    assert not fences
    assert fences.pop_all() == []
    fences.fenced(1, [Key(1, 0, 1), Key(1, 1, 1)])
    assert fences.pop_all() == [Fence(A, (Key(2, 0, 1),))]
    fences.fenced(1, [Key(2, 0, 1)])
    assert 1 not in fences
    assert 2 in fences


def test_what_failed_is_taken_again() -> None:
    fences = Fences()
    fences.add(A, Key(1, 0, 1))
    first = fences.pop_all()
    fences.failed(1)
    assert fences.pop_all() == first
    assert 1 in fences


def test_the_dead_and_the_closed_are_not_told() -> None:
    fences = Fences()
    fences.add(A, Key(1, 0, 1))
    fences.add(B, Key(1, 0, 1))
    fences.add(B, Key(10, 0, 1))
    fences.pop_all()
    fences.died(1)
    fences.closed(1)
    fences.failed(1)
    fences.failed(2)
    fences.fenced(1, [Key(1, 0, 1)])
    assert fences.pop_all() == [Fence(B, (Key(10, 0, 1),))]


def test_a_call_is_bounded() -> None:
    fences = Fences()
    for index in range(MAX_FENCE_KEYS + 1):
        fences.add(A, Key(1, index, 1))
    [first] = fences.pop_all()
    assert len(first.keys) == MAX_FENCE_KEYS
    fences.fenced(1, first.keys)
    assert fences.pop_all() == [Fence(A, (Key(1, MAX_FENCE_KEYS, 1),))]


def test_a_question_serves_all_who_ask_meanwhile() -> None:
    suspicions = Suspicions()
    assert not suspicions
    suspicions.suspect(A, {})
    suspicions.suspect(A, {Key(1, 0, 1): True})
    suspicions.suspect(B, {})
    assert suspicions
    assert suspicions.pop_all() == [A, B]
    suspicions.suspect(A, {Key(1, 1, 1): False})
    assert not suspicions
    assert suspicions.pop_all() == []
    assert 1 in suspicions
    assert suspicions.answered(1) == {Key(1, 0, 1): True, Key(1, 1, 1): False}
    assert 1 not in suspicions
    assert 2 in suspicions
    suspicions.suspect(A, {})
    assert suspicions.pop_all() == [A]
    assert suspicions.answered(1) == {}
    assert suspicions.answered(1) == {}
