"""Calls of one queue come one at a time, those of others beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support.exchanges import until

from cosco.client.driver.callback_threads import CallbackThreads

WAIT_S = 10.0


class Calls:
    """Callbacks that go on when they are told to."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.done: list[str] = []
        self._changed = threading.Condition()
        self._may_end: set[str] = set()
        self.threads = CallbackThreads(self._run)

    def _run(self, call: str) -> None:
        with self._changed:
            self.running.append(call)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: call in self._may_end, WAIT_S)
            self.running.remove(call)
            self.done.append(call)
            self._changed.notify_all()

    def wait(self, reached: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, WAIT_S)

    def end(self, *calls: str) -> None:
        with self._changed:
            self._may_end.update(calls)
            self._changed.notify_all()


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_one_at_a_time_and_in_order_within_a_queue_and_at_once_across(calls: Calls) -> None:
    for queue, call in ((1, "1a"), (1, "1b"), (2, "2a"), (1, "1c")):
        calls.threads.add(queue, call)
    calls.wait(lambda: sorted(calls.running) == ["1a", "2a"])
    calls.end("2a")
    calls.wait(lambda: calls.done == ["2a"])
    calls.end("1b", "1c")  # which do not run yet
    assert calls.running == ["1a"]
    calls.end("1a")
    calls.wait(lambda: calls.done == ["2a", "1a", "1b", "1c"])


def test_a_queue_has_a_thread_while_it_has_calls(calls: Calls) -> None:
    def own() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "cosco-recompute"]

    assert not calls.threads.is_busy
    for round_ in ("a", "b"):
        calls.threads.add(1, round_)
        calls.wait(lambda: len(calls.running) == 1)
        assert calls.threads.is_busy
        assert len(own()) == 1
        calls.end(round_)
        until(lambda: not calls.threads.is_busy, WAIT_S)
        until(lambda: not own(), WAIT_S)


def test_after_closing_none_begins_and_one_that_runs_ends(calls: Calls) -> None:
    calls.threads.add(1, "a")
    calls.threads.add(1, "b")
    calls.wait(lambda: calls.running == ["a"])
    calls.threads.close()
    assert calls.threads.is_busy
    calls.end("a", "b")
    until(lambda: not calls.threads.is_busy, WAIT_S)
    assert calls.done == ["a"]


def test_a_call_that_finds_no_thread_may_be_added_again(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            calls.threads.add(1, "a")
    assert not calls.threads.is_busy
    calls.end("a")
    calls.threads.add(1, "a")
    calls.wait(lambda: calls.done == ["a"])


def test_a_call_that_comes_while_no_thread_can_be_started_is_not_lost(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told that they are to come again, or have their call run."""
    outcome: list[str] = []

    def add_other() -> None:
        try:
            calls.threads.add(1, "b")
        except RuntimeError:
            outcome.append("refused")
        else:
            outcome.append("taken")

    start, other = threading.Thread.start, threading.Thread(target=add_other)

    def refuse(_: threading.Thread) -> None:
        if other.ident is None:
            start(other)
            other.join(0.2)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            calls.threads.add(1, "a")
        other.join(WAIT_S)
    assert outcome == ["refused"]
    assert not calls.threads.is_busy
