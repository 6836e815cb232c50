"""Dask: `DataFrame.shuffle` through Cosco, on the workers that P2P has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dask
import dask.dataframe as dd
import distributed
import with_cosco  # first: it says where Cosco is
from dask_p2p import cluster, total, versions
from harness import Job, Tasks, main

import cosco.dask


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    with (
        with_cosco.services(job.scratch) as services,
        cluster(job.threads, job.scratch) as workers,
        distributed.Client(workers) as client,
    ):
        cosco.dask.enable(client, services.metadata, replicas=job.replicas)
        frame = dd.read_parquet(job.files)
        moved = frame.shuffle(on="key", npartitions=job.partitions)
        if dask.config.get("dataframe.shuffle.method") != "cosco":
            raise ValueError("it would shuffle by a method of its own")
        yield Tasks(
            scan=lambda: total(frame),
            shuffle=lambda: total(moved),
            versions=versions(),
            settings={
                "workers": job.threads,
                "threads_per_worker": 1,
                "shuffle": "cosco",
                **with_cosco.settings(job.replicas),
            },
        )


if __name__ == "__main__":
    main(start)
