"""What ends, wakes or outlasts the client's objects: time-outs, close, abort, outages."""

from __future__ import annotations

import copy
import os
import pickle
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.exchanges import until
from support.threads import client_threads

from cosco import (
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    CoscoError,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    DataLost,
    ExchangeClosed,
    GenerationChanged,
    InvalidArgument,
    LocalCluster,
    NotPicklable,
    ServiceUnavailable,
)
from cosco.client.groups.following import FOLLOWING
from cosco.client.rpc import transport
from cosco.client.write.push_streams import STREAMS

WAIT_S = 20.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


# --- waiting ------------------------------------------------------------------------------


def test_a_reader_waits_until_the_mappers_have_committed(
    name: str, metadata: str, pool: ThreadPoolExecutor
) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        reader = CoscoReader(name, [0, 1], 0, metadata=metadata)
        rows: Future[list[bytes]] = pool.submit(lambda: sorted(reader))
        for mapper in (0, 1):
            assert not rows.done()
            with CoscoWriter(name, mapper, metadata=metadata) as writer:
                writer.collect(0, b"%d" % mapper)
        assert rows.result(WAIT_S) == [b"0", b"1"]
        reader.close()


@pytest.mark.parametrize("timeout_s", [0, 0.3])
def test_a_wait_ends_after_its_time(name: str, metadata: str, timeout_s: float) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        CoscoWriter(name, 7, metadata=metadata).close()
        reader = CoscoReader(name, [7, 8, 9], 0, timeout_s=timeout_s, metadata=metadata)
        started = time.monotonic()
        with pytest.raises(CommitTimeout, match="2 of 3 mappers") as caught:
            reader.next()
        assert timeout_s <= time.monotonic() - started < timeout_s + 2
        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.mappers, error.recompute, error.partition) == ((8, 9), False, 0)
        assert error.shuffle_id == name
        assert error.retriable
        assert isinstance(error, TimeoutError)
        with pytest.raises(CommitTimeout):
            list(reader)
        reader.close()


def test_generations(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        CoscoReader(name, [], 0, generation=1, metadata=metadata).close()
        with pytest.raises(GenerationChanged):
            CoscoReader(name, [], 0, generation=2, metadata=metadata)
        with pytest.raises(InvalidArgument):
            CoscoReader(name, [], 0, generation=0, metadata=metadata)


# --- waking -------------------------------------------------------------------------------


def test_close_wakes_a_waiting_reader(name: str, metadata: str, pool: ThreadPoolExecutor) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        reader = CoscoReader(name, [0], 0, metadata=metadata)
        waiting = pool.submit(reader.next)
        until(lambda: bool(reader._scope._calls), WAIT_S)
        started = time.monotonic()
        reader.close()
        with pytest.raises(ClientClosed):
            waiting.result(WAIT_S)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("in_close", [True, False])
def test_abort_wakes_a_writer_that_waits_for_a_daemon(
    name: str, pool: ThreadPoolExecutor, in_close: bool
) -> None:
    with (
        LocalCluster(1, memory="16MiB") as cluster,
        CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata),
    ):
        writer = CoscoWriter(name, 0, buffer_bytes=1 << 20, metadata=cluster.metadata)
        cluster.daemons[0].kill()
        if in_close:
            writer.collect(0, b"x")
            waiting: Future[object] = pool.submit(writer.close)
        else:
            rows = [random.Random(0).randbytes(1 << 20)] * 40  # more than the window
            waiting = pool.submit(writer.collect_batch, [0] * 40, rows)
        until(lambda: bool(writer._pusher._links) and bool(writer._pusher.changed._waiters), WAIT_S)  # type: ignore[attr-defined]
        assert not waiting.done()
        started = time.monotonic()
        writer.abort()
        with pytest.raises(ClientClosed):
            waiting.result(WAIT_S)
        assert time.monotonic() - started < 2


def test_closing_the_exchange_ends_writers_and_readers(
    name: str, metadata: str, pool: ThreadPoolExecutor
) -> None:
    exchange = CoscoExchange(name, 1, metadata=metadata)
    reader = CoscoReader(name, [0], 0, metadata=metadata)
    waiting = pool.submit(reader.next)
    writer = CoscoWriter(name, 0, buffer_bytes=64 << 10, metadata=metadata)
    writer.collect(0, b"x")
    until(lambda: bool(reader._scope._calls), WAIT_S)
    CoscoExchange.attach(name, metadata=metadata).close()
    with pytest.raises(ExchangeClosed):
        waiting.result(WAIT_S)
    with pytest.raises(ExchangeClosed):
        writer.close()
    with pytest.raises(ExchangeClosed):
        writer.collect(0, b"x")
    with pytest.raises(ExchangeClosed):
        exchange.progress()
    exchange.close()
    exchange.close()
    with pytest.raises(ClientClosed):
        exchange.progress()
    reader.close()
    for call in (
        lambda: CoscoWriter(name, 0, metadata=metadata),
        lambda: CoscoExchange.attach(name, metadata=metadata),
    ):
        with pytest.raises(ExchangeClosed):
            call()


