"""Executors, daemons and services that end in the middle of a query of three stages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import serving, until
from support.spark_faults import MAPPERS, Query, executors, expected
from support.spark_runs import each_seed
from support.spark_sessions import spark_session

from cosco import LocalCluster
from cosco.observe import drain_daemon

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[LocalCluster]:
    """Daemons that have no store in common: what one holds is its own."""
    with LocalCluster(3, memory="64MiB", shared_store=False) as cluster:
        yield cluster


@pytest.fixture
def own(own_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The same, whole again afterwards."""
    yield own_cluster
    for daemon in own_cluster.daemons:
        if serving(own_cluster.metadata).get(daemon.address) is None:
            daemon.kill()  # one that drains by order would serve on while it is needed
            daemon.restart()
    until(lambda: len(serving(own_cluster.metadata)) == 3, 60.0, "the return of daemons")


@pytest.fixture(scope="module", params=[2, 1], ids=["two-copies", "one-copy"])
def session(
    request: pytest.FixtureRequest,
    own_cluster: LocalCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    with spark_session(
        own_cluster.metadata,
        tmp_path_factory.mktemp("spark"),
        master="local-cluster[2,1,1024]",
        cosco_replicas=request.param,
        executor__memory="512m",
        speculation="true",
        speculation__quantile="0.6",
    ) as spark:
        spark.copies = request.param
        yield spark


def log_of(folder: Path) -> Path:
    return folder / "runs"


@each_seed
def test_an_executor_killed_in_the_map_phase_costs_what_it_ran(
    seed: int, session: Any, own: LocalCluster, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    query = Query(session.sparkContext, log_of(tmp_path), map_s=0.4)
    query.wait_for("map", draw.randint(2, 4))
    victim = draw.choice(executors())
    victim.kill()
    assert query.result() == expected()
    again = len(query.runs("map")) - MAPPERS
    assert again <= 3, query.runs("map")  # what it ran, and what speculation tried twice


@pytest.mark.every_spark
@each_seed
def test_an_executor_killed_in_the_reduce_phase_costs_no_map_task(
    seed: int, session: Any, own: LocalCluster, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    query = Query(session.sparkContext, log_of(tmp_path), reduce_s=0.6)
    query.wait_for("reduce", draw.randint(1, 3))
    before = query.runs("map")
    draw.choice(executors()).kill()
    assert query.result() == expected()
    assert query.runs("map") == before


@each_seed
def test_a_daemon_killed_has_at_most_its_own_mappers_run_again(
    seed: int, session: Any, own: LocalCluster, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    query = Query(session.sparkContext, log_of(tmp_path), reduce_s=0.4)
    query.wait_for("reduce", draw.randint(1, 2))
    before = Counter(query.runs("map"))
    draw.choice(own.daemons).kill()
    assert query.result() == expected()
    after = Counter(query.runs("map"))
    if session.copies == 2:
        assert after == before
    else:
        assert all(after[index] - before[index] <= 1 for index in after), (before, after)


@each_seed
def test_a_daemon_killed_in_the_map_phase_costs_no_result(
    seed: int, session: Any, own: LocalCluster, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    query = Query(session.sparkContext, log_of(tmp_path), map_s=0.4)
    query.wait_for("map", draw.randint(2, 4))
    draw.choice(own.daemons).kill()
    assert query.result() == expected()


@each_seed
def test_the_metadata_service_may_begin_anew(
    seed: int, session: Any, own: LocalCluster, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    query = Query(session.sparkContext, log_of(tmp_path), map_s=0.2, reduce_s=0.2)
    query.wait_for(*draw.choice([("map", 3), ("reduce", 2)]))
    before = Counter(query.runs("map"))
    own.metadata_service.kill()
    own.metadata_service.restart()
    assert query.result() == expected()
    assert sum(query.runs("map").count(index) > 1 for index in before) <= 3  # speculation alone


@each_seed
def test_a_daemon_is_drained(seed: int, session: Any, own: LocalCluster, tmp_path: Path) -> None:
    draw = random.Random(seed)
    query = Query(session.sparkContext, log_of(tmp_path), map_s=0.2, reduce_s=0.2)
    query.wait_for(*draw.choice([("map", 3), ("reduce", 2)]))
    drain_daemon(own.metadata, draw.choice(own.daemons).address)
    assert query.result() == expected()
