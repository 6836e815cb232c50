"""Commits of writers of groups: sent in batches, a moment after their rows are readable."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Final

from cosco.client.groups.commit_outbox import Batches
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ExchangeClosed
from cosco.protocol.records import CommitRequest

#: A commit is on its way after so long at the latest.
COMMIT_WITHIN_S: Final = 0.1
_LOG = logging.getLogger("cosco")


class Committer:
    """The commits of this process to one metadata service."""

    def __init__(self, address: str, patience_s: float) -> None:
        self._address = address
        self._patience_s = patience_s
        self._batches: Batches[CommitRequest] = Batches(
            "cosco-commit",
            self._send,
            within_s=COMMIT_WITHIN_S,
            patience_s=patience_s,
            bytes_of=_bytes_of,
        )

    def add(self, commit: CommitRequest) -> None:
        """Have a commit sent within COMMIT_WITHIN_S; see `Batches.add`."""
        self._batches.add(commit)

    def flush(self) -> None:
        """Return when the service has all commits added before; raises ServiceUnavailable."""
        self._batches.flush()

    def _send(self, commits: Sequence[CommitRequest], try_s: float) -> None:
        # Connected for as long as it is needed; who gave the handle has met the service.
        scope = Scope("the commits of groups", "")
        metadata = MetadataClient(self._address, scope, self._patience_s, is_met=True)
        try:
            results = metadata.commit_batch(commits, try_s=try_s)
        finally:
            metadata.close()
        for commit, result in zip(commits, results, strict=True):
            if isinstance(result.error, ExchangeClosed):
                _LOG.debug("a commit to exchange %d came after its end", commit.number)
            elif result.error is not None:
                _LOG.warning(
                    "mapper %d of exchange %d is not committed: %s",
                    commit.mapper, commit.number, result.error,
                )  # fmt: skip


def _bytes_of(commit: CommitRequest) -> int:
    """Of its arrays, which are nearly all of it: a number is no longer in a message."""
    sums = commit.sums
    arrays = (commit.acknowledged, sums.partitions, sums.rows, sums.raw_bytes)
    return sum(one.nbytes for one in (*arrays, sums.stored_bytes, sums.digests))


class Committers:
    """The committers of this process, one an address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: dict[str, Committer] = {}
        # What a forked child inherited: kept, as destroying it would touch its parent's gRPC.
        self._inherited: list[object] = []

    def of(self, address: str, patience_s: float) -> Committer:
        """The one for the metadata service at `address`."""
        with self._lock:
            found = self._table.get(address)
            if found is None:
                found = self._table[address] = Committer(address, patience_s)
            return found

    def forget_parent(self) -> None:
        """Begin anew in a forked child: what waits is its parent's to send."""
        self._lock = threading.Lock()
        self._inherited.append(self._table)
        self._table = {}


COMMITTERS: Final = Committers()
os.register_at_fork(after_in_child=COMMITTERS.forget_parent)
