"""Daemons that somebody cannot reach: asked once, whoever and however many report them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cosco.protocol.keys import AssignmentKey
from cosco.protocol.records import DaemonRef


class ProbeOutcome(Enum):
    """How a daemon answered when it was asked who is there."""

    ALIVE = 1
    GONE = 2  # nobody listens at its address, or another start of the daemon does
    SILENT = 3  # no answer: its lease decides


@dataclass(slots=True)
class _Suspect:
    daemon: DaemonRef
    insisted: dict[AssignmentKey, bool] = field(default_factory=dict)
    under_way: bool = False


class Suspicions:
    """The daemons that are asked, and what moves away from them if they answer.

    That is what somebody insisted on: assignment → whether the suspect is its primary.
    """

    def __init__(self) -> None:
        self._suspects: dict[int, _Suspect] = {}

    def __bool__(self) -> bool:
        """Whether `take` has something to give."""
        return any(not suspect.under_way for suspect in self._suspects.values())

    def __contains__(self, incarnation: int) -> bool:
        """Whether a daemon is being asked, or will be."""
        return incarnation in self._suspects

    def suspect(self, daemon: DaemonRef, insisted: Mapping[AssignmentKey, bool]) -> None:
        """Have a daemon asked; a question that is under way serves all who come meanwhile."""
        self._suspects.setdefault(daemon.incarnation, _Suspect(daemon)).insisted.update(insisted)

    def take(self) -> list[DaemonRef]:
        """The daemons to ask now; for each, `answered` must follow."""
        taken = [suspect for suspect in self._suspects.values() if not suspect.under_way]
        for suspect in taken:
            suspect.under_way = True
        return [suspect.daemon for suspect in taken]

    def answered(self, incarnation: int) -> dict[AssignmentKey, bool]:
        """The question is over: what was insisted on meanwhile."""
        suspect = self._suspects.pop(incarnation, None)
        return {} if suspect is None else suspect.insisted
