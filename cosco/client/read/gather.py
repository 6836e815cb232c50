"""Gathers a partition's rows from the daemons that have them: a `ReadPlan` carried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

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
from cosco.protocol.records import CommitWait, LossReport, ReadSnapshot

_MAX_REASON_CHARS: Final = 500
#: Of many mappers a message names so many; the error has them all.
_SHOWN_MAPPERS: Final = 8


class BegunAnew(Exception):
    """What was gathered does not count: call `gather` again. Never leaves this package."""


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
        named: int,
        *,
        ask: Callable[[AwaitCommits], CommitWait],
        begin: Callable[[ReadSnapshot], PartitionMerge],
        ahead: Callable[[Fetch], list[memoryview] | None],
    ) -> None:
        """`named`: so many mappers are waited for. `ask` asks the metadata service for their
        commits, `begin` makes the merge of a build. `ahead`: runs of blocks that came ahead of
        a fetch, once; None: there are none, so fetch."""
        self._metadata = metadata
        self._scope = scope
        self._number = number
        self._partition = partition
        self._named = named
        self._ask = ask
        self._begin = begin
        self._ahead = ahead
        self._endpoints: dict[str, Endpoint] = {}
        self._loss: CoscoError | None = None  # of the build that was reported last

    def close(self) -> None:
        """Give up the connections."""
        for endpoint in list(self._endpoints.values()):
            endpoint.close()

    def gather(self, plan: ReadPlan) -> Iterator[Decoded]:
        """Yield the rows of one build, until it is verified that none is missing.

        Raises BegunAnew when another build is to be read, which `plan` allows until rows were
        given to the caller, and what `CoscoReader.next` raises.
        """
        watch = StallWatch(self._scope)
        try:
            yield from self._steps(plan, watch)
        finally:
            watch.stop()

    def _steps(self, plan: ReadPlan, watch: StallWatch) -> Iterator[Decoded]:
        merge: PartitionMerge | None = None
        while True:
            step = plan.step(time.monotonic(), is_complete=merge is not None and merge.complete())
            match step:
                case AwaitCommits():
                    self._scope.sleep(step.pause_s)
                    plan.told(self._ask(step), time.monotonic())
                case Begin():
                    if merge is not None:
                        raise BegunAnew
                    merge = self._begin(step.snapshot)
                    plan.begun()
                case Fetch():
                    assert merge is not None  # as Begin comes first
                    yield from self._fetch(plan, merge, step, watch)
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
                    raise self._error(step, plan)

    def _fetch(
        self, plan: ReadPlan, merge: PartitionMerge, fetch: Fetch, watch: StallWatch
    ) -> Iterator[Decoded]:
        """Feed `merge` with what the daemon has and tell `plan` how that went."""
        address = fetch.daemon.address
        refusals, last_bad = merge.refusals, ""

        def bad(reason: str) -> None:
            nonlocal last_bad
            last_bad = f"{address}: {reason}"
            merge.refuse(last_bad)

        try:
            for run in self._runs(fetch, watch, bad):
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
        self, fetch: Fetch, watch: StallWatch, bad: Callable[[str], None]
    ) -> Iterable[memoryview]:
        ahead = self._ahead(fetch)
        if ahead is not None:
            return ahead
        endpoint = self._endpoint(fetch.daemon.address)
        return fetch_blocks(endpoint, self._scope, watch, self._number, self._partition, fetch, bad)

    def _report_loss(self, step: ReportLoss, merge: PartitionMerge) -> None:
        self._loss = merge.failure()
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

    def _error(self, step: GiveUp, plan: ReadPlan) -> CoscoError:
        shuffle_id, partition = self._scope.shuffle_id, self._partition
        where = f"partition {partition} of exchange {shuffle_id!r}"
        if step.why is Failure.TIMEOUT:
            missing = list(step.missing or ())
            verb = "run again" if step.recompute else "commit"
            return CommitTimeout(
                f"{len(missing)} of {self._named} mappers that {where} waits for did not {verb} "
                f"{step.reason}: {_shown(missing)}; see that they run, or wait longer",
                recompute=step.recompute,
                shuffle_id=shuffle_id,
                mappers=missing,
                partition=partition,
            )
        if step.why is Failure.UNREACHABLE:
            return ServiceUnavailable(
                f"{where} cannot be fetched: {step.reason}",
                shuffle_id=shuffle_id,
                partition=partition,
            )
        if step.why is Failure.LOST and self._loss is not None:
            return self._loss
        snapshot = plan.snapshot
        return DataLost(
            f"rows of {where} were lost after others of them had been read: forget those and "
            "begin anew with another reader, which waits for the rebuild",
            shuffle_id=shuffle_id,
            mappers=() if snapshot is None else snapshot.mappers.tolist(),
            partition=partition,
            retriable=True,
        )


def _shown(mappers: list[int]) -> str:
    """The first of them, for a message."""
    shown = ", ".join(map(str, mappers[:_SHOWN_MAPPERS]))
    more = len(mappers) - _SHOWN_MAPPERS
    return shown if more <= 0 else f"{shown} and {more} more"
