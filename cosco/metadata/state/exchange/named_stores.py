"""Names stores to readers that may read from them themselves.

A reader believes of a file only that it is of the store that the metadata service named, whatever
the daemon says that it asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cosco.protocol.records import CommitWait, DaemonRef, ExchangeSpec, RangesWait, ReadSnapshot

#: Gives the id of a daemon's store.
StoreOf = Callable[[DaemonRef], str]


def with_stores(wait: CommitWait, spec: ExchangeSpec, store_of: StoreOf) -> CommitWait:
    """Return the same answer, with the stores of all daemons that it names, if it is of direct
    reads."""
    if wait.snapshot is None or not spec.direct_reads:
        return wait
    return replace(wait, snapshot=_named(wait.snapshot, store_of))


def ranges_with_stores(wait: RangesWait, spec: ExchangeSpec, store_of: StoreOf) -> RangesWait:
    """Return the same answer, as `with_stores` does."""
    if not spec.direct_reads:
        return wait
    ranges = tuple(replace(one, common=_named(one.common, store_of)) for one in wait.ranges)
    return replace(wait, ranges=ranges)


def _named(snapshot: ReadSnapshot, store_of: StoreOf) -> ReadSnapshot:
    sources = tuple(
        replace(source, store_ids=tuple(map(store_of, source.daemons)))
        for source in snapshot.sources
    )
    return replace(snapshot, sources=sources)
