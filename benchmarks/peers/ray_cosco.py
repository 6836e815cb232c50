"""Ray Data: `repartition` by key through Cosco, on the CPUs that Ray alone has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import with_cosco  # first: it says where Cosco is
from harness import Job, Tasks, main
from ray_data import repartition

import cosco.ray


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    with with_cosco.services(job.scratch) as services:
        cosco.ray.enable(services.metadata, replicas=job.replicas)
        settings = {"shuffle": "cosco", **with_cosco.settings(job.replicas)}
        with repartition(job, settings) as tasks:
            yield tasks


if __name__ == "__main__":
    main(start)
