"""Ray with Cosco: actors that take a group of iterations at once, by an exchange group.

An actor runs the same mappers and reducers in every iteration, and goes on to the next one when its
reducers have their sums. State needs no checkpoint here, as iterations have none.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import ray
import with_cosco  # first: it says where Cosco is
from cosco_bench.latency.micro_tasks import run_batches
from micro_harness import MicroJob, Stages, main
from ray_data import session

from cosco import CoscoExchangeGroup


@contextmanager
def start(job: MicroJob) -> Iterator[Stages]:
    workers = min(job.threads, job.tasks)

    with (
        with_cosco.services(job.scratch) as services,
        session(job.threads, job.scratch),
        CoscoExchangeGroup(
            f"micro-{uuid.uuid4()}",
            job.tasks,
            1,
            job.tasks,
            replicas=job.replicas,
            metadata=services.metadata,
        ) as group,
    ):
        actors = [ray.remote(num_cpus=1)(_Worker).remote(n, workers) for n in range(workers)]

        def run_group(iterations: range) -> tuple[list[float], list[list[list[int]]]]:
            began = time.monotonic_ns()
            if iterations.stop > group.size:
                group.extend(iterations.stop - group.size)
            handle = group.handle()
            parts = ray.get([actor.run.remote(handle, iterations) for actor in actors])
            for index in iterations:
                group.release(index)
            ended = time.monotonic_ns()
            starts = np.min([part.began for part in parts], axis=0)
            ends = np.max([part.ended for part in parts], axis=0)
            # All time is in some iteration.
            starts[0], ends[-1] = began, ended
            sums = np.empty((len(iterations), job.tasks, parts[0].sums.shape[-1]), np.int64)
            for worker, part in enumerate(parts):
                sums[:, worker::workers] = part.sums
            return ((ends - starts) / 1e9).tolist(), sums.tolist()

        settings = {"num_cpus": job.threads, **with_cosco.settings(job.replicas)}
        yield Stages({}, {"ray": ray.__version__}, settings, run_group=run_group)


class _Worker:
    """Runs every `workers`-th mapper and reducer."""

    def __init__(self, number: int, workers: int) -> None:
        self._number = number
        self._workers = workers

    def run(self, handle: object, iterations: range) -> object:
        return run_batches(handle, iterations.start, len(iterations), self._number, self._workers)


if __name__ == "__main__":
    main(start)
