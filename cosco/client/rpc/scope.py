"""The life of one client object: what wakes its blocked calls, and where it may be used."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import tenacity

from cosco.errors import ClientClosed

_T = TypeVar("_T")
#: The pause after a failure: at random, and longer with each one.
_PAUSE: Final = tenacity.wait_random_exponential(multiplier=0.05, max=1.0)


class Unreachable(Exception):
    """A call failed on its way and may be made again. Never leaves this package.

    `for_fork`: it was cancelled so that this process could fork, or as who read the replies was
    interrupted; nothing is wrong. `told`: it was
    answered, by a service that said why it can do nothing now.
    """

    def __init__(self, reason: str, *, for_fork: bool = False, told: bool = False) -> None:
        super().__init__(reason)
        self.for_fork = for_fork
        self.told = told


class _Call(Protocol):
    def cancel(self) -> None: ...


class _Sleep:
    """A wait in a scope, which its end cuts short."""

    def __init__(self) -> None:
        self.over: Final = threading.Event()

    def cancel(self) -> None:
        self.over.set()


class Scope:
    """From the construction of a client object to its `close()` or `abort()`.

    Closing it cancels the calls made in it and wakes those who wait in it: they raise
    ClientClosed. A forked child inherits it closed, without a way to touch the parent's.
    """

    def __init__(
        self, what: str, shuffle_id: str, on_inherited: Callable[[], None] | None = None
    ) -> None:
        self.shuffle_id: Final = shuffle_id
        #: True in a process that was forked from the one that made this scope.
        self.inherited = False
        self._what = what
        self._pid = os.getpid()
        self._on_inherited = on_inherited
        self._is_closed = False
        # Only single operations on it, which the interpreter makes atomic: closing takes no
        # lock, so that it may happen at any time, also inside the fork gate.
        self._calls: dict[_Call, None] = {}  # in their order
        _SCOPES.add(self)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def check_process(self) -> None:
        """Raise ClientClosed in a forked child of the process that made the scope."""
        if self.inherited:
            raise ClientClosed(
                f"{self._what} of {self.shuffle_id!r} was made in process {self._pid} and cannot "
                f"be used in its forked child {os.getpid()}: make a new one there",
                shuffle_id=self.shuffle_id,
            )

    def check(self) -> None:
        """Raise ClientClosed once the scope is closed, or in a forked child."""
        if self.inherited:
            self.check_process()
        if self._is_closed:
            raise ClientClosed(
                f"{self._what} of {self.shuffle_id!r} is closed", shuffle_id=self.shuffle_id
            )

    def sleep(self, seconds: float) -> None:
        """Wait, and raise ClientClosed as soon as the scope is closed."""
        self.wait(seconds)
        self.check()

    def wait(self, seconds: float) -> None:
        """Wait, at most until the scope is closed."""
        # An event for each wait, not one in every scope: to make it costs as much as all the rest.
        sleep = _Sleep()
        self.add_call(sleep)
        try:
            sleep.over.wait(seconds)
        finally:
            self.remove_call(sleep)

    def add_call(self, call: _Call) -> None:
        """Have `call` cancelled when the scope is closed."""
        self._calls[call] = None
        if self.is_closed:
            call.cancel()

    def remove_call(self, call: _Call) -> None:
        """Forget a call that has ended."""
        self._calls.pop(call, None)

    def close(self) -> None:
        """Close the scope. May be called by any thread, and more than once."""
        if self.inherited:
            return
        self._is_closed = True
        for call in list(self._calls):
            call.cancel()

    def _inherit(self) -> None:
        self.inherited = True
        if self._on_inherited is not None:
            self._on_inherited()


_SCOPES: weakref.WeakSet[Scope] = weakref.WeakSet()


def inherit_scopes() -> None:
    """Make every object of the parent refuse its use, in a forked child."""
    for scope in list(_SCOPES):
        scope._inherit()
    _SCOPES.clear()


def retrying(scope: Scope, limit_s: Callable[[], float], attempt: Callable[[], _T]) -> _T:
    """Call `attempt` again while it raises Unreachable, until that has lasted for `limit_s()`.

    The limit is asked for after each failure, as it may change meanwhile. A call that was
    cancelled for a fork is made again at once.

    Raises: the last Unreachable; ClientClosed when the scope is closed between two tries.
    """
    try:  # a machine of retries costs as much as the rest of a small call
        return attempt()
    except Unreachable as error:
        first: Unreachable | None = error
    failed_at: float | None = None

    def again() -> _T:
        nonlocal first
        error, first = first, None
        if error is not None:
            raise error
        return attempt()

    def is_over(state: tenacity.RetryCallState) -> bool:
        nonlocal failed_at
        now = state.outcome_timestamp
        if now is None or _is_for_fork(state):
            return False
        failed_at = now if failed_at is None else failed_at
        return now - failed_at >= limit_s()

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unreachable),
        wait=lambda state: 0.0 if _is_for_fork(state) else _PAUSE(state),
        stop=is_over,
        sleep=scope.sleep,
        reraise=True,
    )(again)


def _is_for_fork(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome is not None else None
    return isinstance(error, Unreachable) and error.for_fork
