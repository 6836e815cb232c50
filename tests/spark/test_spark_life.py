"""What becomes of exchanges when jobs end as they should or otherwise, and of results meanwhile."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import until
from support.spark_faults import Query
from support.spark_sessions import spark_session

from cosco import LocalCluster
from cosco.observe import fetch_status

pytestmark = pytest.mark.timeout(240)

ROWS = 6_000
SUMS = {key: sum(range(key, ROWS, 7)) for key in range(7)}


@pytest.fixture(scope="module")
def session(services: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with spark_session(
        services.metadata,
        tmp_path_factory.mktemp("spark"),
        master="local-cluster[2,1,1024]",
        executor__memory="512m",
    ) as spark:
        yield spark


def open_exchanges(metadata: str) -> int:
    return fetch_status(metadata).open


def _cleaned(context: Any, metadata: str) -> int:
    gc.collect()
    context._jvm.System.gc()
    return open_exchanges(metadata)


def none_is_open(context: Any, metadata: str) -> None:
    """Wait until Spark's cleaner has dropped all shuffles that nothing refers to."""
    until(lambda: _cleaned(context, metadata) == 0, 30.0, "the end of all exchanges")


def sums(context: Any, each: Any) -> dict[int, int]:
    """Return sums by key of rows of which `each` is told, before a shuffle; six map tasks."""
    rows = context.parallelize(range(ROWS), 6).mapPartitions(each)
    return dict(rows.map(lambda i: (i % 7, i)).reduceByKey(lambda a, b: a + b, 4).collect())


def test_an_exchange_is_closed_when_its_shuffle_is_dropped(
    session: Any, services: LocalCluster
) -> None:
    context = session.sparkContext
    none_is_open(context, services.metadata)
    kept = context.parallelize(range(ROWS), 4).map(lambda i: (i % 7, i)).groupByKey(3)
    assert kept.count() == 7
    assert open_exchanges(services.metadata) == 1
    dropped = context.parallelize(range(ROWS), 4).map(lambda i: (i % 5, i)).groupByKey(3)
    assert dropped.count() == 5
    assert open_exchanges(services.metadata) == 2
    del dropped
    until(lambda: _cleaned(context, services.metadata) == 1, 30.0, "the end of the dropped one")
    assert kept.mapValues(len).values().sum() == ROWS  # what is referred to stays, and is read
    del kept
    none_is_open(context, services.metadata)


def test_exchanges_of_sql_are_closed_too(session: Any, services: LocalCluster) -> None:
    frame = session.range(ROWS).repartition(5, "id").selectExpr("id % 7 as k", "id")
    assert {row[0]: row[1] for row in frame.groupBy("k").sum("id").collect()} == SUMS
    assert open_exchanges(services.metadata)
    del frame
    none_is_open(session.sparkContext, services.metadata)


@pytest.mark.parametrize("phase", ["map", "reduce"])
@pytest.mark.parametrize("interrupts", [True, False], ids=["interrupted", "not-interrupted"])
def test_a_cancelled_job_leaves_nothing_behind(
    session: Any, services: LocalCluster, tmp_path: Path, phase: str, interrupts: bool
) -> None:
    context = session.sparkContext
    query = Query(
        context,
        tmp_path / "runs",
        map_s=2.0 * (phase == "map"),
        reduce_s=2.0,
        group=("cancelled", interrupts),
    )
    query.wait_for(phase, 1)
    context.cancelJobGroup("cancelled")
    with pytest.raises(Exception, match="cancelled"):
        query.result()
    del query
    none_is_open(context, services.metadata)
    assert sums(context, lambda rows: rows) == SUMS


def test_tasks_that_fail_are_tried_again(session: Any) -> None:
    """In the middle of what they write, and of what they read; by errors, and by dying."""

    def falters(rows: Any) -> Any:
        from pyspark import TaskContext

        task = TaskContext.get()
        for number, row in enumerate(rows):
            if number == 300 and task.attemptNumber() == 0:
                if task.partitionId() % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("the first attempt")
            yield row

    context = session.sparkContext
    assert sums(context, falters) == SUMS
    rows = context.parallelize(range(ROWS), 4).map(lambda i: (i, "x" * 500)).partitionBy(4)
    assert sorted(rows.mapPartitions(falters).keys().collect()) == list(range(ROWS))


def test_a_task_that_always_fails_is_told_as_it_is(session: Any) -> None:
    def fails(rows: Any) -> Any:
        if sum(1 for _ in rows):
            raise ValueError("a fault of the user")

    with pytest.raises(Exception, match="a fault of the user"):
        sums(session.sparkContext, fails)
    assert sums(session.sparkContext, lambda rows: rows) == SUMS


def test_barrier_stages_before_and_after_a_shuffle(session: Any) -> None:
    def meets(rows: Any) -> Any:
        from pyspark import BarrierTaskContext

        BarrierTaskContext.get().barrier()
        return rows

    numbers = session.sparkContext.parallelize(range(ROWS), 2)
    pairs = numbers.barrier().mapPartitions(meets).map(lambda i: (i % 7, i))
    met = pairs.partitionBy(2).barrier().mapPartitions(meets)
    assert dict(met.reduceByKey(lambda a, b: a + b, 3).collect()) == SUMS


def test_all_exchanges_of_a_session_are_closed_at_its_end(
    services: LocalCluster, session: Any, tmp_path: Path
) -> None:
    """The last test of this session: it ends it."""
    context = session.sparkContext
    none_is_open(context, services.metadata)
    kept = [context.parallelize(range(9), 3).map(lambda i: (i, i)).groupByKey(2) for _ in range(3)]
    assert [one.count() for one in kept] == [9] * 3
    names = [one.shuffle_id.split("/")[0] for one in fetch_status(services.metadata).exchanges]
    assert len(set(names[:3])) == 1, names
    assert open_exchanges(services.metadata) == 3
    session.stop()
    assert open_exchanges(services.metadata) == 0
