"""What a handle says of its group without asking anybody."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest

from cosco.client.groups.handle import GroupHandle, GroupLife
from cosco.errors import AccessDenied, ExchangeClosed, InvalidArgument, PartitionOutOfRange
from cosco.protocol.capability import CapabilityKey, Permit, Rights
from cosco.protocol.capability import made as made_capability
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
BOTH = Rights.READ | Rights.WRITE


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


def test_handles_of_a_group_show_what_each_was_given() -> None:
    """They share what is known of the life of their group, and nothing else."""
    part = block(0, 10, 100)
    one = handle(part)
    other = replace(one, parts=(replace(part, info=replace(part.info, capability="other")),))
    assert one.life is other.life
    for each in (one, other):
        assert each.info(3).capability == each.parts[0].info.capability
    again = replace(one, parts=other.parts)
    assert again.info(3).capability == "other"
    one.life.released.add(3)
    for each in (one, other, pickle.loads(pickle.dumps((one, other)))[1]):
        with pytest.raises(ExchangeClosed):
            each.writer(3, 0)


def test_a_pickled_one_has_nothing_of_what_was_asked_for() -> None:
    one = handle()
    before = len(pickle.dumps(one))
    for i in range(10):
        one.info(i)
    assert len(pickle.dumps(one)) == before


@pytest.mark.parametrize(
    ("rights", "refused"), [(Rights.READ, "writer"), (Rights.WRITE, "reader"), (BOTH, None)]
)
def test_what_it_does_not_allow_is_told_at_once(rights: Rights, refused: str | None) -> None:
    capability = made_capability(CapabilityKey(1, b"k" * 32), Permit(100, 10, rights))
    part = block(0, 10, 100)
    one = handle(replace(part, info=replace(part.info, capability=capability)))
    for name in ("writer", "reader"):
        if name == refused:
            with pytest.raises(AccessDenied, match="does not let you") as caught:
                getattr(one, name)(0, 0)
            assert capability not in str(caught.value)
            assert caught.value.shuffle_id == "g"
        elif name == "writer":
            one.writer(0, 0).abort()
        else:
            one.reader(0, 0).close()
