"""Which daemons must still be told that assignments are sealed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import DaemonRef

#: One call seals so many assignments at most.
MAX_FENCE_KEYS: Final = 4096


@dataclass(frozen=True, slots=True)
class Fence:
    """To be told to `daemon`: take nothing more for `keys`, and store what is held of them."""

    daemon: DaemonRef
    keys: tuple[AssignmentKey, ...]


@dataclass(slots=True)
class _Untold:
    daemon: DaemonRef
    keys: dict[AssignmentKey, None] = field(default_factory=dict)
    under_way: bool = False


class Fences:
    """What is to be sealed at whom, until it says that it is; one call a daemon at a time."""

    def __init__(self) -> None:
        self._untold: dict[int, _Untold] = {}

    def __bool__(self) -> bool:
        """Whether `take` has something to give."""
        return any(not untold.under_way for untold in self._untold.values())

    def add(self, daemon: DaemonRef, key: AssignmentKey) -> None:
        """Have `key` sealed at `daemon`; harmless if that is so already."""
        self._untold.setdefault(daemon.incarnation, _Untold(daemon)).keys[key] = None

    def pending(self, incarnation: int) -> bool:
        """Whether a daemon has not confirmed everything yet."""
        return incarnation in self._untold

    def take(self) -> list[Fence]:
        """Calls to make now; each must end in `fenced` or `failed`, unless its daemon dies."""
        fences = []
        for untold in self._untold.values():
            if not untold.under_way:
                untold.under_way = True
                fences.append(Fence(untold.daemon, tuple(untold.keys)[:MAX_FENCE_KEYS]))
        return fences

    def fenced(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        """The daemon takes nothing more for `keys`."""
        self.failed(incarnation)
        self._drop(incarnation, keys)

    def failed(self, incarnation: int) -> None:
        """The call did not reach the daemon, or its answer was lost: make it again."""
        untold = self._untold.get(incarnation)
        if untold is not None:
            untold.under_way = False

    def died(self, incarnation: int) -> None:
        """It has not to be told any more."""
        self._untold.pop(incarnation, None)

    def closed(self, number: int) -> None:
        """The assignments of an exchange are nobody's any more."""
        for incarnation, untold in list(self._untold.items()):
            self._drop(incarnation, [key for key in untold.keys if key.number == number])

    def _drop(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        untold = self._untold.get(incarnation)
        if untold is None:
            return
        for key in keys:
            untold.keys.pop(key, None)
        if not untold.keys:
            del self._untold[incarnation]
