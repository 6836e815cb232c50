"""What a handle says of its group without asking anybody."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest

from cosco.client.groups.handle import GroupHandle, GroupLife
from cosco.errors import ExchangeClosed, InvalidArgument, PartitionOutOfRange
from cosco.protocol.group_records import GroupPart
from cosco.protocol.records import (
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    PartitionRange,
    RowKind,
)

NOWHERE = "127.0.0.1:1"


def block(first: int, size: int, number: int) -> GroupPart:
    """Exchanges of four partitions in two ranges, on daemons that are not there."""
    refs = [DaemonRef(1, NOWHERE), DaemonRef(2, "127.0.0.2:1")]
    info = ExchangeInfo(
        number=number,
        spec=ExchangeSpec(shuffle_id=f"g/{first}", partitions=4),
        generation=1,
        kind=RowKind.BYTES,
        schema=b"",
        ranges=(PartitionRange(0, 0, 2), PartitionRange(1, 2, 2)),
        assignments=tuple(
            Assignment(index, 1, 1, refs[index], (refs[1 - index],)) for index in range(2)
        ),
    )
    return GroupPart("g", first, size, 3, info)


def handle(*blocks: GroupPart) -> GroupHandle:
    return GroupHandle(NOWHERE, "g", 3, 1.0, blocks or (block(0, 10, 100), block(10, 5, 900)))


@pytest.mark.parametrize(("i", "number"), [(0, 100), (9, 109), (10, 900), (14, 904)])
def test_each_exchange_has_its_number_and_name_and_the_rest_is_alike(i: int, number: int) -> None:
    info = handle().info(i)
    assert (info.number, info.spec.shuffle_id) == (number, f"g/{i}")
    first = block(0, 10, 100).info
    assert replace(info, number=100, spec=first.spec) == first


def test_it_says_how_many_there_are() -> None:
    assert (handle().size, handle().partitions, handle().mappers) == (15, 4, 3)


@pytest.mark.parametrize("index", [-1, 15, 1 << 40, "1", 1.0, None, True])
def test_what_is_not_of_the_group_is_refused_at_once(index: object) -> None:
    for make in (handle().writer, handle().reader):
        with pytest.raises(InvalidArgument, match="index") as caught:
            make(index, 0)  # type: ignore[arg-type]
        assert caught.value.shuffle_id == "g"
        assert "'g'" in str(caught.value)


@pytest.mark.parametrize("mapper", [-1, 3, "0", None, 0.0, True])
def test_a_mapper_outside_is_refused_at_once(mapper: object) -> None:
    with pytest.raises(InvalidArgument, match="mapper"):
        handle().writer(0, mapper)  # type: ignore[arg-type]


@pytest.mark.parametrize("partition", [-1, 4, 1 << 40])
def test_a_partition_outside_is_refused_at_once(partition: int) -> None:
    with pytest.raises(PartitionOutOfRange) as caught:
        handle().reader(0, partition)
    assert (caught.value.shuffle_id, caught.value.partition) == ("g/0", partition)


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan"), "1"])
def test_a_bad_timeout_is_refused_at_once(timeout_s: object) -> None:
    with pytest.raises(InvalidArgument, match="timeout_s"):
        handle().reader(0, 0, timeout_s=timeout_s)  # type: ignore[arg-type]


def test_released_exchanges_are_refused_and_others_are_not() -> None:
    one = handle()
    one.life.released.update([3, 12])
    for made in (one, pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        for i in (3, 12):
            for make in (made.writer, made.reader):
                with pytest.raises(ExchangeClosed, match=f"g/{i}") as caught:
                    make(i, 0)
                assert caught.value.shuffle_id == f"g/{i}"
        made.writer(4, 0).abort()


def test_one_whose_first_exchanges_went_with_their_block_says_that_they_were_released() -> None:
    later = handle(block(10, 5, 900))
    later.life.released.add_range(0, 10)
    with pytest.raises(ExchangeClosed, match="g/2"):
        later.writer(2, 0)
    assert later.info(10).number == 900


def test_a_closed_group_is_refused() -> None:
    one = handle()
    one.life.is_closed = True
    for made in (one, pickle.loads(pickle.dumps(one))):
        for make in (made.writer, made.reader):
            with pytest.raises(ExchangeClosed, match="'g'"):
                make(0, 0)


def test_a_pickled_one_is_as_it_was_and_on_its_own() -> None:
    one = handle()
    there = pickle.loads(pickle.dumps(one))
    assert there == one
    one.life.released.add(1)
    assert 1 not in there.life.released
    assert isinstance(there.life, GroupLife)
