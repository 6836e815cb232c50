"""Scopes wake and refuse; patience counts from the first failure of an outage."""

from __future__ import annotations

import threading
import time

import pytest

from cosco.client.rpc.scope import Scope, Unreachable, inherit_scopes, retrying
from cosco.errors import ClientClosed

AWAY, FORKED = Unreachable("away"), Unreachable("", for_fork=True)


@pytest.mark.parametrize(
    ("failures", "tries"),
    [
        ([(100, AWAY)], 2),
        ([(100, AWAY), (109.9, AWAY)], 3),
        ([(100, AWAY), (110, AWAY), (111, AWAY)], 2),
        ([(100, FORKED), (200, AWAY), (209, AWAY)], 4),
        ([(100, AWAY), (200, FORKED)], 3),
        ([(100, AWAY), (200, FORKED), (201, AWAY), (202, AWAY)], 3),
    ],
)
def test_patience_counts_from_the_first_failure(
    failures: list[tuple[float, Unreachable]], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope, left, done = Scope("a test", "x"), list(failures), []
    monkeypatch.setattr(scope, "sleep", lambda _: None)

    def work() -> str:
        done.append(1)
        if not left:
            return "done"
        now, error = left.pop(0)
        monkeypatch.setattr(time, "monotonic", lambda: now)
        raise error

    with monkeypatch.context():
        if tries > len(failures):
            assert retrying(scope, lambda: 10.0, work) == "done"
        else:
            with pytest.raises(Unreachable):
                retrying(scope, lambda: 10.0, work)
    assert len(done) == tries


def test_no_patience_means_one_try() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise Unreachable("away")

    with pytest.raises(Unreachable):
        retrying(Scope("a test", "x"), lambda: 0.0, work)
    assert len(tries) == 1


def test_closing_ends_a_pause_between_tries() -> None:
    scope = Scope("a test", "x")

    def work() -> None:
        threading.Thread(target=scope.close).start()
        raise Unreachable("away")

    with pytest.raises(ClientClosed, match="a test of 'x' is closed"):
        retrying(scope, lambda: 60.0, work)


def test_only_what_is_unreachable_is_tried_again() -> None:
    def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        retrying(Scope("a test", "x"), lambda: 60.0, work)


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
