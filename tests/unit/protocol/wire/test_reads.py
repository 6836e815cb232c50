"""What a reader is told of mappers, on the wire: as it is, in few bytes, and checked."""

from __future__ import annotations

import numpy as np
import pytest

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER
from cosco.protocol.records import (
    CommitWait,
    DaemonRef,
    ReadSnapshot,
    Source,
)
from cosco.protocol.wire import mpb, snapshot_mappers, wait_from_pb, wait_reply

SOURCES = (Source(1, 2, (DaemonRef(3, "a:4"), DaemonRef(5, "b:6")), sealed=True), Source(1, 3, ()))


def snapshot_of(mappers: list[int], attempts: list[int]) -> ReadSnapshot:
    return ReadSnapshot(
        version=9, generation=2, build=3,
        mappers=np.array(mappers, dtype=np.uint32), attempts=np.array(attempts, dtype=np.uint64),
        rows=2**40, raw_bytes=2**50, digest=2**64 - 1, sources=SOURCES,
    )  # fmt: skip


def reply_of(snapshot: ReadSnapshot) -> bytes:
    told = snapshot_mappers(snapshot.mappers, snapshot.attempts)
    return wait_reply(CommitWait(snapshot), told)


@pytest.mark.parametrize(
    ("mappers", "attempts"),
    [
        ([], []),
        ([0], [1]),
        ([0, 1, 2], [3, 1, 255]),
        ([5, 7, 70000], [2**63, 1, 2]),
        ([MAX_MAPPER], [65536]),
    ],
)
def test_a_snapshot_arrives_as_it_was_sent(mappers: list[int], attempts: list[int]) -> None:
    sent = snapshot_of(mappers, attempts)
    wait = wait_from_pb(mpb.AwaitCommitsReply.FromString(reply_of(sent)))
    assert wait.snapshot is not None
    assert not wait.missing
    found = wait.snapshot
    assert (found.mappers.dtype, found.attempts.dtype) == (np.uint32, np.uint64)
    assert (found.mappers.tolist(), found.attempts.tolist()) == (mappers, attempts)
    for name in ("version", "generation", "build", "rows", "raw_bytes", "digest", "sources"):
        assert getattr(found, name) == getattr(sent, name)


def test_consecutive_mappers_take_no_bytes_but_their_attempts() -> None:
    count = 10_000
    reply = reply_of(snapshot_of(list(range(count)), list(range(1, count + 1))))
    assert len(reply) < 2 * count + 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 2**32 - 1),
        ("count", 3),
        ("attempts", bytes(3)),
        ("gaps", bytes(12)),
        ("gaps", b"\xff" * 8),
    ],
)
def test_a_snapshot_that_cannot_be_is_refused(field: str, value: int | bytes) -> None:
    pb = mpb.AwaitCommitsReply.FromString(reply_of(snapshot_of([1, 3], [1, 2])))
    setattr(pb.snapshot, field, value)
    with pytest.raises(InvalidArgument):
        wait_from_pb(pb)
