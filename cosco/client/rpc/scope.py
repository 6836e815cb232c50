"""The life of one client object: what wakes its blocked calls, and where it may be used."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol

import tenacity

from cosco.errors import ClientClosed

_PAUSE = tenacity.wait_random_exponential(multiplier=0.05, max=1.0)


class Unreachable(Exception):
    """A call failed on its way and may be made again. Never leaves this package.

    `for_fork`: it was cancelled so that this process could fork, nothing is wrong.
    """

    def __init__(self, reason: str, *, for_fork: bool = False) -> None:
        super().__init__(reason)
        self.for_fork = for_fork


class _Call(Protocol):
    def cancel(self) -> None: ...


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
        self._closed = threading.Event()
        # Only single operations on it, which the interpreter makes atomic: closing takes no
        # lock, so that it may happen at any time, also inside the fork gate.
        self._calls: set[_Call] = set()
        _SCOPES.add(self)

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

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
        self.check_process()
        if self._closed.is_set():
            raise ClientClosed(
                f"{self._what} of {self.shuffle_id!r} is closed", shuffle_id=self.shuffle_id
            )

    def sleep(self, seconds: float) -> None:
        """Wait; raises ClientClosed as soon as the scope is closed."""
        self.wait(seconds)
        self.check()

    def wait(self, seconds: float) -> None:
        """Wait, or until the scope is closed."""
        self._closed.wait(seconds)

    def add_call(self, call: _Call) -> None:
        """Have `call` cancelled when the scope is closed."""
        self._calls.add(call)
        if self.is_closed:
            call.cancel()

    def remove_call(self, call: _Call) -> None:
        """The call has ended."""
        self._calls.discard(call)

    def close(self) -> None:
        """Close the scope; may be called by any thread and more than once."""
        if self.inherited:
            return
        self._closed.set()
        for call in list(self._calls):
            call.cancel()

    def _inherit(self) -> None:
        self.inherited = True
        if self._on_inherited is not None:
            self._on_inherited()


_SCOPES: weakref.WeakSet[Scope] = weakref.WeakSet()


def inherit_scopes() -> None:
    """In a forked child: make every object of the parent refuse its use."""
    for scope in list(_SCOPES):
        scope._inherit()
    _SCOPES.clear()


class Patience:
    """How long an outage is borne: `limit_s` from its first failure. A tenacity `stop`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: float | None = None

    def renew(self) -> None:
        """There was an answer: the outage, if there was one, is over."""
        self._since = None

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        now = state.outcome_timestamp
        if now is None or _is_for_fork(state):
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._limit_s


def retrying(scope: Scope, patience: Patience) -> tenacity.Retrying:
    """Try again what is Unreachable until patience ends; raises the last Unreachable then,
    and ClientClosed from its pauses when the scope is closed."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unreachable),
        wait=lambda state: 0.0 if _is_for_fork(state) else _PAUSE(state),
        stop=patience,
        sleep=scope.sleep,
        reraise=True,
    )


def _is_for_fork(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome is not None else None
    return isinstance(error, Unreachable) and error.for_fork
