"""A real daemon and what it does with senders that are broken, late or wrong."""

from __future__ import annotations

import itertools

import grpc
import pytest
from support.frame_making import block
from support.raw_push import RawMetadata, RawPush, make_block, make_frame, metric

from cosco.format.block import MAX_BLOCK_BYTES, walk_blocks
from cosco.format.frame import MAX_FRAME_BYTES
from cosco.local.cluster import LocalCluster
from cosco.protocol.wire import fetch_reply, mpb, spb


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(daemons=1, daemon_options=["--segment-bytes", "4MiB"]) as cluster:
        yield cluster


@pytest.fixture
def metadata(cluster):
    metadata = RawMetadata(cluster.metadata)
    yield metadata
    metadata.close()


@pytest.fixture
def exchange(metadata, name):
    return metadata.create(name)


@pytest.fixture
def push(exchange):
    push = RawPush.to(exchange)
    yield push
    push.close()


def fetch(cluster, exchange, partition=0):
    options = [("grpc.max_receive_message_length", 8 << 20)]
    with grpc.insecure_channel(cluster.daemons[0].address, options=options) as channel:
        call = channel.unary_stream("/cosco.v1.Shuffle/Fetch")
        request = spb.FetchRequest(
            number=exchange.number, range_index=0, epoch=1, partition=partition
        )
        replies = [fetch_reply(m) for m in call(request.SerializeToString(), timeout=10)]
    data = b"".join(bytes(r) for r in replies if isinstance(r, memoryview))
    sections = [r for r in replies if not isinstance(r, memoryview)]
    assert sum(section.body_bytes for section in sections) == len(data)
    return [bytes(data[o : o + h.block_bytes]) for o, h in walk_blocks(memoryview(data))]


def metrics_address(metadata):
    return metadata.call("Status", mpb.StatusRequest()).daemons[0].metrics_address


def flip(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


@pytest.mark.parametrize("fault", ["flipped", "cut", "too large", "another's partition"])
def test_a_bad_frame_is_refused_counted_and_costs_nobody_else(
    cluster, metadata, exchange, push, fault
):
    other = RawPush.to(exchange, mapper=2)
    good = make_block(exchange)
    frame = make_frame(exchange, good, sequence=5)
    bad = {
        "flipped": flip(frame, len(frame) - 1),
        "cut": frame[:-1],
        "too large": make_frame(
            exchange, *[make_block(exchange, n, b"x" * (MAX_BLOCK_BYTES - 64)) for n in range(3)],
            sequence=5,
        ),
        "another's partition": make_frame(
            exchange, block(3, 0, exchange=exchange.number), sequence=5
        ),
    }[fault]  # fmt: skip
    count = metric(metrics_address(metadata), "cosco_frames_refused_total", reason="bad_frame")
    if fault == "too large":
        assert len(bad) > MAX_FRAME_BYTES
        push.announce(len(bad))
        refusal = push.reply().refused[0]
        assert refusal.code == spb.REFUSAL_CODE_PROTOCOL
        assert str(MAX_FRAME_BYTES) in refusal.reason
    else:
        refusal = push.exchange(bad).refused[0]
        assert (refusal.sequence, refusal.code) == (5, spb.REFUSAL_CODE_BAD_FRAME)
        assert refusal.reason
        after = metric(metrics_address(metadata), "cosco_frames_refused_total", reason="bad_frame")
        assert after == count + 1
        # The same stream goes on with the frame as it should have been.
        assert list(push.exchange(frame).acknowledged) == [5]
    theirs = make_block(exchange, mapper=2)
    assert list(other.exchange(make_frame(exchange, theirs, sequence=1)).acknowledged) == [1]
    other.close()
    assert theirs in fetch(cluster, exchange)


def test_a_frame_larger_than_announced_and_one_not_granted_end_the_stream(cluster, exchange, push):
    frame = make_frame(exchange, make_block(exchange))
    reply = push.exchange(frame, announced=len(frame) - 1)
    assert reply.refused[0].code == spb.REFUSAL_CODE_PROTOCOL
    second = RawPush.to(exchange)
    second.send(frame)
    assert second.reply().refused[0].code == spb.REFUSAL_CODE_PROTOCOL
    with pytest.raises(StopIteration):
        second.reply()
    second.close()
    assert fetch(cluster, exchange) == []


def test_a_stream_for_another_start_of_the_daemon_is_told_so(cluster, exchange):
    push = RawPush(cluster.daemons[0].address)
    push.hello(exchange.number, 12345)
    refusal = push.reply().refused[0]
    assert (refusal.sequence, refusal.code) == (0, spb.REFUSAL_CODE_WRONG_INCARNATION)
    push.close()


@pytest.mark.parametrize("wrong", [{"epoch": 2}, {"range_index": 9}, {"incarnation": 5}])
def test_an_assignment_nobody_gave_is_refused(cluster, exchange, push, wrong):
    reply = push.exchange(make_frame(exchange, make_block(exchange), **wrong))
    assert reply.refused[0].code == spb.REFUSAL_CODE_NOT_ASSIGNED
    assert fetch(cluster, exchange) == []


def test_a_resent_block_is_dropped_and_acknowledged_again(cluster, metadata, exchange, push):
    before = metric(metrics_address(metadata), "cosco_duplicates_dropped_total")
    frame = make_frame(exchange, make_block(exchange), make_block(exchange, 1, b"more"))
    assert list(push.exchange(frame).acknowledged) == [1]
    assert list(push.exchange(frame).acknowledged) == [1]
    assert metric(metrics_address(metadata), "cosco_duplicates_dropped_total") == before + 2
    assert len(fetch(cluster, exchange)) == 2


def test_stored_and_unstored_blocks_are_served_alike(cluster, metadata, exchange, push):
    blocks = [make_block(exchange, n, bytes([n]) * 900_000) for n in range(7)]
    stored = metric(metrics_address(metadata), "cosco_chunks_stored_total")
    for n, made in enumerate(blocks, 1):
        assert list(push.exchange(make_frame(exchange, made, sequence=n)).acknowledged) == [n]
    # Five blocks pass the chunk size; the store needs a moment, readers do not.
    assert fetch(cluster, exchange) == blocks
    while metric(metrics_address(metadata), "cosco_chunks_stored_total") == stored:
        assert fetch(cluster, exchange) == blocks
    assert fetch(cluster, exchange) == blocks


def test_a_closed_exchange_is_refused_and_gone(cluster, metadata, exchange, push):
    frame = make_frame(exchange, make_block(exchange))
    assert list(push.exchange(frame).acknowledged) == [1]
    metadata.call(
        "CloseExchange",
        mpb.CloseExchangeRequest(shuffle_id=exchange.spec.shuffle_id),
    )
    for sequence in itertools.count(2):
        again = make_frame(exchange, make_block(exchange, sequence), sequence=sequence)
        reply = push.exchange(again)
        if reply.refused:  # at the next heartbeat
            assert reply.refused[0].code == spb.REFUSAL_CODE_EXCHANGE_CLOSED
            break
    with pytest.raises(grpc.RpcError, match="the exchange is closed"):
        fetch(cluster, exchange)
