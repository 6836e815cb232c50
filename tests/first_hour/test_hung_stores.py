"""A store that does not answer: a disk, a mount or a server that is not there any more."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.exchanges import (
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
from support.hanging_store import Gate
from support.processes import Service, Services

from cosco import CapacityExceeded, Commit, CoscoError, CoscoExchange
from cosco.cli.status import to_text
from cosco.observe import fetch_status, read_metrics

OPTIONS = ("--memory", "16MiB", "--segment-bytes", "64KiB", "--metrics", "127.0.0.1:0")
TIMES = ("--store-timeout-s", "0.5", "--full-store-wait-s", "2")
PARTITIONS = 4
ROWS = numbered(0, 3000, partitions=PARTITIONS)
EXPECTED = by_partition(ROWS, PARTITIONS)
MANY = numbered(0, 25_000)  # more than a daemon has memory for


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(tmp_path) as started:
        yield started


def hanging(services: Services, name: str, *options: str) -> tuple[Service, Gate]:
    """A daemon with a store of its own that can hang."""
    directory = services.directory / name
    daemon = services.daemon(
        *OPTIONS,
        *TIMES,
        *options,
        store=f"file://{directory}",
        module="tests.support.hanging_store",
    )
    return daemon, Gate(directory)


def sample(services: Services, daemon: Service, name: str) -> float:
    """A metric of a daemon."""
    return read_metrics(serving(services.metadata)[daemon.address].metrics_address)[name]


def hangs(services: Services, daemon: Service) -> bool:
    return sample(services, daemon, "cosco_store_writes_hanging") > 0


def is_failing(services: Services, daemon: Service) -> bool:
    """What the metadata service was told of the store, and places ranges by."""
    return serving(services.metadata)[daemon.address].store_failing


@contextmanager
def background(services: Services, name: str, rows: list[tuple[int, bytes]]) -> Iterator[list]:
    """A mapper beside the test; what it came to, at the end of the block."""
    came: list[Commit | CoscoError] = []

    def run() -> None:
        try:
            came.append(send(name, 0, rows, services.metadata, buffer_bytes=256 << 10))
        except CoscoError as error:
            came.append(error)

    mapper = threading.Thread(target=run)
    mapper.start()
    try:
        yield came
    finally:
        mapper.join(60)
        assert not mapper.is_alive()


def test_writes_that_hang_move_the_range_and_are_told(services: Services) -> None:
    first, gate = hanging(services, "first")
    metadata = services.metadata
    with CoscoExchange("moves", 1, never, replicas=1, codec="none", metadata=metadata):
        assert assignment("moves", metadata).primary.address == first.address
        second = services.daemon("--memory", "64MiB", store=f"file://{services.directory}/second")
        with gate.held("writes"):
            # All threads of the store hang, and what it took in is read from memory.
            assert send("moves", 0, MANY, metadata, buffer_bytes=1 << 20).won
            assert assignment("moves", metadata).primary.address == second.address
            until(lambda: hangs(services, first), 10, "the count of writes that hang")
            assert sample(services, first, "cosco_flush_failures_total") >= 1
            until(lambda: "event=store_hangs" in first.tail(), 10, "its line")
            assert 'reason="a write has been under way for' in first.tail()
            assert "serving, store hangs" in to_text(fetch_status(metadata))
            assert fetch("moves", [0], 0, metadata) == Counter(row for _, row in MANY)
        until(lambda: not hangs(services, first), 10, "the end of the writes that hung")
        until(lambda: "event=store_answers" in first.tail(), 10, "its line")
        until(lambda: not is_failing(services, first), 10, "the heartbeat that tells of it")
        assert fetch("moves", [0], 0, metadata) == Counter(row for _, row in MANY)
    with CoscoExchange("after", 64, never, replicas=1, metadata=metadata):
        used = {ref.primary.address for ref in describe("after", metadata).assignments}
        assert used == {first.address, second.address}  # it is well again


@pytest.mark.parametrize("gate_name", ["writes", "landed"])
def test_a_write_that_lands_after_its_range_has_moved(gate_name: str, services: Services) -> None:
    """Whether it is in the file or not when it is given up: no row is lost, none comes twice."""
    first, gate = hanging(services, "first")
    second, _ = hanging(services, "second")
    metadata = services.metadata
    with CoscoExchange("late", PARTITIONS, never, replicas=2, codec="none", metadata=metadata):
        primaries = {a.primary.address for a in describe("late", metadata).assignments}
        assert first.address in primaries
        with gate.held(gate_name):
            assert send("late", 0, ROWS, metadata).won
            until(lambda: hangs(services, first), 10, "a write that hangs")
            until(
                lambda: all(
                    a.primary.address == second.address
                    for a in describe("late", metadata).assignments
                ),
                10,
                "the move of all ranges",
            )
            assert fetch_all("late", [0], PARTITIONS, metadata) == EXPECTED
        until(lambda: not hangs(services, first), 10, "the end of the writes that hung")
        assert fetch_all("late", [0], PARTITIONS, metadata) == EXPECTED
        # And from its files alone.
        first.signal(signal.SIGTERM)
        until(lambda: first.address not in serving(metadata), 10, "the drain")
        first.stop()
        first.start()
        assert fetch_all("late", [0], PARTITIONS, metadata) == EXPECTED


def test_with_nowhere_to_go_writers_are_told_and_it_is_well_afterwards(services: Services) -> None:
    daemon, gate = hanging(services, "only", "--full-store-wait-s", "1")
    metadata = services.metadata
    with CoscoExchange("nowhere", 1, never, replicas=1, codec="none", metadata=metadata):
        with gate.held("writes"):
            began = time.monotonic()
            with background(services, "nowhere", MANY) as came:
                pass
            assert isinstance(came[0], CapacityExceeded), came
            assert "a write has been under way for" in str(came[0])
            # --store-timeout-s until that is noticed, then --full-store-wait-s.
            assert time.monotonic() - began < 12
            assert daemon.is_running()
        until(lambda: not hangs(services, daemon), 10, "the end of the writes that hung")
        few = numbered(1, 100)
        assert send("nowhere", 1, few, metadata).won
        assert fetch("nowhere", [1], 0, metadata) == Counter(row for _, row in few)


def test_reads_that_hang_are_waited_for_and_are_no_loss(services: Services) -> None:
    daemon, gate = hanging(services, "only", "--store-idle-s", "0.05")
    metadata = services.metadata
    with CoscoExchange("read", 1, never, replicas=1, codec="none", metadata=metadata):
        rows = numbered(0, 500)
        assert send("read", 0, rows, metadata).won
        until(lambda: sample(services, daemon, "cosco_pages_used_bytes") == 0, 10, "storing")
        with gate.held("reads", "lists"):
            read: list[Counter[bytes]] = []
            reader = threading.Thread(
                target=lambda: read.append(fetch("read", [0], 0, metadata, timeout_s=60))
            )
            reader.start()
            until(lambda: "a reader is told to come again" in daemon.tail(), 10, "a read given up")
            # Nor does the daemon wait for reads, nor do writes.
            assert send("read", 1, numbered(1, 100), metadata).won
            until(lambda: sample(services, daemon, "cosco_pages_used_bytes") == 0, 10, "storing")
        reader.join(30)
        assert read == [Counter(row for _, row in rows)]


def test_another_daemon_of_the_store_serves_what_one_cannot_read(services: Services) -> None:
    """Where a host, or its way to the store, hangs, and not the store."""
    daemon, gate = hanging(services, "shared", "--store-idle-s", "0.05")
    metadata = services.metadata
    with CoscoExchange("other", 1, never, replicas=1, codec="none", metadata=metadata):
        rows = numbered(0, 500)
        assert send("other", 0, rows, metadata).won
        until(lambda: sample(services, daemon, "cosco_pages_used_bytes") == 0, 10, "storing")
        services.daemon(*OPTIONS, store=f"file://{services.directory}/shared")
        with gate.held("reads"):
            assert fetch("other", [0], 0, metadata) == Counter(row for _, row in rows)


def test_an_exchange_is_closed_while_its_store_hangs(services: Services) -> None:
    daemon, gate = hanging(services, "only")
    metadata = services.metadata
    with gate.held("writes"):
        with CoscoExchange("closed", 1, never, replicas=1, codec="none", metadata=metadata):
            assert send("closed", 0, numbered(0, 100), metadata).won
            until(lambda: hangs(services, daemon), 10, "a write that hangs")
            under_way = sample(services, daemon, "cosco_pages_used_bytes")
            assert send("closed", 1, numbered(1, 500), metadata).won
            until(
                lambda: sample(services, daemon, "cosco_pages_used_bytes") > under_way + 400_000,
                10,
                "what comes later",
            )
        # The pages under the write stay, those of what was not being written go.
        until(
            lambda: 0 < sample(services, daemon, "cosco_pages_used_bytes") <= under_way,
            10,
            "the end of what memory held",
        )
    until(lambda: sample(services, daemon, "cosco_pages_used_bytes") == 0, 10, "the end of pages")
    until(
        lambda: not list(gate.directory.glob("*/*/*/*")),
        10,
        "the end of the files, also of those that came late",
    )


def test_a_daemon_is_ended_whose_store_hangs(services: Services) -> None:
    """It says what it could not store, and its threads keep it from nothing."""
    daemon, gate = hanging(services, "only")
    metadata = services.metadata
    with CoscoExchange("ended", 1, replicas=1, codec="none", metadata=metadata):
        with gate.held():
            assert send("ended", 0, numbered(0, 500), metadata).won
            until(lambda: hangs(services, daemon), 10, "a write that hangs")
            daemon.signal(signal.SIGTERM)
            until(lambda: daemon.address not in serving(metadata), 10, "the drain")
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(25) == 2
            assert "bytes of pages could not be stored (a write has been" in daemon.tail()


def test_a_daemon_is_started_on_a_store_that_hangs(services: Services) -> None:
    with Gate(services.directory / "only").held():
        with pytest.raises(AssertionError):  # it does not become ready
            hanging(services, "only")
    log = (services.directory / "daemon-0.log").read_text()
    assert "has not answered for 0.5 s: see to its disk or mount" in log
    assert "Traceback" not in log


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that a test may freeze; only root may."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    commands = (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(disk)])
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError:
            pytest.skip("there is no mkfs.ext4")
        if done.returncode:
            pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["fsfreeze", "-u", str(disk)], capture_output=True, check=False)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_the_kernel_holds_up(frozen_disk: Path, services: Services) -> None:
    """As with a dead NFS server: threads that not even SIGKILL ends."""
    metadata = services.metadata
    first = services.daemon(*OPTIONS, *TIMES, store=f"file://{frozen_disk}/store")
    with CoscoExchange("frozen", 1, never, replicas=1, codec="none", metadata=metadata):
        second = services.daemon("--memory", "64MiB", store=f"file://{services.directory}/second")
        subprocess.run(["fsfreeze", "-f", str(frozen_disk)], check=True)
        assert send("frozen", 0, MANY, metadata, buffer_bytes=1 << 20).won
        assert assignment("frozen", metadata).primary.address == second.address
        assert fetch("frozen", [0], 0, metadata) == Counter(row for _, row in MANY)
        subprocess.run(["fsfreeze", "-u", str(frozen_disk)], check=True)
        until(lambda: not hangs(services, first), 20, "the end of the writes that hung")
        assert fetch("frozen", [0], 0, metadata) == Counter(row for _, row in MANY)
