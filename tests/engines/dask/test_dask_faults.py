"""Workers, daemons and services that end in the middle of a shuffle."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from support.dask_jobs import (
    Job,
    dask_client,
    holder_of,
    kill_workers,
    nothing_left,
    progress_until,
    worker_pids,
)
from support.engine_runs import each_seed
from support.exchanges import serving, until

import cosco.dask
from cosco import LocalCluster

pytestmark = pytest.mark.timeout(240)
MAPPERS = 12
WORKERS = 3


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[LocalCluster]:
    """Daemons that have no store in common: what one holds is its own."""
    with LocalCluster(2, memory="64MiB", shared_store=False) as cluster:
        yield cluster


@pytest.fixture
def own(own_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The same, whole again afterwards, with nothing left in it."""
    yield own_cluster
    for daemon in own_cluster.daemons:
        if serving(own_cluster.metadata).get(daemon.address) is None:
            daemon.restart()
    until(lambda: len(serving(own_cluster.metadata)) == 2, 60.0, "the return of daemons")
    nothing_left(own_cluster.metadata, 60.0)


@pytest.fixture(scope="module")
def own_workers() -> Iterator[Client]:
    """The client of three workers that tests may kill: their nannies start others."""
    with dask_client(WORKERS) as client:
        yield client


@pytest.fixture
def dask(own_workers: Client) -> Client:
    """Their client, when all are there."""
    own_workers.wait_for_workers(WORKERS, timeout=60)
    return own_workers


def check(job: Job, client: Client, future: object) -> None:
    pd.testing.assert_frame_equal(future.result(timeout=150), job.expected())


@each_seed
def test_a_worker_that_dies_in_the_map_phase_costs_what_it_was_running(
    seed: int, dask: Client, own: LocalCluster, tmp_path: Path
) -> None:
    cosco.dask.enable(dask, own.metadata)
    draw = random.Random(seed)
    job = Job(tmp_path / "runs", seed, map_s=0.3)
    future = dask.compute(job.frame())
    job.wait_for("source", draw.randint(5, 8))
    before = job.count()
    kill_workers(dask, draw.choice(sorted(worker_pids(dask))))
    check(job, dask, future)
    # Of a worker of one thread: the task it ran, and the next ones whose rows it held unwritten.
    assert job.count() - MAPPERS <= 2, (before, job.runs())
    assert not any(one["called_back"] for one in cosco.dask.progress(dask))
    future.release()


@each_seed
def test_a_worker_that_dies_in_the_reduce_phase_costs_no_source(
    seed: int, dask: Client, own: LocalCluster, tmp_path: Path
) -> None:
    cosco.dask.enable(dask, own.metadata)
    job = Job(tmp_path / "runs", seed, reduce_s=0.4)
    future = dask.compute(job.frame())
    job.wait_for("reduce", random.Random(seed).randint(1, 4))
    address = holder_of(dask, "cosco-barrier")
    kill_workers(dask, address or next(iter(worker_pids(dask))))
    check(job, dask, future)
    assert job.count() == MAPPERS
    future.release()


@each_seed
def test_workers_that_all_die_in_the_reduce_phase_cost_no_source(
    seed: int, dask: Client, own: LocalCluster, tmp_path: Path
) -> None:
    """Nobody has the barrier's result any more, nor that of any transfer."""
    cosco.dask.enable(dask, own.metadata)
    job = Job(tmp_path / "runs", seed, reduce_s=0.4)
    future = dask.compute(job.frame())
    job.wait_for("reduce", 2)
    kill_workers(dask, *worker_pids(dask))
    check(job, dask, future)
    assert job.count() == MAPPERS
    future.release()


@each_seed
def test_a_daemon_that_dies_with_one_copy_has_each_lost_mapper_run_once(
    seed: int, dask: Client, own: LocalCluster, tmp_path: Path
) -> None:
    cosco.dask.enable(dask, own.metadata, replicas=1)
    draw = random.Random(seed)
    done = draw.randint(3, 5)
    # Each worker waits with one source, and may have run another that is not transferred yet.
    job = Job(tmp_path / "runs", seed, free=done + 2 * WORKERS)
    future = dask.compute(job.frame())
    progress_until(dask, lambda one: one["mappers_done"] >= done, "what can be lost")
    own.daemons[draw.randrange(2)].kill()
    job.let_go()
    check(job, dask, future)
    [shuffle] = cosco.dask.progress(dask)
    called_back = shuffle["called_back"]
    assert len(called_back) >= done, shuffle
    assert set(called_back.values()) == {1}, shuffle
    assert job.runs() == {
        str(mapper): 2 if mapper in called_back else 1 for mapper in range(MAPPERS)
    }
    future.release()


@each_seed
def test_a_daemon_that_dies_with_two_copies_costs_nothing(
    seed: int, dask: Client, own: LocalCluster, tmp_path: Path
) -> None:
    cosco.dask.enable(dask, own.metadata)
    job = Job(tmp_path / "runs", seed, map_s=0.1, reduce_s=0.2)
    future = dask.compute(job.frame())
    draw = random.Random(seed)
    job.wait_for(*draw.choice([("source", 6), ("reduce", 2)]))
    own.daemons[draw.randrange(2)].kill()
    check(job, dask, future)
    assert job.count() == MAPPERS
    future.release()


@each_seed
def test_a_metadata_service_that_restarts_is_waited_for(
    seed: int, dask: Client, own: LocalCluster, tmp_path: Path
) -> None:
    cosco.dask.enable(dask, own.metadata)
    job = Job(tmp_path / "runs", seed, map_s=0.1, reduce_s=0.2)
    future = dask.compute(job.frame())
    job.wait_for(*random.Random(seed).choice([("source", 6), ("reduce", 2)]))
    own.metadata_service.kill()
    own.metadata_service.restart()
    check(job, dask, future)
    assert job.count() == MAPPERS
    future.release()


@each_seed
def test_all_at_once(seed: int, dask: Client, own: LocalCluster, tmp_path: Path) -> None:
    cosco.dask.enable(dask, own.metadata, replicas=1)
    draw = random.Random(seed)
    job = Job(tmp_path / "runs", seed, map_s=0.1, reduce_s=0.3)
    future = dask.compute(job.frame())
    job.wait_for(*draw.choice([("source", 6), ("reduce", 2)]))
    own.metadata_service.kill()
    own.daemons[draw.randrange(2)].kill()
    kill_workers(dask, draw.choice(sorted(worker_pids(dask))))
    own.metadata_service.restart()
    check(job, dask, future)
    future.release()
