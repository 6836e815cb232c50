"""Services started with any options, for what LocalCluster has no argument."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Self

from support import prepared

_HOST = "127.0.0.1"
_END_TIMEOUT_S = 30


@contextmanager
def python(code: str, *arguments: str, fresh: bool = False) -> Iterator[prepared.TextProcess]:
    """A program that reads its stdin and has printed a line, "NAME" or so; killed in the end.

    fresh: in an interpreter of its own, not in a fork of a prepared one.
    """
    text = textwrap.dedent(code)
    started: prepared.TextProcess
    if fresh:
        command = [sys.executable, "-c", text, *arguments]
        started = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    else:
        started = prepared.run_code(text, arguments, os.environ)
    with started as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "it ended before it said anything"
            yield process
        finally:
            process.kill()


def end_of(module: str, *arguments: str, log: Path) -> tuple[int, list[str]]:
    """Run a command that is to end by itself.

    Returns: its exit code, and the lines of its stderr, which go to `log`.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COSCO_")}
    with log.open("w") as stderr, open(os.devnull, "w") as nothing:  # noqa: PTH123
        process = prepared.run_module(
            module,
            arguments,
            stdout=nothing.fileno(),
            stderr=stderr.fileno(),
            environment=environment,
        )
        with process:
            code = process.wait(_END_TIMEOUT_S)
    return code, log.read_text().splitlines()


class Service:
    """One command on one port, over its restarts.

    file_kib: if given, no file it writes may become longer (`ulimit -f`).
    """

    def __init__(
        self,
        module: str,
        options: Iterable[str],
        log: Path,
        file_kib: int | None = None,
    ) -> None:
        # Bound but not listening: the port stays ours over restarts.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind((_HOST, 0))
        self.address = f"{_HOST}:{self._port.getsockname()[1]}"
        self._module = module
        option = "--http" if module.endswith(".metadata") else "--metrics"
        self._arguments = ["--listen", self.address, option, f"{_HOST}:0", *options]
        self._file_kib = file_kib
        self.log = log
        self._process: prepared.Process | None = None
        self._output: IO[str] | None = None  # read to its first line, and open while it runs

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it serves."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COSCO_")}
        self._close_output()
        ours, theirs = os.pipe()
        self._output = os.fdopen(ours)
        with os.fdopen(theirs, "w") as stdout, self.log.open("ab") as log:
            self._process = prepared.run_module(
                self._module,
                self._arguments,
                stdout=stdout.fileno(),
                stderr=log.fileno(),
                environment=environment,
            )
            if self._file_kib is not None:
                limit = self._file_kib << 10
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, limit))
        line = self._output.readline()
        assert " ready on " in line, self.tail()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, also while it is stopped; returns when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, timeout_s: float = _END_TIMEOUT_S) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = _END_TIMEOUT_S) -> int:
        """The exit code, when it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        self.kill()
        self._close_output()
        self._port.close()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()


class Services:
    """A metadata service and daemons below one directory; all end with the block."""

    def __init__(self, directory: Path, *, metadata_options: Iterable[str] = ()) -> None:
        self.directory = directory
        self.daemons: list[Service] = []
        self._stack = ExitStack()
        store = f"sqlite:///{directory}/metadata.db"
        self.metadata_service = self._add(
            "cosco.cli.metadata", ["--store", store, *metadata_options], "metadata"
        )
        self.metadata = self.metadata_service.address

    def daemon(
        self,
        *options: str,
        store: str | None = None,
        file_kib: int | None = None,
        module: str = "cosco.cli.shuffled",
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
        daemon = self._add(module, given, f"daemon-{number}", file_kib)
        self.daemons.append(daemon)
        return daemon

    def _add(
        self,
        module: str,
        options: Iterable[str],
        label: str,
        file_kib: int | None = None,
    ) -> Service:
        service = Service(module, options, self.directory / f"{label}.log", file_kib)
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
