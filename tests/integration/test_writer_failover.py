"""Several writers at once while a daemon, or the metadata service, is killed, paused or
started again: all commit, and what is read back is what they wrote."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.exchanges import by_partition, fetch_all, numbered, send

from cosco import Commit, CoscoExchange, LocalCluster

WRITERS = 4
PARTITIONS = 6
ROWS = 3000
WAIT_S = 60.0


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    with LocalCluster(2, memory="32MiB") as cluster:
        yield cluster


class Job:
    """An exchange and its writers, which stop half-way until the fault has happened."""

    def __init__(self, name: str, cluster: LocalCluster) -> None:
        self.name = name
        self.metadata = cluster.metadata
        self.rows = {m: numbered(m, ROWS, partitions=PARTITIONS) for m in range(WRITERS)}
        self.called: list[list[int]] = []
        self.reruns: list[Future[Commit]] = []

    def run(self, replicas: int, fault: Callable[[], None]) -> list[Commit]:
        """Write all, with `fault` when everyone is half-way; the commits, and reads checked."""
        half_way = threading.Barrier(WRITERS, action=fault)
        with (
            ThreadPoolExecutor(2 * WRITERS) as self.pool,
            CoscoExchange(
                self.name, PARTITIONS, self.call_back, replicas=replicas, metadata=self.metadata
            ),
        ):
            writing = [
                self.pool.submit(
                    send, self.name, m, rows, self.metadata, halfway=lambda: half_way.wait(WAIT_S)
                )
                for m, rows in self.rows.items()
            ]
            commits = [each.result(WAIT_S) for each in writing]
            found = fetch_all(
                self.name, range(WRITERS), PARTITIONS, self.metadata, timeout_s=WAIT_S
            )
            everything = [row for rows in self.rows.values() for row in rows]
            assert found == by_partition(everything, PARTITIONS)
            for rerun in self.reruns:
                rerun.result(WAIT_S)
            return commits

    def call_back(self, mappers: list[int], reason: str) -> None:
        self.called.append(mappers)
        self.reruns += [
            self.pool.submit(send, self.name, m, self.rows[m], self.metadata) for m in mappers
        ]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("again", [False, True], ids=["gone", "started again"])
def test_a_daemon_is_killed(cluster: LocalCluster, name: str, replicas: int, again: bool) -> None:
    job, daemon = Job(name, cluster), cluster.daemons[0]

    def fault() -> None:
        daemon.kill()
        if again:
            daemon.restart()

    try:
        commits = job.run(replicas, fault)
    finally:
        if not again:
            daemon.restart()
    assert [c.won for c in commits] == [True] * WRITERS
    assert [c.rows for c in commits] == [ROWS] * WRITERS
    if replicas == 2:
        assert job.called == []


def test_a_daemon_is_paused_and_wakes(cluster: LocalCluster, name: str) -> None:
    job, daemon = Job(name, cluster), cluster.daemons[1]
    awake = threading.Timer(14.0, os.kill, (daemon.pid, signal.SIGCONT))

    def fault() -> None:
        os.kill(daemon.pid, signal.SIGSTOP)
        awake.start()

    try:
        assert all(commit.won for commit in job.run(2, fault))
    finally:
        awake.join()
    assert job.called == []


def test_the_metadata_service_is_started_again(cluster: LocalCluster, name: str) -> None:
    job = Job(name, cluster)

    def fault() -> None:
        cluster.metadata_service.kill()
        cluster.metadata_service.restart()

    assert all(commit.won for commit in job.run(2, fault))
    assert job.called == []


def test_the_metadata_service_and_a_daemon_die_together(cluster: LocalCluster, name: str) -> None:
    job, daemon = Job(name, cluster), cluster.daemons[0]

    def fault() -> None:
        cluster.metadata_service.kill()
        daemon.kill()
        cluster.metadata_service.restart()

    try:
        assert all(commit.won for commit in job.run(2, fault))
    finally:
        daemon.restart()
    assert job.called == []
