"""Whom a writer asks about a daemon that fails it, and when it gives up."""

from __future__ import annotations

import pytest
from support.opening import opened_at

from cosco.client.write.state.routes import Routes
from cosco.client.write.state.trouble import (
    CAPACITY_WAIT_S,
    INSIST_AFTER_S,
    STEADY_S,
    LinkTrouble,
    Question,
)
from cosco.errors import CapacityExceeded, ServiceUnavailable
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import Assignment, DaemonRef, RenewedAssignments

A, B = DaemonRef(1, "a:1"), DaemonRef(2, "b:1")
TIMEOUT_S = 60.0
NOTHING = RenewedAssignments()


def routes_of(*primaries: DaemonRef) -> Routes:
    return Routes(opened_at(*primaries))


@pytest.fixture
def trouble() -> LinkTrouble:
    return LinkTrouble(A, TIMEOUT_S)


def test_a_daemon_out_of_reach_is_named_with_all_that_leads_there(trouble: LinkTrouble) -> None:
    trouble.out_of_reach("refused", 10.0)
    assert not trouble.is_refused
    question = trouble.question(routes_of(A, B, A), 10.0)
    assert question == Question(((0, 1), (2, 1)), A, insist=False)


def test_a_refusal_names_what_was_refused_and_suspects_nobody(trouble: LinkTrouble) -> None:
    trouble.refused(RangeEpoch(2, 1), "sealed", 10.0)
    assert trouble.is_refused
    assert trouble.question(routes_of(A, B, A), 10.0) == Question(((2, 1),), None, insist=False)


def test_another_start_of_the_daemon_is_reported(trouble: LinkTrouble) -> None:
    trouble.replaced("started again", 10.0)
    assert trouble.is_refused
    assert trouble.question(routes_of(A, B), 10.0) == Question(((0, 1),), A, insist=False)


def test_nothing_is_asked_once_another_thread_has_moved_it_all(trouble: LinkTrouble) -> None:
    routes = routes_of(A, A)
    trouble.refused(RangeEpoch(0, 1), "sealed", 10.0)
    routes.renew([Assignment(0, 2, 1, B)])
    assert trouble.question(routes, 10.0) is None
    trouble.out_of_reach("refused", 10.0)
    assert trouble.question(routes, 10.0) == Question(((1, 1),), A, insist=False)
    routes.renew([Assignment(1, 2, 1, B)])
    assert trouble.question(routes, 11.0) is None
    assert trouble.remaining_s(1000.0) == TIMEOUT_S  # it is over


def test_a_daemon_said_to_be_alive_is_tried_and_after_a_while_insisted_on(
    trouble: LinkTrouble,
) -> None:
    routes = routes_of(A)
    trouble.out_of_reach("silence", 10.0)
    assert trouble.answered(RenewedAssignments(alive=True), moved=False)
    late = 10.0 + INSIST_AFTER_S + 0.1
    trouble.out_of_reach("silence", late)
    assert trouble.question(routes, late) == Question(((0, 1),), A, insist=True)


@pytest.mark.parametrize(("silent_at_s", "taken"), [(11.0 + STEADY_S, False), (20.0, True)])
def test_insisting_begins_anew_after_a_steady_stream_or_a_frame_taken(
    trouble: LinkTrouble, silent_at_s: float, taken: bool
) -> None:
    trouble.out_of_reach("silence", 10.0)
    trouble.answered(RenewedAssignments(alive=True), moved=False)
    trouble.heard(11.0)
    if taken:
        trouble.acknowledged()
    trouble.out_of_reach("silence", silent_at_s)
    trouble.answered(RenewedAssignments(alive=True), moved=False)
    question = trouble.question(routes_of(A), silent_at_s + 0.1)
    assert question is not None
    assert not question.insist
    assert trouble.remaining_s(silent_at_s) == TIMEOUT_S


def test_a_daemon_that_is_heard_and_takes_nothing_is_insisted_on_and_given_up(
    trouble: LinkTrouble,
) -> None:
    for second in range(10):  # as on a path that lets only small messages through
        trouble.out_of_reach("cut", 10.0 + second)
        trouble.answered(RenewedAssignments(alive=True), moved=False)
        trouble.heard(10.5 + second)
    trouble.out_of_reach("cut", 20.0)
    assert trouble.question(routes_of(A), 20.0) == Question(((0, 1),), A, insist=True)
    assert trouble.remaining_s(20.0) == TIMEOUT_S - 10


def test_a_dead_daemon_is_not_tried_but_asked_about_again(trouble: LinkTrouble) -> None:
    trouble.out_of_reach("refused", 10.0)
    assert not trouble.answered(RenewedAssignments(waiting_for="a host"), moved=False)
    assert not trouble.answered(NOTHING, moved=False)
    assert trouble.question(routes_of(A), 11.0) is not None


