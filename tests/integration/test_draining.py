"""Daemons that are asked to end, die, or come back, while exchanges are open."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.exchanges import Pairs, by_partition, describe, fetch_all, never, numbered, send, until

from cosco import CoscoExchange, CoscoWriter
from cosco.format.segment import parse_segment_name, segment_name
from cosco.local.cluster import LocalCluster, ServiceProcess
from cosco.observe import fetch_status
from cosco.protocol.records import DaemonState
from cosco.shuffle_service.state.draining import DRAIN_ALONE_S

PARTITIONS = 4
BOUND_S = 30.0
#: What stopping a daemon of a shared store may take on a busy machine.
QUICK_S = 5.0


def ends(process: ServiceProcess) -> bool:
    try:
        return _state(process.pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@contextmanager
def writing(name: str, metadata: str) -> Iterator[tuple[threading.Event, list[Pairs]]]:
    """Two mappers write until the event is set, and what they wrote is in the list after it."""
    enough, begun = threading.Event(), threading.Semaphore(0)
    wrote: list[Pairs] = []

    def write(mapper: int) -> Pairs:
        pairs: Pairs = []
        with CoscoWriter(name, mapper, buffer_bytes=64 << 10, metadata=metadata) as writer:
            for n in itertools.count():
                if enough.is_set():
                    break
                pairs.append((n % PARTITIONS, b"%d.%d" % (mapper, n) * 100))
                writer.collect(*pairs[-1])
                if n == 1000:
                    begun.release()
                if n % 100 == 0:
                    time.sleep(0.005)  # the machine is others' as well
            assert writer.close().won
        return pairs

    with ThreadPoolExecutor(2) as pool:
        try:
            writers = [pool.submit(write, mapper) for mapper in (1, 2)]
            for _ in writers:
                assert begun.acquire(timeout=BOUND_S)
            yield enough, wrote
        finally:
            enough.set()
        wrote += [each.result(BOUND_S) for each in writers]


def check(name: str, wrote: list[Pairs], metadata: str) -> None:
    expected = by_partition(itertools.chain(*wrote), PARTITIONS)
    assert fetch_all(name, [1, 2], PARTITIONS, metadata) == expected


def took_s(process: ServiceProcess) -> float:
    began = time.monotonic()
    process.stop()
    return time.monotonic() - began


@pytest.mark.parametrize("daemons", [3, 2])
def test_a_daemon_of_a_shared_store_ends_amid_writes(daemons: int, name: str) -> None:
    with LocalCluster(daemons, memory="32MiB") as cluster:
        metadata = cluster.metadata
        with CoscoExchange(name, PARTITIONS, never, metadata=metadata):
            with writing(name, metadata) as (_, wrote):
                for daemon in cluster.daemons[:-1]:
                    assert took_s(daemon) < QUICK_S
                    assert ends(daemon)
                    daemon.restart()
            check(name, wrote, metadata)


def test_the_only_daemon_ends_amid_writes_and_they_wait_for_it(name: str) -> None:
    with LocalCluster(1, memory="32MiB") as cluster:
        metadata, (daemon,) = cluster.metadata, cluster.daemons
        with CoscoExchange(name, PARTITIONS, never, replicas=1, metadata=metadata):
            with writing(name, metadata) as (_, wrote):
                assert took_s(daemon) < QUICK_S
                daemon.restart()
            check(name, wrote, metadata)


def test_a_daemon_with_a_store_of_its_own_serves_on_until_its_exchanges_close(name: str) -> None:
    with LocalCluster(2, memory="32MiB", shared_store=False) as cluster:
        metadata, (drained, other) = cluster.metadata, cluster.daemons
        exchange = CoscoExchange(name, PARTITIONS, never, metadata=metadata)
        with writing(name, metadata) as (_, wrote):
            assert took_s(drained) < QUICK_S
            assert drained._serves_on
            assert took_s(drained) < QUICK_S  # at once: it is drained
        pid = drained.pid
        assert not ends(drained)
        states = {d.ref.address: d.state for d in fetch_status(metadata).daemons}
        assert states[drained.address] is DaemonState.DRAINING
        assert {a.primary.address for a in describe(name, metadata).assignments} == {other.address}
        check(name, wrote, metadata)
        exchange.close()
        until(lambda: ends(drained), BOUND_S, "its end")
        assert drained.pid == pid
        drained.restart()
        assert drained.pid != pid


def test_one_that_serves_on_can_be_restarted_and_killed(name: str) -> None:
    with LocalCluster(2, memory="32MiB", shared_store=False) as cluster:
        metadata = cluster.metadata
        with CoscoExchange(name, PARTITIONS, never, metadata=metadata):
            with writing(name, metadata) as (_, wrote):
                for daemon in cluster.daemons:
                    pid = daemon.pid
                    daemon.stop()
                    daemon.restart()
                    assert daemon.pid != pid
            check(name, wrote, metadata)  # each has adopted what it left
            cluster.daemons[0].stop()
            assert not ends(cluster.daemons[0])
            cluster.daemons[0].kill()
            assert ends(cluster.daemons[0])
            cluster.daemons[0].restart()
            check(name, wrote, metadata)


def test_a_killed_daemon_adopts_what_it_left_torn_segments_too(name: str) -> None:
    with LocalCluster(1, memory="32MiB") as cluster:
        metadata, (daemon,) = cluster.metadata, cluster.daemons
        rows = numbered(1, 20_000, partitions=PARTITIONS)
        with CoscoExchange(name, PARTITIONS, never, replicas=1, metadata=metadata):
            send(name, 1, rows, metadata)
            daemon.restart()  # stored, all of it
            daemon.kill()
            files = [f for f in (cluster.directory / "store").glob("*/*/*/*") if f.is_file()]
            whole = files[0].read_bytes()
            first = parse_segment_name(files[0].name)
            assert first is not None
            for serial, length in enumerate((0, 100, 4096, 5000, len(whole) - 4096), 1000):
                torn = files[0].with_name(segment_name(first._replace(serial=serial)))
                torn.write_bytes(whole[:length])
            daemon.restart()
            found = fetch_all(name, [1], PARTITIONS, metadata)
            assert found == by_partition(rows, PARTITIONS)


def test_without_the_metadata_service_a_daemon_stores_everything_and_ends(name: str) -> None:
    with LocalCluster(1, memory="32MiB") as cluster:
        metadata, (daemon,) = cluster.metadata, cluster.daemons
        rows = numbered(1, 1000, partitions=PARTITIONS)
        with CoscoExchange(name, PARTITIONS, never, replicas=1, metadata=metadata):
            send(name, 1, rows, metadata)
            cluster.metadata_service.kill()
            assert took_s(daemon) < DRAIN_ALONE_S + QUICK_S
            assert ends(daemon)
            cluster.metadata_service.restart()
            daemon.restart()
            found = fetch_all(name, [1], PARTITIONS, metadata)
            assert found == by_partition(rows, PARTITIONS)


def test_a_sweep_removes_what_appears_after_the_close_and_nothing_foreign(name: str) -> None:
    with LocalCluster(1, memory="32MiB", daemon_options=["--sweep-s", "0.2"]) as cluster:
        metadata = cluster.metadata
        exchange = CoscoExchange(name, PARTITIONS, replicas=1, metadata=metadata)
        number = describe(name, metadata).number
        exchange.close()
        store, cluster_id = cluster.directory / "store", fetch_status(metadata).cluster_id
        until(lambda: not fetch_status(metadata).exchanges, BOUND_S, "its end")
        foreign = [
            store / "0123456789abcdef" / str(number) / "0-1" / "0-00000000000000ff",
            store / cluster_id / f"{number}x" / "0-1" / "0-00000000000000ff",
            store / cluster_id / f"0{number}" / "0-1" / "0-00000000000000ff",
        ]
        for _ in range(2):
            late = store / cluster_id / str(number) / "0-1" / "0-00000000000000ff"
            for file in (*foreign, late):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"x")
            until(lambda: not (store / cluster_id / str(number)).exists(), BOUND_S, "a sweep")
            assert all(file.read_bytes() == b"x" for file in foreign)
