"""Running sums over a stream of micro-batches, and a worker that is killed in the middle.

Every micro-batch is a shuffle: mappers make rows of a key and a value, reducers add them to a
running sum for each key. Micro-batches are scheduled in groups: the driver makes a group's
exchanges and sends its workers one handle, and they run all of its micro-batches without it. At
the end of a group reducers write their state to files, and its exchanges are released.

A worker that dies in between has lost the state since the last of those checkpoints. Another
takes its place, begins at the checkpoint and runs the group again: its reducers read the group's
exchanges once more, as nobody released them, and its mappers write once more, which counts once,
as they are deterministic. The others wait for its rows, and go on.

    python examples/running_sum.py
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
import pyarrow as pa

from cosco import AdaptiveGroupSize, CoscoExchangeGroup, GroupHandle, LocalCluster
from cosco.partitioning import hash_partitions

BATCHES = 60
MAPPERS = 4
REDUCERS = 4
WORKERS = 2
ROWS = 2_000  # that a mapper makes for a micro-batch
KEYS = 100
KILL_AFTER = 18  # micro-batches
SCHEMA = pa.schema({"key": pa.int64(), "value": pa.int64()})


# --- the tasks ----------------------------------------------------------------------------


def make_rows(batch: int, mapper: int) -> pa.RecordBatch:
    """Return what a mapper finds in the stream: the same whenever it is run."""
    rng = np.random.default_rng([batch, mapper])
    keys, values = rng.integers(KEYS, size=ROWS), rng.integers(1_000, size=ROWS)
    return pa.record_batch([keys, values], schema=SCHEMA)


def run_mapper(handle: GroupHandle, batch: int, mapper: int) -> None:
    rows = make_rows(batch, mapper)
    with handle.writer(batch, mapper) as writer:
        writer.collect_batch(hash_partitions(rows, ["key"], REDUCERS), rows)


def add_rows(sums: np.ndarray, rows: pa.Table | pa.RecordBatch) -> None:
    np.add.at(sums, rows["key"].to_numpy(), rows["value"].to_numpy())


def checkpoint(directory: Path, reducer: int, batch: int) -> Path:
    """Return where the state of a reducer before a micro-batch is kept."""
    return directory / f"sums-{reducer}-before-{batch}.npy"


def run_group(handle: GroupHandle, batches: range, worker: int, directory: Path) -> float:
    """Run a worker's part of a group to the next checkpoint, and return the seconds it took."""
    began = time.monotonic()
    mappers, reducers = range(worker, MAPPERS, WORKERS), range(worker, REDUCERS, WORKERS)
    state = {r: np.load(checkpoint(directory, r, batches.start)) for r in reducers}
    for batch in batches:
        with ExitStack() as stack:
            # Pre-scheduled: from here on they wait for their rows, which are pushed to them.
            readers = {r: stack.enter_context(handle.reader(batch, r)) for r in reducers}
            for mapper in mappers:
                run_mapper(handle, batch, mapper)
            for reducer, reader in readers.items():
                add_rows(state[reducer], reader.read_table())
    handle.flush()  # nothing that a checkpoint stands on may go with this process
    for reducer, sums in state.items():
        target = checkpoint(directory, reducer, batches.stop)
        with (unfinished := target.with_suffix(".part")).open("wb") as file:
            np.save(file, sums)
        unfinished.replace(target)
    return time.monotonic() - began


# --- the processes ------------------------------------------------------------------------


def serve(connection: Connection, worker: int, directory: Path) -> None:
    """Run a worker's part of one group after another: what its process does."""
    connection.send("ready")
    while True:
        try:
            handle, batches = connection.recv()
        except EOFError:  # the driver has ended
            return
        connection.send(run_group(handle, batches, worker, directory))


