"""Processes are killed under a shuffle: the result is Ray's own, and no more runs than must.

The job aggregates in Python, so that map tasks and reduce tasks both call functions of ours. Those
note who they are in a folder, and wait while the test holds their phase.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
from ray.data.aggregate import AggregateFn
from support.engine_runs import each_seed
from support.exchanges import serving, until
from support.ray_datasets import none_is_left

import cosco.ray
from cosco import LocalCluster

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

BLOCKS, ROWS, KEYS, PARTITIONS = 8, 50, 40, 6
WAIT_S = 240.0  # a worker takes a minute to start where a machine is busy
EXPECTED = sorted(
    (key, sum(i for i in range(BLOCKS * ROWS) if i % KEYS == key)) for key in range(KEYS)
)


class Phases:
    """A folder in which tasks note that they are there, and are held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hold(self, phase: str) -> None:
        (self.folder / f"hold {phase}").touch()

    def let_go(self, phase: str) -> None:
        (self.folder / f"hold {phase}").unlink()

    def let_all_go(self) -> None:
        """Harmless where nothing is held."""
        for hold in self.folder.glob("hold *"):
            hold.unlink()

    def note(self, phase: str, what: object) -> None:
        """Called in tasks: note it, and wait while the phase is held."""
        with (self.folder / phase).open("a") as notes:  # one line is written at once
            notes.write(f"{what} {os.getpid()}\n")
        while (self.folder / f"hold {phase}").exists():
            time.sleep(0.02)

    def notes(self, phase: str) -> list[tuple[int, int]]:
        """What was noted, and the process of each."""
        path = self.folder / phase
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(what), int(pid)) for what, pid in map(str.split, lines)]

    def wait_for(self, phase: str, count: int) -> None:
        until(lambda: len(self.notes(phase)) >= count, WAIT_S, f"{count} notes of {phase}")


