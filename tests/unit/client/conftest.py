"""Tests of reading that run with each implementation of its mechanics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.read_mechanics import IMPLEMENTATIONS, reading_by


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def read_mechanics(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have this test read by one implementation after the other."""
    with reading_by(request.param):
        yield request.param
