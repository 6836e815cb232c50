"""What tests with real services share: clusters as long as a module, a name of one's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support import prepared
from support.exchanges import serving, until

from cosco import LocalCluster
from cosco.metadata.service.handlers import Handlers

_NUMBERS = count()
_RETURN_S = 60.0


@pytest.fixture(scope="session", autouse=True)
def prepared_services() -> Iterator[None]:
    """Services of LocalClusters are forked from a process that has imported what they need."""
    with prepared.services():
        yield


@pytest.fixture(scope="module")
def fresh_interpreters() -> Iterator[None]:
    """Services of a module's LocalClusters are started as users' are."""
    with prepared.fresh():
        yield


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    """Two daemons with little memory, so that the store is really used."""
    with LocalCluster(2, memory="16MiB") as cluster:
        yield cluster


@pytest.fixture
def cluster(started: LocalCluster) -> Iterator[LocalCluster]:
    """The module's, whose daemons all serve again before the next test."""
    yield started
    daemons = len(started.daemons)
    until(lambda: len(serving(started.metadata)) == daemons, _RETURN_S, "the return of all daemons")


@pytest.fixture(scope="module")
def metadata(started: LocalCluster) -> str:
    """The address of the module's metadata service."""
    return started.metadata


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An exchange's, and nobody else's: services serve many tests."""
    return f"{request.path.stem.removeprefix('test_')}-{next(_NUMBERS)}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 24 MiB; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Awaitable[None]]:
    """Returns once so many long polls wait in the service that the test started last."""
    started: list[Handlers] = []
    original = Handlers.__init__

    def remember(self: Handlers, *arguments: Any) -> None:
        original(self, *arguments)
        started.append(self)

    monkeypatch.setattr(Handlers, "__init__", remember)

    async def until(count: int) -> None:
        while len(started[-1]._polls.waiting) != count:  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(0.01)

    return until
