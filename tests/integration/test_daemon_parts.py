"""A real daemon that is asked for several partitions, or for some mappers' rows, at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import grpc
import pytest
from pyroaring import BitMap
from support.frame_making import block
from support.raw_push import RawMetadata, RawPush, make_frame

from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.format.block import HEADER_BYTES, walk_blocks
from cosco.local.cluster import LocalCluster
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.wire import (
    ERROR_KEY,
    error_from_bytes,
    fetch_replies,
    fetch_request_to_bytes,
    mpb,
    spb,
)

PARTITIONS = 200


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(daemons=1) as cluster:
        yield cluster


@pytest.fixture
def metadata(cluster):
    metadata = RawMetadata(cluster.metadata)
    yield metadata
    metadata.close()


@pytest.fixture
def exchange(metadata, name):
    return metadata.create(name, PARTITIONS)


def blocks_of(exchange, mapper: int, length: int) -> dict[int, bytes]:
    return {
        p: block(p, 0, bytes([mapper, p]) * (length // 2), mapper=mapper, exchange=exchange.number)
        for p in range(PARTITIONS)
    }


def push(exchange, made: dict[int, bytes], mapper: int) -> None:
    """Send one block of each partition, in a frame for each of the ranges."""
    stream = RawPush.to(exchange, mapper=mapper)
    for one in exchange.ranges:
        frame = make_frame(
            exchange, *[made[p] for p in range(one.first, one.end)],
            range_index=one.index, sequence=one.index + 1,
        )  # fmt: skip
        assert list(stream.exchange(frame).acknowledged) == [one.index + 1]
    stream.close()


def parts_of(exchange, partitions: Iterable[int]) -> tuple[FetchPart, ...]:
    wanted = set(partitions)
    cut = ((one, BitMap(wanted & set(range(one.first, one.end)))) for one in exchange.ranges)
    return tuple(FetchPart(one.index, 1, bitmap) for one, bitmap in cut if bitmap)


def fetch(cluster, request: FetchRequest | bytes):
    """By partition its blocks and bare headers, and the messages that they came in."""
    blocks, headers, ends, messages = defaultdict(list), defaultdict(list), [], 0
    data, section, left = b"", spb.Section(), 0
    pending = [], []
    message = request if isinstance(request, bytes) else fetch_request_to_bytes(request)
    with grpc.insecure_channel(cluster.daemons[0].address) as channel:
        for reply in channel.unary_stream("/cosco.v1.Shuffle/Fetch")(message, timeout=20):
            messages += 1
            for one in fetch_replies(reply):
                if isinstance(one, spb.PartEnd):
                    assert not left
                    ends.append((one.partition, one.part))
                    blocks[one.partition] += pending[0]
                    headers[one.partition] += pending[1]
                    pending = [], []
                elif isinstance(one, spb.Section):
                    assert not left
                    assert not one.error
                    data, section, left = b"", one, one.body_bytes
                else:
                    data, left = data + one, left - len(one)
                    if left:
                        continue
                    if section.headers:
                        cut = range(0, len(data), HEADER_BYTES)
                        pending[1].extend(data[at : at + HEADER_BYTES] for at in cut)
                    else:
                        walked = walk_blocks(memoryview(data))
                        pending[0].extend(data[o : o + h.block_bytes] for o, h in walked)
    assert not left
    return blocks, headers, ends, messages


@pytest.mark.parametrize("length", [100, 20_000])
def test_partitions_of_all_ranges_come_with_one_call(cluster, exchange, length):
    made = blocks_of(exchange, 1, length)
    push(exchange, made, 1)
    parts = parts_of(exchange, range(PARTITIONS))
    blocks, headers, ends, messages = fetch(cluster, FetchRequest(exchange.number, parts))
    assert ends == [(p, i) for i, part in enumerate(parts) for p in part.partitions]
    assert blocks == {p: [one] for p, one in made.items()}
    assert not any(headers.values())
    if length == 100:  # 20 KiB of rows, and not 600 messages
        assert messages <= 3 + len(parts)  # a slow machine may send what waits at each part


def test_some_partitions_of_an_epoch_and_one_that_nobody_wrote_to(cluster, exchange):
    made = blocks_of(exchange, 1, 50)
    push(exchange, made, 1)
    first = exchange.ranges[0]
    parts = (
        FetchPart(first.index, 2, BitMap([first.first])),
        *parts_of(exchange, {first.first, PARTITIONS - 1}),
    )
    blocks, _, ends, _ = fetch(cluster, FetchRequest(exchange.number, parts))
    last = len(parts) - 1
    assert ends == [(first.first, 0), (first.first, 1), (PARTITIONS - 1, last)]
    for partition in (first.first, PARTITIONS - 1):
        assert blocks[partition] == [made[partition]]


def test_a_reader_of_one_mapper_gets_every_header_and_its_own_contents(cluster, exchange):
    made = {mapper: blocks_of(exchange, mapper, 8000) for mapper in range(1, 9)}
    for mapper, theirs in made.items():
        push(exchange, theirs, mapper)
    parts = parts_of(exchange, range(PARTITIONS))
    asked = FetchRequest(exchange.number, parts, BitMap([3]))
    blocks, headers, _, _ = fetch(cluster, asked)
    for partition in range(PARTITIONS):
        assert blocks[partition] == [made[3][partition]]
        others = [made[m][partition][:HEADER_BYTES] for m in made if m != 3]
        assert sorted(headers[partition]) == sorted(others)


def raised(cluster, request) -> Exception:
    with pytest.raises(grpc.RpcError) as caught:
        fetch(cluster, request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return error_from_bytes(dict(caught.value.trailing_metadata())[ERROR_KEY])


def test_what_cannot_be_asked_for_is_refused(cluster, metadata, exchange):
    push(exchange, blocks_of(exchange, 1, 50), 1)
    first, last = exchange.ranges[0], exchange.ranges[-1]
    beyond = FetchPart(first.index, 1, BitMap([first.first, first.end]))
    for bad in (
        FetchRequest(exchange.number, (beyond,)),
        FetchRequest(exchange.number, (FetchPart(last.index, 1, BitMap([2**20])),)),
        spb.FetchRequest(number=1, parts=[spb.FetchPart(epoch=1)]).SerializeToString(),
        spb.FetchRequest(number=1, mappers=b"garbage").SerializeToString(),
        b"\xff\xff",
    ):
        assert isinstance(raised(cluster, bad), InvalidArgument)
    assert fetch(cluster, FetchRequest(exchange.number, parts_of(exchange, [3])))[0][3]


def test_a_closed_exchange_is_told_to_be_closed(cluster, metadata, exchange):
    push(exchange, blocks_of(exchange, 1, 50), 1)
    request = mpb.CloseExchangeRequest(shuffle_id=exchange.spec.shuffle_id)
    assert metadata.call("CloseExchange", request).was_open
    asked = FetchRequest(exchange.number, parts_of(exchange, range(PARTITIONS)))
    with pytest.raises(grpc.RpcError) as caught:
        while True:  # until the daemon hears of it, at its next heartbeat
            fetch(cluster, asked)
    error = error_from_bytes(dict(caught.value.trailing_metadata())[ERROR_KEY])
    assert isinstance(error, ExchangeClosed)
