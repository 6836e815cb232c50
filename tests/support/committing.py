"""An exchange's state in the metadata service, and commits to it, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pyroaring import BitMap

from cosco.metadata.state.daemons.placement import cut_ranges
from cosco.metadata.state.exchange.exchange_state import ExchangeState
from cosco.metadata.state.records.changes import ChangeLog
from cosco.metadata.state.records.table_rows import Placed
from cosco.protocol.records import (
    Assignment,
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonRef,
    ExchangeSpec,
    LossCause,
    LossReport,
    ReadSnapshot,
    pairs_array,
)

OWNER = bytes(16)
PARTITIONS = 7
RANGES = cut_ranges(PARTITIONS, 3)  # [0, 1], [2, 3], [4, 5, 6]
PRIMARY = DaemonRef(5, "host:5")
STORE = "store"


def exchange(
    schema: bytes = b"",
    changes: ChangeLog | None = None,
    *,
    deterministic: bool = True,
    callback: bool = True,
    mappers: int = 0,
) -> ExchangeState:
    """PARTITIONS partitions in RANGES, all on PRIMARY."""
    placed = [[Placed(Assignment(r.index, 1, 1, PRIMARY), STORE)] for r in RANGES]
    spec = ExchangeSpec(
        "an id", PARTITIONS, schema=schema, deterministic=deterministic, mappers=mappers
    )
    log = ChangeLog() if changes is None else changes
    return ExchangeState(3, spec, OWNER, RANGES, placed, log, callback=callback)


def sums_of(rows: Mapping[int, int]) -> AttemptSums:
    """Rows by partition; bytes and digests follow from them."""
    partitions = np.array(sorted(rows), dtype=np.uint32)
    counts = np.array([rows[p] for p in sorted(rows)], dtype=np.uint64)
    digests = counts * np.uint64(0x9E3779B97F4A7C15)
    return AttemptSums(partitions, counts, counts * np.uint64(10), counts * np.uint64(4), digests)


def commit_of(
    mapper: int,
    attempt: int,
    rows: Mapping[int, int],
    *,
    generation: int = 1,
    acknowledged: Sequence[tuple[int, int]] | None = None,
    ranges: Sequence[int] | None = None,
) -> CommitRequest:
    """A commit acknowledged by the first epochs; partial if it is for `ranges`."""
    if acknowledged is None:
        acknowledged = [(index, 1) for index in sorted(ranges_with(rows))]
    return CommitRequest(
        3, mapper, attempt, generation, pairs_array(acknowledged), sums_of(rows),
        partial=ranges is not None, ranges=tuple(ranges or ()),
    )  # fmt: skip


def ranges_with(partitions: Iterable[int]) -> set[int]:
    return {r.index for r in RANGES for p in partitions if r.first <= p < r.first + r.count}


def current(state: ExchangeState, ranges: set[int]) -> list[tuple[int, int]]:
    """What a writer that starts now is acknowledged."""
    return [(index, state.placed[index][-1].assignment.epoch) for index in sorted(ranges)]


def run(state: ExchangeState, mapper: int, rows: Mapping[int, int]) -> bool:
    """One attempt of a mapper from its opening to its commit, as a writer makes it."""
    opened = state.open_attempt(mapper)
    if opened.partial:
        rows = {p: n for p, n in rows.items() if ranges_with([p]) <= set(opened.ranges)}
    return state.commit(
        commit_of(
            mapper,
            opened.attempt,
            rows,
            generation=opened.info.generation,
            acknowledged=current(state, ranges_with(rows)),
            ranges=opened.ranges if opened.partial else None,
        )
    )


def await_commits(
    state: ExchangeState, partition: int, mappers: Sequence[int] = (), generation: int = 0
) -> CommitWait:
    return state.await_commits(BitMap(mappers), partition, generation, lambda _: (PRIMARY,))


def snapshot(
    state: ExchangeState, partition: int, mappers: Sequence[int] = (), generation: int = 1
) -> ReadSnapshot:
    wait = await_commits(state, partition, mappers, generation)
    assert wait.snapshot is not None
    return wait.snapshot


def lose(
    state: ExchangeState, partition: int, cause: LossCause = LossCause.GONE, *, move: bool = True
) -> list[int]:
    """Report the present build of a partition's range, and do what failover does then."""
    index = next(iter(ranges_with([partition])))
    report = LossReport(3, state.generation, state.build(index), partition, cause, "file gone")
    ended = take_report(state, report)
    if move:
        move_on(state, ended)
    return ended


def take_report(state: ExchangeState, report: LossReport) -> list[int]:
    """End the build that a report names, and no other."""
    index = state.reported(report)
    if index is None:
        return []
    return state.lose([index], report.reason, report.cause.name.lower())


def move_on(state: ExchangeState, ranges: Sequence[int]) -> None:
    """Seal the current epochs of ranges and begin the next ones."""
    for index in ranges:
        state.seal(index)
        state.begin_epoch(index, PRIMARY, (), STORE)
