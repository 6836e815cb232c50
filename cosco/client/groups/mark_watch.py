"""How a reader of a group learns of its rows: from marks at a daemon, else from commits.

A mapper that has marked all its rows is done, for the engine and for the readers that follow. If
its process died before it committed, nobody else would notice, and a reader that must go by
commits would wait for it: so that reader looks whether daemons have marks of mappers that do not
commit. Where a range moved, marks are at the daemons of its first epoch or at those of the
present one, and some went with a daemon. So a mapper that is marked at one range only has ended as
well, or is about to: it is given longer.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from pyroaring import BitMap

from cosco.client.groups.following import FOLLOWING, Waiter, follow_question
from cosco.client.read.commit_watch import CommitWatch
from cosco.client.read.fetch_call import Bad
from cosco.client.read.state.read_plan import MARKS_BUILD, AwaitCommits, Fetch
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ServiceUnavailable
from cosco.protocol.group_records import Follow, Followed, FollowOutcome
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import Assignment, CommitWait, ExchangeInfo, ReadSnapshot, Source

#: How often it asks the metadata service, once it does: mappers that have marked and do not commit
#: are noticed between two questions.
_POLL_S: Final = 1.0
#: A daemon that says it is ready sends what there is in this time.
_READY_S: Final = 2.0
#: A commit follows its marks sooner than this, unless the process is gone.
ORPHAN_S: Final = 1.0
#: A mapper that has marked at some ranges marks at the others sooner than this.
PARTLY_S: Final = 20.0
#: A mapper that was reported and has not committed since is reported again after this time, as its
#: re-run may have died as well.
REPORT_AGAIN_S: Final = 10.0


class MarkWatch(CommitWatch):
    """Waits at the daemon of a partition for its marks, or else for commits.

    The daemon sends attempts, sums and rows when every mapper is done. They are checked as all
    rows are. Where that does not come about, or does not add up, the reader goes by commits.
    """

    def __init__(
        self,
        info: ExchangeInfo,
        metadata: MetadataClient,
        scope: Scope,
        mappers: BitMap,
        partition: int,
    ) -> None:
        """Begin without a question. `info` is the exchange with its first epochs."""
        super().__init__(metadata, scope, mappers, partition, info)
        self._exchange = info
        self._orphans = OrphanWatch(
            info, lambda: metadata.describe_exchange(scope.shuffle_id), scope
        )
        self._waiter: Waiter | None = None
        self._ahead: list[memoryview] | None = None

    def describe_again(self) -> ExchangeInfo:
        """See `CommitWatch`. What the rows of a group are was decided when it was made."""
        return self._exchange

    def start(self) -> None:
        """See `CommitWatch`."""
        self._metadata.set_met()  # whoever gave the handle has: an outage is waited for
        index = next(
            one.index
            for one in self._exchange.ranges
            if one.first <= self._partition < one.first + one.count
        )
        self._assignment = next(a for a in self._exchange.assignments if a.range_index == index)
        primary = self._assignment.primary
        self._waiter = FOLLOWING.ask(primary, self._question())
        self._scope.add_call(self._waiter)
        left = (primary, self._waiter)
        self._finalizer = weakref.finalize(self, FOLLOWING.abandoned.append, left)
        self._finalizer.atexit = False

    def wait(self, step: AwaitCommits) -> CommitWait:
        """See `CommitWatch`."""
        if self._waiter is not None:
            found = self._wait_for_marks(self._waiter, step.wait_s)
            if found is None and self._waiter is not None:
                found = self._ask_beside(self._waiter, step)
            if found is not None:
                return found
            step = replace(step, wait_s=0.0)
        wait = super().wait(replace(step, wait_s=min(step.wait_s, _POLL_S)))
        if wait.snapshot is None and self._waiter is None:
            orphans = self._orphans.look(wait.missing)
            if orphans:
                self._metadata.report_uncommitted(
                    self._exchange.number,
                    orphans,
                    f"{len(orphans)} mappers ended before they committed",
                )
        return wait

    def ahead(self, fetch: Fetch, bad: Bad) -> list[memoryview] | None:
        """See `CommitWatch`."""
        ahead, self._ahead = self._ahead, None
        return ahead if fetch.daemon == self._assignment.primary else None

    def close(self) -> None:
        """See `CommitWatch`."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._finalizer.detach()
            self._scope.remove_call(waiter)
            FOLLOWING.leave(self._assignment.primary, waiter)

    def _question(self) -> Follow:
        one = self._assignment
        return follow_question(self._exchange.number, one, one.primary, self._partition)

    def _ask_beside(self, waiter: Waiter, step: AwaitCommits) -> CommitWait | None:
        """Ask who is missing, as the daemon has said nothing in the time of `step`.

        Returns: None if the daemon will not say.
        """
        if step.outage_s is not None and step.outage_s <= step.wait_s:
            # The reader's time is over, but for what is on its way already.
            return self._ask_done(waiter)
        try:  # it may know that the daemon has been replaced
            wait = super().wait(replace(step, wait_s=0.0, outage_s=0.0))
        except ServiceUnavailable as error:
            if not error.retriable:
                raise
            return self._ask_done(waiter) or CommitWait(None, self._mappers)
        if wait.snapshot is not None:
            self.close()
        return wait

    def _ask_done(self, waiter: Waiter) -> CommitWait | None:
        """Ask the daemon who is missing, which says what `waiter` waits for before that.

        Returns: None if it does not answer.
        """
        now = FOLLOWING.ask_now(self._assignment.primary, self._question(), self._scope)
        is_ready = now is not None and now.outcome is FollowOutcome.READY
        found = self._wait_for_marks(waiter, _READY_S if is_ready else 0.0)
        if found is None and now is not None and now.outcome is FollowOutcome.WAITING:
            found = CommitWait(None, self._mappers - now.done)
        return found

    def _wait_for_marks(self, waiter: Waiter, wait_s: float) -> CommitWait | None:
        """Wait until the daemon says that all mappers are done.

        Returns: None if it does not say so in `wait_s`. If it never will, it is not asked again.
        """
        if not waiter.wait(wait_s):
            return None
        self._scope.check()
        answer = waiter.answer
        is_ready = answer is not None and answer.outcome is FollowOutcome.READY
        snapshot = self._snapshot(answer) if answer is not None and is_ready else None
        if answer is not None and snapshot is not None and not answer.fetch:
            self._ahead = [memoryview(answer.data)] if answer.data else []
        self.close()
        return None if snapshot is None else CommitWait(snapshot)

    def _snapshot(self, answer: Followed) -> ReadSnapshot | None:
        count = len(self._mappers)
        if len(answer.attempts) != count:
            return None
        one = self._assignment
        return ReadSnapshot(
            version=0,
            generation=self._exchange.generation,
            build=MARKS_BUILD,
            mappers=np.arange(count, dtype=np.uint32),
            attempts=answer.attempts,
            rows=answer.rows,
            raw_bytes=answer.raw_bytes,
            digest=answer.digest,
            sources=(Source(one.range_index, one.epoch, (one.primary,)),),
        )


