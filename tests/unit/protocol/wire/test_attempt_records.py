"""What a writer commits, on the wire: as it was, in few bytes, and checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_PARTITIONS
from cosco.protocol.records import AttemptSums, CommitRequest, pairs_array
from cosco.protocol.wire import commit_from_pb, commit_to_pb, mpb

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
    return mpb.CommitRequest.FromString(commit_to_pb(request).SerializeToString())


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
    request = commit_from_pb(sent(request_of(partitions, numbers, pairs)))
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
        commit_from_pb(pb)


def test_a_commit_of_no_partitions_has_no_sums() -> None:
    pb = sent(request_of([], []))
    pb.gaps = b"\0"
    with pytest.raises(InvalidArgument, match="gaps"):
        commit_from_pb(pb)
