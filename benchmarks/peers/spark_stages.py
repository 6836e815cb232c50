"""Spark: the two stages as an aggregation by key, in `local[threads]`.

As a DataFrame, which has no Python in its tasks, and without adaptive execution, which would
plan again between the stages. All iterations have the numbers of the first one, so that the
code that Spark generates is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from micro_harness import MicroJob, Stages, main
from pyspark.sql import functions as F  # noqa: N812  as everybody calls it
from spark import session

# As in micro_work, which needs numpy, and that is not installed beside Spark.
_NUMBERS = 10_000
_KEYS = 16
_KEY = "shiftright(id * 2654435761, 15)"
_VALUE = "id & 1023"


@contextmanager
def start(job: MicroJob) -> Iterator[Stages]:
    tasks = job.tasks
    settings = {"spark.sql.shuffle.partitions": tasks, "spark.sql.adaptive.enabled": "false"}
    builder = session(job.threads, job.scratch)
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()

    def aggregate(_iteration: int) -> list[list[int]]:
        sums = [[0] * _KEYS for _ in range(tasks)]
        rows = (
            spark.range(0, tasks * _NUMBERS, 1, tasks)
            .selectExpr(f"{_KEY} % {tasks * _KEYS} AS key", f"{_VALUE} AS value")
            .groupBy("key")
            .agg(F.sum("value"))
            .collect()
        )
        for key, total in rows:
            sums[key % tasks][key // tasks] = total
        return sums

    try:
        yield Stages(
            {"DataFrame": aggregate}, {"pyspark": spark.version}, settings, same_numbers=True
        )
    finally:
        spark.stop()


if __name__ == "__main__":
    main(start)
