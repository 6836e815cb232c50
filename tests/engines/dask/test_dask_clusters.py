"""Clusters that change in the middle of a shuffle: cases that distributed tests of its own one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, Status
from support.dask_jobs import (
    Job,
    at_the_gate,
    nothing_left,
    progress_until,
    worker_pids,
)
from support.engine_runs import IS_SOAK
from support.exchanges import until

from cosco.observe import fetch_status

pytestmark = pytest.mark.timeout(180)


def set_status(client: Client, worker: str, status: Status) -> None:
    """Have a worker begin no task, or go on, as it does by itself when memory runs short."""

    def change(dask_worker: Any) -> None:
        dask_worker.status = status

    client.run(change, workers=[worker])


@pytest.mark.parametrize("phase", ["source", "reduce"])
def test_a_worker_that_pauses_holds_nobody_up_for_good(
    own_client: Client, tmp_path: Path, phase: str
) -> None:
    job = Job(tmp_path / "runs", 0, map_s=0.1, reduce_s=0.1)
    future = own_client.compute(job.frame())
    job.wait_for(phase, 2)
    paused = min(worker_pids(own_client))
    set_status(own_client, paused, Status.paused)
    before = job.count()
    if phase == "source":
        until(lambda: job.count() > before + 2, 60.0, "the other worker's next tasks")
    set_status(own_client, paused, Status.running)
    pd.testing.assert_frame_equal(future.result(timeout=100), job.expected())
    assert job.count() == job.mappers


def test_an_adaptive_cluster(own_client: Client, tmp_path: Path) -> None:
    adaptive = own_client.cluster.adapt(minimum=1, maximum=3, interval="200ms", wait_count=1)
    for run in range(2):
        job = Job(tmp_path / f"{run}", run, map_s=0.1, reduce_s=0.1)
        future = own_client.compute(job.frame())
        pd.testing.assert_frame_equal(future.result(timeout=100), job.expected())
        del future
        until(lambda: len(own_client.nthreads()) == 1, 60.0, "one worker, with nothing to do")
    adaptive.stop()


def test_the_same_graph_again_while_tasks_of_the_first_run(
    own_client: Client, metadata: str, tmp_path: Path
) -> None:
    """Runs that nobody wants any more end later than others of the same key begin.

    They write nothing.
    """
    source = dd.from_map(
        at_the_gate, range(6), folder=str(tmp_path), free=4, meta={"key": "i8", "x": "i8"}
    )
    shuffled = source.shuffle("key", npartitions=3)
    future = own_client.compute(shuffled)
    progress_until(own_client, lambda one: one["mappers_done"] > 0, "the first rows")
    # Not `cancel`: the scheduler's word of it may reach the client late, and mean the next future.
    future.release()
    last = own_client.compute(shuffled)
    (tmp_path / "gate").touch()
    got = last.result(timeout=100)
    assert len(got) == 600
    assert got.x.sum() == 6 * sum(range(100))
    last.release()
    nothing_left(metadata)


SCHEDULER = """if True:
    import sys
    import cosco.dask
    from pathlib import Path
    from support.dask_jobs import Job, dask_client
    if __name__ == "__main__":
        with dask_client(2) as client:
            cosco.dask.enable(client, sys.argv[1])
            client.compute(Job(Path(sys.argv[2]), 0, map_s=0.2).frame()).result()
"""


@pytest.mark.skipif(not IS_SOAK, reason="waits for a lease of a minute: make soak-engines runs it")
def test_exchanges_of_a_scheduler_that_was_killed_end_with_their_lease(
    metadata: str, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCHEDULER)
    job = subprocess.Popen(
        [sys.executable, script, metadata, tmp_path / "runs"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        until(lambda: fetch_status(metadata).open > 0, 60.0, "its exchange")
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    nothing_left(metadata, 120.0)
