"""Daemons that die under a frame of Daft, and tasks that Daft makes twice."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import daft
import numpy as np
import pytest
from daft import col
from daft.recordbatch import MicroPartition
from support.engine_runs import each_seed
from support.exchanges import until

from cosco import CoscoExchange, LocalCluster
from cosco.daft import repartition
from cosco.daft.partition_source import PartitionSource, WrittenRows
from cosco.daft.row_sink import RowSink
from cosco.observe import fetch_status

END_S = 20.0


def open_frames(metadata: str) -> int:
    """How many exchanges of frames there are, as the metadata service knows."""
    found = fetch_status(metadata).exchanges
    return sum(one.shuffle_id.startswith("daft-") and not one.closing for one in found)


def numbers(seed: int, rows: int = 20_000) -> daft.DataFrame:
    rng = np.random.default_rng(seed)
    return daft.from_pydict({"key": rng.integers(100, size=rows), "x": rng.integers(9, size=rows)})


@pytest.fixture
def no_frames(metadata: str) -> Iterator[None]:
    """There are none before, and none after."""
    gc.collect()
    until(lambda: not open_frames(metadata), END_S, "the end of frames of other tests")
    yield
    gc.collect()
    until(lambda: not open_frames(metadata), END_S, "the end of frames")


# --- faults -------------------------------------------------------------------------------


@each_seed
def test_a_daemon_dies_with_two_copies(cluster: LocalCluster, seed: int) -> None:
    frame = numbers(seed)
    wanted = frame.groupby("key").agg(col("x").sum()).sort("key").to_pydict()
    shuffled = repartition(frame, 8, "key", metadata=cluster.metadata)
    victim = cluster.daemons[seed % 2]
    victim.kill()
    assert shuffled.groupby("key").agg(col("x").sum()).sort("key").to_pydict() == wanted
    victim.restart()
    assert shuffled.groupby("key").agg(col("x").sum()).sort("key").to_pydict() == wanted


def test_the_only_copy_dies_and_it_is_said_what_to_do() -> None:
    with LocalCluster(2, daemon_options=["--store", "memory://"]) as cluster:
        shuffled = repartition(numbers(1), 8, "key", metadata=cluster.metadata, replicas=1)
        cluster.daemons[0].kill()
        with pytest.raises(
            Exception, match=r"call cosco\.daft\.repartition again, with replicas=2"
        ):
            shuffled.to_pydict()
        del shuffled
        gc.collect()


def test_the_metadata_service_is_started_again(cluster: LocalCluster) -> None:
    frame = numbers(2)
    shuffled = repartition(frame, 8, "key", metadata=cluster.metadata)
    cluster.metadata_service.kill()
    cluster.metadata_service.restart()
    assert shuffled.count_rows() == frame.count_rows()


# --- tasks that are made twice ------------------------------------------------------------


def test_only_calls_whose_results_come_home_are_read(metadata: str, name: str) -> None:
    """A task of a dead worker may have committed: Daft makes it again, and it counts once."""
    frame = daft.from_pydict({"key": [1, 2, 3]})
    schema = frame.schema().to_pyarrow_schema()
    rows = MicroPartition.from_pydict({"key": [1, 2, 3]})
    with CoscoExchange(name, 2, schema=schema, metadata=metadata) as exchange:
        sink = RowSink(exchange.handle(), ("key",), schema)
        lost = list(sink.write(iter([rows])))
        cut_off = sink.write(iter([rows, "no rows"]))  # type: ignore[list-item]
        with pytest.raises(AttributeError):
            list(cut_off)
        again = list(sink.write(iter([rows])))
        assert exchange.progress().mappers_committed == 2
        assert [one.rows_written for one in (*lost, *again)] == [3, 3]
        [mapper] = sink.finalize(again).to_pydict()["mapper"]
        written = WrittenRows(exchange.handle(), {mapper}, ("key",), frame.schema(), None)
        found = PartitionSource(written).read().sort("key").to_pydict()
    assert found == {"key": [1, 2, 3]}


# --- how long an exchange lives -----------------------------------------------------------


@pytest.mark.usefixtures("no_frames")
def test_an_exchange_lives_as_long_as_the_frames_that_read_it(metadata: str) -> None:
    shuffled = repartition(numbers(3), 4, "key", metadata=metadata)
    sums = shuffled.groupby("key").agg(col("x").sum())
    del shuffled
    gc.collect()
    assert open_frames(metadata) == 1
    assert sums.count_rows() == 100
    batches = sums.iter_partitions()
    next(batches)
    del sums
    assert open_frames(metadata) == 1
    del batches


@pytest.mark.usefixtures("no_frames")
def test_a_job_that_fails_leaves_nothing(metadata: str) -> None:
    @daft.func
    def fail(x: int) -> int:
        raise ArithmeticError("of the job's own")

    frame = numbers(4).with_column("y", fail(col("x")))
    with pytest.raises(Exception, match="of the job's own"):
        repartition(frame, 4, "key", metadata=metadata)


@pytest.mark.usefixtures("no_frames")
def test_many_frames_have_one_lease(metadata: str) -> None:
    frames = [repartition(numbers(5, 100), 2, "key", metadata=metadata) for _ in range(5)]
    assert open_frames(metadata) == 5
    leases = [one for one in threading.enumerate() if one.name == "cosco-lease"]
    assert len(leases) == 1
    frames.clear()


@pytest.mark.usefixtures("no_frames")
def test_a_process_that_ends_leaves_nothing(metadata: str) -> None:
    code = f"""if True:
        import daft, cosco.daft
        frame = daft.from_pydict({{"key": [1, 2, 3]}})
        shuffled = cosco.daft.repartition(frame, 2, "key", metadata={metadata!r})
        print(shuffled.count_rows())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3", "")
    assert not open_frames(metadata)  # at once, not by its lease
