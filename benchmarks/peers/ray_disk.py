"""Ray Data: its hash shuffle by way of files, on as many CPUs as there are threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from harness import Job, Tasks, main
from ray_data import repartition


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    ray.data.DataContext.get_current().use_disk_based_hash_shuffle = True
    with repartition(job, {"shuffle": "disk-based"}) as tasks:
        yield tasks


if __name__ == "__main__":
    main(start)
