"""What a session of Spark is configured with, by what is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosco.spark
from cosco import Connection, InvalidArgument
from cosco.errors import EngineUnavailable

MANAGER = "cosco.spark.CoscoShuffleManager"


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "plugin.jar"
    path.touch()
    return path


def spark(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """Have a Spark in SPARK_HOME."""
    jars = folder / "home" / "jars"
    jars.mkdir(parents=True)
    (jars / name).touch()
    monkeypatch.setenv("SPARK_HOME", str(jars.parent))


@pytest.fixture
def spark_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spark(monkeypatch, tmp_path, "spark-core_2.13-4.3.0.jar")


@pytest.mark.usefixtures("spark_4")
def test_spark_4_fetches_the_plugin_by_itself(jar: Path) -> None:
    assert cosco.spark.conf("host:1", jar=jar) == {
        "spark.shuffle.manager": MANAGER,
        "spark.shuffle.sort.io.plugin.class": "cosco.spark.CoscoDataIO",
        "spark.cosco.metadata": "host:1",
        "spark.cosco.replicas": "2",
        "spark.jars": str(jar),
    }


def test_spark_3_has_it_on_the_class_path_from_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jar: Path
) -> None:
    spark(monkeypatch, tmp_path, "spark-core_2.12-3.5.9.jar")
    found = cosco.spark.conf("host:1", jar=jar)
    assert found["spark.jars"] == found["spark.driver.extraClassPath"] == str(jar)
    # Its place on each machine, or where YARN and Kubernetes lay what is in spark.jars.
    assert found["spark.executor.extraClassPath"] == f"{jar}{os.pathsep}./plugin.jar"


@pytest.mark.usefixtures("spark_4")
def test_the_service_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jar: Path
) -> None:
    token, ca = tmp_path / "token", tmp_path / "ca.pem"
    monkeypatch.setenv("COSCO_METADATA", "there:7")
    monkeypatch.setenv("COSCO_TOKEN_FILE", str(token))
    monkeypatch.setenv("COSCO_TLS_CA", str(ca))
    found = cosco.spark.conf(jar=jar, replicas=1)
    assert found["spark.cosco.metadata"] == "there:7"
    assert found["spark.cosco.replicas"] == "1"
    assert found["spark.cosco.tokenFile"] == str(token)
    assert found["spark.cosco.tls.ca"] == str(ca)
    # An empty name stands for no file.
    given = Connection("there:7", ca="", token_file="other")
    found = cosco.spark.conf(given, jar=jar)
    assert "spark.cosco.tls.ca" not in found
    assert found["spark.cosco.tokenFile"] == "other"


@pytest.mark.usefixtures("spark_4")
def test_options_are_called_as_spark_calls_them(jar: Path) -> None:
    found = cosco.spark.conf("host:1", jar=jar, lease_s=60, write_memory="8m", fallback="fail")
    assert found["spark.cosco.leaseS"] == "60"
    assert found["spark.cosco.write.memory"] == "8m"
    assert found["spark.cosco.fallback"] == "fail"


@pytest.mark.usefixtures("spark_4")
def test_bad_arguments_are_refused(jar: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no option 'leases'"):
        cosco.spark.conf("host:1", jar=jar, leases=1)
    with pytest.raises(InvalidArgument, match="replicas"):
        cosco.spark.conf("host:1", jar=jar, replicas=3)
    with pytest.raises(InvalidArgument, match="there is no file"):
        cosco.spark.conf("host:1", jar=tmp_path / "none.jar")
    with pytest.raises(InvalidArgument, match="give token_file="):
        cosco.spark.conf(Connection("host:1", token="secret"), jar=jar)


@pytest.mark.usefixtures("spark_4")
def test_a_plugin_that_is_not_there_is_said() -> None:
    with pytest.raises(EngineUnavailable, match="pip install cosco-spark"):
        cosco.spark.conf("host:1")


def test_a_spark_that_is_not_there_or_too_old_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jar: Path
) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    with pytest.raises(EngineUnavailable, match="install pyspark"):
        cosco.spark.conf("host:1", jar=jar)
    spark(monkeypatch, tmp_path, "spark-core_2.12-3.4.4.jar")
    with pytest.raises(EngineUnavailable, match=r"Spark 3\.4 is older than 3\.5"):
        cosco.spark.conf("host:1", jar=jar)
