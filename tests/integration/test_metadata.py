"""The metadata service over gRPC: the real server, on a free port of the loopback."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyroaring import BitMap
from support.metadata_service import LONG_S, run, running

from cosco.config import MetadataConfig
from cosco.errors import (
    CapacityExceeded,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GenerationChanged,
    InvalidArgument,
    PartitionOutOfRange,
    SchemaMismatch,
    ServiceUnavailable,
)
from cosco.metadata.server import serve
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.store.sql import SqlStore
from cosco.protocol import wire
from cosco.protocol.api_limits import MAX_NAMED_MAPPERS, MAX_STALE_EPOCHS
from cosco.protocol.records import (
    Assignment,
    DaemonStatus,
    ExchangeInfo,
    ExchangeProgress,
    ExchangeStatus,
    OpenedAttempt,
    PartitionRange,
    RowKind,
)
from cosco.protocol.wire import mpb


class Gate:
    """Holds back or fails the database's writes while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.failures = 0
        self.writes = 0
        original = SqlStore.write

        def write(store: SqlStore, changes: Any) -> None:
            assert self.open.wait(20)
            self.writes += 1
            if self.failures:
                self.failures -= 1
                raise sqlite3.OperationalError("database or disk is full")
            original(store, changes)

        monkeypatch.setattr(SqlStore, "write", write)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


# --- the path of an exchange --------------------------------------------------------------


