"""The main job on real input, through real processes, equal to the direct aggregate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cosco import LocalCluster
from cosco.demo.flights import load_flights
from cosco.demo.job import GroupJob, JobOutcome, run_job
from cosco.demo.report import report_rows


def check(outcome: JobOutcome, table: pa.Table) -> None:
    assert outcome.equal
    assert outcome.rows_read == outcome.progress.rows == table.num_rows
    assert outcome.progress.mappers_committed > 0
    assert outcome.io.bytes_received >= outcome.progress.bytes_stored


def test_flights_are_those_of_2013() -> None:
    flights = load_flights()
    assert flights.num_rows == 336_776
    assert flights["arr_delay"].null_count == 9_430
    assert flights["tailnum"].null_count == 2_512


def test_flights_by_carrier_and_destination(cluster: LocalCluster) -> None:
    flights = load_flights()
    job = GroupJob(
        keys=("carrier", "dest"), sums=("distance", "air_time"), means=("arr_delay",), partitions=7
    )
    mapped: list[int] = []
    reduced: list[int] = []
    outcome = run_job(
        cluster.metadata, flights, job, on_mapped=mapped.append, on_reduced=reduced.append
    )
    check(outcome, flights)
    assert sum(mapped) == sum(reduced) == flights.num_rows
    assert ("result equal to the direct aggregate", "yes") in report_rows(outcome)


def lineitem(tmp_path: Path) -> pa.Table:
    tool = Path(sys.executable).with_name("tpchgen-cli")
    found = str(tool) if tool.exists() else shutil.which("tpchgen-cli")
    assert found, "tpchgen-cli is not installed: run make test"
    subprocess.run(
        [found, "parquet", "-s", "0.05", "--tables", "lineitem", "-o", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    table = pq.read_table(tmp_path / "lineitem.parquet")
    # Arrow has no sort for string views, which the job's last step needs.
    plain = [
        field.with_type(pa.string()) if pa.types.is_string_view(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(plain))


@pytest.mark.parametrize(("mappers", "partitions"), [(3, 40)])
def test_lineitem_by_part_and_supplier(
    cluster: LocalCluster, tmp_path: Path, mappers: int, partitions: int
) -> None:
    table = lineitem(tmp_path)
    job = GroupJob(
        keys=("l_partkey", "l_shipmode"),
        sums=("l_quantity", "l_extendedprice", "l_orderkey"),
        mappers=mappers,
        partitions=partitions,
    )
    outcome = run_job(cluster.metadata, table, job)
    check(outcome, table)
    # The check of the check: figures that are known without any grouping.
    for column in job.sums:
        assert sum(outcome.result[f"{column}_sum"].to_pylist()) == sum(table[column].to_pylist())


def test_a_wrong_result_is_seen() -> None:
    table = pa.table({"k": ["a", "b", "a"], "x": [1, 2, 3]})
    job = GroupJob(keys=("k",), sums=("x",))
    right, wrong = job.aggregate(table), job.aggregate(table.slice(1))
    assert right.to_pylist() == [
        {"k": "a", "count_all": 2, "x_sum": 4},
        {"k": "b", "count_all": 1, "x_sum": 2},
    ]
    assert not right.equals(wrong)


@pytest.mark.slow
def test_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosco.cli.main", "demo", "--partitions", "5", "--mappers", "2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert "336,776" in done.stdout
    assert "write amplification" in done.stdout
    assert done.stderr == ""
