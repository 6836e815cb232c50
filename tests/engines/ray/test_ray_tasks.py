"""What map and reduce tasks do when something went before: another run, a loss, an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from support.exchanges import until
from support.ray_datasets import none_is_left

import cosco.ray
from cosco import ClientClosed, CoscoExchange, DataLost, ExchangeClosed, LocalCluster
from cosco.ray.operator_shuffle import OperatorShuffle
from cosco.ray.private_parts_of_ray import Schemas
from cosco.ray.worker_tasks import Outputs, reduce_tables, wait_for_rows, write_partitions

ROWS = pa.table({"id": [1, 2, 3]})


def all_to(partition: int) -> dict[str, Any]:
    """Arguments of a map task which sends all rows to one partition."""
    return {
        "partition_fn": lambda block: {partition: block},
        "num_partitions": 3,
        "compression": None,
    }


@pytest.fixture
def exchange(metadata: str, name: str) -> Iterator[CoscoExchange]:
    with CoscoExchange(name, 3, metadata=metadata) as exchange:
        yield exchange


def outputs_of(exchange: CoscoExchange, *told: Any) -> Outputs:
    """What reduce tasks are given after map tasks have told this."""
    rows, schemas = np.zeros(3, np.int64), Schemas()
    for mapper, (_, shards, schema) in enumerate(told):
        schemas.add(mapper, schema)
        for partition, (count, _) in shards.items():
            rows[partition] += count
    return Outputs(exchange.handle(), len(told), rows, schemas)


def reduced(outputs: Outputs, partition: int) -> list[int]:
    """The rows of a partition, as a reduce task gives them."""
    reference = ray.put(outputs)

    def reduce(_: int, tables_by_input: list[list[pa.Table]]) -> Iterator[pa.Table]:
        yield pa.concat_tables(tables_by_input[0])

    context = ray.data.DataContext.get_current()
    *blocks, _ = reduce_tables([[reference]], partition, reduce, None, 1, 10.0, None, None, context)
    return [i for block in blocks if isinstance(block, pa.Table) for i in block["id"].to_pylist()]


def test_a_run_that_does_not_count_says_nothing_of_the_one_that_does(
    exchange: CoscoExchange,
) -> None:
    """A worker may die between its commit and its answer, and the next run cut otherwise."""
    write_partitions(exchange.handle(), 0, all_to(0), ROWS)
    told = write_partitions(exchange.handle(), 0, all_to(1), ROWS)
    outputs = outputs_of(exchange, told)
    assert all(outputs.rows > 0)  # Ray starts no task for partitions without rows
    assert [reduced(outputs, partition) for partition in range(3)] == [[1, 2, 3], [], []]


def test_an_exchange_that_has_ended_says_what_to_do(exchange: CoscoExchange) -> None:
    """Ray computes blocks again that died with a node, also of datasets that are done."""
    outputs = outputs_of(exchange, write_partitions(exchange.handle(), 0, all_to(0), ROWS))
    exchange.close()
    with pytest.raises(ExchangeClosed, match="run the dataset again"):
        reduced(outputs, 0)


@pytest.mark.parametrize("retriable", [True, False])
def test_who_waits_for_rows_leaves_another_loss_to_who_reads(retriable: bool) -> None:
    def reader(*_: Any) -> Any:
        raise DataLost("lost", shuffle_id="x", partition=0, retriable=retriable)

    class Reader:
        def __enter__(self) -> Any:
            return SimpleNamespace(read_batches=reader)

        def __exit__(self, *_: object) -> None: ...

    outputs: Any = SimpleNamespace(handle=SimpleNamespace(reader=lambda *_: Reader()), mappers=1)
    if retriable:
        wait_for_rows(outputs, 0)
    else:
        with pytest.raises(DataLost):
            wait_for_rows(outputs, 0)


def test_as_many_lost_map_tasks_run_again_at_a_time_as_there_are_cpus(
    metadata: str, context: ray.data.DataContext
) -> None:
    """They take none of them, and each runs in a process of its own."""
    cosco.ray.enable(metadata, replicas=1)
    shuffle = OperatorShuffle(context, "test")
    shuffle.begin(2)
    started: list[int] = []

    @ray.remote(num_cpus=0)
    def run_for_long() -> None:
        time.sleep(600)

    class Run:
        def start(self, *_: Any) -> None: ...

        def again(self, _: Any, mapper: int) -> Any:
            started.append(mapper)
            return run_for_long.remote()

    run: Any = Run()
    for mapper in range(20):
        shuffle._start_map(mapper, run)
    thread, errors = in_a_thread(lambda: shuffle._run_again(list(range(20)), "of a test"))
    until(lambda: len(started) >= 2, 60, "the first runs")
    shuffle.close()  # which ends them
    thread.join(60)
    assert not errors
    assert started == [0, 1]


@pytest.fixture
def own_services() -> Iterator[LocalCluster]:
    with LocalCluster(1) as cluster:
        yield cluster
        none_is_left(cluster.metadata)


def in_a_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  the test looks at it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_a_dataset_that_is_shut_down_while_its_exchange_is_made(
    own_services: LocalCluster,
    context: ray.data.DataContext,
) -> None:
    """Ray waits two seconds for the thread that runs a dataset; the service may take longer."""
    cosco.ray.enable(own_services.metadata, replicas=1)
    shuffle = OperatorShuffle(context, "test")
    shuffle.begin(2)
    CoscoExchange("first", 1, replicas=1, metadata=own_services.metadata).close()  # it is there
    own_services.metadata_service.kill()
    thread, errors = in_a_thread(lambda: shuffle.map(0, {}, (), {}))
    shuffle.close()
    own_services.metadata_service.restart()
    thread.join(60)
    assert [type(error) for error in errors] == [ClientClosed]


def test_the_end_of_a_dataset_waits_for_no_service(own_services: LocalCluster) -> None:
    cosco.ray.enable(own_services.metadata, replicas=1)
    dataset = ray.data.range(200, override_num_blocks=4).repartition(4, keys=["id"])
    batches = iter(dataset.iter_batches(batch_size=10, prefetch_batches=0))
    next(batches)
    own_services.metadata_service.kill()
    thread, errors = in_a_thread(batches.close)  # type: ignore[attr-defined]
    until(lambda: not thread.is_alive(), 20, "the end of the dataset")
    assert not errors
    own_services.metadata_service.restart()
