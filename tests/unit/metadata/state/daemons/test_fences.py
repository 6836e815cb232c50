from __future__ import annotations

from cosco.metadata.state.daemons.fences import MAX_FENCE_KEYS, Fence, Fences
from cosco.protocol.records import DaemonRef

A, B = DaemonRef(1, "a:1"), DaemonRef(2, "b:1")


def test_one_call_a_daemon_at_a_time() -> None:
    fences = Fences()
    fences.add(A, (1, 0, 1))
    fences.add(A, (1, 1, 1))
    fences.add(A, (1, 0, 1))
    fences.add(B, (1, 0, 1))
    assert fences
    assert fences.take() == [Fence(A, ((1, 0, 1), (1, 1, 1))), Fence(B, ((1, 0, 1),))]
    fences.add(A, (2, 0, 1))
    assert not fences
    assert fences.take() == []
    fences.fenced(1, [(1, 0, 1), (1, 1, 1)])
    assert fences.take() == [Fence(A, ((2, 0, 1),))]
    fences.fenced(1, [(2, 0, 1)])
    assert not fences.pending(1)
    assert fences.pending(2)


def test_what_failed_is_taken_again() -> None:
    fences = Fences()
    fences.add(A, (1, 0, 1))
    first = fences.take()
    fences.failed(1)
    assert fences.take() == first
    assert fences.pending(1)


def test_the_dead_and_the_closed_are_not_told() -> None:
    fences = Fences()
    fences.add(A, (1, 0, 1))
    fences.add(B, (1, 0, 1))
    fences.add(B, (10, 0, 1))
    fences.take()
    fences.died(1)
    fences.closed(1)
    fences.failed(1)
    fences.failed(2)
    fences.fenced(1, [(1, 0, 1)])
    assert fences.take() == [Fence(B, ((10, 0, 1),))]


def test_a_call_is_bounded() -> None:
    fences = Fences()
    for index in range(MAX_FENCE_KEYS + 1):
        fences.add(A, (1, index, 1))
    [first] = fences.take()
    assert len(first.keys) == MAX_FENCE_KEYS
    fences.fenced(1, first.keys)
    assert fences.take() == [Fence(A, ((1, MAX_FENCE_KEYS, 1),))]
