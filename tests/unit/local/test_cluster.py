"""What must not be torn by Ctrl-C is done by another thread, to its end."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from cosco.local.cluster import uninterrupted

WAIT_S = 10.0


def test_it_returns_what_the_work_does_and_raises_what_it_raises() -> None:
    def fail() -> None:
        raise KeyError("x")

    assert uninterrupted(lambda: 5) == 5
    assert uninterrupted(lambda: None) is None
    with pytest.raises(KeyError):
        uninterrupted(fail)


@pytest.mark.parametrize("interrupts", [1, 3])
def test_an_interrupt_is_raised_when_the_work_is_done(interrupts: int) -> None:
    done = []

    def work() -> None:
        for _ in range(interrupts):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)
        done.append(threading.current_thread())

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(work)
    assert len(done) == 1
    assert done[0] is not threading.main_thread()


def test_an_interrupt_while_the_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been started, or not: the work is done once."""
    done = []
    start = threading.Thread.start
    before, after = iter([True, False]), iter([True, False])

    def interrupted(thread: threading.Thread) -> None:
        if next(before, False):
            raise KeyboardInterrupt
        start(thread)
        if next(after, False):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            uninterrupted(lambda: done.append(1))
    assert done == [1]


def test_where_no_thread_can_be_started_the_work_is_done_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert uninterrupted(threading.current_thread) is threading.current_thread()
