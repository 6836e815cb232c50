"""An exchange lives as long as the operator that made it: it never outlives its dataset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
from support.ray_datasets import ExchangesMade, none_is_left, open_exchanges

import cosco.ray
from cosco.admin import show_exchange

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def failing(batch: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("the user's function")


def shuffled() -> ray.data.Dataset:
    return ray.data.range(200, override_num_blocks=4).repartition(4, keys=["id"])


def test_it_is_open_while_the_dataset_is_read(metadata: str) -> None:
    cosco.ray.enable(metadata, replicas=1)
    batches = iter(shuffled().iter_batches(batch_size=10, prefetch_batches=0))
    next(batches)
    [name] = open_exchanges(metadata)
    assert show_exchange(metadata, name).status.partitions == 4
    assert sum(len(batch["id"]) for batch in batches) == 190
    none_is_left(metadata)


@pytest.mark.parametrize("way", ["keyed", "sort", "random"])
def test_a_reader_that_leaves_early(way: str, metadata: str, exchanges_made: ExchangesMade) -> None:
    ways = {
        "keyed": lambda d: d.repartition(4, keys=["id"]),
        "sort": lambda d: d.sort("id"),
        "random": lambda d: d.random_shuffle(seed=1),
    }
    cosco.ray.enable(metadata)
    dataset = ways[way](ray.data.range(200, override_num_blocks=4))
    for _ in dataset.iter_rows():
        break
    assert len(dataset.take(3)) == 3
    assert exchanges_made() == 2
    none_is_left(metadata)


@pytest.mark.parametrize("phase", ["map", "reduce"])
def test_a_task_that_fails(phase: str, metadata: str, exchanges_made: ExchangesMade) -> None:
    cosco.ray.enable(metadata)
    numbers = ray.data.range(200, override_num_blocks=4)
    jobs = {
        "map": lambda: numbers.map_batches(failing).random_shuffle(),
        "reduce": lambda: numbers.repartition(4, keys=["id"]).map_batches(failing),
    }
    with pytest.raises(Exception, match="the user's function"):
        jobs[phase]().take_all()
    assert exchanges_made() == 1
    none_is_left(metadata)


def test_no_service(context: ray.data.DataContext) -> None:
    """It is said at once, by the error of the dataset."""
    cosco.ray.enable("127.0.0.1:9")
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        shuffled().take_all()


ABANDONED = """
import os, sys
import ray, ray.data, cosco.ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
cosco.ray.enable(sys.argv[1])
dataset = ray.data.range(200, override_num_blocks=4).repartition(4, keys=["id"])
rows = iter(dataset.iter_rows())
next(rows)
print("begun", flush=True)
sys.stdin.read()
"""


def test_a_driver_that_ends_in_the_middle(metadata: str, tmp_path: Path) -> None:
    """By its end, as it closes what it has; where it cannot, its lease ends."""
    script = tmp_path / "abandoned.py"
    script.write_text(ABANDONED)
    with subprocess.Popen(
        [sys.executable, script, metadata],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        assert any("begun" in line for line in driver.stdout)
        assert len(open_exchanges(metadata)) == 1
        driver.communicate()
    none_is_left(metadata)
