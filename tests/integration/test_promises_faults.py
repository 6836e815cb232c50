"""What the public surface promises when something stops, dies, fills up or is misused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.processes import Services, python

from cosco import (
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    CoscoError,
    CoscoExchange,
    CoscoReader,
    CoscoWriter,
    ExchangeClosed,
    ExchangeExists,
    LocalCluster,
)


def outcome(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """The thread that makes the call, and the list that gets what it returns or raises."""
    result: list[object] = []

    def run() -> None:
        try:
            result.append(call())
        except Exception as error:  # noqa: BLE001 - for the caller to look at
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


def rows_read(name: str, metadata: str, mapper: int = 0, partition: int = 0) -> int:
    with CoscoReader(name, [mapper], partition, timeout_s=10, metadata=metadata) as reader:
        return sum(1 for _ in reader)


# --- services that stop ------------------------------------------------------------------------


def test_metadata_service_killed_under_writers_and_waiting_readers(
    cluster: LocalCluster, name: str
) -> None:
    with CoscoExchange(name, 2, metadata=cluster.metadata) as exchange:

        def read() -> int:
            with CoscoReader(name, [0, 1], 1, metadata=cluster.metadata) as reader:
                return sum(1 for _ in reader)

        reading, found = outcome(read)
        with CoscoWriter(name, 0, buffer_bytes=64 << 10, metadata=cluster.metadata) as writer:
            for i in range(1000):
                writer.collect(i % 2, b"%d" % i * 100)
                if i == 500:
                    cluster.metadata_service.kill()
            cluster.metadata_service.restart()
        cluster.metadata_service.kill()
        cluster.metadata_service.restart()
        with CoscoWriter(name, 1, metadata=cluster.metadata) as writer:
            writer.collect(1, b"")
        reading.join(30)
        assert found == [501]
        assert exchange.progress().rows == 1001


def test_lease_of_a_killed_driver(cluster: LocalCluster, name: str) -> None:
    metadata = cluster.metadata
    driver = """
        import sys, cosco
        x = cosco.CoscoExchange(sys.argv[1], 2, lease_s=1, metadata=sys.argv[2])
        print("made", flush=True); sys.stdin.readline()
    """
    with python(driver, name, metadata):
        writer = CoscoWriter(name, 0, metadata=metadata)
        writer.collect(0, b"x")
        reader = CoscoReader(name, [1], 0, metadata=metadata)
        waiting, woken = outcome(reader.next)
    waiting.join(15)
    assert isinstance(woken[0], ExchangeClosed)
    assert name in str(woken[0])  # it says which
    with pytest.raises(ExchangeClosed, match=name):
        writer.close()
    with pytest.raises(ExchangeClosed, match=name):
        CoscoWriter(name, 1, metadata=metadata)
    with pytest.raises(ExchangeExists, match=name):
        CoscoExchange(name, 2, metadata=metadata)
    reader.close()


def test_each_daemon_takes_a_share_of_the_rows(name: str) -> None:
    with LocalCluster(2, memory="16MiB") as fresh:
        with CoscoExchange(name, 64, metadata=fresh.metadata):
            with CoscoWriter(name, 0, metadata=fresh.metadata) as writer:
                for i in range(640):
                    writer.collect(i % 64, b"%d" % i)
            command = [sys.executable, "-m", "cosco.cli.main", "status"]
            command += ["--metadata", fresh.metadata]
            status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            taken = []
            for line in status.splitlines():
                if "serving" in line:
                    metrics = re.findall(r"127\.0\.0\.1:\d+", line)[-1]
                    with urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
                        text = answer.read().decode()
                    found = re.search(r"^cosco_bytes_received_total (\S+)$", text, re.MULTILINE)
                    assert found is not None, text
                    taken.append(float(found[1]))
    assert len(taken) == 2
    assert min(taken) > 0.25 * sum(taken), taken


# --- blocked calls -------------------------------------------------------------------------------


@contextmanager
def frozen(cluster: LocalCluster) -> Iterator[None]:
    """Daemons that take nothing for a while."""
    for daemon in cluster.daemons:
        os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for daemon in cluster.daemons:
            os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize("end", ["abort", "close"])
def test_a_blocked_collect_is_woken(end: str, cluster: LocalCluster, name: str) -> None:
    with CoscoExchange(name, 1, metadata=cluster.metadata):
        writer = CoscoWriter(name, 0, buffer_bytes=64 << 10, metadata=cluster.metadata)
        taken = 0

        def collect() -> None:
            nonlocal taken
            while True:
                writer.collect(0, os.urandom(50_000))
                taken += 1

        with frozen(cluster):
            blocked, woken = outcome(collect)
            seen = -1
            while seen != taken:  # until it does not get on any more
                seen = taken
                blocked.join(0.3)
            ending, _ = outcome(getattr(writer, end))
            blocked.join(5)
            in_time = not blocked.is_alive()
            writer.abort()
            blocked.join(5)
            ending.join(5)
        assert in_time
        assert isinstance(woken[0], ClientClosed)


def test_a_reader_waits_as_long_as_it_is_told(name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        for timeout_s in (0, 0.5):
            began = time.monotonic()
            with CoscoReader(name, [5, 6], 0, timeout_s=timeout_s, metadata=metadata) as reader:
                with pytest.raises(CommitTimeout) as caught:
                    reader.read_table()
            assert timeout_s <= time.monotonic() - began < timeout_s + 1
            assert sorted(caught.value.mappers) == [5, 6]
            assert not caught.value.recompute


# --- a store that is full ------------------------------------------------------------------------


def test_a_full_store(small_disk: Path, tmp_path: Path, name: str) -> None:
    with Services(tmp_path) as services:
        options = ["--memory", "16MiB", "--full-store-wait-s", "1"]
        daemon = services.daemon(*options, store=f"file://{small_disk}/store")
        meta = services.metadata
        exchange = CoscoExchange(name, 1, replicas=1, codec="none", metadata=meta)
        with CoscoWriter(name, 0, metadata=meta) as writer:
            for _ in range(100):
                writer.collect(0, os.urandom(100_000))
        for mapper in range(1, 4):  # the later ones are refused at once, while they push
            writer = CoscoWriter(name, mapper, buffer_bytes=1 << 20, metadata=meta)
            with pytest.raises(CapacityExceeded, match="free space"):
                for _ in range(1000):
                    writer.collect(0, os.urandom(100_000))
            writer.abort()
        assert rows_read(name, meta) == 100
        exchange.close()
        # What is closed need not be stored: nothing is in the way of an end.
        assert daemon.stop(10) == 0


# --- options and misuse --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("cosco-metadata", ["--daemon-lease-s", "nan"]),
        ("cosco-metadata", ["--daemon-lease-s", "inf"]),
        ("cosco-metadata", ["--store", "sqlite:////proc/no.db"]),
        ("cosco-shuffled", ["--heartbeat-s", "nan"]),
        ("cosco-shuffled", ["--heartbeat-s", "inf"]),
        ("cosco-shuffled", ["--full-store-wait-s", "nan"]),
        ("cosco-shuffled", ["--advertise", "host:0"]),
        ("cosco-shuffled", ["--memory", "1"]),
        ("cosco-shuffled", ["--store", "file:///proc/no"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_option_that_makes_no_sense(
    command: str, options: list[str], metadata: str, tmp_path: Path
) -> None:
    given = ["--listen", "127.0.0.1:0", *options]
    if command == "cosco-shuffled":
        given += ["--metadata", metadata]
    elif "--store" not in options:
        given += ["--store", f"sqlite:///{tmp_path}/m.db"]
    program = Path(sysconfig.get_path("scripts")) / command
    process = subprocess.Popen(
        [program, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            out, error = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert (process.returncode, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert options[0] in error or options[1] in error or "/proc" in error


@pytest.mark.parametrize("mapper", [-1, 2**31, True, 1.0, "0", 2**70], ids=repr)
def test_mapper_ids_that_are_none(mapper: object, name: str, metadata: str) -> None:
    with CoscoExchange(name, 1, metadata=metadata):
        with pytest.raises(CoscoError):
            CoscoWriter(name, mapper, metadata=metadata)  # type: ignore[arg-type]
        with pytest.raises(CoscoError):
            CoscoReader(name, [mapper], 0, metadata=metadata)  # type: ignore[list-item]
