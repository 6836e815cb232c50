"""A worker's part of micro-batches over exchange groups, whatever process it is in.

It needs numpy, Cosco and `micro_work`: actors of engines import it in environments of their own.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cosco import CoscoReader, GroupHandle
from cosco_bench.latency.micro_work import I64, KEYS, map_sums


@dataclass(frozen=True, slots=True)
class WorkerBatches:
    """A worker's part of a group's iterations: clock readings and its reducers' sums.

    began, ended: on the monotonic clock in ns, of each iteration. compute_s: in all of them.
    sums: iterations × its reducers × KEYS.
    """

    began: I64
    ended: I64
    compute_s: float
    sums: I64


def run_batches(
    handle: GroupHandle, first: int, count: int, worker: int, workers: int
) -> WorkerBatches:
    """Run every `workers`-th mapper and reducer of `count` iterations from `first` on."""
    tasks = handle.mappers
    mine = range(worker, tasks, workers)
    began, ended = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    sums = np.zeros((count, len(mine), KEYS), dtype=np.int64)
    compute_s = 0.0

    def open_readers(iteration: int) -> list[CoscoReader]:
        return [handle.reader(iteration, reducer) for reducer in mine]

    readers = open_readers(first)
    with ThreadPoolExecutor(len(mine)) as threads:
        for offset in range(count):
            iteration = first + offset
            began[offset] = time.monotonic_ns()
            mappers = [threads.submit(_map, handle, iteration, mapper, tasks) for mapper in mine]
            # While those work: the reducers of the next iteration wait for it from here on.
            following = open_readers(iteration + 1) if offset + 1 < count else []
            compute_s += sum(mapper.result() for mapper in mappers)
            for index, reader in enumerate(readers):
                compute_s += _reduce(reader, sums[offset, index])
            ended[offset] = time.monotonic_ns()
            readers = following
    return WorkerBatches(began, ended, compute_s, sums)


def _map(handle: GroupHandle, iteration: int, mapper: int, tasks: int) -> float:
    """Write one row for each reducer, of a mapper's sums; return the seconds that summing took."""
    with handle.writer(iteration, mapper) as writer:
        before = time.perf_counter()
        sums = map_sums(iteration, mapper, tasks)
        took = time.perf_counter() - before
        for reducer in range(tasks):
            writer.collect(reducer, sums[reducer].tobytes())
    return took


def _reduce(reader: CoscoReader, total: I64) -> float:
    """Add the mappers' sums up in `total`, as a reducer; return the seconds that adding took."""
    with reader:
        rows = list(reader)
    before = time.perf_counter()
    for row in rows:
        total += np.frombuffer(row, dtype=np.int64)
    return time.perf_counter() - before
