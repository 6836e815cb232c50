"""Signals and service managers: a terminal that closes, logs that are rotated, systemd."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support.commands import ROOT, command, environment
from support.exchanges import fetch, numbered, send, serving, until
from support.log_lines import JSON, LogReader
from support.processes import Services

from cosco import CoscoExchange

BOUND_S = 30.0
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))

#: Makes a terminal that of a new session, and then runs a command in it.
_IN_TERMINAL = """
import os, signal, sys
terminal, ignore, *command = sys.argv[1:]
fd = os.open(terminal, os.O_RDWR)
for standard in range(2):
    os.dup2(fd, standard)
os.close(fd)
if ignore:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(command[0], command)
"""


class Terminal:
    """A command in a terminal, which somebody closes. Its log goes to a file."""

    def __init__(self, log: Path, *arguments: str, nohup: bool = False) -> None:
        self.log = log
        self._fd, theirs = pty.openpty()
        wrapper = [sys.executable, "-c", _IN_TERMINAL, os.ttyname(theirs), "1" if nohup else ""]
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*wrapper, *command(*arguments)],
                stderr=stderr,
                env=environment(),
                start_new_session=True,
            )
        self._said = ""
        while " ready on " not in self._said:
            self._said += os.read(self._fd, 1 << 16).decode()
        os.close(theirs)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def terminal(log: Path, *arguments: str, nohup: bool = False) -> Iterator[Terminal]:
    made = Terminal(log, *arguments, nohup=nohup)
    children = psutil.Process(made.process.pid).children(recursive=True)
    try:
        yield made
    finally:
        made.close()
        made.process.kill()
        made.process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One daemon to go to."""
    with Services(tmp_path_factory.mktemp("signals"), metadata_options=JSON) as started:
        started.daemon(*JSON, "--memory", "16MiB", "--heartbeat-s", "0.2")
        yield started


def daemon_arguments(services: Services, store: str, *more: str) -> tuple[str, ...]:
    return (
        *("shuffled", "--metadata", services.metadata, "--listen", "127.0.0.1:0"),
        *("--store", f"file://{services.directory}/{store}", "--host-id", "terminal"),
        *("--memory", "32MiB", "--heartbeat-s", "0.2", *more),
    )


# --- SIGHUP ------------------------------------------------------------------------------------


def test_sighup_without_a_terminal_ends_nobody(services: Services, name: str) -> None:
    """As of a program that rotates logs. Rows in memory with a single copy stay."""
    daemon, service = services.daemons[0], services.metadata_service
    logs = [LogReader(daemon), LogReader(service)]
    with CoscoExchange(name, 1, replicas=1, metadata=services.metadata):
        send(name, 0, numbered(0, 20), services.metadata)
        for running in (daemon, service):
            running.signal(signal.SIGHUP)
            running.signal(signal.SIGHUP)

        def said() -> bool:
            return all(any("SIGHUP" in str(line) for line in log.lines()) for log in logs)

        until(said, BOUND_S, "a line in both logs")
        assert fetch(name, [0], 0, services.metadata).total() == 20
    assert not logs[0].events("drain_began")
    assert daemon.is_running() and service.is_running()


def test_a_terminal_that_closes_drains_its_daemon(
    services: Services, name: str, tmp_path: Path
) -> None:
    """It says that it has drained to a terminal that is not there any more, and serves on."""
    with terminal(tmp_path / "log", *daemon_arguments(services, "own")) as daemon:
        until(lambda: len(serving(services.metadata)) == 2, BOUND_S)
        with CoscoExchange(name, 8, replicas=1, metadata=services.metadata):
            send(name, 0, numbered(0, 80, partitions=8), services.metadata)
            daemon.close()
            until(lambda: "event=drained" in daemon.log.read_text(), BOUND_S, "the drain")
            assert 'cause="serves on"' in daemon.log.read_text()
            total = sum(fetch(name, [0], p, services.metadata).total() for p in range(8))
            assert total == 80
        assert daemon.process.wait(BOUND_S) == 0


