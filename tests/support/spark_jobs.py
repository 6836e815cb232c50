"""Jobs of Spark with shuffles of all kinds; each returns what is the same however it shuffles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = Callable[[Any, Path], Any]
JOBS: dict[str, Job] = {}


def job(made: Job) -> Job:
    """Add a job; it is given a session and an empty folder."""
    JOBS[made.__name__] = made
    return made


def _frame(spark: Any, rows: int = 50_000, partitions: int = 6) -> Any:
    return spark.range(0, rows, 1, partitions).selectExpr(
        "id", "id % 97 as k", "concat('v', cast(id as string)) as t", "cast(id as double) / 7 as d"
    )


def _all(frame: Any) -> list[list[Any]]:
    return sorted([list(row) for row in frame.collect()], key=repr)


def _digest(rows: Any) -> list[Any]:
    rows = sorted(map(repr, rows))
    return [len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()]


@job
def repartition_by_column(spark: Any, folder: Path) -> Any:
    parts = _frame(spark).repartition(7, "k").rdd.glom().map(len).collect()
    return [parts, _digest(_frame(spark).repartition(7, "k").collect())]


@job
def repartition_round_robin(spark: Any, folder: Path) -> Any:
    return _digest(_frame(spark).repartition(9).collect())


@job
def group_and_aggregate(spark: Any, folder: Path) -> Any:
    return _all(
        _frame(spark).groupBy("k").agg({"id": "sum", "t": "max", "d": "count"}).orderBy("k")
    )


@job
def sort(spark: Any, folder: Path) -> Any:
    rows = _frame(spark, 20_000).orderBy("k", "id").collect()
    assert rows == sorted(rows, key=lambda row: (row.k, row.id))
    return _digest(rows)


@job
def join_by_sorting(spark: Any, folder: Path) -> Any:
    left = _frame(spark)
    right = spark.range(0, 30_000, 3).selectExpr("id as other", "id * 2 as twice")
    return _digest(left.hint("merge").join(right, left.id == right.other).collect())


@job
def join_by_hash(spark: Any, folder: Path) -> Any:
    left = _frame(spark)
    right = spark.range(0, 9_000, 3).selectExpr("id as other")
    return _digest(left.hint("shuffle_hash").join(right, left.id == right.other, "left").collect())


@job
def skewed_join(spark: Any, folder: Path) -> Any:
    """Nearly all rows have one key: with adaptive execution readers read some mappers each."""
    left = spark.range(0, 120_000, 1, 8).selectExpr("if(id < 110000, 1, id) as key", "id as l")
    right = spark.range(0, 120_000, 1, 4).selectExpr("if(id < 3, 1, id) as key", "id as r")
    joined = left.hint("merge").join(right, "key")
    return _all(joined.selectExpr("count(*) as n", "sum(l) as l", "sum(r) as r"))


@job
def window(spark: Any, folder: Path) -> Any:
    ranked = _frame(spark, 20_000).selectExpr(
        "k", "id", "row_number() over (partition by k order by id desc) n"
    )
    return _all(ranked.where("n <= 2"))


@job
def distinct_and_set_operations(spark: Any, folder: Path) -> Any:
    one, two = _frame(spark).select("k").distinct(), spark.range(50, 150).selectExpr("id as k")
    return [_all(one.intersect(two)), _all(one.subtract(two)), one.union(two).distinct().count()]


@job
def nested_and_null_values(spark: Any, folder: Path) -> Any:
    frame = _frame(spark, 5_000).selectExpr(
        "if(id % 3 = 0, null, id) as maybe", "array(id, k) as a", "map(t, id) as m",
        "named_struct('x', t, 'y', array(named_struct('z', d))) as s", "k",
    )  # fmt: skip
    return _digest(frame.repartition(5, "k").collect())


@job
def empty_everything(spark: Any, folder: Path) -> Any:
    empty = spark.createDataFrame([], "a int, b string")
    none = spark.sparkContext.parallelize([], 3).map(lambda x: (x, x))
    return [
        empty.repartition(4, "a").count(),
        _all(empty.groupBy("a").count()),
        _all(empty.join(empty, "a")),
        none.reduceByKey(max, 5).collect(),
        none.groupByKey(1).collect(),
        _frame(spark).where("id < 0").repartition(11, "k").groupBy("k").count().collect(),
    ]


@job
def many_partitions(spark: Any, folder: Path) -> Any:
    """With adaptive execution few readers read all of them, each a range."""
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "4096")
    try:
        counts = _frame(spark, 60_000).groupBy("id").count()
        return counts.selectExpr("sum(id)", "count(*)", "sum(count)").first()[:]
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)


@job
def rows_of_many_bytes(spark: Any, folder: Path) -> Any:
    frame = spark.range(0, 6, 1, 3).selectExpr("id", "repeat(cast(id as string), 3000000) as long")
    return _all(frame.repartition(4, "id").selectExpr("id", "length(long)", "md5(long)"))


@job
def record_of_64_mib(spark: Any, folder: Path) -> Any:
    rdd = spark.sparkContext.parallelize([1, 2], 2).map(lambda i: (i, bytes([i]) * (i << 25)))
    found = rdd.partitionBy(2).mapValues(lambda value: [len(value), value[0], value[-1]])
    return sorted(map(list, found.collect()))


@job
def rdd_operations(spark: Any, folder: Path) -> Any:
    context = spark.sparkContext
    pairs = context.parallelize([(i % 10, i) for i in range(10_000)], 5)
    words = context.parallelize([("x" * (i % 50), i) for i in range(3_000)], 4)
    return [
        sorted(pairs.reduceByKey(lambda a, b: a + b).collect()),
        sorted(pairs.groupByKey(4).mapValues(lambda values: sorted(values)[-3:]).collect()),
        words.sortByKey(ascending=False, numPartitions=3).map(lambda pair: pair[0]).collect(),
        sorted(pairs.aggregateByKey(0, lambda n, _: n + 1, lambda a, b: a + b).collect()),
        sorted(pairs.combineByKey(lambda v: [v], lambda s, v: [*s, v][:2], lambda a, b: a).keys()
               .collect()),
        sorted(pairs.cogroup(pairs.mapValues(lambda v: -v), 3)
               .mapValues(lambda both: [sum(both[0]), sum(both[1])]).collect()),
        sorted(words.repartition(7).values().collect()) == list(range(3_000)),
        context.parallelize(range(1_000), 3).distinct(2).count(),
    ]  # fmt: skip


@job
def rows_of_the_jvm(spark: Any, folder: Path) -> Any:
    """Of RDDs whose records are no bytes of Python: by Java's serializer."""
    rdd = spark.range(0, 5_000, 1, 4).selectExpr("cast(id % 7 as string) k")._jdf.toJavaRDD()
    return int(rdd.distinct(3).count())


