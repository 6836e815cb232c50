"""A shuffle that ends while tasks have stand-ins leaves its scheduler as if they never had any."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pytest
from distributed import Client, wait
from distributed.client import FutureCancelledError
from support.dask_jobs import (
    at_the_gate,
    holder_of,
    kill_workers,
    nothing_left,
    progress_until,
    worker_pids,
)
from support.exchanges import until

import cosco.dask

pytestmark = pytest.mark.timeout(180)
MAPPERS = 8
FREE = 5


@pytest.fixture
def client(own_client: Client) -> Client:
    """A client of two workers that it may kill."""
    return own_client


def tasks(client: Client) -> list[str]:
    """All tasks that the scheduler knows."""
    known = client.run_on_scheduler(lambda dask_scheduler: [*map(str, dask_scheduler.tasks)])
    return sorted(known)


def stand_ins(client: Client) -> list[str]:
    """The tasks that have one."""
    return client.run_on_scheduler(
        lambda dask_scheduler: [
            str(key)
            for key in dask_scheduler.tasks
            if dask_scheduler.plugins["cosco"]._stand_ins.has(key)
        ]
    )


def gated(folder: Path) -> dd.DataFrame:
    """A source of which some partitions come at once, and the others when a gate is opened."""
    folder.mkdir()
    return dd.from_map(
        at_the_gate, range(MAPPERS), folder=str(folder), free=FREE, meta={"key": "i8", "x": "i8"}
    )


def at_stand_ins(folder: Path) -> dd.DataFrame:
    """A shuffle of which some transfers are done, but have no result; others wait for a gate."""
    return gated(folder).shuffle("key", npartitions=4)


def lose_a_worker(client: Client, folder: Path) -> None:
    """Have those transfers that a worker held get stand-ins, which nobody has the time to run:
    the other one waits at the gate."""
    until(lambda: len([*folder.glob("source.*")]) >= FREE + 2, 60.0, "a source for each to wait in")
    progress_until(client, lambda one: one["mappers_done"] >= FREE - 2, "the first rows")
    holder = holder_of(client, "('cosco-transfer")
    assert holder is not None
    kill_workers(client, holder)
    until(lambda: bool(stand_ins(client)), 20.0, "stand-ins")


def test_a_cancel_leaves_no_task_behind(client: Client, metadata: str, tmp_path: Path) -> None:
    """Those neither that a transfer read which had a stand-in."""
    future = client.compute(at_stand_ins(tmp_path / "runs"))
    lose_a_worker(client, tmp_path / "runs")
    future.cancel()
    (tmp_path / "runs" / "gate").touch()
    until(lambda: not tasks(client), 20.0, "the end of all tasks")
    nothing_left(metadata)


def test_an_error_leaves_no_task_behind(client: Client, metadata: str, tmp_path: Path) -> None:
    shuffled = at_stand_ins(tmp_path / "runs")
    future = client.compute(shuffled)
    lose_a_worker(client, tmp_path / "runs")
    gate = tmp_path / "runs" / "gate"
    gate.write_text("a bad source")
    assert isinstance(future.exception(timeout=60), ZeroDivisionError)
    assert not stand_ins(client), "while somebody holds the error"
    nothing_left(metadata)
    future.release()
    until(lambda: not tasks(client), 20.0, "the end of all tasks")
    gate.write_text("")
    assert len(client.compute(shuffled).result(timeout=60)) == MAPPERS * 100


def with_dropped_sources(
    client: Client, shuffled: dd.DataFrame, folder: Path
) -> tuple[dd.DataFrame, list[int]]:
    """Three partitions of which some transfers have lost what they read, and those transfers.

    The fourth partition is read from the same, and cancelled while they have stand-ins.
    """
    kept, other = shuffled.partitions[[0, 1, 2]].persist(), shuffled.partitions[[3]].persist()
    until(lambda: len(cosco.dask.progress(client)) == 2, 20.0, "both shuffles")
    until(
        lambda: min(one["mappers_done"] for one in cosco.dask.progress(client)) >= FREE - 2,
        20.0,
        "the first rows of both",
    )
    lose_a_worker(client, folder)
    before = operations(client)
    del other
    until(lambda: len(cosco.dask.progress(client)) == 1, 20.0, "the end of the other one")
    mine = [ast.literal_eval(key)[1] for key in stand_ins(client)]
    assert len(before) == MAPPERS and mine
    assert len(operations(client)) == MAPPERS - len(mine)
    return kept, mine


async def lose_rows(dask_scheduler: Any, mappers: list[int]) -> None:
    """Call mappers of the only shuffle back."""
    plugin = dask_scheduler.plugins["cosco"]
    (shuffle,) = plugin._shuffles.values()
    await plugin._run_again(shuffle, mappers, "a test")


def operations(client: Client) -> list[str]:
    """The tasks that transfers read from."""
    return [key for key in tasks(client) if "operation" in key]


def test_a_source_that_is_dropped_meanwhile_is_not_missed(client: Client, tmp_path: Path) -> None:
    shuffled = at_stand_ins(tmp_path / "runs")
    kept, _ = with_dropped_sources(client, shuffled, tmp_path / "runs")
    (tmp_path / "runs" / "gate").touch()
    wait(kept, timeout=60)
    kill_workers(client, *worker_pids(client))  # its outputs are read again
    rows = len(client.compute(kept).result(timeout=60))
    del kept
    others = client.compute(shuffled.partitions[[3]]).result(timeout=60)
    assert rows + len(others) == MAPPERS * 100


def test_a_source_that_was_dropped_is_there_in_the_next_graph(
    client: Client, tmp_path: Path
) -> None:
    """Tasks of the same names have their own work, and run again if rows of theirs are lost."""
    shuffled = at_stand_ins(tmp_path / "runs")
    kept, alone = with_dropped_sources(client, shuffled, tmp_path / "runs")
    (tmp_path / "runs" / "gate").touch()
    wait(kept, timeout=60)
    rows = len(client.compute(kept).result(timeout=60))
    del kept
    until(lambda: not tasks(client), 20.0, "the end of all tasks")
    again = shuffled.partitions[[0, 1, 2]].persist()
    wait(again, timeout=60)
    client.run_on_scheduler(lose_rows, mappers=alone[:1])
    kill_workers(client, *worker_pids(client))
    assert len(client.compute(again).result(timeout=60)) == rows


@pytest.mark.parametrize("before", [True, False], ids=["before it ran", "after it ran"])
def test_a_source_that_was_dropped_and_is_needed_again_ends_the_shuffle(
    client: Client, metadata: str, tmp_path: Path, before: bool
) -> None:
    """Rows that are lost when their source is gone too are not there: nobody waits for them."""
    shuffled = at_stand_ins(tmp_path / "runs")
    kept, alone = with_dropped_sources(client, shuffled, tmp_path / "runs")
    if before:
        client.run_on_scheduler(lose_rows, mappers=alone[:1])
    (tmp_path / "runs" / "gate").touch()
    if not before:
        wait(kept, timeout=60)
        kill_workers(client, *worker_pids(client))
        client.run_on_scheduler(lose_rows, mappers=alone[:1])
    with pytest.raises(FutureCancelledError):
        client.compute(kept).result(timeout=60)
    del kept
    nothing_left(metadata)
