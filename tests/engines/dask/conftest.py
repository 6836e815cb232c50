"""What tests of Dask share: a cluster of two workers, and a client whose shuffles use Cosco."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import dask
import pytest
from distributed import Client, LocalCluster
from support.dask_jobs import dask_client, nothing_left

import cosco.dask

#: Schedulers of tests compare all that they know with itself after each step.
dask.config.set({"distributed.scheduler.validate": True})
#: After this time a cluster looks whether a worker that left has come back, and if it is not there
#: at that moment ends its nanny for good. Tests kill it more often than that.
dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})


class _Complaints(logging.Handler):
    """What a scheduler found wrong with itself: it writes that down, and goes on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else record.msg
        if isinstance(error, AssertionError):
            self.found.append(self.format(record))


@pytest.fixture(autouse=True)
def schedulers_are_right() -> Iterator[None]:
    """No step of the plugin leaves a scheduler with tasks that contradict each other."""
    complaints = _Complaints()
    logger = logging.getLogger("distributed.scheduler")
    logger.addHandler(complaints)
    yield
    logger.removeHandler(complaints)
    assert not complaints.found, complaints.found[0]


@pytest.fixture(scope="session")
def workers() -> Iterator[LocalCluster]:
    """Two workers of one thread each, processes of their own."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def bare_client(workers: LocalCluster) -> Iterator[Client]:
    """A client as Dask makes it."""
    with Client(workers) as client:
        yield client


@pytest.fixture
def client(bare_client: Client, metadata: str) -> Iterator[Client]:
    """A client that shuffles through Cosco, and leaves no exchange behind."""
    cosco.dask.enable(bare_client, metadata)
    yield bare_client
    gc.collect()  # an error that a future was asked for holds the test's frame, and its futures
    cosco.dask.disable(bare_client)
    nothing_left(metadata)


@pytest.fixture
def own_client(metadata: str) -> Iterator[Client]:
    """The same, of two workers of its own: it may kill, pause or restart them, or end."""
    with dask_client(2) as client:
        cosco.dask.enable(client, metadata)
        yield client
    nothing_left(metadata)
