"""Gathers a partition's rows from the daemons that have them: a `ReadPlan` carried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pyroaring import BitMap

from cosco.client.content import Decoded
from cosco.client.read.fetch_call import Stalled, StallWatch, fetch_blocks
from cosco.client.read.state.merge import PartitionMerge
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
    ClientClosed,
    CommitTimeout,
    CoscoError,
    DataLost,
    ExchangeClosed,
    ServiceUnavailable,
)
from cosco.protocol.records import CommitWait, ExchangeInfo, LossReport, ReadSnapshot

_MAX_REASON_CHARS: Final = 500
#: How many of the missing mappers a message names; the error has them all.
_SHOWN_MAPPERS: Final = 8
#: For this time what the service said when a reader was made is used instead of asking again.
_FIRST_WAIT_S: Final = 1.0


class BegunAnew(Exception):
    """What was gathered does not count: call `gather` again. Never leaves this package."""


class CommitWatch:
    """How a reader learns what there is to read of its partition: by the metadata service.

    Readers of a group have `MarkWatch` in its place, which asks daemons.
    """

    def __init__(
        self,
        metadata: MetadataClient,
        scope: Scope,
        mappers: BitMap,
        partition: int,
        info: ExchangeInfo | None = None,
    ) -> None:
        """Begin without asking. `info` is the exchange, if it is known already."""
        self._metadata = metadata
        self._scope = scope
        self._mappers = mappers
        self._partition = partition
        self._info = info
        self._first: CommitWait | None = None  # what was said at once
        self._first_until = 0.0

    def describe(self) -> ExchangeInfo:
        """Return the exchange as it is when the reader begins."""
        if self._info is None:
            self._info, self._first = self._metadata.begin_reading(
                self._scope.shuffle_id, self._mappers, self._partition
            )
            self._first_until = time.monotonic() + _FIRST_WAIT_S
        return self._info

    def start(self) -> None:
        """Begin to wait: the reader's arguments were found to be good."""

    def wait(self, step: AwaitCommits) -> CommitWait:
        """Ask what the mappers have committed, waiting for them.

        Raises: what ends the reader.
        """
        first, self._first = self._first, None
        if first is not None and time.monotonic() < self._first_until:
            return first
        info = self.describe()
        return self._metadata.await_commits(
            info.number,
            self._mappers,
            self._partition,
            info.generation,
            wait_s=step.wait_s,
            outage_s=step.outage_s,
        )

    def ahead(self, fetch: Fetch) -> list[memoryview] | None:
        """Return, once, the runs of blocks that came before this fetch was asked for.

        Returns: None if none came, so that the fetch must be made.
        """
        return None

    def close(self) -> None:
        """Want nothing any more."""


class Gatherer:
    """Asks daemons for one partition and feeds merges with what they have.

    Holds one message of a stream at a time. What is fetched twice, after a stream broke or
    for a second opinion, the merge drops.
    """

    def __init__(
        self,
        metadata: MetadataClient,
        scope: Scope,
        number: int,
        partition: int,
        named_count: int,
        *,
        watch: CommitWatch,
        begin: Callable[[ReadSnapshot], PartitionMerge],
    ) -> None:
        """Begin without connections.

        named_count: how many mappers are waited for. begin: makes the merge of a build.
        """
        self._metadata = metadata
        self._scope = scope
        self._number = number
        self._partition = partition
        self._named_count = named_count
        self._watch = watch
        self._begin = begin
        self._endpoints: dict[str, Endpoint] = {}
        self._loss: CoscoError | None = None  # of the build that was reported last

    def close(self) -> None:
        """Give up the connections."""
        for endpoint in list(self._endpoints.values()):
            endpoint.close()

    def gather(self, plan: ReadPlan) -> Iterator[Decoded]:
        """Yield the rows of one build, until it is verified that none is missing.

        Raises: BegunAnew when another build is to be read, which `plan` allows until rows were
        given to the caller, and what `CoscoReader.next` raises.
        """
        stalls = StallWatch(self._scope)
        try:
            yield from self._steps(plan, stalls)
        finally:
            stalls.stop()

    def _steps(self, plan: ReadPlan, stalls: StallWatch) -> Iterator[Decoded]:
        merge: PartitionMerge | None = None
        while True:
            step = plan.step(time.monotonic(), is_complete=merge is not None and merge.complete())
            match step:
                case AwaitCommits():
                    self._scope.sleep(step.pause_s)
                    plan.told(self._watch.wait(step), time.monotonic())
                case Begin():
                    if merge is not None:
                        raise BegunAnew
                    merge = self._begin(step.snapshot)
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
                    return
                case GiveUp():
                    raise self._placed(self._error(step, plan))

    def _fetch(
        self, plan: ReadPlan, merge: PartitionMerge, fetch: Fetch, stalls: StallWatch
    ) -> Iterator[Decoded]:
        """Feed `merge` with what the daemon has, and tell `plan` how that went."""
        address = fetch.daemon.address
        refusals, last_bad = merge.refusals, ""

        def bad(reason: str) -> None:
            nonlocal last_bad
            last_bad = f"{address}: {reason}"
            merge.refuse(last_bad)

        try:
            for run in self._runs(fetch, stalls, bad):
                yield from merge.feed(run)
        except ClientClosed:
            raise
        except ExchangeClosed:
            plan.closed(fetch)
            return
        except Unreachable as error:
            if not error.for_fork:
                reason, stalled = f"{address}: {error}", isinstance(error, Stalled)
                plan.unreachable(fetch, time.monotonic(), reason, stalled=stalled)
            return
        except CoscoError as error:
            if error.retriable:
                plan.unreachable(fetch, time.monotonic(), f"{address}: {error}", busy=True)
                return
            bad(str(error))
        if merge.refusals != refusals:
            plan.answered(fetch, last_bad or f"{address}: {merge.bad[-1]}")
        else:
            plan.answered(fetch)

    def _runs(
        self, fetch: Fetch, stalls: StallWatch, bad: Callable[[str], None]
    ) -> Iterable[memoryview]:
        ahead = self._watch.ahead(fetch)
        if ahead is not None:
            return ahead
        endpoint = self._endpoint(fetch.daemon.address)
        return fetch_blocks(
            endpoint, self._scope, stalls, self._number, self._partition, fetch, bad
        )

    def _report_loss(self, step: ReportLoss, merge: PartitionMerge) -> None:
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
            endpoint = self._endpoints[address] = Endpoint(address)
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
            "rows were lost after others had been read: forget those and begin anew with another "
            "reader, which waits for the rebuild",
            mappers=() if snapshot is None else snapshot.mappers.tolist(),
            retriable=True,
        )


def _shown(mappers: list[int]) -> str:
    """Return the first of the mappers, for a message."""
    shown = ", ".join(map(str, mappers[:_SHOWN_MAPPERS]))
    more = len(mappers) - _SHOWN_MAPPERS
    return shown if more <= 0 else f"{shown} and {more} more"
