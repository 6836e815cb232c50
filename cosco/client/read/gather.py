"""Gathers a partition's blocks from the daemons that have them: a `ReadPlan` carried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final, TypeVar

from pyroaring import BitMap

from cosco.client.exchange_spans import PartitionTrace
from cosco.client.read.commit_watch import CommitWatch
from cosco.client.read.direct_reads import note_failure
from cosco.client.read.fetch_call import (
    Bad,
    Run,
    Stalled,
    StallWatch,
    nonsense,
    open_fetch,
    runs_of,
)
from cosco.client.read.state.direct_chunk import DirectFailed
from cosco.client.read.state.merge import BareHeaders, BlockMerge
from cosco.client.read.state.read_plan import (
    AwaitCommits,
    Begin,
    Done,
    Failure,
    Fetch,
    GiveUp,
    ReadPlan,
    ReportDaemon,
    ReportLoss,
)
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
from cosco.errors import (
    AccessDenied,
    ClientClosed,
    CommitTimeout,
    CoscoError,
    DataLost,
    ExchangeClosed,
    InvalidArgument,
    ServiceUnavailable,
)
from cosco.process.tracing.spans import NO_SPAN, Span
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.records import LossReport, ReadSnapshot

_T = TypeVar("_T")

_MAX_REASON_CHARS: Final = 500
#: How many of the missing mappers a message names; the error has them all.
_SHOWN_MAPPERS: Final = 8


class BegunAnew(Exception):
    """What was gathered does not count: call `gather` again. Never leaves this package."""


class Gatherer:
    """Asks daemons for a partition and feeds merges with what they have.

    Holds one message of a stream at a time. What is fetched twice, after a stream broke or
    for a second opinion, the merge drops. It may be used for one partition after the other.
    """

    def __init__(
        self,
        metadata: MetadataClient,
        scope: Scope,
        number: int,
        named_count: int,
        *,
        watch: CommitWatch,
        capability: str = "",
        span: Span = NO_SPAN,
    ) -> None:
        """Begin without connections.

        named_count: how many mappers are waited for. capability: what daemons are shown. span: of
        the whole reader.
        """
        self._metadata = metadata
        self._capability = capability
        self._scope = scope
        self._number = number
        self._named_count = named_count
        self._watch = watch
        self._partition = -1
        self._endpoints: dict[str, Endpoint] = {}
        # Why something could not be read from a store, by range and epoch, until a daemon sends it.
        self._not_read: dict[tuple[int, int], str] = {}
        self._loss: CoscoError | None = None  # of the build that was reported last
        self._trace = PartitionTrace(span)

    def close(self) -> None:
        """Give up the connections."""
        for endpoint in list(self._endpoints.values()):
            endpoint.close()

    def gather(
        self, plan: ReadPlan, partition: int, begin: Callable[[ReadSnapshot], BlockMerge[_T]]
    ) -> Iterator[_T]:
        """Yield the blocks of one build of a partition, until it is verified that none is missing.

        begin: makes the merge of a build, which says what is made of a block.

        Raises: BegunAnew when another build is to be read, which `plan` allows until rows were
        given to the caller, and what `CoscoReader.next` raises.
        """
        self._partition = partition
        self._not_read.clear()
        stalls = StallWatch(self._scope)
        self._trace.begin(partition)
        try:
            yield from self._steps(plan, begin, stalls)
        except CoscoError as error:
            self._trace.waited(error)
            raise
        finally:
            stalls.stop()

    def _steps(
        self,
        plan: ReadPlan,
        begin: Callable[[ReadSnapshot], BlockMerge[_T]],
        stalls: StallWatch,
    ) -> Iterator[_T]:
        merge: BlockMerge[_T] | None = None
        while True:
            step = plan.step(time.monotonic(), is_complete=merge is not None and merge.complete())
            match step:
                case AwaitCommits():
                    self._trace.waits()
                    if step.pause_s:
                        self._scope.sleep(step.pause_s)
                    plan.told(self._watch.wait(step), time.monotonic())
                case Begin():
                    self._trace.waited()
                    if merge is not None:
                        raise BegunAnew
                    merge = begin(step.snapshot)
                    plan.begun()
                case Fetch():
                    assert merge is not None  # as Begin comes first
                    yield from self._fetch(plan, merge, step, stalls)
                case ReportDaemon():
                    alive = self._metadata.report_daemon(step.daemon, insist=step.insist)
                    plan.reported(step.daemon, alive=alive)
                case ReportLoss():
                    assert merge is not None
                    self._report_loss(step, merge)
                    plan.loss_reported()
                    if not plan.has_given:
                        raise BegunAnew  # so that nothing is kept while the rebuild is awaited
                case Done():
                    self._trace.verified(plan.snapshot)
                    return
                case GiveUp():
                    raise self._placed(self._error(step, plan))

    def _fetch(
        self, plan: ReadPlan, merge: BlockMerge[_T], fetch: Fetch, stalls: StallWatch
    ) -> Iterator[_T]:
        """Feed `merge` with what the daemon has, and tell `plan` how that went."""
        address = fetch.daemon.address
        refusals, last_bad = merge.refusals, ""

        def bad(reason: str) -> None:
            nonlocal last_bad
            last_bad = f"{address}: {reason}"
            merge.refuse(last_bad)

        if fetch.whole:
            merge.forget_headers()
        try:
            for run in self._runs(fetch, merge.to_name, stalls, bad):
                if isinstance(run, BareHeaders):
                    merge.feed_headers(run)
                else:
                    yield from merge.feed(run)
        except (DirectFailed, Unreachable, CoscoError) as error:
            if not self._failed(plan, fetch, error):
                return
            bad(str(error))
        if merge.refusals == refusals:
            plan.answered(fetch)
            self._sent_instead(fetch)
            return
        reason = last_bad or f"{address}: {merge.bad[-1]}"
        if fetch.direct:
            self._not_direct(plan, fetch, reason)
        else:
            plan.answered(fetch, reason)

    def _failed(self, plan: ReadPlan, fetch: Fetch, error: Exception) -> bool:
        """Tell `plan` that a daemon did not answer to the end.

        Returns: whether it did all the same, and its answer is that error.

        Raises: ClientClosed or AccessDenied, if that is why: nothing is known of the rows then, and
        another daemon would say the same.
        """
        address = fetch.daemon.address
        match error:
            case ClientClosed():
                raise error
            case AccessDenied():
                raise self._placed(error)
            case DirectFailed():
                self._not_direct(plan, fetch, str(error))
            case ExchangeClosed():
                plan.closed(fetch)
            case Unreachable() if error.for_fork:
                pass
            case Unreachable():
                reason, stalled = f"{address}: {error}", isinstance(error, Stalled)
                plan.unreachable(fetch, time.monotonic(), reason, stalled=stalled)
            case CoscoError() if error.retriable:
                plan.unreachable(fetch, time.monotonic(), f"{address}: {error}", busy=True)
            case _:
                return True
        return False

    def _not_direct(self, plan: ReadPlan, fetch: Fetch, reason: str) -> None:
        """Have the daemon send what could not be read from the store, or was not right there."""
        self._not_read[fetch.source.range_index, fetch.source.epoch] = reason
        plan.not_direct(fetch)

    def _sent_instead(self, fetch: Fetch) -> None:
        """Note that a daemon had all of what could not be read from its store.

        So it was not that a file is gone or bad for everybody, or the exchange closed.
        """
        reason = self._not_read.pop((fetch.source.range_index, fetch.source.epoch), None)
        if reason is not None:
            note_failure(fetch.source.store_of(fetch.daemon), reason)

    def _runs(self, fetch: Fetch, to_name: BitMap, stalls: StallWatch, bad: Bad) -> Iterator[Run]:
        ahead = self._watch.ahead(fetch, bad)
        if ahead is not None:
            yield from ahead
            return
        source, address = fetch.source, fetch.daemon.address
        part = FetchPart(
            source.range_index, source.epoch, BitMap((self._partition,)), files=fetch.files
        )
        mappers = BitMap() if fetch.whole else to_name
        request = FetchRequest(
            self._number,
            (part,),
            mappers,
            several=False,
            direct=fetch.direct,
            capability=self._capability,
        )
        replies = open_fetch(self._endpoint(address), self._scope, stalls, request, fetch.stall_s)
        if fetch.direct:
            store_id = source.store_of(fetch.daemon)
            replies = self._watch.direct.replies(replies, request, store_id)
        with closing(replies):
            try:
                yield from runs_of(replies, bad)
            except InvalidArgument as error:
                raise nonsense(address, error) from None

    def _report_loss(self, step: ReportLoss, merge: BlockMerge[Any]) -> None:
        self._loss = self._placed(merge.failure())
        reason = f"{self._loss}; {step.reason}"
        self._metadata.report_loss(
            LossReport(
                number=self._number,
                generation=step.generation,
                build=step.build,
                partition=self._partition,
                cause=step.cause,
                reason=" ".join(reason.split())[:_MAX_REASON_CHARS],
            )
        )

    def _endpoint(self, address: str) -> Endpoint:
        self._scope.check()
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = Endpoint(address, self._metadata.connection.tls)
        return endpoint

    def _placed(self, error: CoscoError) -> CoscoError:
        return error.place(self._scope.shuffle_id, self._partition)

    def _error(self, step: GiveUp, plan: ReadPlan) -> CoscoError:
        if step.why is Failure.TIMEOUT:
            missing = list(step.missing or ())
            verb = "run again" if step.recompute else "commit"
            return CommitTimeout(
                f"{len(missing)} of {self._named_count} mappers that it waits for did not {verb} "
                f"{step.reason}: {_shown(missing)}; see that they run, or wait longer",
                recompute=step.recompute,
                mappers=missing,
            )
        if step.why is Failure.UNREACHABLE:
            return ServiceUnavailable(f"it cannot be fetched: {step.reason}")
        if step.why is Failure.LOST and self._loss is not None:
            return self._loss
        snapshot = plan.snapshot
        return DataLost(
            "rows of it were lost after others had been read: forget those of this partition, and "
            "read it anew with another reader, which waits for the rebuild",
            mappers=() if snapshot is None else snapshot.mappers.tolist(),
            retriable=True,
        )


def _shown(mappers: list[int]) -> str:
    """Return the first of the mappers, for a message."""
    shown = ", ".join(map(str, mappers[:_SHOWN_MAPPERS]))
    more = len(mappers) - _SHOWN_MAPPERS
    return shown if more <= 0 else f"{shown} and {more} more"