def test_a_terminal_that_closes_ends_the_metadata_service_in_good_order(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/m.db"
    log = tmp_path / "log"
    with terminal(log, "metadata", "--listen", "127.0.0.1:0", "--store", store) as service:
        service.close()
        assert service.process.wait(BOUND_S) == 0


def test_a_terminal_that_closes_drains_all_processes(services: Services, tmp_path: Path) -> None:
    arguments = daemon_arguments(services, "store", "--processes", "2")
    with terminal(tmp_path / "log", *arguments) as daemons:
        until(lambda: len(serving(services.metadata)) == 3, BOUND_S, "their start")
        daemons.process.send_signal(signal.SIGHUP)  # of somebody who rotates logs
        daemons.close()
        assert daemons.process.wait(BOUND_S) == 0
        until(lambda: len(serving(services.metadata)) == 1, BOUND_S, "their end")


def test_nohup_keeps_a_daemon_without_its_terminal(services: Services, tmp_path: Path) -> None:
    arguments = daemon_arguments(services, "store")
    with terminal(tmp_path / "log", *arguments, nohup=True) as daemon:
        until(lambda: len(serving(services.metadata)) == 2, BOUND_S, "its start")
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        ignored = int(re.findall(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)[0], 16)
        assert ignored >> (signal.SIGHUP - 1) & 1
        daemon.close()
        daemon.process.send_signal(signal.SIGTERM)  # which it has to be asked for
        assert daemon.process.wait(BOUND_S) == 0


# --- systemd -----------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(BOUND_S)
        yield listening


@contextmanager
def managed(
    manager: socket.socket, *arguments: str, watchdog_s: float = 0.0
) -> Iterator[subprocess.Popen[str]]:
    """A service that systemd would have started."""
    told = {"NOTIFY_SOCKET": manager.getsockname()}
    if watchdog_s:
        told["WATCHDOG_USEC"] = f"{watchdog_s * 1e6:.0f}"
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, text=True, env=environment(**told)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def states(manager: socket.socket, last: str) -> list[str]:
    """What was said, until `last` is."""
    found = [""]
    while found[-1] != last:
        found.append(manager.recv(100).decode())
    return found[1:]


def test_systemd_is_told_when_a_service_serves_lives_and_ends(
    manager: socket.socket, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/m.db"
    arguments = ("metadata", "--listen", "127.0.0.1:0", "--store", store)
    with managed(manager, *arguments, watchdog_s=0.3) as process:
        states(manager, "READY=1")
        for _ in range(3):
            states(manager, "WATCHDOG=1")
        process.terminate()
        assert set(states(manager, "STOPPING=1")) <= {"WATCHDOG=1", "STOPPING=1"}
        assert process.wait(BOUND_S) == 0


def test_systemd_is_told_that_daemons_serve_once_all_of_them_do(
    services: Services, manager: socket.socket
) -> None:
    arguments = daemon_arguments(services, "store", "--processes", "2")
    with managed(manager, *arguments, watchdog_s=2.0) as process:
        assert "WATCHDOG=1" in states(manager, "READY=1")
        assert len(serving(services.metadata)) == 3
        assert process.stdout is not None
        for _ in range(2):  # both have said so by then
            assert " ready on " in process.stdout.readline()
        process.terminate()
        states(manager, "STOPPING=1")
        assert process.wait(BOUND_S) == 0
    # The daemons themselves say nothing: their manager is the first process.
    manager.settimeout(0.1)
    with pytest.raises(TimeoutError):
        states(manager, "READY=1")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_as_systemd_wants_them(unit: Path, tmp_path: Path) -> None:
    found = ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment]
    found.read(unit)
    service = found["Service"]
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["ExecStart"].endswith(f"/{unit.stem}")
    assert {"TimeoutStopSec", "WatchdogSec"} <= set(service)
    if unit.stem == "cosco-shuffled":
        assert service["KillMode"] == "mixed"
    if shutil.which("systemd-analyze") is None:
        return
    # The command is checked to be there, and here it is in no place that a unit may name.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(service["ExecStart"], sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_units_name_options_that_exist() -> None:
    documented = (ROOT / "docs" / "configuration.md").read_text()
    assert len(UNITS) == 2
    for unit in UNITS:
        for line in unit.read_text().splitlines():
            if line.startswith("Environment="):
                name = line.removeprefix("Environment=").partition("=")[0]
                assert f"`{name}`" in documented, line
