"""The reader of a group's exchange: waits at the daemon, and has its rows when they are there."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from cosco.client.groups.following import FOLLOWING, Waiter, follow_question
from cosco.client.groups.orphans import OrphanWatch
from cosco.client.read.reader import CoscoReader
from cosco.client.read.state.read_plan import MARKS_BUILD, AwaitCommits, Fetch
from cosco.errors import ServiceUnavailable
from cosco.protocol.group_records import Follow, Followed, FollowOutcome, member_name
from cosco.protocol.records import Assignment, CommitWait, ExchangeInfo, ReadSnapshot, Source

if TYPE_CHECKING:
    from cosco.client.groups.handle import GroupHandle

#: Once it asks the metadata service, it does so as often: who has marked and does not commit
#: is noticed between two questions.
_POLL_S: Final = 1.0
#: A daemon that says it is ready sends what there is in this time.
_READY_S: Final = 2.0


class GroupReader(CoscoReader):
    """A `CoscoReader` of all mappers of one exchange of a group.

    From its making on it waits at the daemon of its partition, which sends attempts, sums and
    rows when every mapper is done. They are checked as all rows are. Where that does not come
    about, or does not add up, it reads as others do: by what is committed.
    """

    def __init__(
        self,
        handle: GroupHandle,
        index: int,
        partition: int,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """See `GroupHandle.reader`."""
        self._handle = handle
        self._index = index
        self._waiter: Waiter | None = None
        self._ahead: list[memoryview] | None = None
        super().__init__(
            member_name(handle.group_id, index),
            range(handle.mappers),
            partition,
            timeout_s=timeout_s,
            metadata=handle.metadata,
            service_timeout_s=handle.service_timeout_s,
        )
        self._assignment = self._assigned()
        self._orphans = OrphanWatch(
            self._info, lambda: self._metadata.describe_exchange(self.shuffle_id), self._scope
        )
        self._waiter = FOLLOWING.ask(self._assignment.primary, self._question())
        self._scope.add_call(self._waiter)
        left = (self._assignment.primary, self._waiter)
        self._finalizer = weakref.finalize(self, FOLLOWING.abandoned.append, left)
        self._finalizer.atexit = False

    def close(self) -> None:
        """See `CoscoReader.close`."""
        super().close()
        if not self._scope.inherited:
            self._leave()

    # --- what the ordinary reader does otherwise -------------------------------------------

    def _describe(self) -> tuple[ExchangeInfo, CommitWait | None]:
        self._metadata.set_met()  # by who gave the handle: an outage is waited for
        return self._handle.info(self._index), None

    def _ask_commits(self, step: AwaitCommits) -> CommitWait:
        if self._waiter is not None:
            found = self._wait_for_marks(self._waiter, step.wait_s)
            if found is None and self._waiter is not None:
                found = self._ask_beside(self._waiter, step)
            if found is not None:
                return found
            step = replace(step, wait_s=0.0)
        wait = super()._ask_commits(replace(step, wait_s=min(step.wait_s, _POLL_S)))
        if wait.snapshot is None and self._waiter is None:
            found_orphans = self._orphans.look(wait.missing)
            if found_orphans:
                self._metadata.report_uncommitted(
                    self._info.number,
                    found_orphans,
                    f"{len(found_orphans)} mappers ended before they committed",
                )
        return wait

    def _take_ahead(self, fetch: Fetch) -> list[memoryview] | None:
        ahead, self._ahead = self._ahead, None
        return ahead if fetch.daemon == self._assignment.primary else None

    # --- marks ----------------------------------------------------------------------------

    def _assigned(self) -> Assignment:
        part = next(
            part
            for part in self._info.ranges
            if part.first <= self.partition < part.first + part.count
        )
        return next(a for a in self._info.assignments if a.range_index == part.index)

    def _question(self) -> Follow:
        one = self._assignment
        return follow_question(self._info.number, one, one.primary, self.partition)

    def _ask_beside(self, waiter: Waiter, step: AwaitCommits) -> CommitWait | None:
        """Who is missing, as the daemon has said nothing in the time of `step`; None: it will
        not say."""
        if step.outage_s is not None and step.outage_s <= step.wait_s:
            # The reader's time is over, but for what is on its way already.
            return self._ask_done(waiter)
        try:  # it may know that the daemon has been replaced
            wait = super()._ask_commits(replace(step, wait_s=0.0, outage_s=0.0))
        except ServiceUnavailable as error:
            if not error.retriable:
                raise
            return self._ask_done(waiter) or CommitWait(None, self._mappers)
        if wait.snapshot is not None:
            self._leave()
        return wait

    def _ask_done(self, waiter: Waiter) -> CommitWait | None:
        """Who is missing as the daemon says, which says what `waiter` waits for before that;
        None: it does not answer."""
        now = FOLLOWING.ask_now(self._assignment.primary, self._question(), self._scope)
        is_ready = now is not None and now.outcome is FollowOutcome.READY
        found = self._wait_for_marks(waiter, _READY_S if is_ready else 0.0)
        if found is None and now is not None and now.outcome is FollowOutcome.WAITING:
            found = CommitWait(None, self._mappers - now.done)
        return found

    def _wait_for_marks(self, waiter: Waiter, wait_s: float) -> CommitWait | None:
        """What the daemon says once all mappers are done; None if it does not in `wait_s`, and
        then, if it will not, it is not asked again."""
        if not waiter.wait(wait_s):
            return None
        self._scope.check()
        answer = waiter.answer
        if answer is None or answer.outcome is not FollowOutcome.READY:
            self._leave()
            return None
        snapshot = self._snapshot(answer)
        if snapshot is not None and not answer.fetch:
            self._ahead = [memoryview(answer.data)] if answer.data else []
        self._leave()
        return None if snapshot is None else CommitWait(snapshot)

    def _snapshot(self, answer: Followed) -> ReadSnapshot | None:
        count = self._handle.mappers
        if len(answer.attempts) != count:
            return None
        one = self._assignment
        return ReadSnapshot(
            version=0,
            generation=self.generation,
            build=MARKS_BUILD,
            mappers=np.arange(count, dtype=np.uint32),
            attempts=answer.attempts,
            rows=answer.rows,
            raw_bytes=answer.raw_bytes,
            digest=answer.digest,
            sources=(Source(one.range_index, one.epoch, (one.primary,)),),
        )

    def _leave(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._finalizer.detach()
            self._scope.remove_call(waiter)
            FOLLOWING.leave(self._assignment.primary, waiter)
