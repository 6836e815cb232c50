"""Several partitions with one wait and one stream a daemon, and what comes of it if that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap
from support.exchanges import until

from cosco.client import live_object
from cosco.client.access.service_connection import Connection
from cosco.client.read import row_source, shared_watch
from cosco.client.read.reader import CoscoReader
from cosco.client.read.state import read_plan, shared_reading
from cosco.errors import (
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    DataLost,
    ExchangeClosed,
    InvalidArgument,
    PartitionOutOfRange,
)
from cosco.format.block import CODEC_NONE, FLAG_LENGTHS, HEADER_BYTES, encode_block, parse_header
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchRequest
from cosco.protocol.records import (
    MASK64,
    CommitWait,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    LossReport,
    PartitionRange,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    RowKind,
    Source,
)

import grpc  # isort: skip  (after cosco, which turns its fork support on)

pytestmark = pytest.mark.usefixtures("read_mechanics")

WAIT_S = 20.0
PER_RANGE = 4
RANGES = tuple(PartitionRange(i, PER_RANGE * i, PER_RANGE) for i in range(3))
PARTITIONS = range(12)
MAPPERS = (1, 2)
ROWS = 2  # of each mapper in each partition
#: Partitions where nobody wrote anything.
EMPTY = {2, 9}


def row(partition: int, mapper: int, number: int) -> bytes:
    return b"%d/%d/%d" % (partition, mapper, number)


def rows_of(partition: int, mappers: tuple[int, ...] = MAPPERS) -> list[bytes]:
    if partition in EMPTY:
        return []
    return [row(partition, mapper, number) for mapper in mappers for number in range(ROWS)]


def block(partition: int, mapper: int, number: int) -> bytes:
    content = row(partition, mapper, number)
    header, stored, _ = encode_block(
        exchange=5, partition=partition, mapper=mapper, attempt=7, first_row=number, rows=1,
        content=len(content).to_bytes(4, "little") + content, codec=CODEC_NONE, lengths=True,
    )  # fmt: skip
    assert parse_header(header).flags == FLAG_LENGTHS
    return header + stored


def blocks_of(partition: int) -> list[bytes]:
    if partition in EMPTY:
        return []
    return [block(partition, mapper, number) for mapper in MAPPERS for number in range(ROWS)]


class Daemon:
    """Has blocks, and answers as it is told."""

    def __init__(self, incarnation: int) -> None:
        self.blocks = {partition: blocks_of(partition) for partition in PARTITIONS}
        self.requests: list[FetchRequest] = []
        #: Called before a partition, with the context and whether it is of a shared stream.
        self.faults: dict[int, Callable[[Any, bool], None]] = {}
        self.changes: Callable[[list[bytes]], list[bytes]] = list
        self.server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.unary_stream_rpc_method_handler(self._fetch)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SHUFFLE_SERVICE, {"Fetch": handler}),)
        )
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.ref = DaemonRef(incarnation, f"127.0.0.1:{port}")

    def partitions(self, *, several: bool) -> list[list[int]]:
        """Which partitions each request was for."""
        return [
            sorted(p for part in request.parts for p in part.partitions)
            for request in self.requests
            if request.several is several
        ]

    def _fetch(self, message: bytes, context: Any) -> Iterator[bytes]:
        request = wire.fetch_request_from_bytes(message)
        assert request.number == 5
        self.requests.append(request)
        yield from self.changes(list(self._replies(request, context)))

    def _replies(self, request: FetchRequest, context: Any) -> Iterator[bytes]:
        for partition in PARTITIONS:
            for number, part in enumerate(request.parts):
                if partition not in part.partitions:
                    continue
                if fault := self.faults.get(partition):
                    fault(context, request.several)
                for one in self.blocks[partition]:
                    is_bare = request.mappers and parse_header(one).mapper not in request.mappers
                    body = one[:HEADER_BYTES] if is_bare else one
                    yield wire.fetch_section(len(body), stored=False, headers=bool(is_bare))
                    yield wire.fetch_data([memoryview(body)])
                if request.several:
                    yield wire.fetch_end(number, partition)


class Streaming(Daemon):
    """Sends what it has before it comes to a fault."""

    def _fetch(self, message: bytes, context: Any) -> Iterator[bytes]:
        request = wire.fetch_request_from_bytes(message)
        self.requests.append(request)
        yield from self._replies(request, context)


class Service:
    """The metadata service: one build of each range, until a loss of it is reported."""

    def __init__(self, daemons: list[Daemon]) -> None:
        self.connection = Connection("127.0.0.1:1")
        self.daemons = daemons
        self.builds = [1, 1, 1]
        #: Of each range; those of the next build are taken when one is lost.
        self.sources: list[list[tuple[Source, ...]]] = [
            [(Source(i, 1, (daemons[i % len(daemons)].ref,)),)] for i in range(3)
        ]
        self.waiting: set[int] = set()
        self.questions: list[tuple[list[int], bool]] = []
        self.losses: list[LossReport] = []
        self.reported: list[DaemonRef] = []
        self.on_ask: Callable[[], None] = lambda: None
        self.is_told_at_once = False

    def info(self) -> ExchangeInfo:
        spec = ExchangeSpec("x", len(PARTITIONS))
        return ExchangeInfo(5, spec, 1, RowKind.BYTES, b"", RANGES, ())

    def __call__(self, *arguments: Any) -> Service:
        return self

    def begin_reading(self, *arguments: Any) -> tuple[ExchangeInfo, None]:
        return self.info(), None

    def begin_reading_ranges(
        self, shuffle_id: str, mappers: BitMap, partitions: BitMap
    ) -> tuple[ExchangeInfo, RangesWait | None]:
        return self.info(), self._wait(partitions) if self.is_told_at_once else None

    def await_ranges(
        self,
        number: int,
        mappers: BitMap,
        partitions: BitMap,
        generation: int,
        *,
        wait_s: float,
        outage_s: float | None,
    ) -> RangesWait:
        assert (number, generation) == (5, 1)
        self.questions.append((list(partitions), wait_s > 0))
        self.on_ask()
        return self._wait(partitions)

    def await_commits(
        self, number: int, mappers: BitMap, partition: int, generation: int, **options: Any
    ) -> CommitWait:
        [found] = self._wait(BitMap([partition])).ranges
        return CommitWait(next(found.snapshots())[1])

    def _wait(self, partitions: BitMap) -> RangesWait:
        found, waiting = [], BitMap()
        for one in RANGES:
            asked = BitMap(range(one.first, one.end)) & partitions
            if one.index in self.waiting:
                waiting |= asked
            elif asked:
                found.append(self._snapshot(one.index, list(asked)))
        return RangesWait(tuple(found), waiting, BitMap([2]) if waiting else BitMap())

    def _snapshot(self, index: int, partitions: list[int]) -> RangeSnapshot:
        headers = [[parse_header(b) for b in blocks_of(partition)] for partition in partitions]
        build = self.builds[index]
        common = ReadSnapshot(
            version=sum(self.builds),
            generation=1,
            build=build,
            mappers=np.array(MAPPERS, np.uint32),
            attempts=np.array([7, 7], np.uint64),
            rows=0,
            raw_bytes=0,
            digest=0,
            sources=self.sources[index][build - 1],
        )
        return RangeSnapshot(
            common,
            np.array(partitions, np.uint32),
            np.array([sum(h.rows for h in one) for one in headers], np.uint64),
            np.array([sum(h.row_bytes for h in one) for one in headers], np.uint64),
            np.array([sum(h.digest for h in one) & MASK64 for one in headers], np.uint64),
        )

    def report_daemon(self, daemon: DaemonRef, *, insist: bool) -> bool:
        self.reported.append(daemon)
        return True

    def report_loss(self, report: LossReport) -> None:
        self.losses.append(report)
        index = report.partition // PER_RANGE
        if report.build == self.builds[index]:
            self.builds[index] += 1

    def close(self) -> None:
        pass


class World:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.daemons: list[Daemon] = []
        self._patch = patch
        self._readers: list[CoscoReader] = []
        self.service = Service([self.daemon(), self.daemon()])
        patch.setattr(live_object, "MetadataClient", lambda *_: self.service)

    def daemon(self, kind: type[Daemon] = Streaming) -> Daemon:
        self.daemons.append(kind(len(self.daemons) + 1))
        return self.daemons[-1]

    def reader(
        self, partitions: Any = PARTITIONS, mappers: Any = MAPPERS, **options: Any
    ) -> CoscoReader:
        options = {"timeout_s": 0.0, "service_timeout_s": 5.0, **options}
        made = CoscoReader("x", mappers, partitions, metadata="127.0.0.1:1", **options)
        self._readers.append(made)
        return made

    def check_read(self, reader: CoscoReader, partitions: Any = PARTITIONS, **o: Any) -> None:
        """Read all, and see that each row of each partition comes once, at its place."""
        found: dict[int, list[bytes]] = {partition: [] for partition in partitions}
        order = []
        for one in reader:
            found[reader.partition].append(one)
            order.append(reader.partition)
        assert order == sorted(order)
        assert {p: sorted(rows) for p, rows in found.items()} == {
            p: rows_of(p, **o) for p in partitions
        }

    def requests(self, *, several: bool) -> list[list[list[int]]]:
        return [daemon.partitions(several=several) for daemon in self.daemons]

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for daemon in self.daemons:
            daemon.server.stop(0).wait()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    yield world
    world.close()


def with_rows(partitions: Any) -> list[int]:
    return [partition for partition in partitions if partition not in EMPTY]


FIRST, SECOND = with_rows([0, 1, 2, 3, 8, 9, 10, 11]), with_rows([4, 5, 6, 7])


# --- what it costs --------------------------------------------------------------------------------


def test_one_question_and_one_request_to_each_daemon(world: World) -> None:
    world.check_read(world.reader())
    assert world.service.questions == [(list(PARTITIONS), False)]
    assert world.requests(several=True) == [[FIRST], [SECOND]]
    assert world.requests(several=False) == [[], []]


def test_what_was_said_when_the_reader_was_made_is_not_asked_for(world: World) -> None:
    world.service.is_told_at_once = True
    world.check_read(world.reader())
    assert world.service.questions == []
    assert world.requests(several=True) == [[FIRST], [SECOND]]


@pytest.mark.parametrize(
    "partitions", [[11, 0, 5], np.array([5, 11, 0]), range(11, -1, -1), (3,), {1, 10}, [2, 9]]
)
def test_partitions_come_ascending_in_whichever_order_they_are_named(
    world: World, partitions: Any
) -> None:
    named = sorted(int(partition) for partition in partitions)
    world.check_read(world.reader(partitions), named)
    tables = list(world.reader(partitions).read_tables())
    assert [partition for partition, _ in tables] == named
    for partition, table in tables:
        assert sorted(table.column("row").to_pylist()) == rows_of(partition)


def test_batches_are_of_one_partition_each(world: World) -> None:
    reader = world.reader()
    assert reader.partition == 0
    found = []
    for batch in reader.read_batches(max_bytes=1 << 20, order="mapper"):
        rows = batch.column("row").to_pylist()
        assert rows == rows_of(reader.partition)
        found.append(reader.partition)
    assert found == with_rows(PARTITIONS)
    assert reader.partition == 11


@pytest.mark.parametrize("order", [None, "mapper"])
def test_one_table_of_all(world: World, order: Any) -> None:
    reader = world.reader([3, 0, 8])
    rows = reader.read_table(order=order).column("row").to_pylist()
    cuts = [sorted(rows[i : i + 4]) if order is None else rows[i : i + 4] for i in (0, 4, 8)]
    assert cuts == [rows_of(0), rows_of(3), rows_of(8)]
    assert reader.partition == 8


def test_no_thread_and_no_stream_is_left(world: World) -> None:
    world.check_read(world.reader())
    reader = world.reader()
    next(reader)
    assert [t.name for t in threading.enumerate() if t.name == "cosco-fetch"] == ["cosco-fetch"]
    reader.close()
    until(lambda: all(t.name != "cosco-fetch" for t in threading.enumerate()), WAIT_S, "no thread")


def test_no_stream_is_left_by_a_table_that_failed_and_whose_error_is_kept(world: World) -> None:
    reader = world.reader(max_held_bytes=1000)
    with pytest.raises(CapacityExceeded) as kept:
        reader.read_table(order="mapper")
    reader.close()
    assert all(t.name != "cosco-fetch" for t in threading.enumerate())
    assert kept.value.partition == 0


@pytest.mark.parametrize("partitions", [[], [1, 1], (), np.array([], int), range(0)])
def test_none_or_one_twice(world: World, partitions: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"no partition is named|partition 1 is named twice"):
        world.reader(partitions)


@pytest.mark.parametrize("partitions", [[0, 12], [-1, 3], range(2**40), range(-(2**40), 1)])
def test_one_on_either_side_of_those_there_are(world: World, partitions: Any) -> None:
    with pytest.raises(PartitionOutOfRange, match="it has partitions 0 to 11") as caught:
        world.reader(partitions)
    assert caught.value.partition in (12, -1, 2**40 - 1, -(2**40))


# --- some mappers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [PARTITIONS, [3]])
def test_of_mappers_that_are_not_named_only_headers_are_fetched(
    world: World, partitions: Any
) -> None:
    world.check_read(world.reader(partitions, [2]), partitions, mappers=(2,))
    requests = [request for daemon in world.daemons for request in daemon.requests]
    assert {tuple(request.mappers) for request in requests} == {(2,)}
    assert not world.service.losses


@pytest.mark.parametrize("bit", [8, 20, 36, 42, 60])
def test_a_header_that_was_changed_is_fetched_again_with_its_block(world: World, bit: int) -> None:
    def changed(messages: list[bytes]) -> list[bytes]:
        if len(daemon.requests) == 1:
            for i, message in enumerate(messages):
                if len(message) == HEADER_BYTES + 2:  # a header alone
                    torn = bytearray(message)
                    torn[2 + bit] ^= 1
                    messages[i] = bytes(torn)
                    break
        return messages

    daemon = world.daemon(Daemon)
    daemon.changes = changed
    world.service.sources[0] = [(Source(0, 1, (daemon.ref,)),)]
    world.check_read(world.reader(range(4), [2]), range(4), mappers=(2,))
    assert [list(r.mappers) for r in daemon.requests] == [[2], [], [2]]
    assert not world.service.losses


# --- what goes wrong ------------------------------------------------------------------------------


def breaks(context: Any, several: bool) -> None:
    if several:
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


def test_a_stream_that_breaks_costs_one_partition_a_fetch_of_its_own(world: World) -> None:
    world.daemons[0].faults[3] = breaks
    world.check_read(world.reader())
    assert world.requests(several=False) == [[[3]], []]
    # Those that were given are not asked for again.
    assert world.requests(several=True)[0] == [FIRST, with_rows([8, 9, 10, 11])]
    assert not world.service.losses


def test_all_streams_end_when_one_breaks(world: World) -> None:
    first, second = world.daemons
    for partition in range(4):
        first.blocks[partition] = first.blocks[partition][:2]
        second.blocks[partition] = second.blocks[partition][2:]
    first.faults[1] = breaks
    world.service.sources[0] = [(Source(0, 1, (first.ref,)), Source(0, 2, (second.ref,)))]
    world.check_read(world.reader(range(4)), range(4))
    # The second one has its part of the broken partition at hand, and is asked for it alone.
    assert world.requests(several=False) == [[[1]], [[1]]]
    assert world.requests(several=True) == [[[0, 1, 3], [3]]] * 2


def test_a_partition_that_lacks_a_row_is_alone_in_its_loss(world: World) -> None:
    first, second = world.daemons
    del first.blocks[3][1]
    second.blocks[0] = []  # nobody may ask it for what was given
    world.service.sources[0].append((Source(0, 2, (second.ref,)),))
    world.check_read(world.reader())
    assert [(loss.partition, loss.build) for loss in world.service.losses] == [(3, 1)]
    assert world.requests(several=False) == [[[3]], [[3]]]  # the second opinion, the next build
    asked_later = [p for request in second.partitions(several=True) for p in request]
    assert 0 not in asked_later
    assert 1 not in asked_later


def test_a_loss_of_a_partition_that_was_given_in_part(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_source, "HOLD_BYTES", 0)
    del world.daemons[0].blocks[3][3]
    world.service.sources[0].append((Source(0, 2, (world.daemons[1].ref,)),))
    reader = world.reader()
    found = []
    with pytest.raises(DataLost, match="partition 3 of exchange 'x'") as caught:
        found += [(reader.partition, row) for row in reader]
    assert (caught.value.partition, caught.value.retriable) == (3, True)
    with pytest.raises(DataLost):
        next(reader)
    world.check_read(world.reader(range(3, 12)), range(3, 12))


@pytest.mark.parametrize(
    "change",
    [
        lambda messages: messages[:-2],
        lambda messages: messages[::-1],
        lambda messages: [m for m in messages if len(m) > 6],
        lambda messages: [wire.fetch_end(0, 1), *messages],
        lambda messages: [b"nonsense", *messages],
        lambda messages: [*messages[1:]],
    ],
)
def test_a_daemon_that_sends_nonsense_is_asked_for_one_at_a_time(
    world: World, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    daemon = world.daemon(Daemon)
    daemon.changes = lambda messages: (
        change(messages) if daemon.requests[-1].several else list(messages)
    )
    world.service.sources[0] = [(Source(0, 1, (daemon.ref,)),)]
    world.check_read(world.reader())
    assert daemon.partitions(several=False)
    assert not world.service.losses


def test_rows_of_another_partition_do_not_count_for_this_one(world: World) -> None:
    daemon = world.daemons[0]
    daemon.blocks[1], daemon.blocks[3] = daemon.blocks[3], daemon.blocks[1]
    world.service.sources[0].append((Source(0, 2, (world.daemons[1].ref,)),))
    world.check_read(world.reader())
    assert [loss.partition for loss in world.service.losses] == [1]


def test_a_daemon_that_stalls_is_asked_last_from_then_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_plan, "STALL_S", 0.3)

    def stalls(context: Any, several: bool) -> None:
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(WAIT_S)

    first, second = world.daemons
    for partition in range(1, 4):
        first.faults[partition] = stalls
    both = (Source(0, 1, (first.ref, second.ref)),)
    world.service.sources[0] = [both]
    world.check_read(world.reader(range(4)), range(4))
    assert first.partitions(several=True) == [[0, 1, 3]]
    assert first.partitions(several=False) == []
    assert second.partitions(several=False) == [[1]]
    assert second.partitions(several=True) == [[3]]


def test_a_daemon_is_not_taken_up_while_another_one_lets_the_reader_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or two readers, each of which has the turn that the other one waits for, would wait."""
    monkeypatch.setattr(shared_watch, "IDLE_S", 0.1)
    first, second = world.daemons
    is_free = threading.Event()

    def holds(context: Any, several: bool) -> None:
        if several:
            context.add_callback(is_free.set)
            is_free.wait(WAIT_S)

    def has_no_turn(context: Any, several: bool) -> None:
        is_free.wait(WAIT_S)

    first.faults[8] = holds
    second.faults[4] = has_no_turn
    world.check_read(world.reader())
    assert not world.service.reported
    assert world.requests(several=False) == [[[8]], []]
    assert world.requests(several=True)[1] == [SECOND]


