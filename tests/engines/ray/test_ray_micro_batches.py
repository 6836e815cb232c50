"""Micro-batches by actors of Ray: the program of examples/, run as its readers would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(330)
def test_running_sums_are_exact_though_an_actor_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "ray_micro_batches.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("(")]
    assert lines[-1] == "600,000 rows in 300 micro-batches: all 100 sums are exact"
    assert lines.count("  actor 1 died: another one begins at 100 again") == 1
    for side in ("with Cosco", "on Ray alone"):
        assert sum(line.startswith("group ") and side in line for line in lines) == 3, lines
