"""Mappers that have marked all their rows and do not commit: their process died in between.

Nobody else would notice: for the engine they are done, and readers that follow have read them.
One that must go by commits waits for them, and so looks whether daemons have their marks.

Where a range moved, marks are at the daemons of its first epoch or at those of the present one,
and some went with a daemon. So a mapper that is marked at one range only has ended as well, or
is about to: it is given longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pyroaring import BitMap

from cosco.client.groups.following import FOLLOWING, follow_question
from cosco.client.rpc.scope import Scope
from cosco.protocol.group_records import FollowOutcome
from cosco.protocol.records import Assignment, ExchangeInfo

#: A commit follows its marks sooner than this, unless the process is gone.
ORPHAN_S: Final = 1.0
#: A mapper that has marked at some ranges marks at the others sooner than this.
PARTLY_S: Final = 20.0
#: One that was reported and has not committed since is reported again, as its re-run may have
#: died as well.
REPORT_AGAIN_S: Final = 10.0


class OrphanWatch:
    """Of one exchange: which mappers were marked ORPHAN_S ago, at some ranges PARTLY_S ago, and
    are not committed now."""

    def __init__(
        self, info: ExchangeInfo, describe: Callable[[], ExchangeInfo], scope: Scope
    ) -> None:
        """`info`: with its first epochs. `describe`: asks for it with the present ones."""
        self._info = info
        self._describe = describe
        self._scope = scope
        self._marked: BitMap | None = None
        self._partly: dict[int, float] = {}  # mapper → when it was first seen
        self._asked_at = 0.0
        self._reported: dict[int, float] = {}  # mapper → when it was last

    def look(self, missing: BitMap) -> BitMap:
        """The mappers of `missing` to report; asks daemons when it is time to.

        Raises ClientClosed, and what `describe` does.
        """
        if self._marked is None:
            self._marked = self._ask()
            self._asked_at = time.monotonic()
        if time.monotonic() - self._asked_at < ORPHAN_S:
            return BitMap()
        since = self._asked_at - PARTLY_S
        partly = BitMap([mapper for mapper, first in self._partly.items() if first <= since])
        found: BitMap = (self._marked | partly) & missing
        again = self._asked_at - REPORT_AGAIN_S
        found -= BitMap([mapper for mapper, last in self._reported.items() if last > again])
        self._reported.update(dict.fromkeys(found, self._asked_at))
        self._marked = None
        return found

    def _ask(self) -> BitMap:
        """The mappers that have marked at every range of which somebody answers."""
        of_ranges: dict[int, BitMap] = {}
        now = time.monotonic()
        known = (*self._info.assignments, *self._describe().assignments)
        for assignment in {(one.range_index, one.epoch): one for one in known}.values():
            found = self._ask_epoch(assignment)
            if found is not None:
                of_ranges.setdefault(assignment.range_index, BitMap()).update(found)
                for mapper in found:
                    self._partly.setdefault(mapper, now)
        return BitMap.intersection(*of_ranges.values()) if of_ranges else BitMap()

    def _ask_epoch(self, assignment: Assignment) -> BitMap | None:
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
