"""What is closed leaves nothing behind, and takes nothing with it that is not its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.exchanges import by_partition, describe, fetch_all, numbered, send, serving, until
from support.processes import python

from cosco import CoscoError, CoscoExchange, CoscoWriter, ExchangeClosed, LocalCluster
from cosco.observe import fetch_status

BOUND_S = 20.0
#: "Gone within seconds": two heartbeats and what a busy machine adds.
GONE_S = 8.0
PARTITIONS = 6
ROWS = numbered(1, 3000, partitions=PARTITIONS, size=4000)


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    with LocalCluster(
        3,
        memory="16MiB",
        daemon_options=["--segment-bytes", "64KiB", "--heartbeat-s", "0.2"],
        metadata_options=["--daemon-lease-s", "2"],
    ) as cluster:
        yield cluster


def store_of(cluster: LocalCluster) -> Path:
    return cluster.directory / "store" / fetch_status(cluster.metadata).cluster_id


def files_under(folder: Path) -> list[Path]:
    """All files below it, also while folders are being removed, which fails `Path.glob`."""
    return [Path(root, name) for root, _, names in os.walk(folder) for name in names]


def chunks_in(store: Path) -> list[Path]:
    """The files of all exchanges in a store: cluster/number/assignment/file."""
    return [path for path in files_under(store) if len(path.relative_to(store).parts) == 4]


def files_of(cluster: LocalCluster, number: int) -> list[Path]:
    folders = (cluster.directory / "store").glob(f"*/{number}")
    return [path for folder in folders for path in files_under(folder)]


def is_gone(cluster: LocalCluster, number: int) -> bool:
    """No file of it is left, all memory is free, and the service does not list it any more."""
    if files_of(cluster, number):
        return False
    try:
        status = fetch_status(cluster.metadata)
    except CoscoError:
        return False
    return all(e.number != number for e in status.exchanges) and all(
        daemon.free_bytes == daemon.memory_bytes for daemon in serving(cluster.metadata).values()
    )


def filled(cluster: LocalCluster, name: str, **options: float) -> tuple[CoscoExchange, int]:
    """An exchange with rows in memory, files and copies, and its number."""
    exchange = CoscoExchange(name, PARTITIONS, metadata=cluster.metadata, **options)
    send(name, 1, ROWS, cluster.metadata)
    number = describe(name, cluster.metadata).number
    until(lambda: bool(files_of(cluster, number)), BOUND_S, "storing")
    return exchange, number


def test_memory_and_files_go(cluster: LocalCluster, name: str) -> None:
    exchange, number = filled(cluster, name)
    exchange.close()
    took_s = until(lambda: is_gone(cluster, number), GONE_S, "cleaning up")
    print(f"gone after {took_s:.1f} s")


def test_a_close_amid_writers(cluster: LocalCluster, name: str) -> None:
    wrote = threading.Semaphore(0)

    def write(mapper: int) -> None:
        with CoscoWriter(name, mapper, buffer_bytes=64 << 10, metadata=cluster.metadata) as writer:
            for i in range(10**9):
                writer.collect(i % PARTITIONS, os.urandom(4000))
                if i == 500:
                    wrote.release()

    exchange = CoscoExchange(name, PARTITIONS, metadata=cluster.metadata)
    number = describe(name, cluster.metadata).number
    with ThreadPoolExecutor(4) as pool:
        writers: list[Future[None]] = [pool.submit(write, mapper) for mapper in range(4)]
        for _ in writers:
            assert wrote.acquire(timeout=BOUND_S)
        exchange.close()
        for each in writers:
            with pytest.raises(ExchangeClosed):
                each.result(BOUND_S)
    until(lambda: is_gone(cluster, number), GONE_S, "cleaning up")
    # A writer's last frame must not bring anything back.
    with pytest.raises(ExchangeClosed):
        CoscoWriter(name, 9, metadata=cluster.metadata)
    threading.Event().wait(1.5)
    assert is_gone(cluster, number)


@pytest.mark.parametrize("asleep_s", [1, 4], ids=["briefly", "beyond its lease"])
def test_a_close_while_a_daemon_sleeps(asleep_s: float, cluster: LocalCluster, name: str) -> None:
    exchange, number = filled(cluster, name)
    sleeper = cluster.daemons[1]
    os.kill(sleeper.pid, signal.SIGSTOP)
    try:
        exchange.close()
        threading.Event().wait(asleep_s)
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    until(lambda: sleeper.address in serving(cluster.metadata), BOUND_S, "its return")
    until(lambda: is_gone(cluster, number), GONE_S, "cleaning up")


def test_a_close_while_everything_restarts(cluster: LocalCluster, name: str) -> None:
    exchange, number = filled(cluster, name)
    for daemon in cluster.daemons:
        daemon.kill()
    exchange.close()
    cluster.metadata_service.kill()
    cluster.metadata_service.restart()
    for daemon in cluster.daemons:
        daemon.restart()
    until(lambda: is_gone(cluster, number), GONE_S, "cleaning up")


def test_a_store_of_its_own_is_cleaned_when_its_daemon_returns() -> None:
    with LocalCluster(2, memory="16MiB", shared_store=False) as cluster:
        exchange = CoscoExchange("own", PARTITIONS, metadata=cluster.metadata)
        send("own", 1, ROWS, cluster.metadata)
        for daemon in cluster.daemons:
            daemon.stop()
            daemon.restart()
        stores = [cluster.directory / f"store-{i}" for i in range(2)]
        assert any(path.stat().st_size for store in stores for path in store.glob("*/1/*/*"))
        cluster.daemons[0].kill()
        exchange.close()
        cluster.daemons[0].restart()
        for store in stores:
            until(lambda: not chunks_in(store), GONE_S, "cleaning up")  # noqa: B023


def test_an_exchange_whose_driver_vanished_goes_after_its_lease(
    cluster: LocalCluster, name: str
) -> None:
    driver = """
        import sys, cosco
        x = cosco.CoscoExchange(sys.argv[1], 6, lease_s=2, metadata=sys.argv[2])
        print("made", flush=True); sys.stdin.readline()
    """
    with python(driver, name, cluster.metadata):
        send(name, 1, ROWS, cluster.metadata)
        number = describe(name, cluster.metadata).number
        threading.Event().wait(2.5)
        assert send(name, 2, ROWS, cluster.metadata).won  # it lives as long as its driver
    until(lambda: is_gone(cluster, number), 2 + GONE_S, "cleaning up")


def test_names_and_numbers_that_begin_alike() -> None:
    """`g/1` never takes `g/10`, nor number 1 the files of number 10."""
    with LocalCluster(2, memory="16MiB") as cluster:
        metadata = cluster.metadata
        rows = ROWS[:300]
        exchanges = {}
        for i in range(1, 12):
            exchanges[i] = CoscoExchange(f"g/{i}", PARTITIONS, metadata=metadata)
            send(f"g/{i}", 1, rows, metadata)
        for daemon in cluster.daemons:
            daemon.restart()  # which stores everything
        assert describe("g/1", metadata).number == 1
        assert describe("g/10", metadata).number == 10
        assert files_of(cluster, 1)
        exchanges[1].close()
        until(lambda: not files_of(cluster, 1), GONE_S, "cleaning up")
        for i in (10, 11):
            assert fetch_all(f"g/{i}", [1], PARTITIONS, metadata) == by_partition(rows, PARTITIONS)
        for i in range(2, 12):
            assert files_of(cluster, i)
            exchanges[i].close()
        until(lambda: not chunks_in(cluster.directory / "store"), GONE_S, "the rest")


def test_what_is_not_its_own_stays(cluster: LocalCluster, name: str) -> None:
    """Another cluster's directory, and files of people, in the same store."""
    store = cluster.directory / "store"
    exchange, number = filled(cluster, name)
    strangers = [
        store / "0123456789abcdef" / str(number) / "0-1" / "0-00000000000000ff",
        store / "another" / "1" / "0-1" / "0-1",
        store / "notes.txt",
    ]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_bytes(b"not yours")
    for daemon in cluster.daemons:
        daemon.restart()  # each registration sweeps
    exchange.close()
    own = store / fetch_status(cluster.metadata).cluster_id
    until(lambda: not files_under(own / str(number)), GONE_S, "cleaning up")
    threading.Event().wait(2)  # heartbeats, which may sweep as well
    for stranger in strangers:
        assert stranger.read_bytes() == b"not yours"
        stranger.unlink()


