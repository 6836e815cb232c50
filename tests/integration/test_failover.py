"""What happens to a running exchange when one thing at a time fails, by promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.exchanges import (
    Pairs,
    assignment,
    by_partition,
    describe,
    fetch,
    fetch_all,
    never,
    numbered,
    send,
    serving,
    until,
)
from support.processes import Services, python
from support.proxy import Proxy

from cosco import CoscoExchange, CoscoWriter, LocalCluster, ServiceUnavailable
from cosco.local.cluster import ServiceProcess

BOUND_S = 20.0
LEASE_S = 2.0


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    """A short lease, so that a silent daemon is soon given up."""
    options = ["--daemon-lease-s", str(LEASE_S)]
    with LocalCluster(3, memory="32MiB", metadata_options=options) as cluster:
        yield cluster


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that neither acts nor ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def rows_in(pairs: Pairs) -> Counter[bytes]:
    return Counter(row for _, row in pairs)


def process_at(cluster: LocalCluster, address: str) -> ServiceProcess:
    return next(each for each in cluster.daemons if each.address == address)


def primary(cluster: LocalCluster, name: str) -> ServiceProcess:
    """The process that an exchange of one range pushes to now."""
    return process_at(cluster, assignment(name, cluster.metadata).primary.address)


def replica(cluster: LocalCluster, name: str) -> ServiceProcess:
    return process_at(cluster, assignment(name, cluster.metadata).replicas[0].address)


# --- a daemon dies ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", [primary, replica])
def test_a_dead_process_is_noticed_in_two_seconds(
    role: Callable[[LocalCluster, str], ServiceProcess],
) -> None:
    """With the usual lease of ten: the time from SIGKILL to the next acknowledged row."""
    with LocalCluster(3, memory="16MiB") as cluster:
        metadata = cluster.metadata
        took_s = []
        for i in range(3):  # a busy machine may be slow; it is not so three times
            name = f"noticed-{i}"
            rows = numbered(1, 500)
            with CoscoExchange(name, 1, never, metadata=metadata):
                with CoscoWriter(name, 1, buffer_bytes=64 << 10, metadata=metadata) as writer:
                    for partition, row in rows:
                        writer.collect(partition, row)
                    victim = role(cluster, name)
                    victim.kill()
                    began = time.monotonic()
                    writer.collect(0, b"one more")
                    assert writer.close().won  # every row has been acknowledged
                    took_s.append(time.monotonic() - began)
                assert victim.address not in serving(metadata)
                rows.append((0, b"one more"))
                assert fetch(name, [1], 0, metadata) == rows_in(rows)
            victim.restart()
            if took_s[-1] < 2:
                break
        print("noticed and gone on after", [f"{each:.2f} s" for each in took_s])
        assert min(took_s) < 2


def test_a_daemon_killed_and_started_on_its_port_takes_nothing_for_its_old_self(
    cluster: LocalCluster, name: str
) -> None:
    metadata = cluster.metadata
    rows = numbered(1, 4000)

    def fail() -> None:
        victim = primary(cluster, name)
        victim.kill()
        victim.restart()

    with CoscoExchange(name, 1, never, metadata=metadata):
        first = assignment(name, metadata)
        assert send(name, 1, rows, metadata, halfway=fail).won
        last = assignment(name, metadata)
        assert last.epoch > first.epoch
        assert last.primary.incarnation != first.primary.incarnation
        assert fetch(name, [1], 0, metadata) == rows_in(rows)


def test_with_too_few_hosts_it_goes_on_with_fewer_copies_and_says_so(name: str) -> None:
    with LocalCluster(2, memory="16MiB") as cluster:
        metadata = cluster.metadata
        rows = numbered(1, 2000)
        with CoscoExchange(name, 1, never, metadata=metadata) as exchange:
            assert exchange.progress().replicas == 2
            assert send(name, 1, rows, metadata, halfway=lambda: primary(cluster, name).kill()).won
            assert exchange.progress().replicas == 1
            assert fetch(name, [1], 0, metadata) == rows_in(rows)


def test_below_min_replicas_writers_wait_for_a_daemon(name: str) -> None:
    with LocalCluster(2, memory="16MiB") as cluster:
        metadata = cluster.metadata
        rows = numbered(1, 2000)
        killed = threading.Event()

        def kill() -> None:
            victim.kill()
            killed.set()

        with ThreadPoolExecutor() as pool:
            with CoscoExchange(name, 1, never, min_replicas=2, metadata=metadata) as exchange:
                victim = primary(cluster, name)
                sending = pool.submit(send, name, 1, rows, metadata, halfway=kill)
                assert killed.wait(BOUND_S)
                until(lambda: exchange.progress().replicas == 0, BOUND_S, "the wait")
                assert not sending.done()
                victim.restart()
                assert sending.result(BOUND_S).won
                assert exchange.progress().replicas == 2
                assert fetch(name, [1], 0, metadata) == rows_in(rows)


def test_a_host_that_dies_with_its_own_store_is_computed_again(name: str) -> None:
    options = ["--adoption-grace-s", "1"]
    with LocalCluster(3, memory="16MiB", shared_store=False, metadata_options=options) as cluster:
        metadata = cluster.metadata
        mappers = [1, 2, 3, 4, 5, 6]
        rows = {mapper: numbered(mapper, 600, partitions=6) for mapper in mappers}
        calls: list[list[int]] = []

        def again(mappers: list[int], reason: str) -> None:
            calls.append(sorted(mappers))
            for mapper in mappers:
                send(name, mapper, rows[mapper], metadata)

        with CoscoExchange(name, 6, again, replicas=1, metadata=metadata):
            for mapper, pairs in rows.items():
                send(name, mapper, pairs, metadata)
            victim = primary(cluster, name)
            assignments = describe(name, metadata).assignments
            assert sum(a.primary.address == victim.address for a in assignments) > 1
            victim.kill()
            expected = by_partition([pair for pairs in rows.values() for pair in pairs], 6)
            assert fetch_all(name, mappers, 6, metadata) == expected
            assert calls == [mappers]  # once, for all ranges that were there


def test_a_daemon_started_within_the_grace_adopts_its_directory(name: str) -> None:
    with LocalCluster(3, memory="16MiB", shared_store=False) as cluster:
        metadata = cluster.metadata
        rows = numbered(1, 2000, partitions=6)
        with CoscoExchange(name, 6, never, metadata=metadata):
            send(name, 1, rows, metadata)
            for daemon in cluster.daemons:
                daemon.stop()
                daemon.restart()
            assert fetch_all(name, [1], 6, metadata) == by_partition(rows, 6)


def test_readers_wait_for_what_a_dead_primary_alone_has_stored(name: str) -> None:
    with LocalCluster(2, memory="16MiB", shared_store=False) as cluster:
        metadata = cluster.metadata
        rows = numbered(1, 20_000)  # more than a pool: the replica has dropped copies
        with CoscoExchange(name, 1, never, metadata=metadata), ThreadPoolExecutor(1) as pool:
            send(name, 1, rows, metadata)
            victim = primary(cluster, name)
            victim.kill()
            reading = pool.submit(fetch, name, [1], 0, metadata)
            with pytest.raises(TimeoutError):
                reading.result(2.0)
            victim.restart()
            assert reading.result(BOUND_S) == rows_in(rows)


# --- a daemon sleeps --------------------------------------------------------------------------


@pytest.mark.parametrize("role", [primary, replica])
def test_a_paused_daemon_is_replaced_and_harms_nothing_when_it_wakes(
    role: Callable[[LocalCluster, str], ServiceProcess], cluster: LocalCluster, name: str
) -> None:
    metadata = cluster.metadata
    rows = numbered(1, 4000)
    with CoscoExchange(name, 1, never, metadata=metadata) as exchange:
        first = assignment(name, metadata)
        sleeper = role(cluster, name)
        with CoscoWriter(name, 1, buffer_bytes=64 << 10, metadata=metadata) as writer:
            for partition, row in rows[:2000]:
                writer.collect(partition, row)
            with paused(sleeper.pid):  # with frames in its buffers, its sockets and under way
                began = time.monotonic()
                for partition, row in rows[2000:]:
                    writer.collect(partition, row)
                assert writer.close().won
                took_s = time.monotonic() - began
                until(
                    lambda: assignment(name, metadata).epoch > first.epoch, BOUND_S, "a new epoch"
                )
                assert fetch(name, [1], 0, metadata) == rows_in(rows)
        print(f"replaced after {took_s:.1f} s, with a lease of {LEASE_S} s")
        assert took_s < LEASE_S + 8
        until(lambda: sleeper.address in serving(metadata), BOUND_S, "its return")
        assert fetch(name, [1], 0, metadata) == rows_in(rows)
        more = numbered(2, 1000)
        assert send(name, 2, more, metadata).won
        assert fetch(name, [1, 2], 0, metadata) == rows_in(rows + more)
        assert exchange.progress().rows == len(rows) + len(more)


# --- restarts ---------------------------------------------------------------------------------


@contextmanager
def writing(
    name: str, mappers: range, metadata: str
) -> Iterator[tuple[threading.Event, list[Future[Pairs]]]]:
    """Writers that go on until the event is set; the futures are of what they committed."""
    enough = threading.Event()

    def write(mapper: int) -> Pairs:
        pairs: Pairs = []
        with CoscoWriter(name, mapper, buffer_bytes=64 << 10, metadata=metadata) as writer:
            while not enough.wait(0.05):
                for partition, row in numbered(mapper, 12, partitions=6, size=2000):
                    pairs.append((partition, b"%d:" % len(pairs) + row))
                    writer.collect(*pairs[-1])
            assert writer.close().won
        return pairs

    with ThreadPoolExecutor(len(mappers)) as pool:
        try:
            yield enough, [pool.submit(write, mapper) for mapper in mappers]
        finally:
            enough.set()


@pytest.mark.parametrize("shared_store", [True, False], ids=["shared", "private"])
def test_rolling_restart_of_everything(shared_store: bool, name: str) -> None:
    with LocalCluster(3, memory="16MiB", shared_store=shared_store) as cluster:
        metadata = cluster.metadata
        with CoscoExchange(name, 6, never, metadata=metadata):
            before = numbered(9, 1000, partitions=6)
            send(name, 9, before, metadata)
            with writing(name, range(3), metadata) as (enough, writers):
                for daemon in cluster.daemons:
                    daemon.stop()
                    daemon.restart()
                cluster.metadata_service.stop()
                cluster.metadata_service.restart()
                for daemon in cluster.daemons:
                    daemon.restart()
                enough.set()
                wrote = [pair for each in writers for pair in each.result(BOUND_S)]
            found = fetch_all(name, [0, 1, 2, 9], 6, metadata)
            assert found == by_partition([*before, *wrote], 6)


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_metadata_service_that_was_away_expires_nobody(how: str, name: str) -> None:
    with LocalCluster(3, memory="16MiB", metadata_options=["--daemon-lease-s", "2"]) as cluster:
        metadata, service = cluster.metadata, cluster.metadata_service
        rows = numbered(1, 4000)

        def away() -> None:
            if how == "killed":
                service.kill()
                time.sleep(3)
                service.restart()
            else:
                with paused(service.pid):
                    time.sleep(3)

        with CoscoExchange(name, 1, never, lease_s=2, metadata=metadata):
            first, daemons = assignment(name, metadata), serving(metadata)
            send(name, 1, rows, metadata, halfway=away)
            time.sleep(2.5)  # whoever is to be expired by mistake is expired by then
            assert assignment(name, metadata) == first
            now = serving(metadata)
            assert {a: d.ref for a, d in now.items()} == {a: d.ref for a, d in daemons.items()}
            assert fetch(name, [1], 0, metadata) == rows_in(rows)


# --- draining ---------------------------------------------------------------------------------


def drain(metadata: str, address: str) -> None:
    program = str(Path(sysconfig.get_path("scripts")) / "cosco")
    subprocess.run([program, "drain", address, "--metadata", metadata], check=True, timeout=30)


@pytest.mark.parametrize("shared_store", [True, False], ids=["shared", "private"])
def test_cosco_drain(shared_store: bool, tmp_path: Path, name: str) -> None:
    """What it serves moves, what it holds is stored; then it ends, or serves until the close."""
    with Services(tmp_path) as services:
        metadata = services.metadata
        for number in range(3):
            services.daemon(store=None if shared_store else f"file://{tmp_path}/store-{number}")
        with CoscoExchange(name, 1, never, metadata=metadata):
            address = assignment(name, metadata).primary.address
            drained = next(each for each in services.daemons if each.address == address)
            rows = numbered(1, 4000)
            assert send(name, 1, rows, metadata, halfway=lambda: drain(metadata, address)).won
            assert assignment(name, metadata).primary.address != address
            assert address not in serving(metadata)
            if shared_store:
                assert drained.wait(BOUND_S) == 0
            else:
                time.sleep(2)  # heartbeats enough to be told that it may go, if it were
                assert drained.is_running()
            assert fetch(name, [1], 0, metadata) == rows_in(rows)
        assert drained.wait(BOUND_S) == 0


def test_drain_of_an_unknown_daemon_is_an_error(cluster: LocalCluster) -> None:
    program = str(Path(sysconfig.get_path("scripts")) / "cosco")
    command = [program, "drain", "127.0.0.1:1", "--metadata", cluster.metadata]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- attempts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", [0, 1])
def test_two_attempts_at_once_and_one_wins(winner: int, cluster: LocalCluster, name: str) -> None:
    metadata = cluster.metadata
    with CoscoExchange(name, 2, never, metadata=metadata) as exchange:
        attempts = [CoscoWriter(name, 7, buffer_bytes=64 << 10, metadata=metadata) for _ in "ab"]
        for i in range(2000):
            for number, attempt in enumerate(attempts):
                attempt.collect(i % 2, b"%d of attempt %d" % (i, number) * 20)
        won = attempts[winner].close()
        lost = attempts[1 - winner].close()
        assert won.won
        assert not lost.won
        assert (lost.rows, lost.mapper) == (2000, 7)
        assert not attempts[1 - winner].close().won
        expected = by_partition(
            ((i % 2, b"%d of attempt %d" % (i, winner) * 20) for i in range(2000)), 2
        )
        assert fetch_all(name, [7], 2, metadata) == expected
        progress = exchange.progress()
        assert progress.rows == 2000
        assert progress.bytes_raw == won.bytes


def test_a_killed_attempt_is_never_seen(cluster: LocalCluster, name: str) -> None:
    metadata = cluster.metadata
    attempt = """
        import sys, cosco
        w = cosco.CoscoWriter(sys.argv[1], 7, buffer_bytes=65536, metadata=sys.argv[2])
        for i in range(3000): w.collect(0, b"unseen" * 100)
        print("wrote", flush=True); sys.stdin.readline()
    """
    with CoscoExchange(name, 1, never, metadata=metadata) as exchange:
        with python(attempt, name, metadata):
            pass  # which kills it
        rows = numbered(7, 100)
        assert send(name, 7, rows, metadata).won
        assert fetch(name, [7], 0, metadata) == rows_in(rows)
        assert exchange.progress().rows == 100


def test_a_task_run_again_after_its_commit_was_answered_too_late(
    cluster: LocalCluster, name: str
) -> None:
    metadata = cluster.metadata
    rows = numbered(7, 100)
    with Proxy(metadata) as proxy, CoscoExchange(name, 1, never, metadata=metadata) as exchange:
        writer = CoscoWriter(name, 7, metadata=proxy.address, service_timeout_s=2)
        for partition, row in rows:
            writer.collect(partition, row)
        assert describe(name, metadata).generation == 1
        proxy.mute()
        with ThreadPoolExecutor() as pool:
            closing = pool.submit(writer.close)
            until(lambda: exchange.progress().mappers_committed == 1, BOUND_S, "the commit")
            proxy.refuse()
            with pytest.raises(ServiceUnavailable):
                closing.result(BOUND_S)
        again = send(name, 7, rows, metadata)
        assert not again.won  # engines choose their own winner: it ended well all the same
        assert again.rows == 100
        assert fetch(name, [7], 0, metadata) == rows_in(rows)
        assert exchange.progress().rows == 100