def test_no_daemon_is_taken_up_by_a_caller_that_is_busy_with_what_it_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_watch, "IDLE_S", 0.1)
    is_free = threading.Event()

    def holds(context: Any, several: bool) -> None:
        if several and not is_free.is_set():
            context.add_callback(is_free.set)
            is_free.wait(WAIT_S)

    world.daemons[0].faults[1] = holds
    tables = {}
    for partition, table in world.reader().read_tables():
        assert is_free.wait(WAIT_S)
        tables[partition] = sorted(table.column("row").to_pylist())
    assert tables == {partition: rows_of(partition) for partition in PARTITIONS}
    assert not world.service.reported
    assert world.requests(several=False) == [[[1]], []]


def test_partitions_that_wait_are_waited_for_at_their_turn(world: World) -> None:
    service = world.service
    service.waiting = {1, 2}

    def on_ask() -> None:
        if len(service.questions) == 4:
            service.waiting = {2}
        if len(service.questions) == 7:
            service.waiting = set()

    service.on_ask = on_ask
    reader = world.reader(timeout_s=WAIT_S)
    assert [next(reader) for _ in range(12)]
    assert (reader.partition, len(service.questions)) == (3, 1)
    world.check_read(reader, range(4, 12))
    rest, of_range = list(range(4, 12)), [4, 5, 6, 7]
    assert service.questions == [
        (list(PARTITIONS), False),
        (rest, False),
        (of_range, True),
        (of_range, True),
        ([8, 9, 10, 11], False),
        ([8, 9, 10, 11], True),
        ([8, 9, 10, 11], True),
    ]


