"""Whose an address is that two daemons have: questions and answers in any order."""

from __future__ import annotations

import pytest
from support.metadata_cluster import LEASE_S, Cluster

from cosco.metadata.state.daemons.claims import KEPT_S, MAX_QUESTIONS, Claim, Claims
from cosco.protocol.records import DaemonRef, DaemonState

FIRST, SECOND, THIRD = (DaemonRef(n, "a:1") for n in (1, 2, 3))


@pytest.fixture
def cluster() -> Cluster:
    """One with a daemon at a:1."""
    cluster = Cluster()
    cluster.register(1, address="a:1")
    return cluster


def answered(cluster: Cluster, ref: DaemonRef, found: int | None) -> Claim:
    """The claim of a daemon, once its address was asked."""
    members = cluster.state.members
    assert members.claim(ref) is Claim.ASKED
    assert cluster.state.has_errands
    assert ref in members.pop_claims()
    members.claim_answered(ref, found, cluster.now)
    return members.claim(ref)


def test_an_address_of_nobody_is_granted_at_once(cluster: Cluster) -> None:
    assert cluster.state.members.claim(DaemonRef(2, "a:2")) is Claim.GRANTED
    assert cluster.state.members.claim(FIRST) is Claim.GRANTED  # it has it
    assert not cluster.state.has_errands


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        (2, Claim.GRANTED),  # itself: the first one cannot be there as well
        (0, Claim.GRANTED),  # nobody listens: the first one is gone, whatever this one is
        (1, Claim.TAKEN),
        (3, Claim.TAKEN),  # by one that is not registered, or not yet
        (None, Claim.UNHEARD),
    ],
)
def test_who_answers_there_decides(found: int | None, claim: Claim, cluster: Cluster) -> None:
    assert answered(cluster, SECOND, found) is claim
    # Nothing of it is known afterwards: the next one asks anew.
    assert cluster.state.members.claim(SECOND) is Claim.ASKED


@pytest.mark.parametrize(("found", "asked"), [(1, []), (3, [1]), (None, [1]), (2, [])])
def test_the_first_is_asked_for_if_it_does_not_answer_either(
    found: int | None, asked: list[int], cluster: Cluster
) -> None:
    answered(cluster, SECOND, found)
    assert [ref.incarnation for ref in cluster.state.members.pop_probes()] == asked


def test_the_winner_is_registered_and_the_other_one_is_refused(cluster: Cluster) -> None:
    assert answered(cluster, SECOND, 2) is Claim.GRANTED
    cluster.register(2, address="a:1")
    assert cluster.daemon_states() == {2: DaemonState.SERVING}
    assert not cluster.beat(1).known
    assert answered(cluster, FIRST, 2) is Claim.TAKEN
    assert cluster.daemon_states() == {2: DaemonState.SERVING}


def test_a_daemon_that_is_silent_is_waited_for_until_it_is_dead(cluster: Cluster) -> None:
    assert answered(cluster, SECOND, None) is Claim.UNHEARD
    assert not cluster.state.members.not_yet().known
    cluster.sleep(LEASE_S)
    assert cluster.state.members.claim(SECOND) is Claim.GRANTED


def test_an_answer_that_was_under_way_before_counts_for_nobody_else() -> None:
    claims = Claims()
    assert claims.claim(SECOND) is Claim.ASKED
    assert claims.pop_all() == [SECOND]
    assert claims.claim(THIRD) is Claim.ASKED  # who came after that question was begun
    assert claims.claim(SECOND) is Claim.ASKED  # its call broke, and came again
    claims.answered(SECOND.incarnation, Claim.GRANTED, 0.0)
    assert claims.claim(THIRD) is Claim.ASKED
    assert claims.pop_all() == [THIRD]
    claims.answered(THIRD.incarnation, Claim.TAKEN, 0.0)
    assert claims.claim(SECOND) is Claim.GRANTED
    assert claims.claim(THIRD) is Claim.TAKEN


def test_an_answer_that_nobody_asked_for_says_nothing() -> None:
    claims = Claims()
    claims.answered(SECOND.incarnation, Claim.GRANTED, 0.0)
    assert claims.claim(SECOND) is Claim.ASKED
    claims.answered(SECOND.incarnation, Claim.GRANTED, 0.0)  # of a question before this one
    assert claims.claim(SECOND) is Claim.ASKED


def test_an_answer_is_not_kept_for_long() -> None:
    claims = Claims()
    claims.claim(SECOND)
    claims.pop_all()
    claims.answered(SECOND.incarnation, Claim.TAKEN, 10.0)
    claims.expire(10.0 + KEPT_S)
    assert not claims
    assert claims.claim(SECOND) is Claim.ASKED
    claims.expire(1e9)  # nor is a question forgotten
    assert claims.pop_all() == [SECOND]


def test_a_service_that_is_started_again_asks_anew(cluster: Cluster) -> None:
    cluster.state.members.claim(SECOND)
    cluster.state.members.pop_claims()
    cluster.persist()
    cluster.restart()
    cluster.state.members.claim_answered(SECOND, 1, cluster.now)  # nobody knows of it
    assert answered(cluster, SECOND, 2) is Claim.GRANTED


def test_questions_at_a_time_are_bounded(cluster: Cluster) -> None:
    members = cluster.state.members
    for n in range(10, 10 + MAX_QUESTIONS):
        assert members.claim(DaemonRef(n, "a:1")) is Claim.ASKED
    assert members.claim(SECOND) is Claim.UNHEARD  # which comes again
    assert members.claim(DaemonRef(10, "a:1")) is Claim.ASKED  # as before
    for ref in members.pop_claims():
        members.claim_answered(ref, 1, cluster.now)
    cluster.state.members.tick(cluster.now + KEPT_S)
    assert members.claim(SECOND) is Claim.ASKED