@job
def cached_and_checkpointed(spark: Any, folder: Path) -> Any:
    spark.sparkContext.setCheckpointDir(str(folder / "checkpoints"))
    frame = _frame(spark, 20_000).repartition(6, "k").cache()
    first = _digest(frame.collect())
    kept = frame.groupBy("k").count().checkpoint()
    second = _all(kept.orderBy("k"))
    frame.unpersist()
    return [first, second, first == _digest(frame.collect())]


@job
def python_functions(spark: Any, folder: Path) -> Any:
    from pyspark.sql import functions as fn

    twice = fn.udf(lambda text: text * 2, "string")
    frame = _frame(spark, 3_000).withColumn("tt", twice("t")).repartition(5, "tt")
    return _all(frame.groupBy("k").agg(fn.max("tt")).orderBy("k"))


@job
def reused_and_limited(spark: Any, folder: Path) -> Any:
    counts = _frame(spark).groupBy("k").count()
    both = counts.alias("a").join(counts.alias("b"), "k")
    first = counts.orderBy("k").limit(5).collect()
    return [both.count(), len(first), counts.where("k < 3").count()]


@job
def micro_batches(spark: Any, folder: Path) -> Any:
    """Structured Streaming: each batch shuffles; its state is Spark's."""
    source = folder / "source"
    source.mkdir()
    for number in range(3):
        _frame(spark, 1_000 * (number + 1)).select("k", "id").coalesce(1).write.json(
            str(source / f"{number}")
        )
    stream = spark.readStream.schema("k long, id long").option("maxFilesPerTrigger", 1)
    counts = stream.json(str(source / "*")).groupBy("k").count()
    query = (
        counts.writeStream.outputMode("complete").format("memory").queryName("counts")
        .option("checkpointLocation", str(folder / "stream")).trigger(availableNow=True).start()
    )  # fmt: skip
    assert query.awaitTermination(120)
    return _all(spark.sql("select * from counts"))
