"""The client in forked and spawned workers: see support/engine.py for the cases."""

from __future__ import annotations

import pytest
from support.children import run_case
from support.engine import CASES


@pytest.mark.parametrize("case", CASES)
def test_workers(case: str, metadata: str) -> None:
    run_case("engine", case, metadata)
