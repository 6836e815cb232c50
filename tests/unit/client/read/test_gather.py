"""Daemons that miss rows, break off or lie low; what a plan decides is really done."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap

from cosco.client.read.fetch_call import StallWatch
from cosco.client.read.gather import BegunAnew, Gatherer
from cosco.client.read.state import read_plan
from cosco.client.read.state.merge import PartitionMerge
from cosco.client.read.state.read_plan import AwaitCommits, ReadPlan
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    CoscoError,
    DataCorrupted,
    DataLost,
    ExchangeClosed,
    GenerationChanged,
    ServiceUnavailable,
)
from cosco.format.block import CODEC_NONE, encode_block
from cosco.protocol import wire
from cosco.protocol.records import (
    MASK64,
    CommitWait,
    DaemonRef,
    LossCause,
    LossReport,
    ReadSnapshot,
    Source,
)
from cosco.protocol.wire import spb

import grpc  # isort: skip  (after cosco, which turns its fork support on)

pytestmark = pytest.mark.usefixtures("read_mechanics")

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


def silent(context: Any) -> Iterator[bytes]:
    """Gives one block, then nothing, until the call is cancelled."""
    ended = threading.Event()
    context.add_callback(ended.set)
    yield from has(0)(context)
    ended.wait(20)


def merge_of(snapshot: ReadSnapshot) -> PartitionMerge:
    return PartitionMerge(snapshot, exchange=5, partition=0, named=BitMap([1]))


class Cluster:
    """Daemons that answer Fetch in turn as told, and a metadata service that takes reports.

    `builds` are what it has of the partition, one after the other; each is sources, and each
    source the answers of its daemons.
    """

    def __init__(self) -> None:
        self.scope = Scope("a test", "x")
        self.asked: list[int] = []
        self.files: list[bool] = []
        self.is_closed = False
        #: Addresses of daemons that were reported, and what is said of them then.
        self.reported: list[str] = []
        self.alive = True
        self.losses: list[LossReport] = []
        self.forgets = False  # the losses
        self.missing = BitMap([1])
        #: Raised by the wait for the build that has this number.
        self.no_build: dict[int, CoscoError] = {}
        self._builds: list[ReadSnapshot] = []
        self._servers: list[grpc.Server] = []
        address = self._serve(
            wire.METADATA_SERVICE,
            ReportDaemon=self._unary("ReportDaemon", self._report_daemon),
            ReportLoss=self._unary("ReportLoss", self._report_loss),
        )
        self._metadata = MetadataClient(address, self.scope, 1.0)

    def gather(
        self,
        *builds: list[list[Answer]],
        service_timeout_s: float = 1.0,
        timeout_s: float | None = 0.0,
        given: bool = False,
    ) -> list[bytes]:
        """The rows of the build that was read to its end; `given`: to a caller who keeps them."""
        self._builds = [
            ReadSnapshot(
                version=1,
                generation=1,
                build=number,
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
            for number, sources in enumerate(builds, 1)
        ]
        gatherer = Gatherer(
            self._metadata,
            self.scope,
            5,
            1,
            watch=SimpleNamespace(wait=self._ask, ahead=lambda *_: None),
        )
        plan = ReadPlan(timeout_s=timeout_s, service_timeout_s=service_timeout_s)
        try:
            while True:
                rows = []
                try:
                    for decoded in gatherer.gather(plan, 0, merge_of):
                        rows.append(bytes(decoded.content))
                        if given:
                            plan.gave()
                except BegunAnew:
                    continue
                return rows
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
            self.files.append(asked.files)
            return answer(context)

        address = self._serve(
            wire.SHUFFLE_SERVICE, Fetch=grpc.unary_stream_rpc_method_handler(fetch)
        )
        return DaemonRef(index, address)

    def _ask(self, step: AwaitCommits) -> CommitWait:
        if self.is_closed and self.asked:
            raise ExchangeClosed("closed")
        ended = 0 if self.forgets else len(self.losses)
        if ended + 1 in self.no_build:
            raise self.no_build[ended + 1]
        if ended < len(self._builds):
            return CommitWait(self._builds[ended])
        return CommitWait(None, self.missing, recompute=True)

    def _report_daemon(self, request: bytes, context: Any) -> Any:
        asked = wire.mpb.ReportDaemonRequest.FromString(request)
        self.reported.append(asked.daemon.address)
        return wire.mpb.ReportDaemonReply(alive=self.alive)

    def _report_loss(self, request: bytes, context: Any) -> Any:
        loss = wire.from_pb(LossReport, wire.mpb.ReportLossRequest.FromString(request))
        self.losses.append(loss)
        return wire.mpb.ReportLossReply()

    @staticmethod
    def _unary(method: str, answer: Callable[[bytes, Any], Any]) -> Any:
        reply_type = wire.METADATA_METHODS[method][1]
        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=reply_type.SerializeToString
        )

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
    assert cluster.gather(sources) == [b"content"] * 4
    assert cluster.asked == asked
    assert not cluster.losses


def test_who_did_not_write_an_epoch_is_asked_for_files_as_well(cluster: Cluster) -> None:
    cut = fails(DataCorrupted("cut short"))
    assert cluster.gather([[has(0, 1), has()], [cut, has(2, 3)]]) == [b"content"] * 4
    assert cluster.files == [False, False, True]


def test_a_stream_that_breaks_is_fetched_again(cluster: Cluster) -> None:
    rows = cluster.gather([[breaks_after(0, 1, times=2)]])
    assert rows == [b"content"] * 4
    assert cluster.asked == [1, 1, 1]
    assert len(set(cluster.reported)) == 1


def test_a_daemon_from_which_nothing_comes_is_left(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_plan, "STALL_S", 0.2)
    assert cluster.gather([[silent, has(0, 1, 2, 3)]]) == [b"content"] * 4
    assert cluster.asked == [1, 2]
    assert not cluster.reported  # another one had it all


def test_a_daemon_that_cannot_serve_now_is_asked_again(cluster: Cluster) -> None:
    answers = [has(0, 1, 2, 3), fails(CapacityExceeded("no room for copies"))]

    def answer(context: Any) -> Iterator[bytes]:
        return answers.pop()(context)

    assert cluster.gather([[answer]]) == [b"content"] * 4
    assert cluster.asked == [1, 1]
    assert not cluster.reported  # it is there


def test_who_may_not_read_is_told_so_and_reports_nothing(cluster: Cluster) -> None:
    """It says nothing of the rows, and other daemons would say the same."""
    with pytest.raises(AccessDenied, match="not you") as caught:
        cluster.gather([[fails(AccessDenied("not you")), has(0, 1, 2, 3)]])
    assert caught.value.shuffle_id == "x"
    assert cluster.asked == [1]
    assert not cluster.losses
    assert not cluster.reported


def test_rows_that_nobody_has_are_reported_and_read_from_the_next_build(cluster: Cluster) -> None:
    rows = cluster.gather([[has(0), has(1)], [has(0), has(2)]], [[has(0, 1, 2, 3)]])
    assert rows == [b"content"] * 4
    assert sorted(set(cluster.asked)) == [1, 2, 3, 4, 5]
    [loss] = cluster.losses
    assert (loss.number, loss.generation, loss.build, loss.partition) == (5, 1, 1, 0)
    assert loss.cause is LossCause.MISSING
    assert "3 of 4" in loss.reason


def test_what_is_broken_everywhere_is_gone(cluster: Cluster) -> None:
    assert cluster.gather([[rotten, rotten]], [[has(0, 1, 2, 3)]]) == [b"content"] * 4
    [loss] = cluster.losses
    assert loss.cause is LossCause.GONE
    assert "127.0.0.1" in loss.reason


def test_the_wait_for_a_rebuild_is_bounded(cluster: Cluster) -> None:
    with pytest.raises(CommitTimeout) as caught:
        cluster.gather([[has(0)]], timeout_s=0.1)
    assert caught.value.recompute
    assert caught.value.mappers == (1,)
    assert len(cluster.losses) == 1


def test_a_time_out_names_the_mappers(cluster: Cluster) -> None:
    cluster.missing = BitMap(range(7, 27))
    with pytest.raises(
        CommitTimeout, match=r"in 0 s: 7, 8, 9, 10, 11, 12, 13, 14 and 12 more;"
    ) as e:
        cluster.gather()
    assert e.value.mappers == tuple(range(7, 27))


def test_what_the_service_makes_of_a_loss_is_raised(cluster: Cluster) -> None:
    cluster.no_build[2] = DataLost("no callback", mappers=[1])
    with pytest.raises(DataLost, match="no callback"):
        cluster.gather([[has(0)]])


def test_a_build_that_goes_on_after_its_loss_is_not_read_for_ever(cluster: Cluster) -> None:
    same: list[list[Answer]] = [[rotten]]
    cluster.forgets = True
    with pytest.raises(DataCorrupted, match="checksum"):
        cluster.gather(same, same)


def test_rows_that_were_given_are_not_given_again(cluster: Cluster) -> None:
    with pytest.raises(DataLost, match="another reader") as caught:
        cluster.gather([[has(0)]], [[has(0, 1, 2, 3)]], given=True)
    assert caught.value.retriable
    assert caught.value.mappers == (1,)
    assert len(cluster.losses) == 1
    assert 2 not in cluster.asked


def test_rows_that_were_given_and_are_lost_for_good(cluster: Cluster) -> None:
    cluster.no_build[2] = GenerationChanged("began anew")
    with pytest.raises(GenerationChanged):
        cluster.gather([[has(0)]], given=True)


def test_a_closed_exchange_is_not_called_lost(cluster: Cluster) -> None:
    cluster.is_closed = True
    with pytest.raises(ExchangeClosed):
        cluster.gather([[has()]])
    with pytest.raises(ExchangeClosed):
        cluster.gather([[fails(ExchangeClosed("dropped"))]])
    assert not cluster.losses


def test_daemons_that_do_not_answer_are_waited_for_so_long(cluster: Cluster) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be fetched") as caught:
        cluster.gather([[breaks_after(0)]], service_timeout_s=0.3)
    assert caught.value.retriable
    assert len(cluster.asked) > 1


def test_closing_ends_it(cluster: Cluster) -> None:
    cluster.scope.close()
    with pytest.raises(ClientClosed):
        cluster.gather([[has(0, 1, 2, 3)]])


def test_no_thread_is_left(cluster: Cluster) -> None:
    cluster.gather([[has(0, 1, 2, 3)]])
    assert not [t for t in threading.enumerate() if t.name == "cosco-fetch"]


def test_no_thread_outlives_a_reader_that_is_closed_under_way(cluster: Cluster) -> None:
    class Replies:
        """A call that does not keep time by itself."""

        def __init__(self) -> None:
            self.left = [b"two", b"one"]

        def __next__(self) -> bytes:
            return self.left.pop()

    watch = StallWatch(cluster.scope)
    call: Any = Replies()
    replies = watch.replies(call, 20.0)
    next(replies)
    [thread] = [t for t in threading.enumerate() if t.name == "cosco-fetch"]
    cluster.scope.close()  # and nobody ends `replies`
    thread.join(20.0)
    assert not thread.is_alive()
    watch.stop()
