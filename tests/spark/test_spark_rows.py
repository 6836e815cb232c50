"""Every kind of shuffle gives what Spark's own gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.spark_jobs import JOBS
from support.spark_sessions import spark_session

from cosco import LocalCluster

#: The first test of a mode runs all of its jobs.
pytestmark = pytest.mark.timeout(600)

OWN = {"sql__adaptive__enabled": "true"}
#: How the same jobs are run: adaptive, with skew found everywhere, or not; with one copy or two.
MODES: dict[str, dict[str, Any]] = {
    "adaptive, two copies": {
        "cosco_replicas": 2,
        "sql__adaptive__enabled": "true",
        "sql__adaptive__skewJoin__skewedPartitionThresholdInBytes": "1000",
        "sql__adaptive__advisoryPartitionSizeInBytes": "64k",
        "sql__adaptive__coalescePartitions__minPartitionSize": "1k",
    },
    "not adaptive, one copy": {"cosco_replicas": 1, "sql__adaptive__enabled": "false"},
    "by Kryo, little memory": {
        "cosco_replicas": 1,
        "cosco_write_memory": "1m",
        "cosco_write_block": "4k",
        "cosco_codec": "none",
        "serializer": "org.apache.spark.serializer.KryoSerializer",
        "kryoserializer__buffer__max": "128m",
    },
}


def run_all(metadata: str | None, folder: Path, **conf: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with spark_session(metadata, folder, **conf) as spark:
        for name, job in JOBS.items():
            place = folder / name
            place.mkdir(parents=True)
            try:
                found[name] = job(spark, place)
            except Exception as error:  # noqa: BLE001  told where it belongs: in the test of this job
                lines = re.findall(r".*(?:cosco|Caused by).*", str(error))[:12]
                found[name] = "\n".join([type(error).__name__, *lines, str(error)[:1500]])
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_all(None, tmp_path_factory.mktemp("own"), **OWN)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.every_spark] * (number == 0))
        for number, name in enumerate(MODES)
    ],
)
def ours(
    request: pytest.FixtureRequest,
    services: LocalCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ours")
    return run_all(services.metadata, folder, **MODES[request.param])


@pytest.mark.parametrize("name", JOBS)
def test_results_are_those_of_sparks_own_shuffle(
    own: dict[str, Any], ours: dict[str, Any], name: str
) -> None:
    assert ours[name] == own[name]
