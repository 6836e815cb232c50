"""What is worth keeping of an exchange as it ends."""

from __future__ import annotations

from typing import Final

import numpy as np

from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.history.history import History
from cosco.protocol.admin_records import MAX_LARGEST, PartitionSize
from cosco.protocol.finished_exchange import FinishedExchange, size_bars
from cosco.protocol.records import U64

#: Partitions of which the largest one is looked at first.
_BLOCK: Final = 1024


def keep(history: History, exchange: ExchangeState, cause: str) -> None:
    """Have a history keep an exchange that ends now, for this cause, if it keeps any."""
    if history.keeps_some:
        history.add(finished(exchange, cause, history.unix_s))


def finished(exchange: ExchangeState, cause: str, closed_s: float) -> FinishedExchange:
    """Return what is kept of an exchange that ends now, for this cause. closed_s: the second of
    the Unix clock."""
    progress = exchange.progress(0)
    rows, sizes = progress.partition_rows, progress.partition_bytes
    return FinishedExchange(
        number=exchange.number,
        shuffle_id=exchange.spec.shuffle_id,
        tenant=exchange.tenant,
        cause=cause,
        created_s=exchange.created_s,
        closed_s=max(closed_s, exchange.created_s),
        partitions=exchange.spec.partitions,
        replicas=exchange.spec.replicas,
        codec=exchange.spec.codec,
        kind=int(exchange.kind),
        mappers_committed=progress.mappers_committed,
        rows=progress.rows,
        bytes_raw=progress.bytes_raw,
        bytes_stored=progress.bytes_stored,
        empty_partitions=len(rows) - int(np.count_nonzero(rows)),
        losses=exchange.losses.highest,
        rebuilds=rebuilds(exchange),
        sizes=size_bars(sizes),
        largest=tuple((p.partition, p.rows, p.raw_bytes) for p in largest(rows, sizes)),
    )


def rebuilds(exchange: ExchangeState) -> int:
    """Return how many builds ranges have had beyond their first ones."""
    return int(exchange.builds.present.sum()) - len(exchange.ranges)


def largest(rows: U64, raw_bytes: U64) -> tuple[PartitionSize, ...]:
    """Return the partitions with most rows, of those that have any."""
    # As many blocks have one that is at least as large as the least of the largest of blocks: what
    # is smaller need not be sorted, which would take many milliseconds for all of a million.
    of_blocks = np.maximum.reduceat(rows, np.arange(0, len(rows), _BLOCK))
    first = max(len(of_blocks) - MAX_LARGEST, 0)
    least = np.partition(of_blocks, first)[first] if len(of_blocks) > MAX_LARGEST else 0
    known = np.flatnonzero(rows >= max(int(least), 1))
    count = min(MAX_LARGEST, len(known))
    top = known[np.argpartition(rows[known], len(known) - count)[len(known) - count :]]
    ordered = sorted(top.tolist(), key=lambda partition: (-int(rows[partition]), partition))
    return tuple(PartitionSize(p, int(rows[p]), int(raw_bytes[p])) for p in ordered)
