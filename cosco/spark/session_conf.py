"""The configuration of a Spark session that shuffles through Cosco."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from cosco import Connection, InvalidArgument
from cosco.engine_exchanges import checked_replicas, connection_to
from cosco.errors import EngineUnavailable

#: Where the plugin's options begin.
_PREFIX: Final = "spark.cosco."
#: Options as Python and as Spark call them; how each is checked is the plugin's business.
_OPTIONS: Final = {
    "codec": "codec",
    "lease_s": "leaseS",
    "fallback": "fallback",
    "service_timeout_s": "serviceTimeoutS",
    "write_memory": "write.memory",
    "write_block": "write.block",
    "write_window": "write.window",
    "read_prefetch": "read.prefetch",
}
_CORE: Final = re.compile(r"spark-core_(\d+\.\d+)-(\d+)\.(\d+)\.[^/]*\.jar")
_OLDEST: Final = (3, 5)
#: From this version on executors fetch jars before they make their shuffle manager.
_FETCHES_FIRST: Final = (4, 0)
_JARS: Final = "cosco_spark"


class _Spark(NamedTuple):
    scala: str
    version: tuple[int, int]


def conf(
    metadata: Connection | str | None = None,
    *,
    replicas: int = 2,
    jar: str | os.PathLike[str] | None = None,
    **options: str | int,
) -> dict[str, str]:
    """Return what `SparkSession.builder.config(map=…)` needs to shuffle through Cosco.

    metadata: `host:port` of the metadata service, as executors reach it; None: what
    COSCO_METADATA says here; or a `cosco.Connection`, whose files are there on all machines (the
    token's on the driver's alone). replicas: copies of each row in memory, 1 or 2. jar: the plugin,
    in the place of that of the distribution `cosco-spark`. options: `codec`, `lease_s`, `fallback`,
    `service_timeout_s`, `write_memory`, `write_block`, `write_window` and `read_prefetch`, which
    docs/spark.md tells of.

    Raises: EngineUnavailable if PySpark or the plugin is missing, or Spark is older than 3.5;
    InvalidArgument.
    """
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise InvalidArgument(f"there is no option {unknown[0]!r}: there are {sorted(_OPTIONS)}")
    connection = _connection(metadata)
    spark = _installed_spark()
    plugin = _plugin(spark.scala) if jar is None else Path(jar).absolute()
    if not plugin.is_file():
        raise InvalidArgument(f"there is no file {plugin}")
    values = {
        "spark.shuffle.manager": "cosco.spark.CoscoShuffleManager",
        "spark.shuffle.sort.io.plugin.class": "cosco.spark.CoscoDataIO",
        f"{_PREFIX}metadata": connection.address,
        f"{_PREFIX}replicas": str(checked_replicas(replicas)),
    }
    files = {
        "tls.ca": connection.ca,
        "tls.cert": connection.cert,
        "tls.key": connection.key,
        "tokenFile": connection.token_file,
    }
    values |= {_PREFIX + name: str(value) for name, value in files.items() if value}
    values |= {_PREFIX + _OPTIONS[name]: str(value) for name, value in options.items()}
    return values | _class_path(spark, plugin)


def _connection(metadata: Connection | str | None) -> Connection:
    connection = connection_to(metadata)
    if connection.has_given_token:
        raise InvalidArgument("Spark's driver reads its token from a file: give token_file=")
    variables = ("COSCO_TLS_CA", "COSCO_TLS_CERT", "COSCO_TLS_KEY", "COSCO_TOKEN_FILE")
    ca, cert, key, token_file = (
        given if given is not None else os.environ.get(variable) or None
        for given, variable in zip(
            (connection.ca, connection.cert, connection.key, connection.token_file),
            variables,
            strict=True,
        )
    )
    return Connection(connection.address, ca=ca, cert=cert, key=key, token_file=token_file)


def _class_path(spark: _Spark, plugin: Path) -> dict[str, str]:
    """Return how both the driver and executors come to have the plugin.

    Before Spark 4 an executor makes its shuffle manager before it fetches any jar. So there the
    file is on the class path from the start: at its place, as where the distribution is installed
    on all machines alike, or in the working directory, where YARN and Kubernetes lay `spark.jars`.
    """
    if spark.version >= _FETCHES_FIRST:
        return {"spark.jars": str(plugin)}
    places = f"{plugin}{os.pathsep}./{plugin.name}"
    return {
        "spark.jars": str(plugin),
        "spark.driver.extraClassPath": str(plugin),
        "spark.executor.extraClassPath": places,
    }


def _installed_spark() -> _Spark:
    for jars in _folders_of_jars():
        for path in sorted(jars.glob("spark-core_*.jar")):
            found = _CORE.fullmatch(path.name)
            if found is not None:
                version = int(found[2]), int(found[3])
                if version < _OLDEST:
                    raise EngineUnavailable(
                        f"Spark {version[0]}.{version[1]} is older than 3.5: install another one"
                    )
                return _Spark(found[1], version)
    raise EngineUnavailable(
        "there is no Spark: install pyspark, or say by SPARK_HOME where it is; "
        "a client of Spark Connect is configured where its server is started"
    )


def _folders_of_jars() -> list[Path]:
    folders = []
    if home := os.environ.get("SPARK_HOME"):
        folders.append(Path(home) / "jars")
    spec = importlib.util.find_spec("pyspark")
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "jars")
    return folders


def _plugin(scala: str) -> Path:
    spec = importlib.util.find_spec(_JARS)
    if spec is None or spec.origin is None:
        raise EngineUnavailable(
            "the plugin is not installed: `pip install cosco-spark`, or give its file by jar="
        )
    path = Path(spec.origin).parent / "jars" / f"cosco-spark_{scala}.jar"
    if not path.is_file():
        raise EngineUnavailable(f"the installed cosco-spark has no jar for Scala {scala}")
    return path