# --- owning -------------------------------------------------------------------------------


def test_the_owner_keeps_the_lease(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, lease_s=1.0, metadata=metadata) as exchange:
        time.sleep(2.5)  # more than two leases
        assert exchange.progress().rows == 0


def test_an_exchange_without_owner_is_closed(name: str, metadata: str) -> None:
    exchange = CoscoExchange(name, 1, lease_s=1.0, metadata=metadata)
    assert exchange._driver is not None
    exchange._driver.close()  # as if its process had died

    def is_closed() -> bool:
        try:
            exchange.progress()
        except ExchangeClosed:
            return True
        return False

    until(is_closed, WAIT_S)
    exchange.close()


def test_attaching_as_owner_takes_the_lease_over(name: str, metadata: str) -> None:
    first = CoscoExchange(name, 3, lease_s=1.0, metadata=metadata)
    second = CoscoExchange.attach(name, lambda mappers, reason: None, own=True, metadata=metadata)
    assert second.partitions == 3
    until(lambda: client_threads().count("cosco-lease") == 1, WAIT_S)  # the first one has given up
    time.sleep(1.5)
    assert second.progress().rows == 0
    second.close()
    first.close()
    assert not client_threads()
    with pytest.raises(InvalidArgument, match="own=True"):
        CoscoExchange.attach(name, lambda mappers, reason: None, metadata=metadata)


def test_closing_takes_less_than_a_second(name: str, metadata: str) -> None:
    took_s = []
    for i in range(3):  # a busy machine may be slow; it is not so three times
        exchange = CoscoExchange(f"{name}-{i}", 1, metadata=metadata)
        driver = exchange._driver
        assert driver is not None
        until(lambda: bool(driver._work._waiting_scope._calls), WAIT_S)  # noqa: B023
        started = time.monotonic()
        exchange.close()
        took_s.append(time.monotonic() - started)
    assert min(took_s) < 1
    until(lambda: not client_threads(), WAIT_S)


def test_nothing_is_left_of_many_exchanges(name: str, metadata: str) -> None:
    for i in range(20):
        with CoscoExchange(f"{name}-{i}", 1, metadata=metadata):
            with CoscoWriter(f"{name}-{i}", 0, metadata=metadata) as writer:
                writer.collect(0, b"x")
            with CoscoReader(f"{name}-{i}", [0], 0, metadata=metadata) as reader:
                assert list(reader) == [b"x"]
    STREAMS.close()  # those that are kept for the next writer
    FOLLOWING.close()
    assert not transport._channels._table
    until(lambda: not client_threads(), WAIT_S)


# --- threads and pickling -----------------------------------------------------------------


def test_many_threads_and_objects_that_move_between_them(
    name: str, metadata: str, pool: ThreadPoolExecutor
) -> None:
    def write(writer: CoscoWriter) -> None:
        with writer:
            for i in range(2000):
                writer.collect(i % 4, b"%d" % writer.mapper)

    with CoscoExchange(name, 4, metadata=metadata):
        writers = [CoscoWriter(name, m, buffer_bytes=64 << 10, metadata=metadata) for m in range(8)]
        list(pool.map(write, writers))
        readers = [CoscoReader(name, range(8), p, metadata=metadata) for p in range(4)]
        counts = pool.map(lambda reader: len(list(reader)), readers)
        assert list(counts) == [4000] * 4
        for reader in readers:
            reader.close()


def test_live_objects_cannot_be_pickled(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata) as exchange:
        writer = CoscoWriter(name, 0, metadata=metadata)
        reader = CoscoReader(name, [0], 0, metadata=metadata)
        for live in (exchange, writer, reader):
            for way in (pickle.dumps, copy.copy):
                with pytest.raises(NotPicklable, match="shuffle_id") as caught:
                    way(live)
                assert isinstance(caught.value, TypeError | CoscoError)
                assert ("handle()" in str(caught.value)) is (live is exchange)
        writer.abort()
        reader.close()


# --- outages ------------------------------------------------------------------------------


