"""What puts and reads of 16 MiB cost in HDFS and on a local disk, on this machine.

    PYTHONPATH=tests .stores/venv/bin/python -m stores.hdfs.measure [DIRECTORY]

Both stores are below DIRECTORY, on one disk, with one replica. Each round puts and reads 0.8 GB in
each of them, as many files at a time as a daemon does. Prints the median of the rounds.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from stores.hdfs.minicluster import INSTALLED, MiniCluster

from cosco.dfs import Store, open_store

FILE_BYTES = 16 << 20
FILES = 48
AT_A_TIME = 3
ROUNDS = 3


async def in_turn(work: Callable[[int, memoryview], Awaitable[object]]) -> tuple[float, float]:
    """Do a piece of work for each file; return the seconds and processor seconds per GB."""
    numbers = iter(range(FILES))

    async def some(memory: memoryview) -> None:
        for number in numbers:
            await work(number, memory)

    content = random.Random(1).randbytes(FILE_BYTES)
    memories = []
    for _ in range(AT_A_TIME):
        memories.append(memoryview(mmap.mmap(-1, FILE_BYTES)))
        memories[-1][:] = content
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(some, memories))
    gb = FILES * FILE_BYTES / 1e9
    return (time.perf_counter() - began) / gb, (time.process_time() - used) / gb


async def one_round(store: Store) -> dict[str, tuple[float, float]]:
    """Put and read all files of a store, and delete them."""
    puts = await in_turn(lambda number, memory: store.put(f"m/{number}", [memory]))
    reads = await in_turn(lambda number, memory: store.read_into(f"m/{number}", 0, [memory]))
    await store.delete_prefix("m/")
    return {"put": puts, "read": reads}


async def measure(urls: Iterable[str]) -> None:
    """Measure the stores by turns, and print a table."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    stores = [open_store(url, threads=AT_A_TIME + 2) for url in urls]
    for store in stores:
        await store.open()
    for _ in range(ROUNDS + 1):
        for store in stores:
            for kind, figures in (await one_round(store)).items():
                found.setdefault((store.url, kind), []).append(figures)
    for store in stores:
        await store.close()
    print("store, call: MB/s, processor seconds of the caller per GB")
    for (url, call), figures in found.items():
        seconds, cpu = (statistics.median(column) for column in zip(*figures[1:], strict=True))
        kind = f"{url.partition(':')[0]}{', no fsync' if 'fsync' in url else ''}, {call}"
        print(f"{kind}: {1000 / seconds:.0f}, {cpu:.2f}")


def main() -> None:
    """Start a HDFS, measure, and leave nothing behind."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else INSTALLED / "measured").absolute()
    cluster = MiniCluster(directory / "cluster", datanodes=1)
    try:
        local = f"file://{directory}/local"
        hdfs = f"{cluster.address}/measured?replication=1"
        asyncio.run(measure([local, hdfs, f"{hdfs}&fsync=false"]))
    finally:
        cluster.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    os.environ.setdefault("HADOOP_USER_NAME", "cosco")
    main()
