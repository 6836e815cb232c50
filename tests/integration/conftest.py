"""What integration tests share: services that live as long as a module, a name of one's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from support.exchanges import serving, until

from cosco import LocalCluster

_NUMBERS = count()
_RETURN_S = 60.0


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
