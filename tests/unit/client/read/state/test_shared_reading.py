"""What is asked for together, and where in a stream the answers are."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from cosco.client.read.state import shared_reading as module
from cosco.client.read.state.read_plan import STALL_S, Fetch
from cosco.client.read.state.shared_reading import (
    PartReplies,
    Place,
    Question,
    SharedPass,
    SharedReading,
)
from cosco.errors import InvalidArgument
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchPart
from cosco.protocol.records import (
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    PartitionRange,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    RowKind,
    Source,
)
from cosco.protocol.wire import spb

#: Four ranges of five partitions.
INFO = ExchangeInfo(
    number=5,
    spec=ExchangeSpec("x", 20),
    generation=1,
    kind=RowKind.BYTES,
    schema=b"",
    ranges=tuple(PartitionRange(i, 5 * i, 5) for i in range(4)),
    assignments=(),
)
A, B, C = (DaemonRef(i, f"127.0.0.1:{i}") for i in (1, 2, 3))
NAMED = BitMap([1, 2])


def told(
    index: int,
    partitions: Sequence[int],
    *sources: Source,
    rows: Sequence[int] | None = None,
    mappers: Sequence[int] = (1,),
) -> RangeSnapshot:
    count = len(partitions)
    common = ReadSnapshot(
        version=1,
        generation=1,
        build=1,
        mappers=np.array(mappers, np.uint32),
        attempts=np.array(mappers, np.uint64),
        rows=0,
        raw_bytes=0,
        digest=0,
        sources=sources or (Source(index, 1, (A,)),),
    )
    return RangeSnapshot(
        common,
        np.array(partitions, np.uint32),
        np.array([1] * count if rows is None else rows, np.uint64),
        np.array(partitions, np.uint64),
        np.array(partitions, np.uint64),
    )


def reading(partitions: Sequence[int], troubled: set[DaemonRef] | None = None) -> SharedReading:
    return SharedReading(INFO, BitMap(partitions), NAMED, set() if troubled is None else troubled)


# --- questions ----------------------------------------------------------------------------------


def test_all_that_are_left_are_asked_for_once_and_then_nobody_is_asked() -> None:
    one = reading([1, 3, 6, 7])
    one.come_to(1)
    assert one.take() is None
    assert one.question() == Question(BitMap([1, 3, 6, 7]), waits=False)
    wait = one.told(RangesWait((told(0, [1, 3]), told(1, [6, 7]))))
    assert wait.snapshot is not None
    assert (wait.snapshot.raw_bytes, wait.snapshot.digest) == (1, 1)  # its own sums
    for partition in (3, 6, 7):
        one.come_to(partition)
        snapshot = one.take()
        assert snapshot is not None
        assert snapshot.digest == partition
    assert one.take() is None


def test_one_that_waits_is_asked_for_with_its_range_and_then_all_are_again() -> None:
    one = reading([1, 6, 8, 12])
    one.come_to(1)
    one.question()
    missing = BitMap([2])
    answer = RangesWait((told(0, [1]), told(2, [12])), BitMap([6, 8]), missing, recompute=True)
    assert one.told(answer).snapshot is not None
    one.come_to(6)
    assert one.take() is None  # as there is a gap, and it is asked for anew
    assert one.question() == Question(BitMap([6, 8, 12]), waits=False)
    wait = one.told(answer)
    assert (wait.snapshot, wait.missing, wait.recompute) == (None, missing, True)
    for _ in range(3):
        assert one.take() is None
        assert one.question() == Question(BitMap([6, 8]), waits=True)
        assert one.told(RangesWait((), BitMap([6, 8]), missing)).snapshot is None
    one.question()
    assert one.told(RangesWait((told(1, [6, 8]),))).snapshot is not None
    one.come_to(8)
    assert one.take() is not None
    one.come_to(12)
    assert one.take() is None
    assert one.question() == Question(BitMap([12]), waits=False)


def test_a_plan_that_renews_what_it_knows_goes_on_alone() -> None:
    one = reading([1, 2, 3])
    one.come_to(1)
    one.question()
    one.told(RangesWait((told(0, [1, 2, 3]),)))
    assert one.shared_pass is not None
    assert one.take() is None
    assert one.question() == Question(BitMap([1]), waits=True)
    assert one.shared_pass is None
    assert one.told(RangesWait((told(0, [1]),))).snapshot is not None
    assert one.shared_pass is None
    assert one.question() == Question(BitMap([1]), waits=True)
    assert one.told(RangesWait((), BitMap([1]))).snapshot is None
    one.come_to(2)
    assert one.take() is None  # what was told before the trouble may be over
    assert one.question() == Question(BitMap([2, 3]), waits=False)


@given(
    asked=st.sets(st.integers(0, 19), min_size=1),
    answer=st.lists(st.lists(st.integers(0, 25), max_size=6), max_size=5),
)
def test_whatever_is_answered_partitions_come_in_their_turn(
    asked: set[int], answer: list[list[int]]
) -> None:
    one = reading(sorted(asked))
    ranges = tuple(told(0, partitions) for partitions in answer)
    for partition in sorted(asked):
        one.come_to(partition)
        snapshot = one.take()
        if snapshot is None:
            one.question()
            snapshot = one.told(RangesWait(ranges)).snapshot
        assert snapshot is None or snapshot.digest == partition


# --- passes -------------------------------------------------------------------------------------


def begun(*ranges: RangeSnapshot, troubled: set[DaemonRef] | None = None) -> SharedReading:
    """A reading that was told these, at its first partition."""
    one = reading([int(p) for each in ranges for p in each.partitions], troubled)
    one.question()
    assert one.told(RangesWait(ranges)).snapshot is not None
    return one


def pass_of(one: SharedReading) -> SharedPass:
    assert one.shared_pass is not None
    return one.shared_pass


def test_each_daemon_is_asked_once_for_what_it_is_to_be_asked_first() -> None:
    sealed = Source(1, 3, (B, A), sealed=True)
    one = begun(
        told(0, [1, 2, 4], Source(0, 1, (A, B)), rows=[5, 0, 1]),
        told(1, [6, 7], Source(1, 2, (A,)), sealed, Source(1, 4, ())),
    )
    requests = pass_of(one).requests
    assert list(requests) == [A, B]
    assert requests[A].parts == (
        FetchPart(0, 1, BitMap([1, 4])),  # no rows, no question
        FetchPart(1, 2, BitMap([6, 7])),
    )
    assert requests[B].parts == (FetchPart(1, 3, BitMap([6, 7]), files=True),)
    assert [request.number for request in requests.values()] == [5, 5]
    assert all(request.several for request in requests.values())


def test_a_daemon_in_trouble_is_asked_if_there_is_no_other() -> None:
    one = begun(told(0, [1], Source(0, 1, (A, B)), Source(0, 2, (A,))), troubled={A})
    assert pass_of(one).requests[B].parts == (FetchPart(0, 1, BitMap([1]), files=True),)
    assert pass_of(one).requests[A].parts == (FetchPart(0, 2, BitMap([1])),)


@pytest.mark.parametrize(("wrote", "is_named"), [([1], False), ([1, 2], False), ([1, 3], True)])
def test_mappers_are_named_where_others_wrote(wrote: list[int], is_named: bool) -> None:
    one = begun(told(0, [1]), told(1, [6], mappers=wrote))
    assert pass_of(one).requests[A].mappers == (NAMED if is_named else BitMap())


def test_streams_and_parts_of_a_pass_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    one = begun(
        told(0, [1], Source(0, 1, (A,)), Source(0, 2, (B,)), Source(0, 3, (C,))),
        told(1, [6, 7], Source(1, 1, (B,))),
        told(2, [11], Source(2, 1, (A,))),
        told(3, [16], Source(3, 1, (C,))),
    )
    passes = [set(pass_of(one).requests)]
    for partition in (6, 7, 11, 16):
        before = one.shared_pass
        one.come_to(partition)
        assert one.take() is not None
        if one.shared_pass is not before:
            passes.append(set(pass_of(one).requests))
    assert passes == [{A, B, C}, {A, B}, {C}]  # one that needs more has a pass of its own
    for name in ("MAX_FETCH_PARTS", "MAX_FETCH_PARTITIONS"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire, name, 2)
            one = begun(told(0, [1]), told(1, [6]), told(2, [11]))
            assert sum(len(r.parts) for r in pass_of(one).requests.values()) == 2


def test_the_place_of_a_fetch() -> None:
    one = Source(0, 1, (A, B))
    other = Source(0, 2, (A,), sealed=True)
    of = pass_of(begun(told(0, [1], one, other))).place
    assert of(Fetch(one, A, files=False, stall_s=STALL_S)) == Place(A, 0)
    assert of(Fetch(other, A, files=True, stall_s=STALL_S)) == Place(A, 1)
    for elsewhere in (
        Fetch(one, B, files=True, stall_s=STALL_S),
        Fetch(one, A, files=True, stall_s=STALL_S),
        Fetch(one, A, files=False, stall_s=STALL_S, whole=True),
        Fetch(Source(0, 3, (A,)), A, files=False, stall_s=STALL_S),
    ):
        assert of(elsewhere) is None


# --- replies ------------------------------------------------------------------------------------

PARTS = [FetchPart(0, 1, BitMap([1, 4])), FetchPart(0, 2, BitMap([1, 2]))]
PLACES = [(1, 0), (1, 1), (2, 1), (4, 0)]  # as they are sent


def data(partition: int, part: int) -> memoryview:
    return memoryview(b"%d of %d" % (partition, part))


def sent(places: Sequence[tuple[int, int]] = PLACES) -> Iterator[wire.FetchReply]:
    for partition, part in places:
        yield spb.Section(body_bytes=6)
        yield data(partition, part)
        yield spb.PartEnd(part=part, partition=partition)


def taken(replies: PartReplies, partition: int, part: int) -> list[memoryview]:
    assert replies.has(part, partition)
    return [one for one in replies.of(part, partition) if isinstance(one, memoryview)]


@pytest.mark.parametrize("seed", range(30))
def test_each_place_has_what_is_its_own_whichever_are_wanted(seed: int) -> None:
    rng = random.Random(seed)
    replies = PartReplies(PARTS, sent())
    for partition, part in PLACES:
        if rng.random() < 0.5:
            assert taken(replies, partition, part) == [data(partition, part)]
            assert not replies.has(part, partition)


def test_what_has_come_or_was_not_asked_for_is_not_there() -> None:
    replies = PartReplies(PARTS, sent())
    assert not replies.has(0, 2)
    assert not replies.has(1, 4)
    assert not replies.has(0, 7)
    taken(replies, 2, 1)
    assert not replies.has(0, 1)
    assert not replies.has(1, 1)
    begun = replies.of(0, 4)
    next(begun)
    assert not replies.has(0, 4)  # part of it is gone


@pytest.mark.parametrize(
    "places",
    [PLACES[:1], [], [(1, 1), *PLACES], [(1, 0), (2, 1), (1, 1), (4, 0)], [(1, 0), (9, 9)]],
    ids=["short", "nothing", "another part first", "another order", "not asked for"],
)
def test_a_stream_that_is_not_as_it_must_be(places: list[tuple[int, int]]) -> None:
    replies = PartReplies(PARTS, sent(places))
    with pytest.raises(InvalidArgument, match=r"out of its turn|before its last part"):
        for partition, part in PLACES:
            taken(replies, partition, part)
