"""Calls of a peer are counted over all its connections."""

from __future__ import annotations

from cosco.process.native_grpc.peer_calls import PeerCalls


def test_each_peer_has_its_own_bound() -> None:
    calls = PeerCalls(3)
    one, two, other = calls.enter("a"), calls.enter("a"), calls.enter("b")
    assert one is two
    one.calls += 2
    two.calls += 1
    other.calls += 1
    assert not calls.are_too_many(one)
    two.calls += 1
    assert calls.are_too_many(one)
    assert not calls.are_too_many(other)


def test_who_has_no_connection_any_more_is_forgotten() -> None:
    calls = PeerCalls(3)
    one, two, other = calls.enter("a"), calls.enter("a"), calls.enter("b")
    calls.leave(one)
    assert calls.enter("a") is two
    for tally in (one, two, other):
        calls.leave(tally)
    assert not calls._tallies
