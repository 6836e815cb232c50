"""Which exchanges are used in this process, so that the lease of a dropped driver is kept."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from cosco.client.rpc.fork_gate import ProcessWide, process_wide

#: What is between the id of a group and the index of an exchange of it.
_MEMBER: Final = "/"
_PRUNE_EVERY: Final = 256

Use = tuple[str, int]
#: Whether an exchange is of what is asked for.
Owns = Callable[[str], bool]


class _Waiting(NamedTuple):
    """Who is to be told of the next user, and until when."""

    until: float
    tell: Callable[[], None]
    owns: Owns


def owns_none(_: str) -> bool:
    """Return what holds for all but applications."""
    return False


class InUse(ProcessWide):
    """The writers, readers and handles of this process, by the id they are of.

    Whoever uses an exchange of a group uses the group. Which exchanges an application has is not
    known here, and said by who asks for it (`owns`).
    """

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Finalizers remove from the inner tables, by one operation and without the lock.
        self._users: dict[str, dict[int, weakref.ref[Any]]] = {}
        self._waiting: dict[str, _Waiting] = {}

    def add(self, shuffle_id: str, user: object) -> Use:
        """Count `user` until it is collected, or removed by what this returns."""
        with self._lock:
            number = next(self._numbers)
            if not number % _PRUNE_EVERY:
                self._prune()
            users = self._users.setdefault(shuffle_id, {})
            users[number] = weakref.ref(user, partial(_forget, users, number))
            names = (shuffle_id, shuffle_id.rpartition(_MEMBER)[0])
            due = [n for n, one in self._waiting.items() if n in names or one.owns(shuffle_id)]
            waiting = [self._waiting.pop(name) for name in due]
        for one in waiting:
            if time.monotonic() < one.until:
                one.tell()
        return shuffle_id, number

    def remove(self, use: Use) -> None:
        """Count a user no longer, as it was closed."""
        shuffle_id, number = use
        with self._lock:
            users = self._users.get(shuffle_id, {})
            users.pop(number, None)
            if not users:
                self._users.pop(shuffle_id, None)

    def is_used(self, shuffle_id: str, owns: Owns = owns_none) -> bool:
        """Whether anybody uses the exchange, or any exchange of the group or application."""
        with self._lock:
            return self._is_used(shuffle_id, owns)

    def tell_of_next(
        self, shuffle_id: str, seconds: float, tell: Callable[[], None], owns: Owns = owns_none
    ) -> bool:
        """Have `tell` called once when a user comes within `seconds`.

        Returns: False if there is one.
        """
        with self._lock:
            if self._is_used(shuffle_id, owns):
                return False
            now = time.monotonic()
            self._waiting = {name: one for name, one in self._waiting.items() if now < one.until}
            self._waiting[shuffle_id] = _Waiting(now + seconds, tell, owns)
            return True

    def _prune(self) -> None:
        """Forget ids whose users were all collected."""
        for name in [name for name, users in self._users.items() if not users]:
            del self._users[name]

    def _is_used(self, shuffle_id: str, owns: Owns) -> bool:
        self._prune()
        return any(
            name == shuffle_id or name.startswith(shuffle_id + _MEMBER) or owns(name)
            for name in self._users
        )


def _forget(users: dict[int, weakref.ref[Any]], number: int, _: object) -> None:
    users.pop(number, None)


IN_USE: Final = process_wide(InUse())
