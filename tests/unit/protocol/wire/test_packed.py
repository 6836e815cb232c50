"""Commits and snapshots on the wire: as they were, in few bytes, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_MAPPER, MAX_PARTITIONS
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    RowKind,
    Source,
    pairs_array,
)
from cosco.protocol.wire import (
    MAX_RANGES_BYTES,
    from_pb,
    mpb,
    opened_info,
    opened_reply,
    ranges_reply,
    snapshot_mappers,
    to_pb,
    wait_reply,
)

TOP = 2**64 - 1


def request_of(
    partitions: Sequence[int], numbers: Sequence[int], pairs: Sequence[tuple[int, int]] = ()
) -> CommitRequest:
    """Every sum of a partition is its one of `numbers`."""
    sums = np.array(numbers, dtype=np.uint64)
    return CommitRequest(
        3, 5, 7, 1, pairs_array(pairs),
        AttemptSums(np.array(partitions, dtype=np.uint32), sums, sums, sums, sums),
    )  # fmt: skip


def sent(request: CommitRequest) -> mpb.CommitRequest:
    return mpb.CommitRequest.FromString(to_pb(request).SerializeToString())


@pytest.mark.parametrize(
    ("partitions", "numbers", "pairs"),
    [
        ([], [], []),
        ([0], [0], [(0, 1)]),
        ([0, 1, 2], [255, 0, 1], [(0, 1), (0, 2), (1, 1)]),
        ([3, 4, 9], [256, 1, 65535], [(0, 2**32 - 1), (2**32 - 1, 1)]),
        ([0, 256, 70000], [2**32 - 1, 65536, 0], []),
        ([MAX_PARTITIONS - 1], [TOP], []),
    ],
)
def test_a_commit_arrives_as_it_was_sent(
    partitions: list[int], numbers: list[int], pairs: list[tuple[int, int]]
) -> None:
    request = from_pb(CommitRequest, sent(request_of(partitions, numbers, pairs)))
    assert (request.number, request.mapper, request.attempt, request.generation) == (3, 5, 7, 1)
    assert request.acknowledged.tolist() == [list(pair) for pair in pairs]
    assert request.acknowledged.dtype == request.sums.partitions.dtype == np.uint32
    assert request.sums.partitions.tolist() == partitions
    sums = request.sums
    for array in (sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests):
        assert array.dtype == np.uint64
        assert array.tolist() == numbers


def test_small_sums_of_all_partitions_take_few_bytes() -> None:
    count = 10_000
    pb = sent(request_of(range(count), [200] * count))
    assert pb.ByteSize() < (8 + 3 * 1) * count + 100


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("digests", bytes(15), "no array of uint64"),
        ("digests", bytes(8 * (MAX_PARTITIONS + 1)), "there are 1048576 at most"),
        ("rows", bytes(3), "3 bytes are no array of 2 numbers"),
        ("rows", bytes(6), "6 bytes are no array of 2 numbers"),
        ("raw_bytes", bytes(1), "raw_bytes"),
        ("stored_bytes", bytes(32), "stored_bytes"),
        ("gaps", bytes(1), "partitions: 1 bytes"),
        ("gaps", bytes(16), "16 bytes of gaps for 2 numbers"),
        ("gaps", b"\xff" * 8, "too large"),
        ("gaps", (MAX_PARTITIONS - 1).to_bytes(4, "little") + bytes(4), "too large"),
        ("acknowledged", bytes(4), "no array of uint64"),
        ("acknowledged", bytes(16), "do not ascend"),
        ("acknowledged", b"\1" + bytes(15), "do not ascend"),
        ("mapper", 2**31, "mapper 2147483648"),
        ("attempt", 0, "attempt 0"),
    ],
)
def test_a_commit_that_cannot_be_is_refused(field: str, value: bytes | int, message: str) -> None:
    pb = sent(request_of([0, 1], [1, 1], [(0, 1)]))
    setattr(pb, field, value)
    with pytest.raises(InvalidArgument, match=message):
        from_pb(CommitRequest, pb)


def test_a_commit_of_no_partitions_has_no_sums() -> None:
    pb = sent(request_of([], []))
    pb.gaps = b"\0"
    with pytest.raises(InvalidArgument, match="gaps"):
        from_pb(CommitRequest, pb)


# --- snapshots ---

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
    wait = from_pb(CommitWait, mpb.AwaitCommitsReply.FromString(reply_of(sent)))
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
        ("attempts", bytes([1, 0])),
        ("gaps", bytes(12)),
        ("gaps", b"\xff" * 8),
    ],
)
def test_a_snapshot_that_cannot_be_is_refused(field: str, value: int | bytes) -> None:
    pb = mpb.AwaitCommitsReply.FromString(reply_of(snapshot_of([1, 3], [1, 2])))
    setattr(pb.snapshot, field, value)
    with pytest.raises(InvalidArgument):
        from_pb(CommitWait, pb)


# --- several partitions ---


def range_of(partitions: list[int], common: ReadSnapshot) -> RangeSnapshot:
    sums = np.array(partitions, dtype=np.uint64) * np.uint64(3)
    return RangeSnapshot(
        replace(common, rows=0, raw_bytes=0, digest=0), np.array(partitions, dtype=np.uint32),
        sums, sums + np.uint64(1), sums + np.uint64(2**63),
    )  # fmt: skip


def ranges_bytes(wait: RangesWait) -> bytes:
    return ranges_reply(wait, lambda common: snapshot_mappers(common.mappers, common.attempts))


def arrived(wait: RangesWait) -> RangesWait:
    return from_pb(RangesWait, mpb.AwaitCommitsReply.FromString(ranges_bytes(wait)))


def test_several_ranges_arrive_as_they_were_sent() -> None:
    one, other = snapshot_of([0, 1, 2], [3, 1, 255]), snapshot_of([1, 70000], [2**63, 1])
    alike = replace(one, build=7, version=10, sources=())
    ranges = range_of([0, 5], one), range_of([6], alike), range_of([64, 65, 1048575], other)
    waiting, missing = BitMap([9, 10]), BitMap([4, 2**31 - 1])
    found = arrived(RangesWait(ranges, waiting, missing, recompute=True, failed=True))
    assert (found.waiting, found.missing) == (waiting, missing)
    assert (found.recompute, found.failed) == (True, True)
    for sent, got in zip(ranges, found.ranges, strict=True):
        assert got.partitions.dtype == np.uint32
        for name in ("partitions", "rows", "raw_bytes", "digests"):
            assert getattr(got, name).tolist() == getattr(sent, name).tolist()
        assert got.common.mappers.tolist() == sent.common.mappers.tolist()
        assert got.common.attempts.tolist() == sent.common.attempts.tolist()
        for name in ("version", "generation", "build", "rows", "raw_bytes", "digest", "sources"):
            assert getattr(got.common, name) == getattr(sent.common, name)
    of_last = list(found.ranges[2].snapshots())
    assert [partition for partition, _ in of_last] == [64, 65, 1048575]
    last = of_last[2][1]
    assert (last.rows, last.raw_bytes) == (3 * 1048575, 3 * 1048575 + 1)
    assert last.digest == 3 * 1048575 + 2**63
    assert last.sources == SOURCES
    assert last.mappers is found.ranges[2].common.mappers  # nothing is copied for a partition


def test_nothing_that_is_ready_arrives_as_well() -> None:
    found = arrived(RangesWait(waiting=BitMap([3]), missing=BitMap([0])))
    assert found == RangesWait(waiting=BitMap([3]), missing=BitMap([0]))


def test_ranges_of_the_same_mappers_say_them_once() -> None:
    count = 10_000
    common = snapshot_of(list(range(count)), list(range(1, count + 1)))
    ranges = tuple(range_of([partition], common) for partition in range(100))
    assert len(ranges_bytes(RangesWait(ranges))) < 2 * count + 100 * 150
    found = arrived(RangesWait(ranges))
    assert all(one.common.attempts.tolist() == common.attempts.tolist() for one in found.ranges)
    assert len({id(one.common.attempts) for one in found.ranges}) == 1


def test_ranges_beyond_the_bound_of_a_reply_are_left_out() -> None:
    count = 200_000
    attempts = [2**63] * count
    ranges = tuple(
        range_of([partition], snapshot_of(list(range(count)), attempts)) for partition in range(9)
    )
    reply = ranges_bytes(RangesWait(ranges))
    assert len(reply) <= MAX_RANGES_BYTES
    assert len(arrived(RangesWait(ranges)).ranges) == 2


def test_a_first_range_is_there_however_long_it_is() -> None:
    count = 600_000
    common = snapshot_of(list(range(count)), [2**63] * count)
    found = arrived(RangesWait((range_of([1], common), range_of([2], replace(common)))))
    assert [one.partitions.tolist() for one in found.ranges] == [[1]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("partitions", b"", "2 digests of 0 partitions"),
        ("partitions", b"nonsense", "no roaring bitmap"),
        ("partitions", BitMap([1]).serialize(), "2 digests of 1 partitions"),
        ("partitions", BitMap([1, MAX_PARTITIONS]).serialize(), "too large"),
        ("digests", bytes(9), "no array of uint64"),
        ("digests", bytes(24), "3 digests of 2 partitions"),
        ("rows", bytes(3), "rows"),
        ("raw_bytes", bytes(6), "raw_bytes"),
        ("same_mappers", True, "refers to the mappers of another"),
    ],
)
def test_a_range_that_cannot_be_is_refused(field: str, value: object, message: str) -> None:
    reply = ranges_bytes(RangesWait((range_of([3, 4], snapshot_of([1, 3], [1, 2])),)))
    pb = mpb.AwaitCommitsReply.FromString(reply)
    setattr(pb.ranges[0], field, value)
    with pytest.raises(InvalidArgument, match=message):
        from_pb(RangesWait, pb)


def test_ranges_that_do_not_ascend_and_waiting_partitions_that_are_none_are_refused() -> None:
    one = range_of([3, 4], snapshot_of([1], [1]))
    pb = mpb.AwaitCommitsReply.FromString(ranges_bytes(RangesWait((one, one))))
    with pytest.raises(InvalidArgument, match="do not ascend"):
        from_pb(RangesWait, pb)
    pb = mpb.AwaitCommitsReply(waiting=BitMap([MAX_PARTITIONS]).serialize())
    with pytest.raises(InvalidArgument, match="waiting"):
        from_pb(RangesWait, pb)


def test_each_writer_is_told_his_own_capability_and_none_of_another() -> None:
    """What they share is serialized once."""
    info = ExchangeInfo(
        3, ExchangeSpec("x", 1), 1, RowKind.BYTES, b"", (), (), capability="of the exchange"
    )
    shared = opened_info(info)
    assert b"of the exchange" not in shared
    for capability in ("one", "", "of the exchange"):
        reply = opened_reply(OpenedAttempt(info, 5, 6), shared, capability)
        assert (b"of the exchange" in reply) == (capability == "of the exchange")
        arrived = from_pb(OpenedAttempt, mpb.OpenAttemptReply.FromString(reply))
        assert arrived == OpenedAttempt(replace(info, capability=capability), 5, 6)