def test_the_time_of_a_wait_is_over(world: World) -> None:
    world.service.waiting = {1}
    reader = world.reader()
    rows = [next(reader) for _ in range(12)]
    with pytest.raises(CommitTimeout) as caught:
        next(reader)
    assert (caught.value.partition, list(caught.value.mappers)) == (4, [2])
    assert len(rows) == 12


def test_as_many_streams_as_there_may_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reading, "MAX_STREAMS", 1)
    world.check_read(world.reader())
    assert world.requests(several=True) == [
        [with_rows(range(4)), with_rows(range(8, 12))],
        [SECOND],
    ]
    assert len(world.service.questions) == 1


def test_a_closed_exchange(world: World) -> None:
    def closed(context: Any, several: bool) -> None:
        error = ExchangeClosed("dropped")
        context.set_trailing_metadata(((wire.ERROR_KEY, wire.error_to_bytes(error)),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")

    def on_ask() -> None:
        if len(world.service.questions) > 1:
            raise ExchangeClosed("closed")

    world.daemons[0].faults[1] = closed
    world.service.on_ask = on_ask
    reader = world.reader()
    with pytest.raises(ExchangeClosed):
        list(reader)
    assert reader.partition == 0


def test_closing_wakes_a_reader_and_ends_its_streams(world: World) -> None:
    come, ended = threading.Event(), threading.Event()

    def stalls(context: Any, several: bool) -> None:
        context.add_callback(ended.set)
        come.set()
        ended.wait(WAIT_S)

    world.daemons[1].faults[5] = stalls
    reader = world.reader()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, reader)
        assert come.wait(WAIT_S)
        reader.close()
        with pytest.raises(ClientClosed):
            reading.result(WAIT_S)
    assert ended.wait(WAIT_S)
