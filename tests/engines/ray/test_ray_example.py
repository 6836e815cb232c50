"""The program of examples/ is run as its readers would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_sums_by_customer() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "ray_shuffle.py")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("{")]
    counts = [100_000 // 7 + (customer < 100_000 % 7) for customer in range(7)]
    assert rows == [
        f"{{'customer': {customer}, 'sum(price)': {float(count)}}}"
        for customer, count in enumerate(counts)
    ]
