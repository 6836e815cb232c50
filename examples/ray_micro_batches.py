"""Micro-batches on Ray: running sums by actors that take 100 micro-batches at once.

Every micro-batch is a shuffle: mappers make rows of a key and a value, reducers add them to a
running sum for each key. On Ray alone the driver hands in every task of every micro-batch, and
each waits for a round through Ray's scheduler and object store. Here an actor is called once for a
whole group of micro-batches: its reducers are there before their rows are made, and data triggers
them, by a `CoscoExchangeGroup`.

At the end of a group an actor gives its state back, which is the checkpoint. One actor is killed
in the middle of a group. Another begins at the checkpoint and runs the group again: its reducers
read the same exchanges once more, and its mappers write once more, which counts once, as they are
deterministic. The others wait for its rows, and go on.

The first group of each takes longer, as processes start.

    pip install 'cosco[ray]'
    python examples/ray_micro_batches.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import numpy as np
import pyarrow as pa
import ray

from cosco import CoscoExchangeGroup, CoscoReader, GroupHandle, LocalCluster
from cosco.partitioning import hash_partitions

ACTORS = 2
MAPPERS = 4
REDUCERS = 4
GROUP = 100  # micro-batches that an actor takes at once
GROUPS = 3
KILL_IN = 1  # the middle of this group
ROWS = 500  # that a mapper makes for a micro-batch
KEYS = 100
SCHEMA = pa.schema({"key": pa.int64(), "value": pa.int64()})

State = dict[int, np.ndarray]  # reducer → the sum of every key


# --- the tasks ----------------------------------------------------------------------------


def make_rows(batch: int, mapper: int) -> pa.RecordBatch:
    """Return what a mapper finds in the stream: the same whenever it is run."""
    rng = np.random.default_rng([batch, mapper])
    keys, values = rng.integers(KEYS, size=ROWS), rng.integers(1_000, size=ROWS)
    return pa.record_batch([keys, values], schema=SCHEMA)


def add_rows(sums: np.ndarray, rows: pa.RecordBatch | pa.Table) -> None:
    np.add.at(sums, rows["key"].to_numpy(), rows["value"].to_numpy())


# --- with Cosco ---------------------------------------------------------------------------


def run_mapper(handle: GroupHandle, batch: int, mapper: int) -> None:
    rows = make_rows(batch, mapper)
    with handle.writer(batch, mapper) as writer:
        writer.collect_batch(hash_partitions(rows, ["key"], REDUCERS), rows)


@ray.remote(num_cpus=1)
class Worker:
    """Runs every ACTORS-th mapper and reducer."""

    def __init__(self, number: int) -> None:
        self.mappers = range(number, MAPPERS, ACTORS)
        self.reducers = range(number, REDUCERS, ACTORS)
        self.threads = ThreadPoolExecutor(len(self.mappers))

    def begin(self) -> State:
        """Return the state before the first micro-batch."""
        return {reducer: np.zeros(KEYS, np.int64) for reducer in self.reducers}

    def run_group(self, handle: GroupHandle, batches: range, state: State) -> State:
        """Run a group from the checkpoint before it, and return the next one."""
        sums = {reducer: before.copy() for reducer, before in state.items()}
        readers = self.open_readers(handle, batches[0])
        for batch in batches:
            mapping = [self.threads.submit(run_mapper, handle, batch, m) for m in self.mappers]
            # Before its rows are made: they are pushed to the readers that wait.
            following = self.open_readers(handle, batch + 1) if batch + 1 in batches else {}
            for mapper in mapping:
                mapper.result()
            for reducer, reader in readers.items():
                with reader:
                    add_rows(sums[reducer], reader.read_table())
            readers = following
        handle.flush()  # nothing that a checkpoint stands on may go with this process
        return sums

    def open_readers(self, handle: GroupHandle, batch: int) -> dict[int, CoscoReader]:
        return {reducer: handle.reader(batch, reducer) for reducer in self.reducers}


class Workers:
    """The actors, and the checkpoint of each."""

    def __init__(self) -> None:
        self.actors = [Worker.remote(number) for number in range(ACTORS)]
        self.states = ray.get([actor.begin.remote() for actor in self.actors])
        self.deaths = 0

    def close(self) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def run_group(self, handle: GroupHandle, batches: range, *, kill: bool) -> None:
        """Have all run their part of a group; an actor that dies has another one in its place."""
        waiting = {self.start(n, handle, batches): n for n in range(ACTORS)}
        if kill:
            with handle.reader(batches[len(batches) // 2], 0) as reader:
                reader.read_table()  # so all mappers of that micro-batch are done
            ray.kill(self.actors[-1])
        after: dict[int, State] = {}
        while waiting:
            (task,), _ = ray.wait(list(waiting))
            number = waiting.pop(task)
            try:
                after[number] = ray.get(task)
            except ray.exceptions.RayActorError:
                print(f"  actor {number} died: another one begins at {batches[0]} again")
                self.deaths += 1
                self.actors[number] = Worker.remote(number)
                waiting[self.start(number, handle, batches)] = number
        self.states = [after[number] for number in range(ACTORS)]

    def start(self, number: int, handle: GroupHandle, batches: range) -> ray.ObjectRef:
        return self.actors[number].run_group.remote(handle, batches, self.states[number])


def run_with_cosco(metadata: str) -> np.ndarray:
    """Run all groups, and return the sum of every key."""

    def rerun(batch: int, mappers: list[int], reason: str) -> None:
        """Write rows that were lost, with a daemon say. Any process may: this one does."""
        print(f"  mappers {mappers} of {batch} run again: {reason}")
        for mapper in mappers:
            run_mapper(group.handle(), batch, mapper)

    with (
        CoscoExchangeGroup(
            "ray-micro-batches", REDUCERS, GROUP, MAPPERS, rerun,
            schema=SCHEMA, replicas=1, metadata=metadata,
        ) as group,
        closing(Workers()) as workers,
    ):  # fmt: skip
        for index in range(GROUPS):
            batches = range(index * GROUP, (index + 1) * GROUP)
            with timed(f"group {index}, with Cosco"):
                if batches.stop > group.size:
                    group.extend(GROUP)
                workers.run_group(group.handle(), batches, kill=index == KILL_IN)
                for batch in batches:  # all state is safe: nobody will read these again
                    group.release(batch)
        if workers.deaths != 1:
            raise RuntimeError(f"{workers.deaths} actors died, one was to")
        return sum(sums for state in workers.states for sums in state.values())


# --- on Ray alone -------------------------------------------------------------------------


@ray.remote(num_cpus=0.5, num_returns=REDUCERS)
def map_alone(batch: int, mapper: int) -> list[pa.RecordBatch]:
    rows = make_rows(batch, mapper)
    partitions = hash_partitions(rows, ["key"], REDUCERS)
    return [rows.filter(pa.array(partitions == reducer)) for reducer in range(REDUCERS)]


@ray.remote(num_cpus=0.25)
class Reducer:
    def __init__(self) -> None:
        self.sums = np.zeros(KEYS, np.int64)

    def add(self, *parts: pa.RecordBatch) -> None:
        for rows in parts:
            add_rows(self.sums, rows)

    def result(self) -> np.ndarray:
        return self.sums


def run_alone() -> np.ndarray:
    """Run the same micro-batches by Ray's tasks, with state in actors and no checkpoint."""
    reducers = [Reducer.remote() for _ in range(REDUCERS)]
    ray.get([reducer.result.remote() for reducer in reducers])  # they are up
    for index in range(GROUPS):
        with timed(f"group {index}, on Ray alone"):
            for batch in range(index * GROUP, (index + 1) * GROUP):
                parts = [map_alone.remote(batch, mapper) for mapper in range(MAPPERS)]
                ray.get([to.add.remote(*(p[r] for p in parts)) for r, to in enumerate(reducers)])
    return sum(ray.get([reducer.result.remote() for reducer in reducers]))


# --- both ---------------------------------------------------------------------------------


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    took_ms = (time.perf_counter() - began) * 1e3
    print(f"{what}: {took_ms / GROUP:.1f} ms a micro-batch", flush=True)


def main() -> int:
    ray.init(num_cpus=ACTORS, include_dashboard=False)
    try:
        with LocalCluster(daemons=2) as cluster:
            found = run_with_cosco(cluster.metadata)
        alone = run_alone()
    finally:
        ray.shutdown()
    exact = np.zeros(KEYS, np.int64)
    for batch in range(GROUPS * GROUP):
        for mapper in range(MAPPERS):
            add_rows(exact, make_rows(batch, mapper))
    if not (np.array_equal(found, exact) and np.array_equal(alone, exact)):
        print("WRONG: sums are not the exact ones", file=sys.stderr)
        return 1
    rows = GROUPS * GROUP * MAPPERS * ROWS
    print(f"{rows:,} rows in {GROUPS * GROUP} micro-batches: all {KEYS} sums are exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
