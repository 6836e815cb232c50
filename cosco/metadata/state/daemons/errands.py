"""What daemons are called for: to seal assignments, and to say whether they are there.

A daemon has one call of a kind under way at a time. What comes meanwhile is for the next one,
or, where the question is the same, served by that call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, TypeVar

from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import DaemonRef

#: Assignments that one call seals.
MAX_FENCE_KEYS: Final = 4096

_V = TypeVar("_V")


@dataclass(slots=True)
class _Errand(Generic[_V]):
    daemon: DaemonRef
    keys: dict[AssignmentKey, _V] = field(default_factory=dict)
    under_way: bool = False


class _Errands(Generic[_V]):
    """By daemon, the assignments it is called for and what is to be known of each."""

    def __init__(self) -> None:
        self._errands: dict[int, _Errand[_V]] = {}

    def __bool__(self) -> bool:
        """Whether `pop_all` has something to give."""
        return any(not errand.under_way for errand in self._errands.values())

    def __contains__(self, incarnation: int) -> bool:
        """Whether a daemon is being called, or will be."""
        return incarnation in self._errands

    def _add(self, daemon: DaemonRef, keys: Mapping[AssignmentKey, _V]) -> None:
        self._errands.setdefault(daemon.incarnation, _Errand(daemon)).keys.update(keys)

    def _begin(self) -> list[_Errand[_V]]:
        begun = [errand for errand in self._errands.values() if not errand.under_way]
        for errand in begun:
            errand.under_way = True
        return begun


@dataclass(frozen=True, slots=True)
class Fence:
    """To be told to `daemon`: take nothing more for `keys`, and store what is held of them."""

    daemon: DaemonRef
    keys: tuple[AssignmentKey, ...]


class Fences(_Errands[None]):
    """What is to be sealed at whom, until the daemon says that it is."""

    def add(self, daemon: DaemonRef, key: AssignmentKey) -> None:
        """Have `key` sealed at `daemon`; harmless if that is so already."""
        self._add(daemon, {key: None})

    def pop_all(self) -> list[Fence]:
        """Return the calls to make now.

        Each must end in `fenced` or `failed`, unless its daemon dies.
        """
        return [
            Fence(errand.daemon, tuple(errand.keys)[:MAX_FENCE_KEYS]) for errand in self._begin()
        ]

    def fenced(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        """Note that a daemon takes nothing more for `keys`."""
        self.failed(incarnation)
        self._forget(incarnation, keys)

    def failed(self, incarnation: int) -> None:
        """Have a call made again that did not reach the daemon, or whose answer was lost."""
        errand = self._errands.get(incarnation)
        if errand is not None:
            errand.under_way = False

    def died(self, incarnation: int) -> None:
        """Forget a daemon that need not be told any more."""
        self._errands.pop(incarnation, None)

    def closed(self, number: int) -> None:
        """Forget the assignments of an exchange."""
        for incarnation, errand in list(self._errands.items()):
            self._forget(incarnation, [key for key in errand.keys if key.number == number])

    def _forget(self, incarnation: int, keys: Iterable[AssignmentKey]) -> None:
        errand = self._errands.get(incarnation)
        if errand is None:
            return
        for key in keys:
            errand.keys.pop(key, None)
        if not errand.keys:
            del self._errands[incarnation]


class ProbeOutcome(Enum):
    """How a daemon answered when it was asked who is there."""

    ALIVE = 1
    GONE = 2  # nobody listens at its address, or another start of the daemon does
    SILENT = 3  # no answer: see `DaemonTable.silent`


class Suspicions(_Errands[bool]):
    """Daemons that somebody cannot reach: asked once, whoever and however many report them.

    With each come the assignments that move away from it if it answers, as somebody insisted on
    that, and whether it is their primary.
    """

    def suspect(self, daemon: DaemonRef, insisted: Mapping[AssignmentKey, bool]) -> None:
        """Have a daemon asked; a question that is under way serves all who come meanwhile."""
        self._add(daemon, insisted)

    def pop_all(self) -> list[DaemonRef]:
        """Return the daemons to ask now; for each, `answered` must follow."""
        return [errand.daemon for errand in self._begin()]

    def answered(self, incarnation: int) -> dict[AssignmentKey, bool]:
        """End a question.

        Returns: what was insisted on meanwhile.
        """
        errand = self._errands.pop(incarnation, None)
        return {} if errand is None else errand.keys
