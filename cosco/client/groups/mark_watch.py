"""How a reader of a group learns of its rows: from marks at a daemon, else from commits.

A mapper that has marked all its rows is done, for the engine and for the readers that follow. If
its process died before it committed, nobody else would notice, and a reader that must go by
commits would wait for it: so that reader looks whether daemons have marks of mappers that do not
commit. Where a range moved, marks are at the daemons of its first epoch or at those of the
present one, and some went with a daemon. So a mapper that is marked at one range only has ended as
well, or is about to: it is given longer.

The same is true of mappers that run again as rows of the reader's range were lost. They have
committed before, and their marks of then say nothing: those of the present build do.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from pyroaring import BitMap

from cosco.client.groups.following import (
    FOLLOWING,
    Question,
    Waiter,
    check_allowed,
    follow_question,
)
from cosco.client.read.commit_watch import CommitWatch
from cosco.client.read.fetch_call import Bad
from cosco.client.read.state.read_plan import MARKS_BUILD, AwaitCommits, Fetch
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ServiceUnavailable
from cosco.process.tls.tls_files import BY_ENVIRONMENT, TlsNames
from cosco.protocol.group_records import Followed, FollowOutcome
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.records import (
    U32,
    Assignment,
    CommitWait,
    ExchangeInfo,
    ReadSnapshot,
    Source,
)

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
        self._tls = metadata.connection.tls
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
        metadata, shuffle_id = self._metadata, self._scope.shuffle_id
        self._orphans = OrphanWatch(
            self._exchange,
            index,
            lambda: metadata.describe_exchange(shuffle_id),
            self._scope,
            self._tls,
        )
        primary = self._assignment.primary
        self._waiter = FOLLOWING.ask(primary, self._question(), self._tls)
        self._scope.add_call(self._waiter)
        self._finalizer = weakref.finalize(self, FOLLOWING.abandoned.append, self._waiter)
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
            self._report(self._orphans.look(wait.missing))
            self._report(self._orphans.look_again(wait.missing), self._orphans.build)
        return wait

    def _report(self, orphans: BitMap, build: int = 0) -> None:
        """Report mappers, if there are any: of the present build of the range, unless it is 0."""
        if orphans:
            self._metadata.report_uncommitted(
                self._exchange.number,
                orphans,
                f"{len(orphans)} mappers ended before they committed",
                range_index=self._assignment.range_index if build else 0,
                build=build,
            )

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
            FOLLOWING.leave(waiter)

    def _question(self) -> Question:
        one = self._assignment
        return follow_question(self._exchange, one, one.primary, self._partition)

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
        now = FOLLOWING.ask_now(self._assignment.primary, self._question(), self._scope, self._tls)
        is_ready = now is not None and now.outcome is FollowOutcome.READY
        found = self._wait_for_marks(waiter, _READY_S if is_ready else 0.0)
        if found is None and now is not None and now.outcome is FollowOutcome.WAITING:
            found = CommitWait(None, self._mappers - now.done)
        return found

    def _wait_for_marks(self, waiter: Waiter, wait_s: float) -> CommitWait | None:
        """Wait until the daemon says that all mappers are done.

        Returns: None if it does not say so in `wait_s`. If it never will, it is not asked again.
        Raises: ClientClosed; AccessDenied, if the daemon does not tell this reader.
        """
        if not waiter.wait(wait_s):
            return None
        self._scope.check()
        answer = waiter.answer
        check_allowed(answer, self._assignment.primary, self._scope.shuffle_id)
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
            mappers=_mappers(count),
            attempts=answer.attempts,
            rows=answer.rows,
            raw_bytes=answer.raw_bytes,
            digest=answer.digest,
            sources=(Source(one.range_index, one.epoch, (one.primary,)),),
        )


@lru_cache(maxsize=4)
def _mappers(count: int) -> U32:
    """Return 0 to `count` - 1, as one array for all readers."""
    mappers = np.arange(count, dtype=np.uint32)
    mappers.flags.writeable = False
    return mappers


class OrphanWatch:
    """Finds the mappers of one exchange that have ended and are not committed now.

    Those have that were marked ORPHAN_S ago, or PARTLY_S ago at some ranges; and of those that
    run again for the reader's range, who was marked there PARTLY_S ago, in its present build.
    """

    def __init__(
        self,
        info: ExchangeInfo,
        range_index: int,
        describe: Callable[[], ExchangeInfo],
        scope: Scope,
        tls: TlsNames = BY_ENVIRONMENT,
    ) -> None:
        """Begin without marks.

        info: the exchange with its first epochs. range_index: the reader's. describe: asks for
        the exchange with its present epochs. tls: by which files daemons are reached.
        """
        self._tls = tls
        self._info = info
        self._range_index = range_index
        self._describe = describe
        self._scope = scope
        self._marked: BitMap | None = None
        self._partly: dict[int, float] = {}  # mapper → when it was first seen
        self._asked_at = 0.0
        self._reported: dict[int, float] = {}  # mapper → when it was last
        #: The present build of the reader's range; what follows is of it.
        self.build = 1
        self._rebuilt: dict[int, float] = {}  # mapper → when it was first seen
        self._reported_again: dict[int, float] = {}

    def look(self, missing: BitMap) -> BitMap:
        """Return the mappers of `missing` to report that have never committed, for all that is
        known here, and ask daemons when it is time to.

        Raises: ClientClosed, AccessDenied if a daemon tells this reader nothing, and what
        `describe` raises.
        """
        if self._marked is None:
            self._marked = self._ask()
            self._asked_at = time.monotonic()
        if time.monotonic() - self._asked_at < ORPHAN_S:
            return BitMap()
        found = self._due((self._marked | self._seen_long(self._partly)) & missing, self._reported)
        self._marked = None
        return found

    def look_again(self, missing: BitMap) -> BitMap:
        """Return the mappers of `missing` to report of those that run again in `build`, by what
        `look` has asked."""
        return self._due(self._seen_long(self._rebuilt) & missing, self._reported_again)

    def _seen_long(self, seen: dict[int, float]) -> BitMap:
        since = self._asked_at - PARTLY_S
        return BitMap([mapper for mapper, first in seen.items() if first <= since])

    def _due(self, found: BitMap, reported: dict[int, float]) -> BitMap:
        """Leave out who was reported not long ago, and note the others."""
        again = self._asked_at - REPORT_AGAIN_S
        found = found - BitMap([mapper for mapper, last in reported.items() if last > again])
        reported.update(dict.fromkeys(found, self._asked_at))
        return found

    def _ask(self) -> BitMap:
        """Return the mappers that have marked at every range of which some daemon answers."""
        by_range: dict[int, BitMap] = {}
        now = time.monotonic()
        present = self._describe().assignments
        known = (*self._info.assignments, *present)
        for assignment in {RangeEpoch(one.range_index, one.epoch): one for one in known}.values():
            found = self._ask_epoch(assignment)
            if found is not None:
                by_range.setdefault(assignment.range_index, BitMap()).update(found)
                for mapper in found:
                    self._partly.setdefault(mapper, now)
        self._ask_again(next(a for a in present if a.range_index == self._range_index), now)
        return BitMap.intersection(*by_range.values()) if by_range else BitMap()

    def _ask_again(self, present: Assignment, now: float) -> None:
        """Ask who has marked in the present build of the reader's range, once it was rebuilt."""
        if present.build != self.build:
            self.build, self._rebuilt, self._reported_again = present.build, {}, {}
        if present.build > 1:
            for mapper in self._ask_epoch(present, same_build=True) or ():
                self._rebuilt.setdefault(mapper, now)

    def _ask_epoch(self, assignment: Assignment, *, same_build: bool = False) -> BitMap | None:
        """Return the mappers that a daemon of an epoch has marks of, or None if none answers.

        same_build: those of the epoch's build alone.
        """
        marked: BitMap | None = None
        first = self._info.ranges[assignment.range_index].first
        for ref in (assignment.primary, *assignment.replicas):
            question = follow_question(self._info, assignment, ref, first)
            question = question._replace(same_build=same_build)
            answer = FOLLOWING.ask_now(ref, question, self._scope, self._tls)
            if answer is None:
                continue
            if answer.outcome in {FollowOutcome.READY, FollowOutcome.WAITING}:
                marked = answer.done if marked is None else marked | answer.done
        return marked
