"""Micro-batches over exchange groups: a driver that schedules whole groups, and its workers.

The workers are processes that live on, and have the same mappers and reducers in every
iteration. The driver makes a group's exchanges, sends the handle to the workers, is told all
sums and times when the last iteration is done, and releases the exchanges. In between it is not
asked: a worker goes on to the next iteration when its own reducers have their sums, for which
every mapper must have been done. Readers of an iteration are open before its mappers start.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cosco import CoscoExchangeGroup, GroupHandle
from cosco.errors import DataCorrupted
from cosco.local.workers import Link, TaskPool
from cosco_bench.harness.measuring import quantiles
from cosco_bench.latency.micro_tasks import WorkerBatches, run_batches
from cosco_bench.latency.micro_work import exact_sums


@dataclass(frozen=True, slots=True)
class MicroFigures:
    """Iterations in groups of one size, in milliseconds.

    p50_ms to max_ms: of an iteration. It begins when the first worker may start its mappers,
    and ends when the last reducer has its sums; but the first of a group begins before the
    driver makes the group's exchanges, and the last ends when the driver has all results and
    has released the exchanges. mean_ms is therefore all time there is, a single iteration's
    share of it, and consists of
    coordination_ms: until the first mapper of a group starts and after its last reducer has its
    sums, when no task runs; and of task_ms: the time in between, with all waiting of tasks for
    each other.
    compute_ms: what the tasks of an iteration spent on summing and adding, together; of more
    than one process.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float
    coordination_ms: float
    task_ms: float
    compute_ms: float
    iterations: int


def run_cosco(
    metadata: str,
    pool: TaskPool,
    *,
    size: int,
    tasks: int,
    workers: int,
    iterations: int,
    warm_ups: int,
    replicas: int,
    on_step: Callable[[int], None],
) -> MicroFigures:
    """Run at least `iterations` iterations in whole groups of `size`, after `warm_ups` or more.

    `on_step` is told the iterations of each group that is done. Raises DataCorrupted if any
    sum is not the exact one.
    """
    driver = _Driver(metadata, pool, tasks, workers, replicas)
    warm = min(size, warm_ups)
    with driver.make(warm or size):
        for _ in range(-(-warm_ups // warm) if warm else 0):
            driver.run(warm)
            on_step(warm)
        groups = []
        for _ in range(-(-iterations // size)):
            groups.append(driver.run(size))
            on_step(size)
    took = np.concatenate([group.iterations_s for group in groups])
    found = quantiles(took.tolist())
    coordination, compute = (
        sum(part) / len(took) * 1e3
        for part in ([g.coordination_s for g in groups], [g.compute_s for g in groups])
    )
    mean = sum(group.total_s for group in groups) / len(took) * 1e3
    return MicroFigures(
        p50_ms=found.p50_ms,
        p95_ms=found.p95_ms,
        p99_ms=found.p99_ms,
        max_ms=found.max_ms,
        mean_ms=mean,
        coordination_ms=coordination,
        task_ms=mean - coordination,
        compute_ms=compute,
        iterations=len(took),
    )


@dataclass(frozen=True, slots=True)
class _GroupTimes:
    iterations_s: np.ndarray
    total_s: float
    coordination_s: float
    compute_s: float


class _Driver:
    """Schedules groups, one after another, on the exchanges of one CoscoExchangeGroup."""

    def __init__(
        self, metadata: str, pool: TaskPool, tasks: int, workers: int, replicas: int
    ) -> None:
        self._metadata = metadata
        self._pool = pool
        self._tasks = tasks
        self._workers: Final = min(workers, tasks)
        self._replicas = replicas
        self._done = 0  # iterations

    def make(self, size: int) -> CoscoExchangeGroup:
        """Make the exchanges of the first group. Those of others are added by `run`."""
        self._group = CoscoExchangeGroup(
            f"micro-{uuid.uuid4()}",
            self._tasks,
            size,
            self._tasks,
            replicas=self._replicas,
            metadata=self._metadata,
        )
        return self._group

    def run(self, size: int) -> _GroupTimes:
        """Schedule the iterations of a group, await and check them."""
        group, first = self._group, self._done
        self._done += size
        began = time.monotonic_ns()
        if group.size < self._done:
            group.extend(self._done - group.size)
        handle = group.handle()
        results = self._pool.run(
            run_worker,
            [(handle, first, size, worker, self._workers) for worker in range(self._workers)],
        )
        for index in range(first, self._done):
            group.release(index)
        ended = time.monotonic_ns()
        parts: list[WorkerBatches] = [result.value for result in results]
        self._check(first, parts)
        starts = np.min([part.began for part in parts], axis=0)
        ends = np.max([part.ended for part in parts], axis=0)
        first_mapper, last_sum = int(starts[0]), int(ends[-1])
        starts[0], ends[-1] = began, ended
        return _GroupTimes(
            iterations_s=(ends - starts) / 1e9,
            total_s=(ended - began) / 1e9,
            coordination_s=(first_mapper - began + ended - last_sum) / 1e9,
            compute_s=sum(part.compute_s for part in parts),
        )

    def _check(self, first: int, parts: list[WorkerBatches]) -> None:
        for offset in range(len(parts[0].sums)):
            exact = exact_sums(first + offset, self._tasks)
            for worker, part in enumerate(parts):
                if not np.array_equal(part.sums[offset], exact[worker :: self._workers]):
                    raise DataCorrupted(
                        f"iteration {first + offset}: a reducer has other sums than the exact ones"
                    )


def run_worker(
    _link: Link, handle: GroupHandle, first: int, count: int, worker: int, workers: int
) -> WorkerBatches:
    """Run a worker's part of a group; see `run_batches`."""
    return run_batches(handle, first, count, worker, workers)