def test_a_refusal_without_news_is_tried_again_but_not_while_a_daemon_is_waited_for(
    trouble: LinkTrouble,
) -> None:
    trouble.refused(RangeEpoch(0, 1), "sealed", 10.0)
    assert not trouble.answered(RenewedAssignments(waiting_for="a host"), moved=False)
    assert trouble.is_refused
    assert trouble.answered(NOTHING, moved=False)
    assert not trouble.is_refused


def test_what_moved_in_part_is_asked_about_for_the_rest(trouble: LinkTrouble) -> None:
    routes = routes_of(A, A)
    trouble.out_of_reach("refused", 10.0)
    routes.renew([Assignment(0, 2, 1, B)])
    assert not trouble.answered(RenewedAssignments(waiting_for="a host"), moved=True)
    question = trouble.question(routes, 10.0)
    assert question is not None
    assert question.stale == ((1, 1),)


def test_a_refused_assignment_that_is_in_force_is_tried_again(trouble: LinkTrouble) -> None:
    trouble.refused(RangeEpoch(0, 1), "unknown", 10.0)
    trouble.refused(RangeEpoch(1, 1), "sealed", 10.0)
    answer = RenewedAssignments(alive=True, waiting_for="a host for range 1")
    assert trouble.answered(answer, moved=False)
    assert not trouble.is_refused


def test_of_several_refusals_those_that_have_not_moved_are_asked_about(
    trouble: LinkTrouble,
) -> None:
    routes = routes_of(A, A)
    trouble.refused(RangeEpoch(0, 1), "sealed", 10.0)
    trouble.refused(RangeEpoch(1, 1), "sealed", 10.0)
    routes.renew([Assignment(0, 2, 1, B)])
    assert not trouble.answered(NOTHING, moved=True)
    assert trouble.question(routes, 10.0) == Question(((1, 1),), None, insist=False)


def test_a_daemon_that_is_not_said_to_be_alive_is_not_insisted_on(trouble: LinkTrouble) -> None:
    trouble.out_of_reach("silence", 10.0)
    trouble.answered(NOTHING, moved=False)
    question = trouble.question(routes_of(A), 10.0 + 2 * INSIST_AFTER_S)
    assert question is not None
    assert not question.insist


def test_the_daemon_is_tried_while_the_metadata_service_is_away(trouble: LinkTrouble) -> None:
    trouble.out_of_reach("refused", 10.0)
    trouble.unanswered("no route")
    assert trouble.remaining_s(10.0 + TIMEOUT_S - 1) == 1
    assert trouble.remaining_s(11.0 + TIMEOUT_S) == 0
    error = trouble.error("orders")
    assert type(error) is ServiceUnavailable
    assert "no route" in str(error)
    assert "'orders'" in str(error)
    assert "a:1" in str(error)


def test_waiting_for_a_host_ends_with_its_reason(trouble: LinkTrouble) -> None:
    trouble.refused(RangeEpoch(0, 1), "sealed", 10.0)
    trouble.answered(RenewedAssignments(waiting_for="2 hosts, 1 is there"), moved=False)
    assert trouble.remaining_s(70.0) == 0
    error = trouble.error("orders")
    assert type(error) is CapacityExceeded
    assert "2 hosts, 1 is there" in str(error)


def test_a_daemon_that_stays_away_is_what_the_writer_fails_with(trouble: LinkTrouble) -> None:
    trouble.out_of_reach("stalled", 10.0)
    trouble.answered(RenewedAssignments(alive=True), moved=False)
    error = trouble.error("orders")
    assert type(error) is ServiceUnavailable
    assert "does not answer" in str(error)
    assert "stalled" in str(error)


def test_a_full_daemon_is_borne_for_seconds_unless_another_will_come(trouble: LinkTrouble) -> None:
    trouble.refused(RangeEpoch(0, 1), "no space left", 10.0, full=True)
    trouble.answered(NOTHING, moved=False)
    assert trouble.remaining_s(10.0) == CAPACITY_WAIT_S
    error = trouble.error("orders")
    assert type(error) is CapacityExceeded
    assert "no space left" in str(error)
    trouble.answered(RenewedAssignments(waiting_for="a host"), moved=False)
    assert trouble.remaining_s(10.0) == TIMEOUT_S


def test_refusals_do_not_go_on_for_ever_however_often_the_daemon_is_heard(
    trouble: LinkTrouble,
) -> None:
    for second in range(10):
        trouble.refused(RangeEpoch(0, 1), "sealed", 10.0 + second)
        trouble.answered(NOTHING, moved=False)
        trouble.heard(10.0 + second)
    assert trouble.remaining_s(19.0) == TIMEOUT_S - 9
    trouble.acknowledged()
    assert trouble.remaining_s(19.0) == TIMEOUT_S


def test_pauses_grow_and_are_bounded_and_begin_anew(trouble: LinkTrouble) -> None:
    pauses = [trouble.pause_s() for _ in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.05
    assert pauses[-1] == 1.0
    trouble.acknowledged()
    assert trouble.pause_s() == 0.05
