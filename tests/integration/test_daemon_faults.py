"""A real daemon that is stopped, cancelled, given garbage, or robbed of what it relies on."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from support.raw_push import RawMetadata, RawPush, make_block, make_frame, metric
from support.segments import chunks_of

from cosco.errors import InvalidArgument
from cosco.format.block import walk_blocks
from cosco.local.cluster import LocalCluster
from cosco.protocol import wire
from cosco.protocol.wire import mpb, spb

_FETCH = f"/{wire.SHUFFLE_SERVICE}/Fetch"


@pytest.fixture
def cluster():
    with LocalCluster(daemons=1, memory="32MiB") as cluster:
        yield cluster


@pytest.fixture
def metadata(cluster):
    metadata = RawMetadata(cluster.metadata)
    yield metadata
    metadata.close()


@pytest.fixture
def exchange(metadata, name):
    return metadata.create(name)


def sample(metadata, name: str, **labels: str) -> float:
    address = metadata.call("Status", mpb.StatusRequest()).daemons[0].metrics_address
    return metric(address, name, **labels)


def has_ended(pid: int) -> bool:
    """Whether a process is over, whether or not its parent has taken note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def stored_blocks(cluster) -> list[bytes]:
    """Every block in the files of the store, as a stranger finds them."""
    found = []
    for file in (cluster.directory / "store").glob("*/*/*/*"):
        for body in map(memoryview, chunks_of(file.read_bytes()).values()):
            found += [bytes(body[o : o + b.block_bytes]) for o, b in walk_blocks(body)]
    return found


def test_what_is_acknowledged_is_stored_when_a_daemon_is_stopped_amid_writes(cluster, exchange):
    enough = threading.Event()

    def push_until_cut_off(mapper: int) -> list[bytes]:
        push = RawPush.to(exchange, mapper=mapper)
        acknowledged = []
        with suppress(grpc.RpcError, StopIteration):
            for n in itertools.count(1):
                made = make_block(exchange, n, bytes([n % 256]) * 100_000, mapper=mapper)
                reply = push.exchange(make_frame(exchange, made, sequence=n))
                if n in reply.acknowledged:
                    acknowledged.append(made)
                if n == 100:
                    enough.set()
        push.close()
        return acknowledged

    with ThreadPoolExecutor(3) as writers:
        results = [writers.submit(push_until_cut_off, mapper) for mapper in (1, 2, 3)]
        assert enough.wait(30)
        cluster.daemons[0].stop()
        acknowledged = [made for result in results for made in result.result()]
    assert len(acknowledged) > 100
    stored = stored_blocks(cluster)
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)


def test_streams_that_vanish_leave_their_credits_to_others(cluster, metadata, exchange):
    frame = make_frame(exchange, make_block(exchange, 0, b"x" * 500_000), sequence=1)
    for mapper in range(20):  # together they announce more than the budget is worth
        vanishing = RawPush.to(exchange, mapper=mapper)
        vanishing.announce(*[len(frame)] * 100)
        assert vanishing.reply().granted
        vanishing.close()
    push = RawPush.to(exchange)
    assert 1 in push.exchange(frame).acknowledged
    push.close()
    deadline = time.monotonic() + 10
    while sample(metadata, "cosco_granted_bytes") or sample(metadata, "cosco_push_streams"):
        assert time.monotonic() < deadline
    assert stored_blocks(cluster) == []  # nothing was sent but one frame, which is in memory


def test_garbage_is_refused_in_one_line(cluster, metadata, exchange):
    with grpc.insecure_channel(cluster.daemons[0].address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            list(channel.unary_stream(_FETCH)(b"\xff" * 9, timeout=10))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        detail = dict(refused.value.trailing_metadata())[wire.ERROR_KEY]
        assert isinstance(wire.error_from_bytes(detail), InvalidArgument)
        # A partition, a range, an exchange that are not there have no rows.
        nowhere = spb.FetchRequest(
            number=2**64 - 1, range_index=2**32 - 1, epoch=2**32 - 1, partition=2**32 - 1
        )
        assert list(channel.unary_stream(_FETCH)(nowhere.SerializeToString(), timeout=10)) == []
        replies = channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Push")(
            iter([b"\xff" * 9]), timeout=10
        )
        (reply,) = [spb.PushReply.FromString(message) for message in replies]
        assert reply.refused[0].code == spb.REFUSAL_CODE_PROTOCOL
        assert "\n" not in reply.refused[0].reason
    assert sample(metadata, "cosco_frames_refused_total", reason="protocol") == 1


def test_a_daemon_does_not_mix_two_clusters(cluster, metadata, exchange):
    """Numbers begin anew in a new database: rows of the old exchange 1 are not the new one's."""
    push = RawPush.to(exchange)
    made = make_block(exchange, 0)
    assert 1 in push.exchange(make_frame(exchange, made, sequence=1)).acknowledged
    push.close()
    cluster.metadata_service.kill()
    for file in cluster.directory.glob("metadata.db*"):
        file.unlink()
    cluster.metadata_service.restart()
    daemon = cluster.daemons[0]
    deadline = time.monotonic() + 20
    while not has_ended(daemon.pid):  # it finds out at a heartbeat
        assert time.monotonic() < deadline
        time.sleep(0.05)
    last_line = (cluster.directory / "daemon-0.log").read_text().splitlines()[-1]
    assert "is of cluster" in last_line
    assert stored_blocks(cluster) == [made]  # what it held is where a database can find it


def test_readers_that_vanish_leave_their_turns_to_others(cluster, exchange):
    push = RawPush.to(exchange)
    blocks = [make_block(exchange, n, bytes([n]) * 1_000_000) for n in range(8)]
    for n, made in enumerate(blocks, 1):
        assert n in push.exchange(make_frame(exchange, made, sequence=n)).acknowledged
    push.close()
    request = spb.FetchRequest(number=exchange.number, epoch=1).SerializeToString()
    with grpc.insecure_channel(cluster.daemons[0].address) as channel:
        fetch = channel.unary_stream(_FETCH)
        for _ in range(3):
            calls = [fetch(request, timeout=20) for _ in range(32)]
            for call in calls:
                next(call)
                call.cancel()
        sections = sum(
            reply.body_bytes
            for reply in map(wire.fetch_reply, fetch(request, timeout=20))
            if isinstance(reply, spb.Section)
        )
    assert sections == sum(map(len, blocks))
