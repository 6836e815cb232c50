"""Ray Data: `repartition` by key, its hash shuffle, on as many CPUs as there are threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import ray
from harness import Job, Tally, Tasks, main


@contextmanager
def session(threads: int, scratch: str) -> Iterator[None]:
    """Start Ray on `threads` CPUs, with all its files below `scratch`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=threads,
        include_dashboard=False,
        log_to_driver=False,
        # Not deeper: the paths of its sockets have at most 107 bytes.
        _temp_dir=scratch,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def repartition(job: Job, settings: dict[str, object]) -> Iterator[Tasks]:
    """Bring Ray up with what its context says; `settings` are reported beside its own."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    with session(job.threads, job.scratch):
        frame = ray.data.read_parquet(job.files)
        moved = frame.repartition(job.partitions, keys=["key"])
        yield Tasks(
            scan=lambda: _total(frame),
            shuffle=lambda: _total(moved),
            versions={"ray": ray.__version__, "pyarrow": pa.__version__},
            settings={
                "num_cpus": job.threads,
                "object_store_bytes": int(ray.cluster_resources()["object_store_memory"]),
                **settings,
            },
        )


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    with repartition(job, {"shuffle": "hash"}) as tasks:
        yield tasks


def _sums(batch: pa.Table) -> pa.Table:
    return pa.table(
        {
            "rows": [batch.num_rows],
            "keys": [pc.sum(batch["key"]).as_py() or 0],
            "payload_bytes": [pc.sum(pc.binary_length(batch["payload"])).as_py() or 0],
        }
    )


def _total(frame: ray.data.Dataset) -> Tally:
    sums = frame.map_batches(_sums, batch_format="pyarrow", batch_size=None).take_all()
    return Tally(
        *(sum(int(row[name]) for row in sums) for name in ("rows", "keys", "payload_bytes"))
    )


if __name__ == "__main__":
    main(start)
