"""The gate that keeps a process's gRPC calls out of the moment of a fork.

gRPC survives a fork only while none of its threads is busy and no call is under way. So
every use of it in this package happens inside the one gate of the process: a fork closes
the gate, cancels what is under way and waits until every thread has come out; calls that
were cancelled for it are made again by whoever made them.

Two rules keep this free of deadlocks, whatever locks the forking thread holds: nobody takes
a lock of the client inside the gate, and nobody enters the gate holding one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

_Object = TypeVar("_Object", bound="ProcessWide")
_LOG = logging.getLogger("cosco")
#: Cancelled calls end within milliseconds; a fork does not wait longer than this for them.
DRAIN_TIMEOUT_S: Final = 10.0


class Cancellable(Protocol):
    """A call under way."""

    def cancel_for_fork(self) -> None:
        """End the call soon, and remember why. Called outside of the gate's lock."""


class ForkGate:
    """Used as `with gate:` around every use of gRPC; a fork waits until all are outside.

    A thread may enter more than once, and the thread that forks always may: what a signal
    handler or a finalizer does in the middle of a call must not wait for that call.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}  # thread → how many times it is inside
        self._calls: set[Cancellable] = set()
        self._forking: dict[int, int] = {}  # thread → forks under way, one inside the other

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            while self._forking and me not in self._forking and me not in self._inside:
                self._changed.wait()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *exc: object) -> None:
        me = threading.get_ident()
        with self._changed:
            times = self._inside.pop(me, 1) - 1  # absent in a child that a handler forked
            if times:
                self._inside[me] = times
            elif self._forking:
                self._changed.notify_all()

    def add(self, call: Cancellable) -> None:
        """Register a call that was started inside the gate, until `discard`."""
        with self._changed:
            self._calls.add(call)
            forking = bool(self._forking)
        if forking:
            call.cancel_for_fork()

    def discard(self, call: Cancellable) -> None:
        """Forget a call that has ended, as gRPC's own thread says."""
        with self._changed:
            self._calls.discard(call)
            if self._forking:
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Close the gate, cancel all calls, and wait until all are done and out."""
        me = threading.get_ident()
        with self._changed:
            self._forking[me] = self._forking.get(me, 0) + 1
            calls = list(self._calls)
        for call in calls:
            call.cancel_for_fork()
        with self._changed:
            if not self._changed.wait_for(self._is_quiet, DRAIN_TIMEOUT_S):
                _LOG.warning(
                    "forking although gRPC calls did not end in %g s: the child may hang",
                    DRAIN_TIMEOUT_S,
                )

    def _is_quiet(self) -> bool:
        return not self._calls and self._inside.keys() <= self._forking.keys()

    def after_fork_in_parent(self) -> None:
        """Open the gate again, unless a signal handler forked in the middle of another fork:
        gRPC stands still until the outer one is over as well."""
        me = threading.get_ident()
        with self._changed:
            forks = self._forking.pop(me, 1) - 1
            if forks:
                self._forking[me] = forks
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads and calls."""
        self._reset()

    def install(self, *, in_child: Callable[[], None]) -> None:
        """Have every fork of this process go through the gate, and `in_child` run after it."""

        def after_in_child() -> None:
            self.after_fork_in_child()
            in_child()

        os.register_at_fork(
            before=self.before_fork,
            after_in_parent=self.after_fork_in_parent,
            after_in_child=after_in_child,
        )


class ProcessWide(ABC):
    """An object that each process has one of, for all its clients: see `process_wide`.

    What a forked child inherits of it is kept for ever and never used again, as destroying it
    would touch its parent's gRPC.
    """

    def __init__(self) -> None:
        self._inherited: dict[str, Any] = {}
        self._reset()

    @abstractmethod
    def _reset(self) -> None:
        """Set every attribute to what a new process begins with."""

    def forget_parent(self) -> None:
        """Begin anew in a forked child, where nobody releases a lock of the parent's threads."""
        inherited = vars(self).copy()
        self._reset()
        self._inherited = inherited


def process_wide(shared: _Object, *, at_exit: Callable[[_Object], None] | None = None) -> _Object:
    """Have `shared` begin anew in every forked child, and `at_exit` called with it in the end.

    Returns: `shared`.
    """
    os.register_at_fork(after_in_child=shared.forget_parent)
    if at_exit is not None:
        atexit.register(at_exit, shared)
    return shared