class Worker:
    """A worker process, and the next one in its place if it dies."""

    def __init__(self, worker: int, directory: Path) -> None:
        self._arguments = worker, directory
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()

    def send(self, task: tuple[GroupHandle, range]) -> None:
        self._task = task
        self.connection.send(task)

    def result(self) -> float | None:
        """Return the seconds its group took; None if it died and another began the group."""
        try:
            seconds: float = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.connection.close()
            print(f"  {self.process.name} died: another one begins at {self._task[1].start} again")
            self._start()
            self.send(self._task)
            return None
        return seconds


# --- the driver ---------------------------------------------------------------------------


def run_stream(cluster: LocalCluster, directory: Path) -> None:
    """Run all micro-batches, with a checkpoint of their sums at the end."""

    def rerun(batch: int, mappers: list[int], reason: str) -> None:
        """Write rows that were lost, with a daemon say. Any process may: this one does."""
        print(f"  mappers {mappers} of {batch} run again: {reason}")
        for mapper in mappers:
            run_mapper(group.handle(), batch, mapper)

    for reducer in range(REDUCERS):
        np.save(checkpoint(directory, reducer, 0), np.zeros(KEYS, dtype=np.int64))
    sizing = AdaptiveGroupSize(4, lower=0.02, upper=0.05)
    done, to_kill = 0, True
    with (
        CoscoExchangeGroup(
            "running-sum", REDUCERS, sizing.size, MAPPERS, rerun,
            schema=SCHEMA, metadata=cluster.metadata,
        ) as group,
        ExitStack() as stack,
    ):  # fmt: skip
        workers = [stack.enter_context(closing(Worker(i, directory))) for i in range(WORKERS)]
        while done < BATCHES:
            began = time.monotonic()
            batches = range(done, min(BATCHES, done + sizing.size))
            if batches.stop > group.size:
                group.extend(batches.stop - group.size)
            handle = group.handle()
            for worker in workers:
                worker.send((handle, batches))
            if to_kill and batches.stop > KILL_AFTER:
                to_kill = False
                kill_in_the_middle(workers[-1], handle, batches)
            tasks_s = wait_for(workers)
            # All state is safe: nobody will read these again.
            for batch in batches:
                group.release(batch)
            done = batches.stop
            took_s = time.monotonic() - began
            coordination_s = max(0.0, took_s - tasks_s)
            print(
                f"micro-batches {batches.start} to {batches.stop - 1}: {took_s * 1e3:.0f} ms, "
                f"{coordination_s / took_s:.0%} of it coordination"
            )
            sizing.observe(coordination_s, took_s)


def wait_for(workers: list[Worker]) -> float:
    """Wait until all have run their part of a group; return the seconds of the slowest."""
    waiting = {worker.connection: worker for worker in workers}
    slowest_s = 0.0
    while waiting:
        for connection in wait(list(waiting)):
            worker = waiting.pop(connection)
            seconds = worker.result()
            if seconds is None:
                waiting[worker.connection] = worker
            else:
                slowest_s = max(slowest_s, seconds)
    return slowest_s


def kill_in_the_middle(worker: Worker, handle: GroupHandle, batches: range) -> None:
    """Kill a worker as soon as the mappers of the middle micro-batch are done."""
    with handle.reader(batches[len(batches) // 2], 0) as reader:
        reader.read_table()
    print(f"  kill -9 {worker.process.name}")
    worker.process.kill()


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="running-sum-") as home,
        LocalCluster(daemons=2) as cluster,
    ):
        run_stream(cluster, Path(home))
        found = sum(np.load(checkpoint(Path(home), r, BATCHES)) for r in range(REDUCERS))
    exact = np.zeros(KEYS, dtype=np.int64)
    for batch in range(BATCHES):
        for mapper in range(MAPPERS):
            add_rows(exact, make_rows(batch, mapper))
    rows = BATCHES * MAPPERS * ROWS
    if not np.array_equal(found, exact):
        print(f"WRONG: the sums of {rows:,} rows are not the exact ones", file=sys.stderr)
        return 1
    print(f"{rows:,} rows in {BATCHES} micro-batches: all {KEYS} sums are exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
