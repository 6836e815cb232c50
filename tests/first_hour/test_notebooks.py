"""Cells of a notebook, in a real kernel: run again, interrupted, restarted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupyter_client
import psutil
import pytest
from support.exchanges import until

WAIT_S = 60.0
#: The cell of people who have just installed it. Nothing is closed.
CELL = """
from cosco import CoscoExchange, CoscoReader, CoscoWriter, LocalCluster
cluster = LocalCluster(1, memory="16MiB")
exchange = CoscoExchange("orders", partitions=4, replicas=1, metadata=cluster.metadata)
with CoscoWriter("orders", mapper=0, buffer_bytes=64 << 10, metadata=cluster.metadata) as writer:
    for i in range(20_000):
        writer.collect(i % 4, b"%d" % i)
rows = []
for partition in range(4):
    with CoscoReader("orders", [0], partition, metadata=cluster.metadata) as reader:
        rows += list(reader)
print(len(set(rows)))
"""

#: What the kernel does when its button is pressed, while the cell runs and never beside it.
INTERRUPTED = """
import os, signal, threading, time
threading.Timer({after_s}, os.kill, (os.getpid(), signal.SIGINT)).start()
{code}
time.sleep(60)
"""


class Kernel:
    """A kernel of Jupyter's, and what its cells print."""

    def __init__(self, directory: Path) -> None:
        self._manager = jupyter_client.KernelManager()
        self._manager.start_kernel(cwd=str(directory), env=os.environ.copy())
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=WAIT_S)

    def run(self, code: str, *, interrupted_after_s: float | None = None) -> str:
        """Run a cell, and return what it printed, its value, or the name of its error."""
        printed: list[str] = []

        def show(message: dict[str, Any]) -> None:
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed.append(content["text"])
                case "execute_result":
                    printed.append(content["data"]["text/plain"])
                case "error":
                    printed.append(content["ename"])

        if interrupted_after_s is not None:
            code = INTERRUPTED.format(after_s=interrupted_after_s, code=code)
        self._client.execute_interactive(code, output_hook=show, timeout=WAIT_S)
        return "".join(printed)

    def processes(self) -> list[psutil.Process]:
        """The services that cells have started, and who clears up after them."""
        return psutil.Process(self._manager.provisioner.pid).children(recursive=True)

    def restart(self) -> None:
        self._manager.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=WAIT_S)

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path_factory.mktemp("notebook"))
    yield kernel
    kernel.close()


@pytest.fixture
def fresh(kernel: Kernel) -> Iterator[Kernel]:
    """The kernel, of which each test leaves nothing."""
    yield kernel
    kernel.run("cluster.close()\nexchange = writer = reader = None\nimport gc; gc.collect()")
    until(lambda: not kernel.processes(), WAIT_S, "the end of all processes")
    left = kernel.run(
        "import threading, time\n"
        "for _ in range(1000):\n"
        "    left = [t.name for t in threading.enumerate() if t.name.startswith('cosco-')]\n"
        "    if not left: break\n"
        "    time.sleep(0.02)\n"
        "left"
    )
    assert left == "[]"


#: A metadata service, a daemon, and who clears up after them.
PROCESSES = 3


def test_a_cell_is_run_again(fresh: Kernel) -> None:
    for _ in range(2):
        assert fresh.run(CELL) == "20000\n"
    until(lambda: len(fresh.processes()) == PROCESSES, WAIT_S, "the end of the first cluster")


@pytest.mark.parametrize("after_s", [0.05, 0.4, 0.9])
def test_a_cell_is_interrupted_and_run_again(fresh: Kernel, after_s: float) -> None:
    assert fresh.run(CELL, interrupted_after_s=after_s).endswith("KeyboardInterrupt")
    assert fresh.run(CELL) == "20000\n"
    until(lambda: len(fresh.processes()) == PROCESSES, WAIT_S, "the end of the first cluster")


def test_a_reader_that_waits_is_interrupted_and_asked_again(fresh: Kernel) -> None:
    fresh.run(CELL)
    fresh.run("reader = CoscoReader('orders', [0, 1], 0, metadata=cluster.metadata)")
    assert fresh.run("next(reader)", interrupted_after_s=0.3) == "KeyboardInterrupt"
    assert fresh.run("next(reader)") == "ClientClosed"
    fresh.run("reader.close()")


def test_a_close_is_interrupted(fresh: Kernel) -> None:
    fresh.run(CELL)
    fresh.run("exchange.close(); cluster.close()", interrupted_after_s=0.01)
    fresh.run("exchange.close(); cluster.close()")
    until(lambda: not fresh.processes(), WAIT_S, "the end of the cluster")


def test_what_objects_look_like(fresh: Kernel) -> None:
    fresh.run(CELL)
    assert fresh.run("exchange") == "<CoscoExchange of 'orders', open>"
    assert fresh.run("reader") == "<CoscoReader of 'orders', closed>"
    assert fresh.run("writer.close()").startswith("Commit(mapper=0, attempt=")


def test_a_cell_that_awaits(fresh: Kernel) -> None:
    """The loop of the kernel runs in the main thread, where cells run."""
    fresh.run(CELL)
    code = """
import asyncio
def read():
    with CoscoReader("orders", [0], 0, metadata=cluster.metadata) as reader:
        return reader.read_table().num_rows
counts = await asyncio.gather(*(asyncio.to_thread(read) for _ in range(4)))
counts, read()
"""
    assert fresh.run(code) == "([5000, 5000, 5000, 5000], 5000)"


def test_the_kernel_is_restarted(kernel: Kernel) -> None:
    kernel.run(CELL)
    before = kernel.processes()
    assert len(before) == PROCESSES
    kernel.restart()
    until(lambda: not any(p.is_running() for p in before), WAIT_S, "the end of the cluster")
