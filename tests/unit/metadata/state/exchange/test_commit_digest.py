"""Two commits have one digest if they speak of the same rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.committing import commit_of

from cosco.metadata.state.exchange.commit_digest import commit_digest
from cosco.protocol import wire
from cosco.protocol.records import CommitRequest, pairs_array
from cosco.protocol.wire import mpb

COMMIT = commit_of(1, 2, {0: 3, 2: 4, 6: 1})
SUMS = COMMIT.sums


def changed(field: str, values: list[int]) -> CommitRequest:
    array = np.array(values, dtype=getattr(SUMS, field).dtype)
    return replace(COMMIT, sums=replace(SUMS, **{field: array}))


@pytest.mark.parametrize(
    "other",
    [
        changed("partitions", [1, 2, 6]),
        changed("rows", [4, 3, 1]),
        changed("raw_bytes", [30, 40, 11]),
        changed("stored_bytes", [12, 16, 5]),
        changed("digests", [0, 1, 2]),
        commit_of(1, 2, {0: 3, 2: 4}),
        commit_of(1, 2, {}),
        replace(COMMIT, partial=True),
        replace(COMMIT, partial=True, ranges=(0, 1, 2)),
        replace(COMMIT, acknowledged=pairs_array([(0, 1), (1, 1), (2, 1), (3, 1)])),
    ],
)
def test_whatever_is_said_of_rows_is_in_it(other: CommitRequest) -> None:
    assert commit_digest(other) != commit_digest(COMMIT)


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 3},
        {"mapper": 5},
        {"acknowledged": pairs_array([(0, 1), (0, 2), (1, 7), (2, 1)])},
    ],
)
def test_who_says_it_and_where_the_rows_went_is_not_in_it(change: dict[str, Any]) -> None:
    assert commit_digest(replace(COMMIT, **change)) == commit_digest(COMMIT)


def test_the_wire_changes_nothing() -> None:
    sent = wire.to_pb(COMMIT).SerializeToString()
    received = wire.from_pb(CommitRequest, mpb.CommitRequest.FromString(sent))
    assert commit_digest(received) == commit_digest(COMMIT)
    assert len(commit_digest(received)) == 16
