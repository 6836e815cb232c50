"""What finalizers leave is ended by a thread, which is there only while there is work."""

from __future__ import annotations

import _thread
import logging
import threading
from collections.abc import Iterator

import pytest

from cosco.client.rpc.leftovers import Leftovers
from cosco.errors import ServiceUnavailable

WAIT_S = 10.0


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "cosco-leftovers"]


@pytest.fixture
def leftovers() -> Iterator[Leftovers]:
    leftovers = Leftovers()
    yield leftovers
    leftovers.close()
    for worker in workers():
        worker.join(WAIT_S)
    assert not workers()


def test_all_is_ended_in_turn_by_one_other_thread(leftovers: Leftovers) -> None:
    ended: list[tuple[int, int]] = []
    last = threading.Event()
    for i in range(100):
        leftovers.add(lambda i=i: ended.append((i, threading.get_ident())))  # type: ignore[misc]
    leftovers.add(last.set)
    assert last.wait(WAIT_S)
    assert [i for i, _ in ended] == list(range(100))
    assert threading.get_ident() not in {thread for _, thread in ended}


def test_what_is_added_in_the_middle_of_work_is_not_forgotten(leftovers: Leftovers) -> None:
    last = threading.Event()
    left = 50

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            leftovers.add(again)
        else:
            last.set()

    leftovers.add(again)
    assert last.wait(WAIT_S)


def test_adding_waits_for_no_lock(leftovers: Leftovers) -> None:
    """Not even one that `threading` holds, as a finalizer may run while it does."""
    done = threading.Event()
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        leftovers.add(done.set)
    assert done.wait(WAIT_S)


def test_an_end_that_fails_is_told_and_others_follow(
    leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> None:
        raise ServiceUnavailable("away")

    def bug() -> None:
        raise KeyError("bug")

    last = threading.Event()
    for end in (away, bug, last.set):
        leftovers.add(end)
    assert last.wait(WAIT_S)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


def test_no_thread_can_be_started(leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    ended: list[int] = []
    last = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", refuse)
        leftovers.add(lambda: ended.append(1))
    assert not ended
    leftovers.add(last.set)  # the next one that is dropped has both ended
    assert last.wait(WAIT_S)
    assert ended == [1]


def test_a_process_that_ends_waits_for_what_was_added_and_takes_no_more() -> None:
    leftovers = Leftovers()
    begun, ended = threading.Event(), []

    def slow() -> None:
        begun.set()
        threading.Event().wait(0.05)
        ended.append(1)

    leftovers.add(slow)
    assert begun.wait(WAIT_S)
    leftovers.close()
    assert ended == [1]
    leftovers.add(slow)
    assert not workers()
    assert leftovers.is_over


def test_a_forked_child_has_nothing_of_its_parents(leftovers: Leftovers) -> None:
    leftovers._working.acquire()  # a thread is at work
    leftovers.add(lambda: None)
    leftovers.forget_parent()
    assert not leftovers._queue
    done = threading.Event()
    leftovers.add(done.set)
    assert done.wait(WAIT_S)
