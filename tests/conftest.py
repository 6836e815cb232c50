"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cosco import LocalCluster

# Machines that run several checks at once are slow now and then; that is no failure.
settings.register_profile("cosco", deadline=None, print_blob=True)
settings.load_profile("cosco")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Two daemons with little memory, so that the store is really used."""
    from cosco import LocalCluster

    with LocalCluster(2, memory="16MiB", directory=str(tmp_path / "cluster")) as started:
        yield started
