"""Dask: a future for each mapper and for each reducer, or one graph, on workers of one thread.

A reducer is given all sums of each mapper and takes its own: they are few, and a task more for
each pair of mapper and reducer takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import distributed
import numpy as np
from dask_p2p import cluster
from micro_harness import MicroJob, Stages, main
from micro_work import map_sums


def mapper(number: int, iteration: int, tasks: int) -> np.ndarray:
    return map_sums(iteration, number, tasks)


def reducer(number: int, parts: list[np.ndarray]) -> np.ndarray:
    return np.sum([part[number] for part in parts], axis=0)


@contextmanager
def start(job: MicroJob) -> Iterator[Stages]:
    settings = {"workers": job.threads, "threads_per_worker": 1}
    numbers = range(job.tasks)
    with (
        cluster(job.threads, job.scratch) as workers,
        distributed.Client(workers) as client,
    ):

        def futures(iteration: int) -> list[list[int]]:
            parts = client.map(mapper, numbers, iteration=iteration, tasks=job.tasks, pure=False)
            found = client.gather(client.map(reducer, numbers, parts=parts, pure=False))
            return [sums.tolist() for sums in found]

        def graph(iteration: int) -> list[list[int]]:
            parts = [("map", iteration, number) for number in numbers]
            reducers = [("reduce", iteration, number) for number in numbers]
            tasks = {part: (mapper, part[2], iteration, job.tasks) for part in parts}
            tasks |= {key: (reducer, key[2], parts) for key in reducers}
            return [sums.tolist() for sums in client.get(tasks, reducers)]

        yield Stages(
            {"futures": futures, "graph": graph}, {"distributed": distributed.__version__}, settings
        )


if __name__ == "__main__":
    main(start)
