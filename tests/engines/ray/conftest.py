"""Ray for the tests of this folder: one small cluster as long as the session."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported

import pytest
import ray
import ray.data
from support.ray_datasets import ExchangesMade

import cosco.ray

#: Ray and its first workers take a minute to start where a machine is busy, and some are killed.
_TIMEOUT_S = 600
#: Workers that stay: a start takes seconds, and each phase of a shuffle has its own workers.
#: One that is slow to start is waited for: Ray would begin it anew after a minute.
_SYSTEM_CONFIG = {
    "num_workers_soft_limit": 8,
    "idle_worker_killing_time_threshold_ms": 10**7,
    "worker_register_timeout_seconds": 240,
    # A node that does not answer in time ends, and the driver with it: here all is busy at times.
    "health_check_timeout_ms": 60_000,
    "health_check_failure_threshold": 20,
}


#: Ray leaves its log of a dataset open where a reader of the dataset leaves early.
_RAYS_OWN_WARNINGS = (
    "ignore:unclosed file <_io.TextIOWrapper name=.*ray-data:ResourceWarning",
    (
        "ignore:Exception ignored in. <_io.FileIO name=.*ray-data:"
        "pytest.PytestUnraisableExceptionWarning"
    ),
)


#: Where it is noted what has passed, for tools/run_ray_tests.py: Ray may end this process.
_NOTES = os.environ.get("COSCO_RAY_TESTS", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _NOTES and Path(_NOTES).exists():
        passed = set(Path(_NOTES).read_text().splitlines())
        items[:] = [item for item in items if item.nodeid not in passed]
    for item in items:
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        for warning in _RAYS_OWN_WARNINGS:
            item.add_marker(pytest.mark.filterwarnings(warning))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and not report.failed:
        note(report.nodeid)


def pytest_sessionfinish() -> None:
    note("ended")


def note(line: str) -> None:
    if _NOTES:
        with Path(_NOTES).open("a") as notes:
            notes.write(f"{line}\n")


@pytest.fixture(scope="session", autouse=True)
def ray_cluster() -> Iterator[None]:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for workers, of `support`
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=256 << 20,
        _system_config=_SYSTEM_CONFIG,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray's own settings
        ray.data.DataContext.get_current()
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def context() -> Iterator[ray.data.DataContext]:
    """A DataContext of the test's own, in which nothing is enabled."""
    with ray.data.DataContext.current(ray.data.DataContext.get_current().copy()):
        own = ray.data.DataContext.get_current()
        own.enable_progress_bars = False
        own.print_on_execution_start = False
        yield own
        cosco.ray.disable()


@pytest.fixture
def exchanges_made(metadata: str) -> ExchangesMade:
    return ExchangesMade(metadata)
