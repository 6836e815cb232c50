"""Jobs for tests of Dask: what they run is imported by workers, so it is here."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster, get_worker
from support.exchanges import until

import cosco.dask
from cosco.observe import fetch_status

ROWS = 5_000


@contextmanager
def dask_client(workers: int = 2, **options: Any) -> Iterator[Client]:
    """A client of a cluster of its own: worker processes of one thread each."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", **options
        ) as cluster,
        Client(cluster, set_as_default=True) as client,
    ):
        yield client


def open_exchanges(metadata: str) -> int:
    """How many exchanges the metadata service has that are not gone."""
    status = fetch_status(metadata)
    return status.open + status.closing


def nothing_left(metadata: str, timeout_s: float = 20.0) -> None:
    """Wait until no exchange is left behind."""
    until(lambda: open_exchanges(metadata) == 0, timeout_s, "the end of all exchanges")


class Job:
    """A shuffle between tasks that write down each of their runs."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        mappers: int = 12,
        partitions: int = 8,
        map_s: float = 0.0,
        reduce_s: float = 0.0,
        bad: int | None = None,
        free: int | None = None,
    ) -> None:
        """Begin nothing.

        map_s, reduce_s: how long each task takes at least. free: sources wait for `let_go` where
        more than so many have begun.
        """
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.seed = seed
        self.mappers = mappers
        self.partitions = partitions
        self.map_s = map_s
        self.reduce_s = reduce_s
        self.bad = bad
        self.free = free

    def frame(self, method: str | None = "cosco", *, is_quick: bool = False) -> dd.DataFrame:
        """The output: a row for each partition, with its rows' number, sums and order."""
        return dd.DataFrame.map_partitions(
            self.shuffled(method, is_quick=is_quick),
            summed,
            "" if is_quick else str(self.folder),
            0.0 if is_quick else self.reduce_s,
            meta={"rows": "i8", "x": "f8", "order": "u8"},
        )

    def shuffled(self, method: str | None = "cosco", *, is_quick: bool = False) -> dd.DataFrame:
        source = dd.from_map(
            source_rows,
            range(self.mappers),
            folder="" if is_quick else str(self.folder),
            seed=self.seed,
            seconds=0.0 if is_quick else self.map_s,
            bad=self.bad,
            free=self.free,
            meta={"key": "i8", "x": "f8", "text": "string[pyarrow]"},
        )
        return source.shuffle("key", npartitions=self.partitions, shuffle_method=method)

    def runs(self, kind: str = "source") -> Counter[str]:
        """How often each task of a kind has begun."""
        return Counter(file.name.split(".")[1] for file in self.folder.glob(f"{kind}.*"))

    def count(self, kind: str = "source") -> int:
        """How many runs of a kind have begun."""
        return sum(self.runs(kind).values())

    def wait_for(self, kind: str, runs: int) -> None:
        """Wait until this many runs of a kind have begun."""
        until(lambda: self.count(kind) >= runs, 60.0, f"run {runs} of {kind}")

    def let_go(self) -> None:
        """Have all sources go on."""
        (self.folder / "gate").touch()

    def expected(self) -> pd.DataFrame:
        """What Dask's own shuffle gives."""
        with dask.config.set({"dataframe.shuffle.method": "p2p"}):
            return self.frame("p2p", is_quick=True).compute()


def source_rows(
    mapper: int, folder: str, seed: int, seconds: float, bad: int | None, free: int | None
) -> pd.DataFrame:
    """One partition of the input."""
    begun = _note(folder, "source", mapper)
    time.sleep(seconds)
    if begun and free is not None:
        _wait_at_the_gate(begun, free)
    if mapper == bad:
        raise ZeroDivisionError("a bad source")
    random = np.random.default_rng([seed, mapper])
    key = random.integers(0, 1000, ROWS)
    text = pd.array([f"text {number}" for number in key], dtype="string[pyarrow]")
    return pd.DataFrame({"key": key, "x": random.random(ROWS), "text": text})


