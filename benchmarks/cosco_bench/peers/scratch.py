"""A directory and processes that are gone when a benchmark ends, however it ends."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

import psutil

from cosco.local import reaper

_MARK: Final = "COSCO_BENCH_TOKEN"
#: A JVM, or Ray, ends in about a second when it is asked to.
_GRACE_S: Final = 10.0


class Scratch:
    """A temporary directory below `base` (None: where temporary files go); a context manager.

    Programs of others start processes of their own, daemons included. All that descend from
    `spawn` carry a mark in their environment, by which they are found and killed. If this
    process dies, the reaper that a `LocalCluster` has does the same.
    """

    def __init__(self, base: str | None) -> None:
        token = secrets.token_hex(8)
        self._mark = f"{_MARK}={token}"
        # A short name: sockets below it have at most 107 bytes for their path.
        self.directory: Final = Path(base or tempfile.gettempdir()).absolute() / f"cosco-{token}"

    def __enter__(self) -> Self:
        # Before there is anything to clear up.
        self._reaper = reaper.start(self._mark, str(self.directory))
        self.directory.mkdir(mode=0o700)
        return self

    def __exit__(self, *exc: object) -> None:
        reaper.clear_up(self._mark, str(self.directory))
        self._reaper.kill()
        self._reaper.wait()

    def cpu_s(self) -> float:
        """Return the CPU seconds of the processes that run, with those of ended children."""
        total = 0.0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = _GRACE_S) -> None:
        """End a process and all others; those that do not end by SIGTERM are killed.

        They are asked first since some have things outside the directory, semaphores say,
        that only they can remove.
        """
        found = self._processes()
        for other in found:
            with suppress(psutil.NoSuchProcess):
                other.terminate()
        _, alive = psutil.wait_procs(found, timeout=grace_s)
        for other in alive:
            with suppress(psutil.NoSuchProcess):
                other.kill()
        reaper.kill_marked(self._mark)
        process.wait()

    def _processes(self) -> list[psutil.Process]:
        """Find those with the mark, and their children: some write over their environment."""
        found: list[psutil.Process] = []
        ours: set[int] = set()
        # Parents before children, but where numbers began anew: the mark finds most of those.
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if process.ppid() in ours or reaper.has_token(process.pid, self._mark):
                    ours.add(process.pid)
                    found.append(process)
        return found

    def spawn(
        self, arguments: list[str], log: IO[bytes], pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to `log`."""
        name, _, token = self._mark.partition("=")
        environment = {**os.environ, name: token}
        # What is installed is compiled; this checkout is so from the first warm-up on.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.Popen(  # noqa: S603 - what the caller wants to measure
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=pass_fds,
            # Ctrl-C is for the benchmark, which then ends this.
            start_new_session=True,
        )
