"""PySpark through Cosco: a join and an aggregation whose rows outlive the executors.

    python examples/spark_shuffle.py

It starts a cluster of its own; with one that is there give its address to `cosco.spark.conf`.
It needs pyspark, Java and the distribution cosco-spark: see docs/spark.md.
"""

from pyspark.sql import SparkSession

import cosco.spark
from cosco import LocalCluster


def main() -> None:
    with LocalCluster(daemons=2) as cluster:
        settings = cosco.spark.conf(cluster.metadata)
        settings["spark.ui.enabled"] = "false"
        settings["spark.driver.bindAddress"] = settings["spark.driver.host"] = "127.0.0.1"
        spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
        orders = spark.range(100_000).selectExpr("id", "id % 1000 as customer", "id % 7 as price")
        customers = spark.range(1_000).selectExpr("id as customer", "id % 5 as region")
        sums = orders.hint("merge").join(customers, "customer").groupBy("region").sum("price")
        for row in sums.orderBy("region").collect():
            print(f"region {row.region}: {row[1]}")
        spark.stop()


if __name__ == "__main__":
    main()
