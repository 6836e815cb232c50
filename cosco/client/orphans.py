"""Mappers that have marked all their rows and do not commit: their process died in between.

Nobody else would notice: for the engine they are done, and readers that follow have read them.
One that must go by commits waits for them, and so looks whether daemons have their marks.
"""

from __future__ import annotations

import time
from typing import Final

from pyroaring import BitMap

from cosco.client.following import FOLLOWING, follow_question
from cosco.client.scope import Scope
from cosco.group_records import FollowOutcome
from cosco.records import Assignment, ExchangeInfo

#: A commit follows its marks sooner than this, unless the process is gone.
ORPHAN_S: Final = 1.0


class OrphanWatch:
    """Of one exchange: which mappers were marked ORPHAN_S ago, and are not committed now."""

    def __init__(self, info: ExchangeInfo, scope: Scope) -> None:
        self._info = info
        self._scope = scope
        self._marked: BitMap | None = None
        self._asked_at = 0.0
        self._reported = BitMap()

    def look(self, missing: BitMap) -> BitMap:
        """The mappers of `missing` to report, each once; asks daemons when it is time to.

        Raises ClientClosed.
        """
        if self._marked is None:
            self._marked = self._ask()
            self._asked_at = time.monotonic()
        if time.monotonic() - self._asked_at < ORPHAN_S:
            return BitMap()
        found: BitMap = (self._marked & missing) - self._reported
        self._reported |= found
        self._marked = None
        return found

    def _ask(self) -> BitMap:
        """The mappers that have marked at every range of which somebody answers."""
        marked: BitMap | None = None
        for assignment in self._info.assignments:
            of_range = self._ask_range(assignment)
            if of_range is not None:
                marked = of_range if marked is None else marked & of_range
        return marked or BitMap()

    def _ask_range(self, assignment: Assignment) -> BitMap | None:
        """Those that its primary or a replica has marks of; None if nobody answers."""
        marked: BitMap | None = None
        part = self._info.ranges[assignment.range_index]
        for ref in (assignment.primary, *assignment.replicas):
            question = follow_question(self._info.number, assignment, ref, part.first)
            answer = FOLLOWING.ask_now(ref, question, self._scope)
            if answer is None:
                continue
            if answer.outcome in {FollowOutcome.READY, FollowOutcome.WAITING}:
                marked = answer.done if marked is None else marked | answer.done
        return marked
