"""Stages whose tasks give other rows each time, and lose some: attempts are never mixed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import until
from support.spark_sessions import spark_session

from cosco import LocalCluster

pytestmark = pytest.mark.timeout(240)

ROWS = 20_000
KEYS = 7
MAPPERS = 6
#: Whether Spark compares checksums of rows, and then runs again what is lost alone (4.1 and later).
CHECKSUMS = {
    "all-again": {"sql__shuffle__orderIndependentChecksum__enabled": "false"},
    "lost-again": {
        "sql__shuffle__orderIndependentChecksum__enabled": "true",
        "sql__shuffle__orderIndependentChecksum__enableFullRetryOnMismatch": "true",
    },
}


@pytest.fixture
def own() -> Iterator[LocalCluster]:
    """Daemons that have no store in common: what one holds is its own."""
    with LocalCluster(3, memory="64MiB", shared_store=False) as cluster:
        yield cluster


@pytest.fixture(params=CHECKSUMS)
def session(request: pytest.FixtureRequest, own: LocalCluster, tmp_path: Path) -> Iterator[Any]:
    with spark_session(
        own.metadata,
        tmp_path / "spark",
        cosco__replicas="1",
        sql__adaptive__enabled="false",
        sql__execution__sortBeforeRepartition="false",
        **CHECKSUMS[request.param],
    ) as spark:
        yield spark


@pytest.mark.parametrize("phase", ["map", "reduce"])
def test_rows_dealt_out_by_turns_are_each_there_once_after_a_loss(
    session: Any, own: LocalCluster, tmp_path: Path, phase: str
) -> None:
    log = tmp_path / "runs"

    def told(index: int, rows: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{index}\n")
        time.sleep(0.5)  # so that something can happen meanwhile
        return rows

    hashed = session.range(0, ROWS, 1, 4).repartition(MAPPERS, "id")  # comes in any order
    slow = hashed.selectExpr(
        "id", "if(id % 400 = 0, reflect('java.lang.Thread', 'sleep', 60L), '')"
    )
    dealt = slow.repartition(5).rdd.mapPartitionsWithIndex(told)
    pairs = dealt.map(lambda row: (row.id % KEYS, (1, row.id)))
    sums = pairs.reduceByKey(lambda a, b: (a[0] + b[0], a[1] + b[1]), 3)
    query = ThreadPoolExecutor(1).submit(sums.collectAsMap)
    if phase == "map":
        until(lambda: query.done() or ended(session, MAPPERS) >= 3, 60.0, "half of the map tasks")
    else:
        until(log.exists, 60.0, "a task that reads what was dealt out")
    for daemon in own.daemons[:2]:
        daemon.kill()
    rows = {key: range(key, ROWS, KEYS) for key in range(KEYS)}
    assert query.result(180) == {key: (len(of), sum(of)) for key, of in rows.items()}
    assert ended_of_later_attempts(session), "nothing was lost"


def ended(session: Any, tasks: int) -> int:
    """Return how many tasks have ended of a running stage of so many."""
    tracker = session.sparkContext.statusTracker()
    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    return max(
        (one.numCompletedTasks for one in stages if one and one.numTasks == tasks), default=0
    )


def ended_of_later_attempts(session: Any) -> int:
    """Return how many map tasks of what was dealt out have run again."""
    store = session.sparkContext._jsc.sc().statusStore()
    last = [store.lastStageAttempt(stage) for stage in range(3)]
    return sum(int(one.numCompleteTasks()) for one in last if one.attemptId() > 0)