class Job:
    """The sum of numbers by key, in a thread."""

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self.result: list[tuple[int, int]] | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        phases = self.phases

        def accumulate(total: int, row: dict[str, Any]) -> int:
            if row["id"] % ROWS == 0:
                phases.note("map", row["id"] // ROWS)
            return total + int(row["id"])

        def merge(total: int, more: int) -> int:
            if (phases.folder / "hold reduce").exists():
                phases.note("reduce", 0)
            return total + more

        added = AggregateFn(init=lambda _: 0, accumulate_row=accumulate, merge=merge, name="sum")
        numbers = ray.data.range(BLOCKS * ROWS, override_num_blocks=BLOCKS).map_batches(
            lambda batch: {"id": batch["id"], "key": batch["id"] % KEYS}
        )
        try:
            rows = numbers.groupby("key", num_partitions=PARTITIONS).aggregate(added).take_all()
            self.result = sorted((int(row["key"]), int(row["sum"])) for row in rows)
        except BaseException as error:  # noqa: BLE001  whatever it is, the test tells it
            self.error = error

    def end(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def is_right(self) -> None:
        self.end()
        assert self.error is None
        assert self.result == EXPECTED


@pytest.fixture(scope="module")
def private_stores() -> Iterator[LocalCluster]:
    """Where a daemon that dies takes its rows with it, unless it comes back within a second."""
    with LocalCluster(
        2,
        memory="64MiB",
        shared_store=False,
        metadata_options=("--adoption-grace-s", "1"),
    ) as cluster:
        yield cluster


@pytest.fixture
def stores(private_stores: LocalCluster) -> Iterator[LocalCluster]:
    yield private_stores
    for service in (private_stores.metadata_service, *private_stores.daemons):
        if not Path(f"/proc/{service.pid}").exists():  # it was killed
            service.restart()
    none_is_left(private_stores.metadata)
    until(lambda: len(serving(private_stores.metadata)) == 2, WAIT_S, "the return of daemons")


@pytest.fixture
def phases(tmp_path: Path, stores: LocalCluster, context: ray.data.DataContext) -> Iterator[Phases]:
    """Of a test's own; lets go what a test that failed holds, before the stores are looked at."""
    context.shuffle_input_batch_bytes = 1  # a map task for each block
    phases = Phases(tmp_path)
    yield phases
    phases.let_all_go()


def kill_one_of(notes: list[tuple[int, int]], draw: random.Random) -> int:
    """Kill a process that has noted something and is still there."""
    pid = draw.choice(sorted({pid for _, pid in notes}))
    os.kill(pid, signal.SIGKILL)
    return pid


def mappers_run_again(caplog: pytest.LogCaptureFixture) -> Counter[int]:
    """How often each mapper was called back, as the log tells it."""
    return Counter(
        int(mapper)
        for record in caplog.records
        if (found := re.search(r"map tasks ([\d, ]+) run again", record.getMessage()))
        for mapper in found[1].split(",")
    )


@each_seed
def test_a_worker_dies_in_the_map_phase(
    seed: int, phases: Phases, stores: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)
    cosco.ray.enable(stores.metadata)
    phases.hold("map")
    job = Job(phases)
    phases.wait_for("map", 1)
    killed = kill_one_of(phases.notes("map"), draw)
    phases.let_go("map")
    job.is_right()
    runs = Counter(block for block, _ in phases.notes("map"))
    held = {block for block, pid in phases.notes("map") if pid == killed}
    assert runs == Counter(range(BLOCKS)) + Counter(held)
    assert not mappers_run_again(caplog)


@each_seed
def test_a_worker_dies_in_the_reduce_phase(
    seed: int, phases: Phases, stores: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)
    cosco.ray.enable(stores.metadata)
    phases.hold("reduce")
    job = Job(phases)
    phases.wait_for("reduce", 1 + draw.randrange(2))
    kill_one_of(phases.notes("reduce"), draw)
    phases.let_go("reduce")
    job.is_right()
    assert sorted(block for block, _ in phases.notes("map")) == list(range(BLOCKS))
    assert not mappers_run_again(caplog)


@each_seed
def test_a_daemon_dies_with_one_copy(
    seed: int, phases: Phases, stores: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that wrote to it run again, once each, though reduce tasks have all CPUs."""
    cosco.ray.enable(stores.metadata, replicas=1)
    phases.hold("reduce")
    job = Job(phases)
    phases.wait_for("reduce", 2)
    victim = stores.daemons[seed % 2]
    victim.kill()
    phases.let_go("reduce")
    job.is_right()
    again = mappers_run_again(caplog)
    assert again == Counter(range(BLOCKS))
    runs = Counter(block for block, _ in phases.notes("map"))
    assert runs == Counter(dict.fromkeys(range(BLOCKS), 2))


@each_seed
def test_a_daemon_dies_with_two_copies(
    seed: int, phases: Phases, stores: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)
    cosco.ray.enable(stores.metadata)
    phase, count = draw.choice([("map", 2), ("reduce", 1)])
    phases.hold(phase)
    job = Job(phases)
    phases.wait_for(phase, count)
    victim = draw.choice(stores.daemons)
    victim.kill()
    phases.let_go(phase)
    job.is_right()
    assert sorted(block for block, _ in phases.notes("map")) == list(range(BLOCKS))
    assert not mappers_run_again(caplog)


@each_seed
def test_the_metadata_service_starts_again(
    seed: int, phases: Phases, stores: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(seed)
    cosco.ray.enable(stores.metadata)
    phase = draw.choice(["map", "reduce"])
    phases.hold(phase)
    job = Job(phases)
    phases.wait_for(phase, 1)
    stores.metadata_service.kill()
    phases.let_go(phase)
    stores.metadata_service.restart()
    job.is_right()
    assert sorted(block for block, _ in phases.notes("map")) == list(range(BLOCKS))
    assert not mappers_run_again(caplog)


@each_seed
def test_all_at_once(seed: int, phases: Phases, stores: LocalCluster) -> None:
    draw = random.Random(seed)
    cosco.ray.enable(stores.metadata, replicas=1)
    phases.hold("map")
    phases.hold("reduce")
    job = Job(phases)
    phases.wait_for("map", 2)
    victim = draw.choice(stores.daemons)
    kill_one_of(phases.notes("map"), draw)
    victim.kill()
    stores.metadata_service.kill()
    phases.let_go("map")
    stores.metadata_service.restart()
    victim.restart()
    phases.wait_for("reduce", 1)
    other = draw.choice(stores.daemons)
    kill_one_of(phases.notes("reduce"), draw)
    other.kill()
    phases.let_go("reduce")
    job.is_right()


def test_without_inputs_a_loss_is_an_error(
    phases: Phases, stores: LocalCluster, context: ray.data.DataContext
) -> None:
    """`cosco.ray.keep_inputs` decides, not the number of copies alone."""
    context.set_config("cosco.ray.keep_inputs", False)
    cosco.ray.enable(stores.metadata, replicas=1)
    phases.hold("reduce")
    job = Job(phases)
    phases.wait_for("reduce", 2)
    stores.daemons[0].kill()
    phases.let_go("reduce")
    job.end()
    assert "DataLost" in repr(job.error)


def test_a_reduce_task_that_waits_long_gives_its_cpu_to_others(
    phases: Phases, stores: LocalCluster
) -> None:
    """Who brings lost rows back may need CPUs: to compute what a dead node had, for example."""
    cosco.ray.enable(stores.metadata, replicas=1)
    phases.hold("reduce")
    job = Job(phases)
    phases.wait_for("reduce", 2)
    stores.daemons[0].kill()
    phases.hold("map")  # the runs that bring rows back wait
    phases.let_go("reduce")
    phases.wait_for("map", BLOCKS + 1)
    until(lambda: ray.available_resources().get("CPU", 0) == 2, WAIT_S, "CPUs for others")
    phases.let_go("map")
    job.is_right()
