"""What the Java client writes is what a reader gets, whatever fails meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from support.java_reader import classpath

import cosco

SHUFFLE = "of-java"
WAIT_S = 60.0


class JavaWriter:
    """A process that writes rows of one mapper."""

    def __init__(
        self,
        metadata: str,
        mapper: int,
        *,
        rows: int,
        partitions: int,
        lengths: tuple[int, int],
        pause_ms: int = 0,
        interrupt_ms: int = 0,
    ) -> None:
        self.mapper, self.rows, self.partitions = mapper, rows, partitions
        self.shortest, self.longest = lengths
        numbers = (mapper, mapper, rows, partitions, *lengths, pause_ms, interrupt_ms)
        self.process = subprocess.Popen(
            ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-cp", classpath(),
             "cosco.client.write.WriteMain", metadata, SHUFFLE, *map(str, numbers)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self._lines = self.process.stdout

    def half(self) -> None:
        """Wait until half of the rows are added."""
        line = self._lines.readline()
        assert line == "half\n", line

    def end(self) -> str:
        """Wait for its end, and return what it said last."""
        timer = threading.Timer(WAIT_S, self.process.kill)
        timer.start()
        try:
            said = self._lines.read().splitlines()
            self.process.wait()
        finally:
            timer.cancel()
            self._lines.close()
        assert said, "it was silent"
        sys.stdout.write(f"{said[-1]}\n")
        return said[-1]

    def row(self, i: int) -> bytes:
        length = self.shortest + (i * 7919 + self.mapper) % (self.longest - self.shortest + 1)
        words = np.arange(-(-length // 8), dtype="<u8")
        words *= np.uint64(6364136223846793005)
        words += np.uint64(self.mapper << 32 | i)
        words[:2] = self.mapper, i
        return words.tobytes()[:length]


@pytest.fixture
def cluster() -> Iterator[cosco.LocalCluster]:
    with cosco.LocalCluster(2, memory="64MiB") as cluster:
        yield cluster


@contextmanager
def opened(
    cluster: cosco.LocalCluster, partitions: int, **options: Any
) -> Iterator[cosco.CoscoExchange]:
    """An exchange of rows of bytes, as a Python writer has written the first ones."""
    with cosco.CoscoExchange(SHUFFLE, partitions, metadata=cluster.metadata, **options) as one:
        with cosco.CoscoWriter(SHUFFLE, 0, metadata=cluster.metadata) as writer:
            writer.collect(0, b"from Python")
        yield one


def check_rows(cluster: cosco.LocalCluster, writer: JavaWriter) -> None:
    """Compare what readers get of its mapper with what it wrote."""
    seen: set[int] = set()
    last_partition = 0
    with cosco.CoscoReader(
        SHUFFLE, [writer.mapper], range(writer.partitions), timeout_s=WAIT_S,
        metadata=cluster.metadata,
    ) as reader:  # fmt: skip
        for row in reader:
            i = int.from_bytes(row[8:16], "little")
            assert row == writer.row(i)
            assert i not in seen
            assert i % writer.partitions >= last_partition
            last_partition = i % writer.partitions
            seen.add(i)
    assert len(seen) == writer.rows


def test_rows_of_java_and_of_python_are_read_alike(cluster: cosco.LocalCluster) -> None:
    with opened(cluster, 5):
        java = JavaWriter(cluster.metadata, 1, rows=3000, partitions=5, lengths=(16, 3000))
        java.half()
        assert java.end().startswith("won true rows 3000 resent 0")
        check_rows(cluster, java)
        with cosco.CoscoReader(SHUFFLE, [0], 0, metadata=cluster.metadata) as reader:
            assert list(reader) == [b"from Python"]


def test_rows_longer_than_a_block_and_many_partitions(cluster: cosco.LocalCluster) -> None:
    with opened(cluster, 4096):
        java = [
            JavaWriter(cluster.metadata, 1, rows=3, partitions=1, lengths=(1 << 20, 5 << 20)),
            JavaWriter(cluster.metadata, 2, rows=20_000, partitions=4096, lengths=(16, 400)),
        ]
        for one in java:
            one.half()
            assert one.end().startswith(f"won true rows {one.rows} resent 0")
            check_rows(cluster, one)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_daemon_is_killed_while_java_writes(replicas: int) -> None:
    with (
        cosco.LocalCluster(3, memory="64MiB") as cluster,
        opened(cluster, 16, replicas=2, min_replicas=replicas),
    ):
        java = JavaWriter(
            cluster.metadata, 1, rows=2000, partitions=16, lengths=(1000, 9000), pause_ms=1
        )
        java.half()
        cluster.daemons[0].kill()
        said = java.end()
        assert said.startswith("won true rows 2000 resent")
        assert int(said.split()[5]) > 0, said
        check_rows(cluster, java)


def test_a_daemon_is_started_again_while_java_writes() -> None:
    """There is no other one: the writer waits for it."""
    with cosco.LocalCluster(1, memory="64MiB") as cluster, opened(cluster, 4, replicas=1):
        java = JavaWriter(
            cluster.metadata, 1, rows=3000, partitions=4, lengths=(1000, 9000), pause_ms=1
        )
        java.half()
        cluster.daemons[0].stop()
        cluster.daemons[0].restart()
        assert java.end().startswith("won true rows 3000")
        check_rows(cluster, java)


def test_a_daemon_is_drained_while_java_writes() -> None:
    with cosco.LocalCluster(3, memory="64MiB") as cluster, opened(cluster, 16):
        java = JavaWriter(
            cluster.metadata, 1, rows=2000, partitions=16, lengths=(1000, 9000), pause_ms=1
        )
        java.half()
        drain = ["-m", "cosco.cli.main", "drain", cluster.daemons[0].address]
        subprocess.run(
            [sys.executable, *drain, "--metadata", cluster.metadata], check=True, timeout=WAIT_S
        )
        said = java.end()
        assert said.startswith("won true rows 2000")
        assert int(said.split()[5]) > 0, said
        check_rows(cluster, java)


def test_the_metadata_service_is_away_when_java_commits(cluster: cosco.LocalCluster) -> None:
    with opened(cluster, 16):
        java = JavaWriter(
            cluster.metadata, 1, rows=1000, partitions=16, lengths=(1000, 9000), pause_ms=1
        )
        java.half()
        cluster.metadata_service.kill()
        time.sleep(3)  # longer than it takes to add the rest
        cluster.metadata_service.restart()
        assert java.end().startswith("won true rows 1000 resent 0")
        check_rows(cluster, java)


def test_an_interrupt_ends_a_wait_at_once_and_others_go_on(cluster: cosco.LocalCluster) -> None:
    with opened(cluster, 16):
        lost = JavaWriter(
            cluster.metadata, 1, rows=50_000, partitions=16, lengths=(9000, 9999), pause_ms=1,
            interrupt_ms=3000,
        )  # fmt: skip
        for daemon in cluster.daemons:
            os.kill(daemon.pid, signal.SIGSTOP)
        said = lost.end()
        for daemon in cluster.daemons:
            os.kill(daemon.pid, signal.SIGCONT)
        assert said.startswith("failed ClientClosed"), said
        java = JavaWriter(cluster.metadata, 1, rows=100, partitions=16, lengths=(100, 900))
        java.half()
        assert java.end().startswith("won true rows 100")
        check_rows(cluster, java)
