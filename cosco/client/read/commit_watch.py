"""How a reader learns what its mappers have committed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from pyroaring import BitMap

from cosco.client.read.direct_reads import DirectReads
from cosco.client.read.fetch_call import Bad, Run
from cosco.client.read.state.read_plan import AwaitCommits, Fetch
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.protocol.records import CommitWait, DaemonRef, ExchangeInfo

#: For this time what the service said when a reader was made is used instead of asking again.
FIRST_WAIT_S: Final = 1.0


class CommitWatch:
    """How a reader learns what there is to read of its partition: by the metadata service.

    Readers of a group have `MarkWatch` in its place, which asks daemons; readers of several
    partitions have `SharedWatch`.
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
        #: What reads from stores, for all that is fetched.
        self.direct: Final = DirectReads(scope)
        #: Daemons that did not answer in time, or not to the end: they are asked last.
        self.troubled: set[DaemonRef] = set()
        self._first: CommitWait | None = None  # what was said at once
        self._first_until = 0.0

    def describe(self) -> ExchangeInfo:
        """Return the exchange as it is when the reader begins."""
        if self._info is None:
            self._info, self._first = self._metadata.begin_reading(
                self._scope.shuffle_id, self._mappers, self._partition
            )
            self._first_until = time.monotonic() + FIRST_WAIT_S
        return self._info

    def describe_again(self) -> ExchangeInfo:
        """Return the exchange as it is now: other writers may have decided what its rows are."""
        return self._metadata.describe_exchange(self._scope.shuffle_id)

    def start(self) -> None:
        """Begin to wait: the reader's arguments were found to be good."""

    def come_to(self, partition: int) -> None:
        """Note that what is asked next is of `partition`; those are over that came before."""

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

    def ahead(self, fetch: Fetch, bad: Bad) -> Iterable[Run] | None:
        """Return, once, the runs of blocks that this fetch need not be made for.

        bad: is told what is bad in them.

        Returns: None if there are none, so that the fetch must be made.
        """
        return None

    def end_pass(self) -> None:
        """Give up what is under way ahead of what was asked for."""

    def close(self) -> None:
        """Want nothing any more."""