def test_first_contact_fails_in_seconds(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        silent = taken.getsockname()[1]  # connects, and never answers
        with socket.create_server(("127.0.0.1", 0)) as other:
            nobody = other.getsockname()[1]
        for port, limit_s in ((nobody, 5), (silent, 20)):
            started = time.monotonic()
            with pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port}.*") as caught:
                CoscoWriter(name, 0, metadata=f"127.0.0.1:{port}")
            assert time.monotonic() - started < limit_s
            assert "cosco-metadata" in str(caught.value)
            assert "\n" not in str(caught.value)
            assert caught.value.retriable
            assert caught.value.__context__ is None
    assert not transport._channels._table


def test_outages_of_the_metadata_service(name: str, pool: ThreadPoolExecutor) -> None:
    with LocalCluster(2, memory="16MiB") as cluster:
        exchange = CoscoExchange(name, 1, metadata=cluster.metadata)
        impatient = CoscoExchange.attach(name, metadata=cluster.metadata, service_timeout_s=0.5)
        writer = CoscoWriter(name, 0, metadata=cluster.metadata)
        reader = CoscoReader(name, [0], 0, metadata=cluster.metadata)
        writer.collect(0, b"x")
        waiting = pool.submit(lambda: list(reader))
        until(lambda: bool(reader._scope._calls), WAIT_S)
        cluster.metadata_service.kill()
        with pytest.raises(ServiceUnavailable, match="stopped answering"):
            impatient.progress()
        closing = pool.submit(writer.close)
        cluster.metadata_service.restart()
        assert closing.result(WAIT_S).won
        assert waiting.result(WAIT_S) == [b"x"]
        assert exchange.progress().rows == 1
        reader.close()
        exchange.close()


def test_a_daemon_that_is_gone_and_one_that_was_started_again(name: str) -> None:
    with LocalCluster(1, memory="16MiB") as cluster:
        daemon = cluster.daemons[0]
        with CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata) as exchange:
            early, late = (
                CoscoWriter(name, m, metadata=cluster.metadata, service_timeout_s=timeout_s)
                for m, timeout_s in enumerate((1.0, WAIT_S))
            )
            daemon.kill()
            early.collect(0, b"x")
            with pytest.raises(CapacityExceeded, match="start daemons") as caught:
                early.close()
            assert caught.value.retriable
            assert daemon.address in str(caught.value)
            with pytest.raises(CapacityExceeded):
                early.collect(0, b"x")
            assert exchange.progress().replicas == 0
            daemon.restart()
            late.collect(0, b"x")  # goes to the new start of the daemon
            assert late.close().won
            assert exchange.progress().mappers_committed == 1
            assert exchange.progress().replicas == 1


def test_a_reader_outlasts_a_daemon_of_a_shared_store(name: str) -> None:
    with (
        LocalCluster(2, memory="16MiB") as cluster,
        CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata),
    ):
        with CoscoWriter(name, 0, buffer_bytes=1 << 20, metadata=cluster.metadata) as writer:
            for i in range(200):
                writer.collect_batch([0] * 100, [b"%050d" % (100 * i + j) for j in range(100)])
        for daemon in cluster.daemons:
            daemon.stop()  # stores what it has
        cluster.daemons[1].restart()
        with CoscoReader(name, [0], 0, metadata=cluster.metadata) as reader:
            assert len(set(reader)) == 20_000


def test_what_rots_in_the_store_is_never_read(name: str) -> None:
    """Nobody is called back here: readers say which mappers to run, and that mends it."""
    rows = [random.Random(i).randbytes(1000) for i in range(1000)]
    with (
        LocalCluster(2, memory="16MiB") as cluster,
        CoscoExchange(name, 1, replicas=1, metadata=cluster.metadata),
    ):

        def write() -> None:
            with CoscoWriter(name, 3, buffer_bytes=64 << 10, metadata=cluster.metadata) as writer:
                writer.collect_batch([0] * 1000, rows)

        def read() -> list[bytes]:
            with CoscoReader(name, [3], 0, metadata=cluster.metadata) as reader:
                return list(reader)

        def restart() -> None:  # whoever reads a file then did not write it
            for daemon in cluster.daemons:
                daemon.stop()
                daemon.restart()

        def rot(file: Path) -> None:
            stored = file.read_bytes()
            file.write_bytes(stored[:500_000] + b"rotten" + stored[500_006:])

        known: set[Path] = set()
        for damage in (rot, lambda file: os.truncate(file, 500_000), Path.unlink):
            write()
            restart()
            assert sorted(read()) == sorted(rows)
            files = {f for f in (cluster.directory / "store").rglob("0-*") if f.is_file()}
            (file,) = files - known
            known |= files
            damage(file)
            with CoscoReader(name, [3], 0, metadata=cluster.metadata) as reader:
                with pytest.raises(DataLost) as caught:
                    reader.next()  # what is good of it is held back
            assert (caught.value.mappers, caught.value.partition) == ((3,), 0)
        write()
        assert sorted(read()) == sorted(rows)
