"""Services and clients of two builds beside each other, each of them a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

_ROOT: Final = Path(__file__).parents[2]
_HOST: Final = "127.0.0.1"
_END_S: Final = 60.0
PROGRAM: Final = _ROOT / "tests" / "versions" / "program.py"


@dataclass(frozen=True)
class Build:
    """A build of Cosco. tree: the folder that its package is in."""

    name: str
    tree: Path
    #: The option of the metadata service that says where its metrics are.
    metrics_option: str

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes: with its own package, and without options of tests around."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COSCO_")}
        return kept | {"PYTHONPATH": str(self.tree)}


NEW: Final = Build("new", _ROOT, "--http")
OLD: Final = Build("old", _ROOT / ".versions" / "before", "--metrics")
IS_THERE: Final = (OLD.tree / "cosco").is_dir()


class Service:
    """One service on one port, over its restarts as one build and the other."""

    def __init__(self, module: str, options: list[str], log: Path) -> None:
        self._port = socket.socket()  # bound but not listening: it stays ours
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind((_HOST, 0))
        self.address = f"{_HOST}:{self._port.getsockname()[1]}"
        self._module, self._options, self.log = module, options, log
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def start(self, build: Build) -> None:
        """Return when it serves."""
        is_metadata = self._module.endswith(".metadata")
        metrics = build.metrics_option if is_metadata else "--metrics"
        command = [sys.executable, "-P", "-m", self._module, "--listen", self.address]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, metrics, f"{_HOST}:0", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=build.environment,
            )
        self._output = self._process.stdout
        assert self._output is not None
        assert b" ready on " in self._output.readline(), self.log.read_text()[-4000:]

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended in good order."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(_END_S) == 0
        self._end_output()

    def wait(self) -> int:
        """Return its exit code, when it has ended."""
        assert self._process is not None
        return self._process.wait(_END_S)

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._end_output()

    def close(self) -> None:
        """The end of it."""
        self.kill()
        self._port.close()

    def _end_output(self) -> None:
        if self._output is not None:
            self._output.close()


class Cluster:
    """A metadata service, daemons that share a store, and clients, each of whichever build."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.daemons: list[Service] = []
        self._stack = stack
        options = ["--store", f"sqlite:///{directory}/metadata.db", "--daemon-lease-s", "2"]
        self.service = self._add("cosco.cli.metadata", options, "metadata")
        self.metadata = self.service.address

    def daemon(self, build: Build) -> Service:
        """Start one more."""
        number = len(self.daemons)
        options = ["--metadata", self.metadata, "--store", f"file://{self.directory}/store"]
        options += ["--host-id", f"host-{number}", "--memory", "32MiB"]
        started = self._add("cosco.cli.shuffled", options, f"daemon-{number}")
        self.daemons.append(started)
        started.start(build)
        return started

    def client(self, build: Build, *arguments: object) -> Client:
        """Start a program of tests/versions/program.py."""
        return self._stack.enter_context(Client(build, [self.metadata, *map(str, arguments)]))

    def _add(self, module: str, options: list[str], label: str) -> Service:
        added = Service(module, options, self.directory / f"{label}.log")
        self._stack.callback(added.close)
        return added


class Client:
    """A program that says one line of JSON for each step, and takes a line to go on."""

    def __init__(self, build: Build, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=build.environment,
            text=True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def said(self) -> Any:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        return json.loads(line)

    def go_on(self) -> None:
        """Let it do its next step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ends(self) -> None:
        """Wait for its end in good order."""
        assert self._process.wait(_END_S) == 0


@contextmanager
def cluster(directory: Path, metadata: Build, *daemons: Build) -> Iterator[Cluster]:
    """A cluster whose services are of these builds."""
    with ExitStack() as stack:
        started = Cluster(directory, stack)
        started.service.start(metadata)
        for build in daemons:
            started.daemon(build)
        yield started
