"""Starts processes in every way Python has, while calls are under way; run by test_forks.py.

`python -m support.fork_ways MODULES METADATA`: the modules are imported first, in this order.
A writer and a reader are in the middle of their calls from beginning to end, and each child writes
as a mapper of its own. Prints "ok" when all rows came through; what it tries goes to stderr.
"""

from __future__ import annotations

import importlib
import sys

for module in sys.argv[1].split(","):
    importlib.import_module(module)

import faulthandler  # noqa: E402  what is imported first is told by the arguments
import multiprocessing  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from typing import Any  # noqa: E402

from support.children import fork, join  # noqa: E402
from support.exchanges import by_partition, fetch_all, numbered, send  # noqa: E402

from cosco import CoscoExchange, CoscoReader, CoscoWriter  # noqa: E402

PARTITIONS = 2
ROWS = 200
WAIT_S = 30.0
PARENT = 0


def write(name: str, mapper: int, metadata: str) -> None:
    assert send(name, mapper, numbered(mapper, ROWS, partitions=PARTITIONS), metadata).won


@contextmanager
def traffic(name: str, mappers: list[int], metadata: str) -> Iterator[None]:
    """A writer that pushes, and a reader that waits for all mappers."""
    stop = threading.Event()
    sent: Counter[bytes] = Counter()

    def push() -> None:
        with CoscoWriter(name, PARENT, buffer_bytes=64 << 10, metadata=metadata) as writer:
            for i in range(10**9):
                row = b"%d." % i * 1000  # so that a few rows are a buffer
                writer.collect(0, row)
                sent[row] += 1
                if stop.wait(0.002):
                    break

    def read() -> Counter[bytes]:
        with CoscoReader(name, [PARENT, *mappers], 0, metadata=metadata) as reader:
            return Counter(reader)

    with ThreadPoolExecutor() as pool:
        pushing, reading = pool.submit(push), pool.submit(read)
        try:
            yield
        finally:
            stop.set()
        pushing.result(WAIT_S)
        others = Counter(
            row
            for mapper in mappers
            for p, row in numbered(mapper, ROWS, partitions=PARTITIONS)
            if not p
        )
        assert reading.result(WAIT_S) == sent + others


def by_context(method: str) -> Callable[[str, int, str], None]:
    def start(name: str, mapper: int, metadata: str) -> None:
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=write, args=(name, mapper, metadata))
        process.start()
        process.join(WAIT_S)
        assert process.exitcode == 0, process.exitcode

    return start


def by_pool(method: str) -> Callable[[str, int, str], None]:
    def start(name: str, mapper: int, metadata: str) -> None:
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(write, name, mapper, metadata).result(WAIT_S)

    return start


def by_fork(name: str, mapper: int, metadata: str) -> None:
    join(fork(lambda: write(name, mapper, metadata)))


def by_fork_in_a_thread(name: str, mapper: int, metadata: str) -> None:
    with ThreadPoolExecutor() as pool:
        pool.submit(by_fork, name, mapper, metadata).result(WAIT_S)


def by_popen(name: str, mapper: int, metadata: str) -> None:
    code = f"from support.fork_ways import write; write({name!r}, {mapper}, {metadata!r})"
    with subprocess.Popen([sys.executable, "-c", code, "cosco"]) as process:
        assert process.wait(WAIT_S) == 0


def by_posix_spawn(name: str, mapper: int, metadata: str) -> None:
    """What is started does nothing: it is about the parent, which then writes in its place."""
    program = shutil.which("true")
    assert program
    join(os.posix_spawn(program, [program], os.environ))
    write(name, mapper, metadata)


WAYS = {
    "os.fork": by_fork,
    "os.fork in a thread": by_fork_in_a_thread,
    "subprocess.Popen": by_popen,
    "os.posix_spawn": by_posix_spawn,
    "Process, fork": by_context("fork"),
    "Process, forkserver": by_context("forkserver"),
    "ProcessPoolExecutor, fork": by_pool("fork"),
}


def main(metadata: str) -> None:
    name = f"fork-ways-{os.getpid()}"
    mappers = list(range(1, len(WAYS) + 1))
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        with traffic(name, mappers, metadata):
            for mapper, way in zip(mappers, WAYS, strict=True):
                print(way, file=sys.stderr, flush=True)
                WAYS[way](name, mapper, metadata)
        rows = [pair for m in mappers for pair in numbered(m, ROWS, partitions=PARTITIONS)]
        assert fetch_all(name, mappers, PARTITIONS, metadata) == by_partition(rows, PARTITIONS)
    print("ok")


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    main(sys.argv[2])
