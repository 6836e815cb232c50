"""Sessions of Spark for tests: with Cosco, or with Spark's own shuffle to compare with."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cosco.spark
from cosco import Connection

#: Nothing leaves this machine, and nothing is looked for outside it.
_LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "8",
}


def _is_of_python(name: str) -> bool:
    return name.startswith("cosco_") and not name.startswith("cosco__")


@contextmanager
def spark_session(
    metadata: Connection | str | None, folder: Path, *, master: str = "local[2]", **conf: str
) -> Iterator[Any]:
    """Yield a session, and end it. metadata: of Cosco's service; None: Spark's own shuffle.

    conf: `spark.` options, with `__` for dots; those of Cosco by their names in `cosco.spark.conf`,
    with `cosco_` before, or as Spark has them, `cosco__write__block`.
    """
    from pyspark.sql import SparkSession

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    options: dict[str, Any] = {
        name.removeprefix("cosco_"): value for name, value in conf.items() if _is_of_python(name)
    }
    if jar := os.environ.get("COSCO_SPARK_JAR"):  # of a build that is not installed
        options["jar"] = jar
    # The class path is that of the JVM's start, so the plugin is on it in either case.
    plugin = cosco.spark.conf(metadata or "127.0.0.1:1", **options)
    values = {
        name: value
        for name, value in plugin.items()
        if metadata is not None or not re.match(r"spark\.(shuffle|cosco)\.", name)
    }
    values |= _LOCAL | {
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    values |= {
        f"spark.{name.replace('__', '.')}": value
        for name, value in conf.items()
        if not _is_of_python(name)
    }
    builder = SparkSession.builder.master(master).appName("tests")
    try:
        session = builder.config(map=values).getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        try:
            yield session
        finally:
            session.stop()
    finally:
        _forget(values)


def _forget(values: dict[str, str]) -> None:
    """Have later sessions not take what the JVM was started with."""
    from pyspark import SparkContext

    if SparkContext._jvm is not None:
        for name in set(values) - set(_LOCAL) - {"spark.jars"}:
            SparkContext._jvm.System.clearProperty(name)
