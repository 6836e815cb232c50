"""Dask: `DataFrame.shuffle` by P2P, as many workers of one thread as there are threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dask
import dask.dataframe as dd
import distributed
import pandas as pd
import pyarrow as pa
from harness import Job, Tally, Tasks, main, scratch_directory


def cluster(threads: int, scratch: str) -> distributed.LocalCluster:
    """Start `threads` workers of one thread, with all their files below `scratch`."""
    return distributed.LocalCluster(
        n_workers=threads,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=scratch_directory(scratch, "dask"),
    )


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    settings = {
        "workers": job.threads,
        "threads_per_worker": 1,
        "shuffle": "p2p",
    }
    with (
        dask.config.set({"dataframe.shuffle.method": settings["shuffle"]}),
        cluster(job.threads, job.scratch) as workers,
        distributed.Client(workers),
    ):
        frame = dd.read_parquet(job.files)
        moved = frame.shuffle(on="key", npartitions=job.partitions)
        yield Tasks(
            scan=lambda: total(frame),
            shuffle=lambda: total(moved),
            versions=versions(),
            settings=settings,
        )


def versions() -> dict[str, str]:
    """Return what was used."""
    return {
        "dask": dask.__version__,
        "distributed": distributed.__version__,
        "pandas": pd.__version__,
        "pyarrow": pa.__version__,
    }


def _sums(part: pd.DataFrame) -> pd.DataFrame:
    # A function of the whole partition: the optimizer cannot leave columns out.
    return pd.DataFrame(
        {
            "rows": [len(part)],
            "keys": [int(part["key"].sum())],
            "payload_bytes": [int(part["payload"].str.len().sum())],
        }
    )


def total(frame: dd.DataFrame) -> Tally:
    """Touch every row and column of a frame."""
    meta = {"rows": "int64", "keys": "int64", "payload_bytes": "int64"}
    sums = frame.map_partitions(_sums, meta=meta).compute().sum()
    return Tally(*(int(sums[column]) for column in meta))


if __name__ == "__main__":
    main(start)
