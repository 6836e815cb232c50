"""Gathers a partition's rows from the daemons that have them, until none is missing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from cosco.client.fetch import fetch_blocks
from cosco.client.merge import MAX_REASONS, Decoded, PartitionMerge
from cosco.client.metadata_client import MetadataClient
from cosco.client.scope import Patience, Scope, Unreachable, retrying
from cosco.client.transport import Endpoint
from cosco.errors import ClientClosed, CoscoError, ExchangeClosed, ServiceUnavailable
from cosco.records import DaemonRef, ExchangeInfo, ReadSnapshot, Source


class Gatherer:
    """Asks daemons for one partition and feeds a merge with what they have.

    Holds one message of a stream at a time. What is fetched twice, after a stream broke or
    for a second opinion, the merge drops.
    """

    def __init__(
        self,
        metadata: MetadataClient,
        scope: Scope,
        info: ExchangeInfo,
        partition: int,
        service_timeout_s: float,
        renew: Callable[[], ReadSnapshot | None],
    ) -> None:
        """`renew` asks for a snapshot anew: daemons may have come or gone."""
        self._renew = renew
        self._metadata = metadata
        self._scope = scope
        self._info = info
        self._partition = partition
        self._service_timeout_s = service_timeout_s
        self._endpoints: dict[str, Endpoint] = {}

    def close(self) -> None:
        """Give up the connections."""
        for endpoint in list(self._endpoints.values()):
            endpoint.close()

    def gather(self, merge: PartitionMerge, snapshot: ReadSnapshot) -> Iterator[Decoded]:
        """Yield rows until the merge has all of `snapshot`; raises what `verify` raises,
        ExchangeClosed, and ServiceUnavailable for daemons that do not answer.

        The first daemon of each source that answers is believed, unless rows are missing at
        the end: then every one is asked, before anything is called lost.
        """
        for every in (False, True):
            for source in snapshot.sources:
                if merge.complete():
                    break
                yield from self._ask_source(merge, source, every=every)
        if not merge.complete():
            self._check_open()
        merge.verify()

    def _ask_source(
        self, merge: PartitionMerge, source: Source, *, every: bool
    ) -> Iterator[Decoded]:
        """Ask one daemon of a source, or all of them, again while they are Unreachable."""
        answered: set[DaemonRef] = set()
        try:
            for attempt in retrying(self._scope, Patience(self._service_timeout_s)):
                with attempt:
                    if attempt.retry_state.attempt_number > 1:
                        source = self._renewed(source)
                    yield from self._ask_daemons(merge, source, answered, every=every)
        except Unreachable as error:
            raise ServiceUnavailable(
                f"partition {self._partition} of exchange {self._scope.shuffle_id!r} cannot be "
                f"fetched: {error}",
                shuffle_id=self._scope.shuffle_id,
                partition=self._partition,
            ) from None

    def _ask_daemons(
        self, merge: PartitionMerge, source: Source, answered: set[DaemonRef], *, every: bool
    ) -> Iterator[Decoded]:
        unreachable = None if source.daemons else Unreachable("no daemon alive serves its store")
        for daemon in source.daemons:
            if daemon in answered:
                continue
            try:
                all_good = yield from self._ask(merge, source, daemon)
            except Unreachable as error:
                unreachable = error
                if error.for_fork:
                    break
                continue
            answered.add(daemon)
            if merge.complete() or (all_good and not every):
                return
        if unreachable is not None:
            raise unreachable

    def _ask(
        self, merge: PartitionMerge, source: Source, daemon: DaemonRef
    ) -> Generator[Decoded, None, bool]:
        """Whether the daemon gave all it has, and all of it good."""
        before = len(merge.bad)

        def bad(reason: str) -> None:
            if len(merge.bad) < MAX_REASONS:
                merge.bad.append(f"{daemon.address}: {reason}")

        endpoint = self._endpoint(daemon.address)
        try:
            for run in fetch_blocks(
                endpoint, self._scope, self._info.number, source, self._partition, bad
            ):
                yield from merge.feed(run)
        except ClientClosed:
            raise
        except CoscoError as error:
            if isinstance(error, ExchangeClosed):
                self._check_open()
            bad(str(error))
        return len(merge.bad) == before

    def _endpoint(self, address: str) -> Endpoint:
        self._scope.check()
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = Endpoint(address)
        return endpoint

    def _renewed(self, source: Source) -> Source:
        """Where the service says now that the same assignment's rows are."""
        snapshot = self._renew()
        for other in snapshot.sources if snapshot is not None else ():
            if (other.range_index, other.epoch) == (source.range_index, source.epoch):
                return other
        return source

    def _check_open(self) -> None:
        """Raise ExchangeClosed, or ExchangeNotFound, rather than call rows lost."""
        self._metadata.describe_exchange(self._scope.shuffle_id)
