"""A browser for all tests of the dashboard, and an exchange of each one's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    from support.browsing import chromium

    with chromium() as found:
        yield found