@pytest.mark.parametrize(
    "shuffle_id",
    [
        "..", ".", "/", "//", "../../etc", "a/../../b", "a\\b", "line\nfeed", "nul\0byte", " ",
        "ünï-日本-🦀", "%2e%2e%2f", "$(touch x)", "-rf", "x" * 1024, "cosco-store.json",
    ],
)  # fmt: skip
def test_an_id_is_only_a_name(shuffle_id: str, cluster: LocalCluster) -> None:
    metadata, own = cluster.metadata, store_of(cluster)

    def foreign() -> set[Path]:
        files = cluster.directory.rglob("*")
        return {path for path in files if path != own and own not in path.parents}

    before = foreign()
    rows = ROWS[:300]  # a few chunks for each partition
    with CoscoExchange(shuffle_id, PARTITIONS, codec="none", metadata=metadata):
        send(shuffle_id, 1, rows, metadata)
        found = fetch_all(shuffle_id, [1], PARTITIONS, metadata)
        assert found == by_partition(rows, PARTITIONS)
        number = describe(shuffle_id, metadata).number
        until(lambda: bool(files_of(cluster, number)), BOUND_S, "storing")
        for path in own.iterdir():
            assert path.name.isdigit()
    until(lambda: is_gone(cluster, number), GONE_S, "cleaning up")
    assert foreign() == before
