"""What readers ask daemons for, and what they are sent: as it was, and checked."""

from __future__ import annotations

import pytest
from pyroaring import BitMap

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import MAX_PARTITIONS
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.wire import (
    MAX_FETCH_PARTS,
    fetch_data,
    fetch_end,
    fetch_failure,
    fetch_packed,
    fetch_reference,
    fetch_replies,
    fetch_reply,
    fetch_request_from_bytes,
    fetch_request_to_bytes,
    fetch_section,
    reference_of,
    spb,
)

EVERY_PARTITION = BitMap(range(MAX_PARTITIONS))


# --- requests ---


def sent(request: FetchRequest) -> FetchRequest:
    return fetch_request_from_bytes(fetch_request_to_bytes(request))


@pytest.mark.parametrize(
    "request_",
    [
        FetchRequest(7, (FetchPart(0, 1, BitMap([0])),)),
        FetchRequest(
            7, (FetchPart(3, 2, BitMap([9, 8])), FetchPart(3, 4, BitMap([8]), files=True))
        ),
        FetchRequest(2**63, (FetchPart(2**32 - 1, 2**32 - 1, EVERY_PARTITION),)),
        FetchRequest(7, (FetchPart(0, 1, BitMap([0])),), BitMap([0, 2**31 - 1])),
        FetchRequest(7, (FetchPart(1, 2, BitMap([5]), files=True),), several=False),
        FetchRequest(7, (FetchPart(1, 2, BitMap([5])),), several=False, direct=True),
        FetchRequest(7, (FetchPart(1, 2, BitMap([5])),), direct=True),
        FetchRequest(7, (FetchPart(1, 2, BitMap([5])),), several=False, capability="cosco1.x"),
        FetchRequest(7, (FetchPart(1, 2, BitMap([5])),), capability="cosco1.x"),
        FetchRequest(7, (FetchPart(1, 2, BitMap([0])),), BitMap([3]), several=False),
        FetchRequest(7, (FetchPart(0, 1, BitMap([0])),) * MAX_FETCH_PARTS),
    ],
)
def test_a_request_arrives_as_it_was_sent(request_: FetchRequest) -> None:
    assert sent(request_) == request_


def test_a_request_of_many_partitions_in_a_row_is_small() -> None:
    parts = (FetchPart(0, 1, BitMap(range(50_000))),)
    parts[0].partitions.run_optimize()
    assert len(fetch_request_to_bytes(FetchRequest(7, parts))) < 50


def part_of(bitmap: bytes) -> spb.FetchRequest:
    return spb.FetchRequest(number=7, parts=[spb.FetchPart(epoch=1, partitions=bitmap)])


@pytest.mark.parametrize(
    ("pb", "message"),
    [
        (part_of(b""), "without partitions"),
        (part_of(b"nonsense"), "no roaring bitmap"),
        (part_of(BitMap([MAX_PARTITIONS]).serialize()), "must be below"),
        (
            spb.FetchRequest(number=7, parts=[spb.FetchPart(epoch=1)] * (MAX_FETCH_PARTS + 1)),
            "4097 parts",
        ),
        (
            spb.FetchRequest(
                number=7, parts=[spb.FetchPart(partitions=EVERY_PARTITION.serialize())] * 2
            ),
            "2097152 partitions",
        ),
        (spb.FetchRequest(number=7, mappers=b"nonsense"), "mappers"),
        (spb.FetchRequest(number=7, mappers=BitMap([2**31]).serialize()), "mappers"),
    ],
)
def test_a_request_that_cannot_be_is_refused(pb: spb.FetchRequest, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        fetch_request_from_bytes(pb.SerializeToString())


@pytest.mark.parametrize("field", ["range_index", "epoch", "partition", "files"])
def test_a_request_names_one_partition_or_parts(field: str) -> None:
    pb = part_of(BitMap([0]).serialize())
    setattr(pb, field, 1)
    with pytest.raises(InvalidArgument, match="one partition, and parts"):
        fetch_request_from_bytes(pb.SerializeToString())


def test_a_request_that_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="FetchRequest"):
        fetch_request_from_bytes(b"\xff\xff")


# --- replies ---


def data(content: bytes) -> bytes:
    return fetch_data([memoryview(content[:1]), memoryview(content[1:])])


REPLIES = [
    fetch_section(500, 4096, stored=True),
    data(b"x" * 500),
    fetch_end(0, 0),
    fetch_section(64, stored=False, headers=True),
    data(b"y" * 64),
    fetch_failure("it is gone"),
    fetch_end(4095, MAX_PARTITIONS - 1),
    data(b"z" * (1 << 20)),
]


def check_replies(found: list[object]) -> None:
    assert found == [
        spb.Section(body_bytes=500, offset=4096, stored=True),
        b"x" * 500,
        spb.PartEnd(),
        spb.Section(body_bytes=64, headers=True),
        b"y" * 64,
        spb.Section(error="it is gone"),
        spb.PartEnd(part=4095, partition=MAX_PARTITIONS - 1),
        b"z" * (1 << 20),
    ]


def test_replies_arrive_one_by_one_and_packed() -> None:
    check_replies([fetch_reply(reply) for reply in REPLIES])
    check_replies([one for reply in REPLIES for one in fetch_replies(reply)])
    check_replies(list(fetch_replies(fetch_packed(REPLIES))))


def test_what_is_packed_is_what_the_message_class_makes() -> None:
    pb = spb.FetchReply(packed=map(spb.FetchReply.FromString, REPLIES))
    assert fetch_packed(REPLIES) == pb.SerializeToString()


def test_a_reply_alone_is_not_packed() -> None:
    assert all(fetch_packed([reply]) is reply for reply in REPLIES)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xff",
        spb.FetchReply(packed=[spb.FetchReply()]).SerializeToString(),
        fetch_packed([fetch_packed(REPLIES), *REPLIES]),  # packed twice
        fetch_packed(REPLIES)[:-1],
        fetch_packed(REPLIES[:3])[:-1],
        fetch_packed(REPLIES[:2]) + b"\x22",
        fetch_packed(REPLIES[:2]) + b"\x22" + b"\x80" * 11,
        fetch_packed(REPLIES[:2]) + REPLIES[1],  # packed and not
        REPLIES[0] + fetch_packed(REPLIES[:2]),  # not and packed
        b"\x22\x03\x12\x05a",  # data that is longer than its reply
        b"\x22\x03\x12\x00a",  # and shorter
        data(b"abc")[:-1],
        data(b"abc") + b"x",
    ],
)
def test_a_reply_that_cannot_be_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidArgument):
        list(fetch_replies(message))
    with pytest.raises(InvalidArgument):
        fetch_reply(message)


def test_a_reference_is_of_a_section_without_data() -> None:
    reference = Reference("file:///s/c/7/0-1/x", "c/7/0-1/x", 1 << 40, 2**32 - 1)
    section = fetch_reply(fetch_reference(70_000, 4096, reference))
    assert isinstance(section, spb.Section)
    assert (section.body_bytes, section.offset, section.stored) == (70_000, 4096, True)
    assert reference_of(section) == reference
    plain = fetch_reply(fetch_section(5, stored=True))
    assert isinstance(plain, spb.Section)
    assert reference_of(plain) is None
