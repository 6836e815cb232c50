"""Scopes wake and refuse; patience counts from the first failure of an outage."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tenacity

from cosco.client.rpc.scope import Patience, Scope, Unreachable, inherit_scopes, retrying
from cosco.errors import ClientClosed


def failed_at(now: float, error: Exception) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.set_exception((type(error), error, None))
    state.outcome_timestamp = now
    return state


AWAY = Unreachable("away")


@pytest.mark.parametrize(
    ("failures", "ends"),
    [
        ([(100, AWAY)], False),
        ([(100, AWAY), (109.9, AWAY)], False),
        ([(100, AWAY), (110, AWAY)], True),
        ([(100, Unreachable("", for_fork=True)), (200, AWAY)], False),
        ([(100, AWAY), (200, Unreachable("", for_fork=True))], False),
        ([(100, AWAY), "renew", (115, AWAY), (124, AWAY)], False),
        ([(100, AWAY), "renew", (115, AWAY), (125, AWAY)], True),
    ],
)
def test_patience(failures: list[Any], ends: bool) -> None:
    patience = Patience(10.0)
    ended = False
    for failure in failures:
        if failure == "renew":
            patience.renew()
        else:
            ended = patience(failed_at(*failure))
    assert ended is ends


def test_no_patience_means_one_try() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise Unreachable("away")

    with pytest.raises(Unreachable):
        retrying(Scope("a test", "x"), Patience(0.0))(work)
    assert len(tries) == 1


def test_closing_ends_a_pause_between_tries() -> None:
    scope = Scope("a test", "x")

    def work() -> None:
        threading.Thread(target=scope.close).start()
        raise Unreachable("away")

    with pytest.raises(ClientClosed, match="a test of 'x' is closed"):
        retrying(scope, Patience(60.0))(work)


def test_only_what_is_unreachable_is_tried_again() -> None:
    def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        retrying(Scope("a test", "x"), Patience(60.0))(work)


class FakeCall:
    """Counts how often it was cancelled."""

    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_calls_are_cancelled_when_the_scope_closes_or_was_closed() -> None:
    scope, ended, running, late = Scope("a test", "x"), FakeCall(), FakeCall(), FakeCall()
    scope.add_call(ended)
    scope.add_call(running)
    scope.remove_call(ended)
    scope.close()
    scope.add_call(late)
    assert [call.cancelled for call in (ended, running, late)] == [0, 1, 1]


def test_a_child_inherits_scopes_it_cannot_use() -> None:
    told = []
    scope = Scope("a test", "x", on_inherited=lambda: told.append(1))
    call = FakeCall()
    scope.add_call(call)
    inherit_scopes()
    assert told == [1]
    with pytest.raises(ClientClosed, match="forked child"):
        scope.check()
    scope.close()
    assert not call.cancelled, "a call of the parent was touched"
    fresh = Scope("another", "x")
    fresh.check()
