"""How soon a daemon that died is started again; the rest needs real processes."""

from __future__ import annotations

from cosco.cli.supervisor import Backoff


def test_one_that_keeps_dying_is_started_less_and_less_often_and_never_given_up() -> None:
    backoff = Backoff()
    waits = [backoff.died(1.0) for _ in range(100)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[10:] == [30.0] * 90


def test_one_that_ran_well_is_started_again_soon() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.died(1.0)
    assert backoff.died(3600.0) == 0.5
    assert backoff.died(1.0) == 1.0
