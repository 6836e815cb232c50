"""Readers that may read directly are told of each daemon's store, others of none."""

from __future__ import annotations

import numpy as np
import pytest
from pyroaring import BitMap
from support.committing import OWNER

from cosco.metadata.state.records.changes import Stored
from cosco.metadata.state.state import MetadataState
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    DaemonRegistration,
    ExchangeSpec,
    pairs_array,
)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@pytest.mark.parametrize("direct_reads", [False, True])
def test_sources_name_stores_where_readers_may_read_from_them(direct_reads: bool) -> None:
    state = MetadataState(Stored("c", 1, {}), daemon_lease_s=5.0, ranges_per_daemon=4, now=0.0)
    for incarnation, store_id in ((1, "one"), (2, "one"), (3, "other")):
        state.register(
            DaemonRegistration(
                incarnation, f"h{incarnation}:1", f"h{incarnation}", store_id, 1 << 30, 1 << 30
            ),
            0.0,
        )
    spec = ExchangeSpec("x", 1, direct_reads=direct_reads)
    number = state.create_exchange(spec, OWNER, 0.0, used=False).number
    opened = state.open_attempt("x", 0, used=True)
    sums = AttemptSums(np.array([0], np.uint32), u64(1), u64(2), u64(80), u64(4))
    request = CommitRequest(
        number, 0, opened.attempt, opened.info.generation, pairs_array([(0, 1)]), sums
    )
    assert state.commit(request)
    wait = state.await_commits(number, BitMap([0]), 0, 0, 0.0)
    ranges = state.await_ranges(number, BitMap([0]), np.array([0], np.uint32), 0, 0.0)
    assert wait.snapshot is not None
    [one] = wait.snapshot.sources
    assert ranges.ranges[0].common.sources == (one,)
    stores = {1: "one", 2: "one", 3: "other"}
    if direct_reads:
        assert one.store_ids == tuple(stores[ref.incarnation] for ref in one.daemons)
        assert [one.store_of(ref) for ref in one.daemons] == list(one.store_ids)
    else:
        assert one.store_ids == ()
        assert one.store_of(one.daemons[0]) == ""