def summed(part: pd.DataFrame, folder: str, seconds: float) -> pd.DataFrame:
    """One row for one partition of the output."""
    _note(folder, "reduce", int(part.key.iloc[0]) if len(part) else -1)
    time.sleep(seconds)
    order = pd.util.hash_pandas_object(part, index=True).to_numpy()
    place = np.arange(1, len(part) + 1, dtype=np.uint64)
    return pd.DataFrame(
        {"rows": [len(part)], "x": [part.x.sum()], "order": [(order * place).sum()]}
    )


def at_the_gate(mapper: int, folder: str, free: int) -> pd.DataFrame:
    """Rows that come at once, if few others did; the others wait until a file is there.

    They fail if it says so. A worker begins with the next before it hears that it shall transfer
    the last: of `free` sources, one for each worker may wait for its transfer until the gate opens.
    """
    begun = _note(folder, "source", mapper)
    assert begun is not None, "a gate has a folder"
    gate = _wait_at_the_gate(begun, free)
    if gate.exists() and gate.read_text():
        raise ZeroDivisionError(gate.read_text())
    return pd.DataFrame({"key": np.arange(100) % 17, "x": np.arange(100)})


def _wait_at_the_gate(begun: Path, free: int) -> Path:
    """Wait unless this source was one of the first, however many have begun since."""
    gate = begun.with_name("gate")
    while not gate.exists():
        order = sorted(begun.parent.glob("source.*"), key=lambda file: int(file.suffix[1:]))
        if order.index(begun) < free:
            break
        time.sleep(0.02)
    return gate


def fails_once(part: pd.DataFrame, sign: str) -> pd.DataFrame:
    """Pass a partition on, if nobody has put up the sign."""
    if Path(sign).exists():
        raise ZeroDivisionError("not yet")
    return part


def _note(folder: str, kind: str, what: object) -> Path | None:
    """Write down in a folder, if there is one, that a run has begun."""
    if not folder:
        return None
    begun = Path(folder) / f"{kind}.{what}.{os.getpid()}.{time.time_ns()}"
    begun.touch()
    return begun


def worker_pids(client: Client) -> dict[str, int]:
    """The processes of the workers, by address."""
    pids: dict[str, int] = client.run(os.getpid)
    return pids


def kill_workers(client: Client, *addresses: str) -> None:
    """End workers' processes without a word; their nannies start others."""
    pids = worker_pids(client)
    for address in addresses:
        os.kill(pids[address], signal.SIGKILL)


def holder_of(client: Client, prefix: str) -> str | None:
    """A worker that has the result of the task of this name, if there is one."""
    holders = client.sync(client.scheduler.who_has)
    for key, addresses in holders.items():
        if str(key).startswith(prefix) and addresses:
            return str(addresses[0])
    return None


def progress_until(client: Client, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
    """Wait until some open shuffle is at a point."""
    until(lambda: any(map(condition, cosco.dask.progress(client))), 60.0, what)


def profiled_amid_garbage() -> int:
    """Have this worker's profiler look at its threads while garbage of theirs is to be collected.

    Each time a collection is due after one more new object, so that some are due within the look.
    Returns: how often it looked.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    before = gc.get_threshold()
    looks = 0
    try:
        for objects in range(1, 120):
            gc.disable()
            _leave_garbage()
            gc.set_threshold(gc.get_count()[0] + objects)
            gc.enable()
            get_worker().periodic_callbacks["profile"].callback()
            looks += 1
    finally:
        gc.set_threshold(*before)
        gc.enable()
        stop.set()
        for thread in threads:
            thread.join()
    return looks


def _leave_garbage() -> None:
    """Values of one thread alone that only the collector of garbage finds."""
    for _ in range(50):
        ring: list[object] = [threading.local()]
        ring[0].__dict__["x"] = ring
        ring.append(ring)
