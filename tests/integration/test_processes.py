"""`cosco-shuffled --processes`: daemons of one host that come and go together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import Any

import psutil
import pytest
from support.commands import command, environment
from support.processes import Services

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.observe import fetch_status
from cosco.protocol.records import DaemonState

ROWS = 20_000
PARTITIONS = 4


class Service:
    """A command that runs, and the lines it writes."""

    def __init__(self, name: str, *args: str) -> None:
        self.log = TemporaryFile("w+")  # noqa: SIM115 (it is closed in `end`)
        self.process = subprocess.Popen(
            command(name, *args),
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(),
        )
        self.name = name
        self.lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def end(self) -> None:
        """Wait for its end."""
        with self.process:
            self._reader.join()
        self.log.close()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What it has logged of a kind, with `--log-format json`."""
        self.log.seek(0)
        lines = [json.loads(line) for line in self.log if line.startswith("{")]
        return [line for line in lines if line.get("event") == kind]

    def ready(self) -> str:
        """The address of the next daemon that says it is ready."""
        line = self.lines.get(timeout=60)
        match = re.fullmatch(rf"cosco-{self.name} ready on (127\.0\.0\.1:\d+)\n", line)
        assert match, line
        return match[1]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def of_port(self, address: str) -> psutil.Process:
        """The daemon that listens on an address."""
        port = int(address.rpartition(":")[2])
        for child in self.children():
            listening = [c for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            if any(c.laddr.port == port for c in listening):
                return child
        raise AssertionError(f"nobody listens on {address}")


@contextmanager
def service(name: str, *args: str) -> Iterator[Service]:
    """A command that runs; it and its children are gone at the end."""
    running = Service(name, *args)
    try:
        yield running
    finally:
        children = running.children() if running.process.poll() is None else []
        running.process.kill()
        running.end()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[str]:
    with Services(tmp_path) as services:
        yield services.metadata


def daemons(metadata: str, store: Path, host: str, *more: str) -> tuple[str, ...]:
    return (
        *("shuffled", "--listen", "127.0.0.1:0", "--metadata", metadata, "--host-id", host),
        *("--store", store.as_uri(), "--memory", "64MiB", *more),
    )


def write(metadata: str, mapper: int) -> None:
    with CoscoWriter("rows", mapper, metadata=metadata) as writer:
        for row in range(ROWS):
            writer.collect(row % PARTITIONS, b"%d/%d" % (mapper, row))


def read(metadata: str, mappers: int) -> list[bytes]:
    rows: list[bytes] = []
    for partition in range(PARTITIONS):
        with CoscoReader("rows", range(mappers), partition, metadata=metadata) as reader:
            rows += reader
    return sorted(rows)


def expected(mappers: int) -> list[bytes]:
    return sorted(b"%d/%d" % (mapper, row) for mapper in range(mappers) for row in range(ROWS))


def test_processes_serve_an_exchange_and_one_that_is_killed_comes_back_with_nothing_lost(
    tmp_path: Path, metadata: str
) -> None:
    with ExitStack() as stack:
        store = tmp_path / "store"
        options = ("--processes", "2", "--log-format", "json")
        two = stack.enter_context(service(*daemons(metadata, store, "a", *options)))
        other = stack.enter_context(service(*daemons(metadata, store, "b")))
        addresses = {two.ready(), two.ready()}
        other.ready()
        assert len(addresses) == 2
        status = fetch_status(metadata).daemons
        assert len(status) == 3
        exchange = stack.enter_context(CoscoExchange("rows", PARTITIONS, metadata=metadata))
        write(metadata, 0)
        assert exchange.progress().rows == ROWS
        for index, address in enumerate(sorted(addresses)):  # one of them has rows in memory
            two.of_port(address).kill()
            assert two.ready() == address  # where it was
            write(metadata, index + 1)
        ended = two.events("process_ended")
        assert [(line["daemon"], line["code"]) for line in ended] == [
            (address, -signal.SIGKILL) for address in sorted(addresses)
        ]
        assert len(two.events("service_started")) == 4
        assert read(metadata, 3) == expected(3)
        exchange.close()
        for running in (two, other):
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(timeout=60) == 0


def test_sigterm_ends_all_and_what_they_stored_is_adopted_by_the_next(
    tmp_path: Path, metadata: str
) -> None:
    arguments = daemons(metadata, tmp_path / "store", "a", "--processes", "2")
    exchange = None
    for start in range(2):
        with service(*arguments) as two:
            two.ready()
            two.ready()
            if exchange is None:
                exchange = CoscoExchange("rows", PARTITIONS, replicas=1, metadata=metadata)
                write(metadata, 0)
            else:
                assert read(metadata, 1) == expected(1)
                exchange.close()
            children = two.children()
            assert len(children) == 2, start
            two.process.send_signal(signal.SIGTERM)
            assert two.process.wait(timeout=60) == 0
            assert not any(child.is_running() for child in children)


def test_the_end_of_the_first_process_is_the_end_of_all(tmp_path: Path, metadata: str) -> None:
    with service(*daemons(metadata, tmp_path / "store", "a", "--processes", "3")) as three:
        for _ in range(3):
            three.ready()
        children = three.children()
        assert len(children) == 3
        three.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive


def test_a_daemon_that_was_told_to_drain_stays_away(tmp_path: Path, metadata: str) -> None:
    with service(*daemons(metadata, tmp_path / "store", "a", "--processes", "2")) as two:
        addresses = [two.ready(), two.ready()]
        gone = two.of_port(addresses[0])
        drain = [sys.executable, "-m", "cosco.cli.main", "drain", addresses[0]]
        subprocess.run([*drain, "--metadata", metadata], check=True, env={**os.environ})
        psutil.wait_procs([gone], timeout=30)
        assert [c.pid for c in two.children()] == [two.of_port(addresses[1]).pid]
        drain[-1] = addresses[1]
        subprocess.run([*drain, "--metadata", metadata], check=True, env={**os.environ})
        assert two.process.wait(timeout=30) == 0
        assert two.lines.empty()
        states = {daemon.state for daemon in fetch_status(metadata).daemons}
        assert DaemonState.SERVING not in states


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--processes", "0"), "--processes is 0"),
        (("--processes", "x"), "'x'"),
        (("--processes", "5"), "for each of --processes 5"),
        (("--processes", "2", "--store", "file:///proc/no"), "store"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, metadata: str, options: tuple[str, ...], said: str
) -> None:
    name, *arguments = daemons(metadata, tmp_path / "store", "a", *options)
    done = subprocess.run(
        command(name, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cosco-shuffled: ")
    assert said in line