class OrphanWatch:
    """Finds the mappers of one exchange that were marked ORPHAN_S ago, or PARTLY_S ago at some
    ranges, and are not committed now."""

    def __init__(
        self, info: ExchangeInfo, describe: Callable[[], ExchangeInfo], scope: Scope
    ) -> None:
        """Begin without marks.

        info: the exchange with its first epochs. describe: asks for it with the present ones.
        """
        self._info = info
        self._describe = describe
        self._scope = scope
        self._marked: BitMap | None = None
        self._partly: dict[int, float] = {}  # mapper → when it was first seen
        self._asked_at = 0.0
        self._reported: dict[int, float] = {}  # mapper → when it was last

    def look(self, missing: BitMap) -> BitMap:
        """Return the mappers of `missing` to report, and ask daemons when it is time to.

        Raises: ClientClosed, and what `describe` raises.
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
        """Return the mappers that have marked at every range of which some daemon answers."""
        by_range: dict[int, BitMap] = {}
        now = time.monotonic()
        known = (*self._info.assignments, *self._describe().assignments)
        for assignment in {RangeEpoch(one.range_index, one.epoch): one for one in known}.values():
            found = self._ask_epoch(assignment)
            if found is not None:
                by_range.setdefault(assignment.range_index, BitMap()).update(found)
                for mapper in found:
                    self._partly.setdefault(mapper, now)
        return BitMap.intersection(*by_range.values()) if by_range else BitMap()

    def _ask_epoch(self, assignment: Assignment) -> BitMap | None:
        """Return the mappers that a daemon of an epoch has marks of, or None if none answers."""
        marked: BitMap | None = None
        first = self._info.ranges[assignment.range_index].first
        for ref in (assignment.primary, *assignment.replicas):
            question = follow_question(self._info.number, assignment, ref, first)
            answer = FOLLOWING.ask_now(ref, question, self._scope)
            if answer is None:
                continue
            if answer.outcome in {FollowOutcome.READY, FollowOutcome.WAITING}:
                marked = answer.done if marked is None else marked | answer.done
        return marked
