"""Services decide in one thread each, whatever their clients do and whoever dies."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context

import pytest
from support.engine import PARTITIONS, check_rows, read, rows_of, write
from support.exchanges import by_partition
from support.kill_runs import Runner, differ

from cosco import CoscoExchange, LocalCluster
from cosco.decision_thread import ENVIRONMENT

_VARIABLE = "COSCO_KILL_SEED"
_FAULTS = ("kill", "kill", "drain", "metadata")
_MAPPERS = range(4)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setenv(ENVIRONMENT, "threads")
    options = ("--daemon-lease-s", "2")
    with Runner(LocalCluster(3, memory="32MiB", metadata_options=options)) as runner:
        yield runner


def test_no_other_thread_enters_while_services_are_killed(checked: Runner) -> None:
    """Writers and readers of several processes and threads, and faults, on checked services."""
    seed = int(os.environ.get(_VARIABLE) or random.randrange(2**32))
    print(f"again with: {_VARIABLE}={seed}")
    try:
        for number, replicas in enumerate((2, 1)):
            name = f"one-thread-{number}"
            checked.run(name, seed + number, replicas=replicas, strict=False, kinds=_FAULTS)
        in_processes(checked.cluster)
    finally:  # which says why, if something went wrong
        logs = sorted(checked.cluster.directory.glob("*.log"))
        assert len(logs) == 4
        for log in logs:
            text = log.read_text()
            assert "what decides is held to this thread" in text, log.name
            assert "wrong_thread" not in text, text


def in_processes(cluster: LocalCluster) -> None:
    """Write and read an exchange by processes, while every daemon is killed and started again."""
    name, metadata = "processes", cluster.metadata
    expected = by_partition(chain.from_iterable(map(rows_of, _MAPPERS)), PARTITIONS)
    with (
        CoscoExchange(name, PARTITIONS, metadata=metadata),
        ProcessPoolExecutor(3, mp_context=get_context("forkserver")) as workers,
    ):
        written = [workers.submit(write, name, mapper, metadata) for mapper in _MAPPERS]
        assert all(one.result() for one in written)
        for daemon in cluster.daemons:
            reading = [
                workers.submit(read, name, list(_MAPPERS), partition, metadata)
                for partition in range(PARTITIONS)
            ]
            daemon.kill()
            daemon.restart()
            for partition, rows in enumerate(reading):
                differ(Counter(rows.result()), expected[partition])
        check_rows(name, list(_MAPPERS), expected, metadata)
