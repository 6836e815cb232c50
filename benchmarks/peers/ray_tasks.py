"""Ray: a task for each mapper and each reducer.

A mapper has a return value for each reducer, or one for all of which each takes its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import ray
from micro_harness import MicroJob, Stages, main
from micro_work import map_sums
from ray_data import session


@contextmanager
def start(job: MicroJob) -> Iterator[Stages]:
    tasks = job.tasks

    @ray.remote(num_returns=tasks)
    def mapper(iteration: int, number: int) -> tuple[np.ndarray, ...]:
        return tuple(map_sums(iteration, number, tasks))

    @ray.remote
    def reducer(*sums: np.ndarray) -> np.ndarray:
        return np.sum(sums, axis=0)

    @ray.remote
    def whole_mapper(iteration: int, number: int) -> np.ndarray:
        return map_sums(iteration, number, tasks)

    @ray.remote
    def picking_reducer(number: int, *parts: np.ndarray) -> np.ndarray:
        return np.sum([part[number] for part in parts], axis=0)

    def values(iteration: int) -> list[list[int]]:
        parts = [mapper.remote(iteration, number) for number in range(tasks)]
        found = ray.get([reducer.remote(*(part[r] for part in parts)) for r in range(tasks)])
        return [sums.tolist() for sums in found]

    def whole(iteration: int) -> list[list[int]]:
        parts = [whole_mapper.remote(iteration, number) for number in range(tasks)]
        found = ray.get([picking_reducer.remote(r, *parts) for r in range(tasks)])
        return [sums.tolist() for sums in found]

    forms = {"a value for each reducer": values, "a value for all reducers": whole}
    with session(job.threads, job.scratch):
        yield Stages(forms, {"ray": ray.__version__}, {"num_cpus": job.threads})


if __name__ == "__main__":
    main(start)
