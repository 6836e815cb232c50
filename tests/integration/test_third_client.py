"""What docs/protocol.md says is enough for a client that shares no code with ours."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator

import grpc
import pytest
from support.third_client import LONGEST, PROTOCOL, ThirdClient

from cosco import CoscoReader, CoscoWriter, LocalCluster
from cosco.protocol.pb import metadata_pb2

MAPPERS = range(3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(daemons=2) as made:
        yield made


@pytest.fixture
def client(cluster: LocalCluster) -> ThirdClient:
    return ThirdClient(cluster.metadata)


def create(client: ThirdClient, shuffle_id: str, kind: int) -> bytes:
    """An exchange, whose owner is returned."""
    owner = secrets.token_bytes(16)
    spec = metadata_pb2.ExchangeSpec(
        shuffle_id=shuffle_id, partitions=9, replicas=2, min_replicas=1, codec="lz4",
        deterministic=True, lease_s=60,
    )  # fmt: skip
    request = metadata_pb2.CreateExchangeRequest(spec=spec, owner=owner, protocol=PROTOCOL)
    info = client.call("CreateExchange", request, metadata_pb2.ExchangeInfoReply)
    fixing = metadata_pb2.FixRowKindRequest(number=info.number, kind=kind, seen=b"")
    fixed = client.call("FixRowKind", fixing, metadata_pb2.ExchangeInfoReply)
    assert (fixed.kind, fixed.number) == (kind, info.number)
    polls = metadata_pb2.PollDriverRequest(number=info.number, owner=owner, wait_s=0.1)
    assert not client.call("PollDriver", polls, metadata_pb2.PollDriverReply).calls
    return owner


def test_opaque_runs_go_from_it_to_itself(client: ThirdClient) -> None:
    owner = create(client, "opaque", metadata_pb2.ROW_KIND_OPAQUE)
    long_run = secrets.token_bytes(1000) * (2 * LONGEST // 1000 + 200)
    runs = {0: [(7, b"run" * 50), (1, b"more")], 8: [(12, long_run), (3, b"behind it")]}
    assert all(client.write("opaque", mapper, runs) for mapper in MAPPERS)
    assert not client.write("opaque", 1, {}), "another attempt counts"
    found = client.read("opaque", MAPPERS, 0)
    expected = [(mapper, *run) for mapper in MAPPERS for run in runs[0]]
    assert [(one.mapper, one.rows, one.content) for one in found] == expected
    found = client.read("opaque", MAPPERS, 8)
    whole = b"".join(content for _, content in runs[8])
    assert b"".join(one.content for one in found) == whole * len(MAPPERS)
    assert sum(one.rows for one in found) == 15 * len(MAPPERS)
    assert client.read("opaque", MAPPERS, 5) == []
    request = metadata_pb2.CloseExchangeRequest(shuffle_id="opaque", owner=owner)
    assert client.call("CloseExchange", request, metadata_pb2.CloseExchangeReply).was_open


def test_rows_of_bytes_of_ours_are_read_by_it(client: ThirdClient, cluster: LocalCluster) -> None:
    create(client, "bytes", metadata_pb2.ROW_KIND_BYTES)
    with CoscoWriter("bytes", 1, metadata=cluster.metadata) as writer:
        writer.collect(4, b"ours")
        writer.collect(4, b"")
    [found] = client.read("bytes", [1], 4)
    assert (found.flags, found.rows) == (4, 2)
    assert found.content == struct.pack("<II", 4, 0) + b"ours"
    # A long row is a fragment in any kind, so one that it writes is a row of bytes of ours.
    row = secrets.token_bytes(LONGEST + 5)
    assert client.write("bytes", 2, {4: [(1, row)]})
    with CoscoReader("bytes", [1, 2], 4, metadata=cluster.metadata) as reader:
        assert sorted(reader) == sorted([b"ours", b"", row])


def test_an_error_says_its_kind(client: ThirdClient) -> None:
    request = metadata_pb2.OpenAttemptRequest(shuffle_id="nobody's", protocol=PROTOCOL)
    with pytest.raises(grpc.RpcError) as raised:
        client.call("OpenAttempt", request, metadata_pb2.OpenAttemptReply)
    trailers = dict(raised.value.trailing_metadata())
    detail = metadata_pb2.ErrorDetail.FromString(trailers["cosco-error-bin"])
    assert (detail.kind, detail.retriable) == ("ExchangeNotFound", False)
