"""Worker processes for the demo and the benchmarks: spawned, watched, and always stopped.

A worker is a fresh process that calls a function. This may report progress, wait for a common
start, and returns one picklable value. Its processor time and peak memory are measured from
inside, from the common start on (or from the call, when there is none). The workers of a
`TaskPool` call one function after another, as the executors of an engine do.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

from cosco.errors import CoscoError

_JOIN_S = 5.0


class WorkerFailed(CoscoError):
    """A worker process ended without a result."""


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What a worker returned, its CPU seconds and the highest resident memory it had."""

    value: Any
    cpu_s: float
    peak_rss_bytes: int


class Link:
    """A worker's end of its connection to whoever started it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cpu_start_s = _cpu_s()

    def progress(self, amount: int) -> None:
        """Tell that `amount` more units of work are done."""
        self._connection.send(("progress", amount))

    def wait_for_start(self) -> None:
        """Say that preparations are done, and wait until everybody else's are too."""
        self._connection.send(("ready", None))
        self._connection.recv()
        self._cpu_start_s = _cpu_s()

    def measured(self, value: Any) -> WorkerResult:
        return WorkerResult(value, _cpu_s() - self._cpu_start_s, peak_rss_bytes())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_rss_bytes(pid: int | str = "self") -> int:
    """Return the highest resident memory of a process so far.

    Not from getrusage, whose figure a child begins with that of the process it came from.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _worker_main(connection: Connection) -> None:
    # Ctrl-C goes to the whole group; who started us decides and terminates us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, daemon=True).start()
    while True:
        connection.send(_call(connection, *connection.recv()))


def _call(
    connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[str, Any]:
    """Call `function` and return the message that tells how it ended."""
    link = Link(connection)
    try:
        return "result", link.measured(function(link, *arguments))
    except Exception as error:  # noqa: BLE001  it is raised again where the results are read
        return "error", error


class _Processes:
    """Processes that are given functions to call; a context manager that ends them all."""

    def __init__(self, role: str, count: int) -> None:
        self._role = role
        self._count = count
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._connections: list[Connection] = []

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        try:
            for _ in range(self._count):
                ours, theirs = context.Pipe()
                self._connections.append(ours)
                process = context.Process(target=_worker_main, args=(theirs,), daemon=True)
                process.start()
                self._processes.append(process)
                theirs.close()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_JOIN_S)
            if process.is_alive():
                process.kill()
                process.join()
        for connection in self._connections:
            connection.close()

    def _receive(self, index: int) -> tuple[str, Any]:
        try:
            kind, value = self._connections[index].recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[index]
            process.join(_JOIN_S)
            raise WorkerFailed(
                f"{self._role} {index} of {len(self._processes)} (process {process.pid}) ended "
                f"with code {process.exitcode} and without a result: see its messages above"
            ) from None
        if kind == "error":
            raise value
        return kind, value

    def _messages(self, busy: Collection[int]) -> list[tuple[int, str, Any]]:
        """Wait until any of the busy processes says something: (which one, kind, value)."""
        by_connection: dict[Any, int] = {self._connections[index]: index for index in busy}
        said = [by_connection[connection] for connection in wait(list(by_connection))]
        return [(index, *self._receive(index)) for index in said]


class Workers(_Processes):
    """A group of processes that each call `function(link, *arguments)`; a context manager.

    `function` must be importable. Leaving the context ends every process.
    """

    def __init__(
        self, role: str, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> None:
        super().__init__(role, len(arguments))
        self._function = function
        self._arguments = arguments

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            # Arguments may be large: all processes start before the first one reads them.
            for connection, arguments in zip(self._connections, self._arguments, strict=True):
                connection.send((self._function, arguments))
        except BaseException:
            self._stop()
            raise
        return self

    def wait_until_ready(self) -> None:
        """Wait until every worker is in `wait_for_start`; raises what a worker raises."""
        for index in range(len(self._connections)):
            kind, _ = self._receive(index)
            assert kind == "ready", f"a {self._role} sent {kind} before it was started"

    def start(self) -> None:
        """Let all workers go on from `wait_for_start`."""
        for connection in self._connections:
            connection.send(None)

    def results(self, on_progress: Callable[[int], None] = lambda _: None) -> list[WorkerResult]:
        """Wait for all workers; raises what the first failing one raised, or WorkerFailed."""
        results: dict[int, WorkerResult] = {}
        everyone = range(len(self._connections))
        while busy := set(everyone) - results.keys():
            for index, kind, value in self._messages(busy):
                if kind == "progress":
                    on_progress(value)
                else:
                    results[index] = value
        return [results[index] for index in everyone]


class TaskPool(_Processes):
    """`count` processes that take one task after another; a context manager.

    They keep what they have imported, opened and touched, as the executors of an engine do.
    Leaving the context ends them.
    """

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Any, ...]],
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> list[WorkerResult]:
        """Have `function(link, *task)` called for each task, by whichever process is free.

        Results are in the order of the tasks. Raises what the first failing task raised, or
        WorkerFailed; other tasks may still run then, so the pool is good for nothing else.
        """
        waiting = deque(enumerate(tasks))
        idle = list(range(len(self._connections)))
        busy: dict[int, int] = {}  # process → its task
        results: dict[int, WorkerResult] = {}
        while len(results) < len(tasks):
            while idle and waiting:
                process, (task, arguments) = idle.pop(), waiting.popleft()
                self._connections[process].send((function, arguments))
                busy[process] = task
            for process, kind, value in self._messages(busy):
                if kind == "progress":
                    on_progress(value)
                else:
                    results[busy.pop(process)] = value
                    idle.append(process)
        return [results[task] for task in range(len(tasks))]
