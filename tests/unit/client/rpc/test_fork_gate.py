"""A fork waits until nobody is in a call, and nobody begins one while it waits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from cosco.client.rpc import fork_gate as gate_module
from cosco.client.rpc.fork_gate import ForkGate, ProcessWide, process_wide

WAIT_S = 10.0


class FakeCall:
    """A call that ends when it is cancelled, as gRPC's do."""

    def __init__(self, gate: ForkGate) -> None:
        self._gate = gate
        self.cancelled = threading.Event()

    def cancel_for_fork(self) -> None:
        self.cancelled.set()

    def run(self, inside: threading.Event, left: threading.Event) -> None:
        with self._gate:
            self._gate.add(self)
            inside.set()
            assert self.cancelled.wait(WAIT_S)
            self._gate.discard(self)
        left.set()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_fork_cancels_calls_and_waits_until_they_are_out() -> None:
    gate = ForkGate()
    call, inside, left = FakeCall(gate), threading.Event(), threading.Event()
    in_thread(lambda: call.run(inside, left))
    assert inside.wait(WAIT_S)
    gate.before_fork()
    assert left.wait(WAIT_S)
    gate.after_fork_in_parent()


def test_nobody_comes_in_while_the_gate_is_closed() -> None:
    gate, entered = ForkGate(), threading.Event()

    def enter() -> None:
        with gate:
            entered.set()

    gate.before_fork()
    thread = in_thread(enter)
    assert not entered.wait(0.05)
    gate.after_fork_in_parent()
    assert entered.wait(WAIT_S)
    thread.join(WAIT_S)


def test_a_call_that_is_registered_during_a_fork_is_cancelled_too() -> None:
    gate, inside, fork_begun = ForkGate(), threading.Event(), threading.Event()
    call = FakeCall(gate)

    def slow_start() -> None:
        with gate:
            inside.set()
            assert fork_begun.wait(WAIT_S)
            gate.add(call)
            assert call.cancelled.is_set()
            gate.discard(call)

    thread = in_thread(slow_start)
    assert inside.wait(WAIT_S)
    waiting = FakeCall(gate)  # tells when the fork has begun

    def tell() -> None:
        waiting.cancelled.wait(WAIT_S)
        gate.discard(waiting)
        fork_begun.set()

    gate.add(waiting)
    in_thread(tell)
    gate.before_fork()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    gate.after_fork_in_parent()


def test_the_forking_thread_may_be_inside_and_come_in_again() -> None:
    gate = ForkGate()
    with gate:  # a signal handler forks in the middle of a call
        gate.before_fork()
        with gate:
            pass
        gate.after_fork_in_parent()
    gate.before_fork()
    with gate:  # a finalizer runs during the fork
        pass
    gate.after_fork_in_parent()


def test_a_fork_inside_a_fork_leaves_the_gate_closed() -> None:
    gate = ForkGate()
    came_in = threading.Event()

    def come_in() -> None:
        with gate:
            came_in.set()

    gate.before_fork()
    gate.before_fork()  # by a signal handler, in the hooks of the first one
    gate.after_fork_in_parent()
    thread = in_thread(come_in)
    assert not came_in.wait(0.05)
    gate.after_fork_in_parent()
    thread.join(WAIT_S)
    assert came_in.is_set()


def test_two_threads_may_fork_at_a_time() -> None:
    gate, both = ForkGate(), threading.Barrier(2)

    def fork() -> None:
        both.wait(WAIT_S)
        gate.before_fork()
        gate.after_fork_in_parent()

    threads = [in_thread(fork) for _ in range(2)]
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_call_that_does_not_end_delays_a_fork_only_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gate_module, "DRAIN_TIMEOUT_S", 0.05)
    gate = ForkGate()
    gate.add(FakeCall(gate))
    gate.before_fork()
    assert "the child may hang" in caplog.text
    gate.after_fork_in_parent()


def test_a_child_begins_anew() -> None:
    gate = ForkGate()
    gate.add(FakeCall(gate))
    gate._inside[1] = 1  # a thread of the parent
    gate._forking[threading.get_ident()] = 1
    gate.after_fork_in_child()
    gate.before_fork()  # does not wait for the parent's
    gate.after_fork_in_parent()


class Pool(ProcessWide):
    def _reset(self) -> None:
        self.items: list[int] = []


def test_a_forked_child_begins_with_an_empty_pool_and_keeps_what_it_inherited() -> None:
    pool = Pool()
    inherited = pool.items
    inherited.append(1)
    pool.forget_parent()
    assert pool.items == []
    pool.items.append(2)
    pool.forget_parent()  # in a child of the child
    assert pool.items == []
    assert pool._inherited["items"] == [2]
    assert pool._inherited["_inherited"]["items"] is inherited


def test_the_pool_of_a_process_forgets_in_a_real_child() -> None:
    pool = process_wide(Pool())
    pool.items.append(1)
    pid = os.fork()
    if not pid:
        os._exit(len(pool.items))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.items == [1]
