"""What the tests of packing share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.packing_ways import PACKING_WAYS, packing_by


@pytest.fixture(params=PACKING_WAYS, scope="module")
def packing_way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have a module run with each way of packing that there is.

    Not each test: those of hypothesis run many times with one fixture.
    """
    with packing_by(request.param):
        yield request.param
