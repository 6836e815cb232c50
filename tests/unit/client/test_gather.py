"""Daemons that miss rows, break off or lie low: every copy is asked before rows are lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap

from cosco import wire
from cosco.blocks import CODEC_NONE, encode_block
from cosco.client.gather import Gatherer
from cosco.client.merge import PartitionMerge
from cosco.client.metadata_client import MetadataClient
from cosco.client.scope import Scope
from cosco.errors import (
    ClientClosed,
    CoscoError,
    DataCorrupted,
    DataLost,
    ExchangeClosed,
    ServiceUnavailable,
)
from cosco.records import (
    MASK64,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    ReadSnapshot,
    RowKind,
    Source,
)
from cosco.wire import spb

import grpc  # isort: skip  (after cosco, which turns its fork support on)

INFO = ExchangeInfo(
    number=5,
    spec=ExchangeSpec("x", 1),
    generation=1,
    kind=RowKind.BYTES,
    schema=b"",
    ranges=(),
    assignments=(),
)
BLOCKS: list[bytes] = []
DIGEST = 0
for i in range(4):
    header, stored, digest = encode_block(
        exchange=5, partition=0, mapper=1, attempt=2, first_row=i, rows=1, content=b"content",
        codec=CODEC_NONE,
    )  # fmt: skip
    BLOCKS.append(header + stored)
    DIGEST = (DIGEST + digest) & MASK64

Answer = Callable[[Any], Iterator[bytes]]


def section(body: bytes) -> list[bytes]:
    begin = spb.FetchReply(section=spb.Section(body_bytes=len(body))).SerializeToString()
    return [begin, wire.fetch_data([memoryview(body)])]


def has(*numbers: int) -> Answer:
    return lambda context: iter([m for i in numbers for m in section(BLOCKS[i])])


def breaks_after(*numbers: int, times: int = 10**9) -> Answer:
    """Breaks off in the middle, `times` times; then has everything."""
    left = itertools.count(times, -1)

    def answer(context: Any) -> Iterator[bytes]:
        if next(left) <= 0:
            yield from has(0, 1, 2, 3)(context)
            return
        yield from has(*numbers)(context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    return answer


def fails(error: CoscoError) -> Answer:
    def answer(context: Any) -> Iterator[bytes]:
        context.set_trailing_metadata(((wire.ERROR_KEY, wire.error_to_bytes(error)),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
        yield b""

    return answer


def rotten(context: Any) -> Iterator[bytes]:
    body = bytearray(BLOCKS[0])
    body[-1] ^= 1
    yield from section(bytes(body))
    yield from has(1, 2, 3)(context)


def nonsense(context: Any) -> Iterator[bytes]:
    yield section(BLOCKS[0])[1]


class Cluster:
    """Daemons that answer Fetch in turn as told, and a metadata service for Describe."""

    def __init__(self) -> None:
        self.scope = Scope("a test", "x")
        self.asked: list[int] = []
        self.is_closed = False
        self._servers: list[grpc.Server] = []
        info_type = wire.METADATA_METHODS["DescribeExchange"][1]
        address = self._serve(
            wire.METADATA_SERVICE,
            DescribeExchange=grpc.unary_unary_rpc_method_handler(
                self._describe, response_serializer=info_type.SerializeToString
            ),
        )
        self._metadata = MetadataClient(address, self.scope, 1.0)

    def gather(self, *sources: list[Answer], service_timeout_s: float = 1.0) -> list[bytes]:
        snapshot = ReadSnapshot(
            version=1,
            generation=1,
            build=1,
            mappers=np.array([1], np.uint32),
            attempts=np.array([2], np.uint64),
            rows=4,
            raw_bytes=28,
            digest=DIGEST,
            sources=tuple(
                Source(0, epoch, tuple(self._daemon(answer) for answer in answers))
                for epoch, answers in enumerate(sources, 1)
            ),
        )
        merge = PartitionMerge(snapshot, exchange=5, partition=0, named=BitMap([1]), shuffle_id="x")
        gatherer = Gatherer(self._metadata, self.scope, INFO, 0, service_timeout_s, lambda: None)
        try:
            return [bytes(decoded.content) for decoded in gatherer.gather(merge, snapshot)]
        finally:
            gatherer.close()

    def close(self) -> None:
        self._metadata.close()
        for server in self._servers:
            server.stop(0).wait()

    def _daemon(self, answer: Answer) -> DaemonRef:
        index = len(self._servers)

        def fetch(request: bytes, context: Any) -> Iterator[bytes]:
            asked = spb.FetchRequest.FromString(request)
            assert (asked.number, asked.partition) == (5, 0)
            self.asked.append(index)
            return answer(context)

        address = self._serve(
            wire.SHUFFLE_SERVICE, Fetch=grpc.unary_stream_rpc_method_handler(fetch)
        )
        return DaemonRef(index, address)

    def _describe(self, request: bytes, context: Any) -> Any:
        if self.is_closed:
            error = wire.error_to_bytes(ExchangeClosed("closed"))
            context.set_trailing_metadata(((wire.ERROR_KEY, error),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "closed")
        return wire.info_to_pb(INFO)

    def _serve(self, service: str, **handlers: Any) -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._servers.append(server)
        return f"127.0.0.1:{port}"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.mark.parametrize(
    ("sources", "asked"),
    [
        ([[has(0, 1, 2, 3), has()]], [1]),
        ([[has(0, 1)], [has(2, 3)]], [1, 2]),
        ([[has(0, 1, 2, 3)], [has(0)]], [1]),  # all that is missing is nothing
        ([[has(0, 0, 1, 1, 2, 3)]], [1]),
        ([[has(0, 1, 2), has(3)]], [1, 1, 2]),  # the second opinion
        ([[rotten, has(0)]], [1, 2]),
        ([[fails(DataCorrupted("cut short")), has(0, 1, 2, 3)]], [1, 2]),
        ([[nonsense, has(0, 1, 2, 3)]], [1, 2]),
        ([[breaks_after(0, 1), has(1, 2, 3)]], [1, 2]),
    ],
)
def test_rows_come_once_from_whoever_has_them(
    cluster: Cluster, sources: list[list[Answer]], asked: list[int]
) -> None:
    assert cluster.gather(*sources) == [b"content"] * 4
    assert cluster.asked == asked


def test_a_stream_that_breaks_is_fetched_again(cluster: Cluster) -> None:
    rows = cluster.gather([breaks_after(0, 1, times=2)])
    assert rows == [b"content"] * 4
    assert cluster.asked == [1, 1, 1]


def test_what_nobody_has_is_lost_once_all_were_asked(cluster: Cluster) -> None:
    with pytest.raises(DataLost, match="3 of 4"):
        cluster.gather([has(0), has(1)], [has(0), has(2)])
    assert sorted(set(cluster.asked)) == [1, 2, 3, 4]


def test_what_is_broken_everywhere_is_corrupted(cluster: Cluster) -> None:
    with pytest.raises(DataCorrupted, match=r"127\.0\.0\.1|checksum"):
        cluster.gather([rotten, rotten])


def test_a_closed_exchange_is_not_called_lost(cluster: Cluster) -> None:
    cluster.is_closed = True
    with pytest.raises(ExchangeClosed):
        cluster.gather([has()])
    with pytest.raises(ExchangeClosed):
        cluster.gather([fails(ExchangeClosed("dropped"))])


def test_daemons_that_do_not_answer_are_waited_for_so_long(cluster: Cluster) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be fetched") as caught:
        cluster.gather([breaks_after(0)], service_timeout_s=0.3)
    assert caught.value.retriable
    assert len(cluster.asked) > 1


def test_closing_ends_it(cluster: Cluster) -> None:
    cluster.scope.close()
    with pytest.raises(ClientClosed):
        cluster.gather([has(0, 1, 2, 3)])
