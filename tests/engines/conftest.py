"""What tests of engines share: one cluster of Cosco as long as the session, and names.

Each engine has an environment of its own (`make engines`), in which only its folder is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from support.exchanges import serving, until

from cosco import LocalCluster

_NUMBERS = count()
_RETURN_S = 60.0


@pytest.fixture(scope="session")
def services() -> Iterator[LocalCluster]:
    """Two daemons for all tests; one that kills some has them serve again, or its own cluster."""
    with LocalCluster(2, memory="64MiB") as cluster:
        yield cluster


@pytest.fixture
def cluster(services: LocalCluster) -> Iterator[LocalCluster]:
    """The session's, whose daemons all serve again before the next test."""
    yield services
    daemons = len(services.daemons)
    until(lambda: len(serving(services.metadata)) == daemons, _RETURN_S, "the return of daemons")


@pytest.fixture
def metadata(cluster: LocalCluster) -> str:
    """The address of the session's metadata service."""
    return cluster.metadata


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An exchange's, and nobody else's: services serve many tests."""
    return f"{request.path.stem.removeprefix('test_')}-{next(_NUMBERS)}"
