"""Has what a daemon decides tested on each implementation of its mechanics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cosco.shuffle_service.state.buffers import mechanics_choice

IMPLEMENTATIONS = {"portable": mechanics_choice.PORTABLE}
if mechanics_choice.NATIVE is not None:
    IMPLEMENTATIONS["native"] = mechanics_choice.NATIVE


@pytest.fixture(scope="module", autouse=True, params=IMPLEMENTATIONS)
def mechanics(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have a test run on one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mechanics_choice, "CHOSEN", IMPLEMENTATIONS[request.param])
        yield
