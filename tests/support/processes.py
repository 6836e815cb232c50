"""Services started with any options, for what LocalCluster has no argument."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

_HOST = "127.0.0.1"
_END_TIMEOUT_S = 30


@contextmanager
def python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that reads its stdin and has printed a line, "NAME" or so; killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "it ended before it said anything"
            yield process
        finally:
            process.kill()


class Service:
    """One command on one port, over its restarts.

    file_kib: if given, no file it writes may become longer than so many KiB (`ulimit -f`).
    """

    def __init__(
        self,
        command: str,
        options: Iterable[str],
        log: Path,
        file_kib: int | None = None,
    ) -> None:
        # Bound but not listening: the port stays ours over restarts.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind((_HOST, 0))
        self.address = f"{_HOST}:{self._port.getsockname()[1]}"
        program = str(Path(sysconfig.get_path("scripts")) / command)
        self._arguments = [program, "--listen", self.address, *options]
        if file_kib is not None:
            limited = f'ulimit -f {file_kib} && exec "$@"'
            self._arguments = ["bash", "-c", limited, "bash", *self._arguments]
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it serves."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COSCO_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert " ready on " in line, self.tail()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, also while it is stopped; returns when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self, timeout_s: float = _END_TIMEOUT_S) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = _END_TIMEOUT_S) -> int:
        """The exit code, when it has ended."""
        assert self._process is not None
        self._process.wait(timeout_s)
        return self._reap()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        self.kill()
        self._port.close()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def _reap(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait()


class Services:
    """A metadata service and daemons below one directory; all end with the block."""

    def __init__(self, directory: Path, *, metadata_options: Iterable[str] = ()) -> None:
        self.directory = directory
        self.daemons: list[Service] = []
        self._stack = ExitStack()
        store = f"sqlite:///{directory}/metadata.db"
        self.metadata_service = self._add(
            "cosco-metadata", ["--store", store, *metadata_options], "metadata"
        )
        self.metadata = self.metadata_service.address

    def daemon(
        self, *options: str, store: str | None = None, file_kib: int | None = None
    ) -> Service:
        """Start another daemon, a host of its own; `store`: a URL, else the shared directory."""
        number = len(self.daemons)
        given = [
            "--metadata", self.metadata,
            "--store", store or f"file://{self.directory}/store",
            "--host-id", f"host-{number}",
            *(() if "--memory" in options else ("--memory", "32MiB")),
            *options,
        ]  # fmt: skip
        daemon = self._add("cosco-shuffled", given, f"daemon-{number}", file_kib)
        self.daemons.append(daemon)
        return daemon

    def _add(
        self,
        command: str,
        options: Iterable[str],
        label: str,
        file_kib: int | None = None,
    ) -> Service:
        service = Service(command, options, self.directory / f"{label}.log", file_kib)
        self._stack.callback(service.close)
        try:
            service.start()
        except BaseException:
            self._stack.close()
            raise
        return service

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if any(exc):  # pytest shows it with the failure
            for service in (self.metadata_service, *self.daemons):
                print(f"--- {service.log.name}\n{service.tail()}")
        self._stack.close()
