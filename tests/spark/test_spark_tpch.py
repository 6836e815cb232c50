"""The 22 queries of TPC-H give what they give with Spark's own shuffle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support.spark_runs import IS_SOAK
from support.spark_sessions import spark_session
from support.tpch_data import make_tables
from support.tpch_queries import QUERIES, ROWS_AT_SCALE_1, TABLES

from cosco import LocalCluster
from cosco.observe import fetch_status, io_figures

pytestmark = [
    pytest.mark.timeout(1200 if IS_SOAK else 300),
    # PySpark 3.5 does not close the socket by which it collects rows.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

#: The soak can be had with other data: the answers of scale 1 alone are known.
SCALE: Final = float(os.environ.get("COSCO_TPCH_SCALE", "1" if IS_SOAK else "0.02"))
#: No join is by broadcast: both sides shuffle.
_SHUFFLED: Final = {"sql__autoBroadcastJoinThreshold": "-1"}
_ADAPTIVE: Final = {"sql__adaptive__enabled": "true"}
_NOT_ADAPTIVE: Final = {"sql__adaptive__enabled": "false"}
_SCANS: Final = {
    # More than one mapper reads each of the large tables.
    "sql__files__maxPartitionBytes": f"{int(max(2, 32 * SCALE))}m",
}
MODES: Final[dict[str, dict[str, Any]]] = {
    "adaptive, two copies": {"cosco_replicas": 2, **_ADAPTIVE},
    "not adaptive, one copy, no broadcasts": {"cosco_replicas": 1, **_NOT_ADAPTIVE, **_SHUFFLED},
}
if IS_SOAK:
    MODES["adaptive, one copy, no broadcasts"] = {"cosco_replicas": 1, **_ADAPTIVE, **_SHUFFLED}
    MODES["not adaptive, two copies"] = {"cosco_replicas": 2, **_NOT_ADAPTIVE}


class Answer:
    """The rows of one query, in the order in which they came."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = [tuple(row) for row in rows]  # decimals are equal if all their digits are

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        digest = hashlib.sha256(repr(self.rows).encode()).hexdigest()[:16]
        return f"{len(self.rows)} rows, digest {digest}, from {self.rows[:2]}"


@contextmanager
def session_on(tables: Path, metadata: str | None, folder: Path, **conf: Any) -> Iterator[Any]:
    with spark_session(metadata, folder, **_SCANS, **conf) as spark:
        for name in TABLES:
            spark.read.parquet(str(tables / f"{name}.parquet")).createOrReplaceTempView(name)
        yield spark


def blocks_received(services: LocalCluster) -> int:
    return io_figures(fetch_status(services.metadata).daemons).blocks_received


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("tpch"), SCALE)


@pytest.fixture(scope="module")
def own(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Answer]:
    """What Spark's own shuffle gives; its session has ended, as there is one at a time."""
    with session_on(tables, None, tmp_path_factory.mktemp("own"), **_ADAPTIVE) as spark:
        return {number: Answer(spark.sql(text).collect()) for number, text in QUERIES.items()}


@pytest.fixture(scope="module", params=MODES)
def spark(
    request: pytest.FixtureRequest,
    own: dict[int, Answer],
    tables: Path,
    services: LocalCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("ours")
    mode = MODES[request.param]
    with session_on(tables, services.metadata, folder, cosco_fallback="fail", **mode) as session:
        yield session


@pytest.mark.parametrize("number", QUERIES)
def test_answers_are_those_of_sparks_own_shuffle(
    number: int, own: dict[int, Answer], spark: Any, services: LocalCluster
) -> None:
    before = blocks_received(services)
    found = Answer(spark.sql(QUERIES[number]).collect())
    assert found == own[number], f"query {number}: {found!r} and not {own[number]!r}"
    assert blocks_received(services) > before, "it has shuffled elsewhere"


@pytest.mark.parametrize("number", QUERIES)
def test_spark_itself_gives_as_many_rows_as_the_specification(
    number: int, own: dict[int, Answer]
) -> None:
    """So that the queries are those which they are called."""
    if SCALE != 1:
        assert own[number].rows
        return
    assert len(own[number].rows) == ROWS_AT_SCALE_1[number]
