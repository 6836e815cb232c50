"""The programs of examples/ are run as their readers would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_running_sums_are_exact_though_a_worker_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "running_sum.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "480,000 rows in 60 micro-batches: all 100 sums are exact"
    assert any(line.startswith("  kill -9 ") for line in lines), done.stdout
    assert any("died: another one begins at" in line for line in lines), done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
