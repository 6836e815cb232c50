"""The client in forked and spawned workers: see support/engine.py for the cases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.engine import CASES

ENGINE = Path(__file__).parents[1] / "support" / "engine.py"


@pytest.mark.parametrize("case", CASES)
def test_workers(case: str, metadata: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", ENGINE, case, metadata],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ok\n", "")