def test_a_reader_that_begins_is_told_only_what_stays_true(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            for name, deterministic in (("a", True), ("b", False)):
                await service.create(name, deterministic=deterministic)
                await service.commit(await service.open_attempt(0, name), 3)
            assert await service.begin_reading([0]) is not None
            assert await service.begin_reading([0, 1]) is None  # it waits for the other one
            assert await service.begin_reading([0], partition=4) is None  # there is none
            assert await service.begin_reading([0], shuffle_id="b") is None
            garbage = mpb.DescribeExchangeRequest(shuffle_id="a")
            garbage.reading.mappers = b"garbage"
            assert not (await service.call("DescribeExchange", garbage)).HasField("commits")

    run(test)


@pytest.mark.parametrize("address", ["host", "host:0", "host:70000", ":7", "a b:7", "host:x"])
def test_a_daemon_whose_address_is_none_is_not_registered(tmp_path: Path, address: str) -> None:
    """Every client and daemon would be sent there."""

    async def test() -> None:
        async with running(tmp_path) as service:
            with pytest.raises(InvalidArgument, match="is no address"):
                await service.register(address=address)
            assert not (await service.call("Status", mpb.StatusRequest())).daemons

    run(test)


def counted(attempts: Iterable[int]) -> list[int]:
    """The part of attempt ids that counts up; the rest nobody can guess."""
    return [int(attempt) >> 36 for attempt in attempts]


def test_an_exchange_from_its_creation_to_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            orders = await service.register()
            assert orders.known
            assert len(orders.cluster_id) == 16
            info = await service.create()
            assert await service.create() == info
            assert await service.describe() == info
            assert [a.primary.address for a in info.assignments] == ["host:1"] * 2

            found = await service.call(
                "LookupAssignment",
                mpb.LookupAssignmentRequest(number=1, range_index=1, epoch=1, incarnation=1),
            )
            assert wire.from_pb(Assignment, found.assignment) == info.assignments[1]
            assert wire.from_pb(PartitionRange, found.partition_range) == info.ranges[1]
            foreign = mpb.LookupAssignmentRequest(number=1, range_index=1, epoch=1, incarnation=2)
            reply = await service.call("LookupAssignment", foreign)
            assert not reply.HasField("assignment")

            fix = mpb.FixRowKindRequest(number=1, kind=mpb.ROW_KIND_BYTES)
            fixed = wire.from_pb(ExchangeInfo, await service.call("FixRowKind", fix))
            assert fixed.kind is RowKind.BYTES

            assert await service.write(7, 0, 3)
            assert await service.write(None, 0)
            wait = await service.wait([0, 7])
            assert wait.snapshot is not None
            assert wait.snapshot.mappers.tolist() == [0, 7]
            assert counted(wait.snapshot.attempts) == [2, 1]
            assert (wait.snapshot.rows, wait.snapshot.raw_bytes, wait.snapshot.digest) == (2, 20, 0)
            assert repr(await service.begin_reading([0, 7])) == repr(wait)  # of arrays
            reply = await service.call("Progress", mpb.ProgressRequest(number=1))
            progress = wire.from_pb(ExchangeProgress, reply)
            assert (progress.mappers_committed, progress.rows) == (2, 3)
            assert progress.partition_rows.tolist() == [2, 0, 0, 1]

            reply = await service.call("Status", mpb.StatusRequest())
            assert reply.cluster_id == orders.cluster_id
            assert wire.from_pb(DaemonStatus, reply.daemons[0]).assignments == 2
            assert wire.from_pb(ExchangeStatus, reply.exchanges[0]).rows == 3

            await service.close()
            await service.close()
            assert (await service.beat()).drop == (1,)
            assert (await service.beat(1, 1)).drop == ()
            with pytest.raises(ExchangeExists):
                await service.create()
            with pytest.raises(ExchangeClosed):
                await service.describe()
            assert (await service.create("b")).number == 2

    run(test)


def test_errors_arrive_as_they_were_meant(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            with pytest.raises(CapacityExceeded, match="no shuffle daemon") as capacity:
                await service.create()
            assert capacity.value.shuffle_id == "a"
            assert capacity.value.retriable
            await service.register()
            with pytest.raises(CapacityExceeded, match="--host-id"):
                await service.create(replicas=2)
            with pytest.raises(ExchangeNotFound, match="'é…'"):
                await service.describe("é…")
            with pytest.raises(InvalidArgument, match="partitions is 0"):
                await service.create(partitions=0)
            await service.create(schema=b"schema")
            with pytest.raises(PartitionOutOfRange) as out_of_range:
                await service.wait([], partition=4)
            assert out_of_range.value.partition == 4
            with pytest.raises(InvalidArgument, match="another driver"):
                await service.poll(owner=b"p" * 16)
            opened = await service.open_attempt(1)
            with pytest.raises(InvalidArgument, match="no generation 2"):
                await service.commit(opened, 0, generation=2)
            with pytest.raises(SchemaMismatch):
                await service.call(
                    "FixRowKind", mpb.FixRowKindRequest(number=1, kind=mpb.ROW_KIND_BYTES)
                )
            garbage = mpb.AwaitCommitsRequest(number=1, mappers=b"garbage")
            with pytest.raises(InvalidArgument, match="no roaring bitmap"):
                await service.call("AwaitCommits", garbage)
            with pytest.raises(ExchangeNotFound):
                await service.call("Progress", mpb.ProgressRequest(number=9))
            with pytest.raises(InvalidArgument, match="a registration needs"):
                await service.call("RegisterDaemon", mpb.RegisterDaemonRequest())

    run(test)


def test_the_longest_id_fails_readably(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            shuffle_id = "\x01" * 1024
            with pytest.raises(ExchangeNotFound) as caught:
                await service.describe(shuffle_id)
            assert caught.value.shuffle_id == shuffle_id

    run(test)


# --- waiting ------------------------------------------------------------------------------


def test_a_commit_wakes_its_readers(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            readers = [
                asyncio.create_task(service.wait([1, 2], partition, LONG_S))
                for partition in range(3)
            ]
            await waiting(3)
            await service.write(1, 0)
            await service.write(3, 0)
            assert not any(reader.done() for reader in readers)
            await service.write(2, 0)
            answers = await asyncio.gather(*readers)
            assert [answer.snapshot is not None for answer in answers] == [True] * 3
            await waiting(0)

    run(test)


def test_a_wait_ends_with_those_missing(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            await service.write(1, 0)
            for wait_s in (0.0, 0.05, float("nan")):
                answer = await service.wait([1, 2], 0, wait_s)
                assert answer.snapshot is None
                assert answer.missing == BitMap([2])

    run(test)


def test_closing_wakes_everyone(tmp_path: Path, waiting: Callable[[int], Awaitable[None]]) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            calls = [
                asyncio.create_task(service.wait([1], 0, LONG_S)),
                asyncio.create_task(service.poll(wait_s=LONG_S)),
            ]
            await waiting(2)
            await service.close()
            for call in calls:
                with pytest.raises(ExchangeClosed):
                    await call

    run(test)


def test_a_new_driver_ends_the_old_ones_poll(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            poll = asyncio.create_task(service.poll(wait_s=LONG_S))
            await waiting(1)
            await service.describe(owner=b"p" * 16)
            with pytest.raises(InvalidArgument, match="another driver"):
                await poll
            await service.poll(owner=b"p" * 16)

    run(test)


def test_a_poll_is_answered_well_within_the_lease(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create(lease_s=1.5)
            deadline = time.monotonic() + 3.0
            polls = 0
            while time.monotonic() < deadline:
                await service.poll(wait_s=LONG_S)
                polls += 1
            assert polls >= 4
            assert (await service.describe()).number == 1

    run(test)


def test_a_driver_that_went_away_loses_its_exchange(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create(lease_s=1.0)
            reader = asyncio.create_task(service.wait([1], 0, LONG_S))
            await waiting(1)
            with pytest.raises(ExchangeClosed):
                await reader

    run(test)


def test_a_client_that_goes_away_leaves_nothing(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            reader = asyncio.create_task(service.wait([1], 0, LONG_S))
            await waiting(1)
            reader.cancel()
            await waiting(0)

    run(test)


def test_waiting_calls_are_answered_at_the_end(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            reader = asyncio.create_task(service.wait([1], 0, LONG_S))
            poll = asyncio.create_task(service.poll(wait_s=LONG_S))
            await waiting(2)
        assert (await reader).missing == BitMap([1])
        await poll

    run(test)


def test_too_many_waiting_calls_are_told_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: Callable[[int], Awaitable[None]]
) -> None:
    monkeypatch.setattr("cosco.metadata.service.polls.MAX_WAITING_CALLS", 1)

    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            reader = asyncio.create_task(service.wait([1], 0, LONG_S))
            await waiting(1)
            with pytest.raises(ServiceUnavailable, match="1 calls wait") as caught:
                await service.poll(wait_s=LONG_S)
            assert caught.value.retriable
            await service.write(1, 0)
            assert (await reader).snapshot is not None

    run(test)


def test_a_reader_may_not_name_more_mappers_than_memory_has_room_for(
    tmp_path: Path,
) -> None:
    """Some hundred KiB name all that there can be; what of them is missing takes 256 MiB."""
    everybody = BitMap()
    everybody.add_range(0, MAX_NAMED_MAPPERS + 1)

    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            await service.write(1, 0)
            with pytest.raises(InvalidArgument, match=str(MAX_NAMED_MAPPERS)):
                await service.wait(everybody, 0, LONG_S)
            everybody.discard(0)
            assert len((await service.wait(everybody, 0, 0)).missing) == MAX_NAMED_MAPPERS - 1

    run(test)


def test_a_writer_may_not_ask_about_more_epochs_than_there_are(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            with pytest.raises(InvalidArgument, match=str(MAX_STALE_EPOCHS)):
                await service.renew(*((0, n) for n in range(1, MAX_STALE_EPOCHS + 2)))

    run(test)


def test_what_waiting_calls_hold_is_bounded(
    tmp_path: Path, waiting: Callable[[int], Awaitable[None]]
) -> None:
    """And who is refused does no harm to who waits, and can wait once there is room."""

    async def test() -> None:
        async with running(tmp_path, waiting_bytes=16 << 20) as service:
            await service.register()
            await service.create()
            honest = asyncio.create_task(service.wait([1], 0, LONG_S))
            await waiting(1)
            greedy = []
            with pytest.raises(ServiceUnavailable, match="--waiting-bytes") as caught:
                for first in range(1, 20):
                    named = BitMap(range(first, 1 << 31, 1 << 16))
                    greedy.append(asyncio.create_task(service.wait(named, 0, LONG_S)))
                    arrived = asyncio.create_task(waiting(1 + len(greedy)))
                    await asyncio.wait((greedy[-1], arrived), return_when=asyncio.FIRST_COMPLETED)
                    arrived.cancel()
                    if greedy[-1].done():
                        await greedy[-1]
            assert caught.value.retriable
            assert len(greedy) > 1
            await service.write(1, 0)
            assert (await honest).snapshot is not None
            for one in greedy:
                one.cancel()
            await asyncio.gather(*greedy, return_exceptions=True)
            again = await service.wait(BitMap([2]), 0, 0.01)
            assert again.missing == BitMap([2])

    run(test)


# --- durability ---------------------------------------------------------------------------


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            orders = await service.register()
            before = await service.create(partitions=6)
            lost, late = [await service.open_attempt(mapper) for mapper in (5, 7)]
            await service.write(7, 0, 5)
            await service.create("closing")
            await service.close("closing")
            first = await service.wait([7])
        async with running(tmp_path) as service:
            assert (await service.beat()).drop == (2,)
            assert (await service.describe()) == before
            assert (await service.register()).cluster_id == orders.cluster_id
            second = await service.wait([7])
            assert first.snapshot is not None
            assert second.snapshot is not None
            assert second.snapshot.version == first.snapshot.version
            assert second.snapshot.sources == first.snapshot.sources
            assert counted(second.snapshot.attempts) == [3]
            assert second.snapshot.attempts.tolist() == first.snapshot.attempts.tolist()
            assert not await service.commit(late, 0)  # another attempt won before
            with pytest.raises(InvalidArgument, match="was never opened"):
                await service.commit(OpenedAttempt(before, 7, lost.attempt), 0)
            assert await service.commit(lost, 1)
            opened = await service.open_attempt(None)
            assert (opened.mapper, counted([opened.attempt])) == (0, [4])
            with pytest.raises(ExchangeExists):
                await service.create("closing")
            await service.beat(1, 2)
        async with running(tmp_path) as service:
            assert (await service.beat()).drop == ()
            with pytest.raises(ExchangeExists):
                await service.create("closing")
            assert (await service.create("b")).number > 2  # by the clock after a start

    run(test)


def test_no_answer_leaves_before_its_transaction(tmp_path: Path, gate: Gate) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            opened = await service.open_attempt(1)
            gate.open.clear()
            commit = asyncio.create_task(service.commit(opened, 0))
            reader = asyncio.create_task(service.wait([1], 0, LONG_S))
            # Whatever else is asked now may tell of the commit, so it waits as well.
            status = asyncio.create_task(service.call("Status", mpb.StatusRequest()))
            missing = asyncio.create_task(service.wait([1, 2], 0))
            refused = asyncio.create_task(service.wait([1], partition=99))
            calls = (commit, reader, status, missing, refused)
            done, _ = await asyncio.wait(calls, timeout=0.5)
            assert not done
            gate.open.set()
            assert await commit
            assert (await reader).snapshot is not None
            assert (await status).exchanges[0].mappers_committed == 1
            assert (await missing).missing == BitMap([2])
            with pytest.raises(PartitionOutOfRange):
                await refused

    run(test)


def test_many_commits_share_a_transaction(tmp_path: Path, gate: Gate) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
            opened = [await service.open_attempt(mapper) for mapper in range(30)]
            gate.open.clear()
            gate.writes = 0
            commits = [asyncio.create_task(service.commit(one, 0, 1)) for one in opened]
            done, _ = await asyncio.wait(commits, timeout=0.5)
            assert not done
            gate.open.set()
            assert all(await asyncio.gather(*commits))
            assert gate.writes in {1, 2}  # perhaps what the first one began; and the rest

    run(test)


def test_a_failed_write_is_tried_again(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            gate.failures = 2
            await service.create()
        told = [r.event["reason"] for r in caplog.records if r.message == "database_failing"]  # type: ignore[attr-defined]
        assert told == ["database or disk is full"]
        async with running(tmp_path) as service:
            assert (await service.describe()).number == 1

    with caplog.at_level(logging.ERROR):
        run(test)


def test_nobody_expires_while_the_database_stalls(tmp_path: Path, gate: Gate) -> None:
    async def test() -> None:
        async with running(tmp_path, daemon_lease_s=1.0) as service:
            await service.register(1)
            await service.create(lease_s=1.0)
            gate.open.clear()
            stalled = asyncio.create_task(service.open_attempt(1))
            done, _ = await asyncio.wait((stalled,), timeout=2.5)
            assert not done
            gate.open.set()
            await stalled
            assert (await service.beat(1)).known
            await service.poll()

    run(test)


# --- bad options and surprises ------------------------------------------------------------


@pytest.mark.parametrize("listen", ["taken", "192.0.2.1:0"])
def test_an_address_that_cannot_be_used(tmp_path: Path, listen: str) -> None:
    async def test() -> None:
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC itself would
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = listen if ":" in listen else f"127.0.0.1:{taken.getsockname()[1]}"
            config = MetadataConfig(
                listen=address, store=f"sqlite:///{tmp_path}/m.db", insecure=True
            )
            with pytest.raises(InvalidArgument, match=f"cannot listen on {address}"):
                await serve(config, ready=lambda _: None, stop=asyncio.Event())

    run(test)


def test_a_store_that_another_service_uses(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path):
            with pytest.raises(InvalidArgument, match="in use by another metadata service"):
                async with running(tmp_path):
                    pass

    run(test)


def test_a_fault_of_the_service_costs_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Handlers, request: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Handlers, "progress", fail)

    async def test() -> None:
        async with running(tmp_path) as service:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.call("Progress", mpb.ProgressRequest(number=1))
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "a fault" not in str(caught.value.details())
            assert (await service.register()).known

    run(test)
    assert "a fault" in caplog.text


def test_an_old_generation_is_named(tmp_path: Path) -> None:
    """No exchange has a second generation yet, so its row is made by hand."""

    async def test() -> None:
        async with running(tmp_path) as service:
            await service.register()
            await service.create()
        with sqlite3.connect(tmp_path / "metadata.db") as connection:
            connection.execute("UPDATE exchanges SET generation = 2")
        connection.close()
        async with running(tmp_path) as service:
            assert (await service.describe()).generation == 2
            with pytest.raises(GenerationChanged, match="at generation 2, not 1"):
                await service.wait([])

    run(test)
