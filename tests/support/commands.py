"""The commands as programs of their own, in an environment as a shell has it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(name: str, *args: str) -> list[str]:
    """What runs `cosco-NAME`, or `cosco` itself by the name "main"."""
    module = "cosco_bench.cli.main" if name == "bench" else f"cosco.cli.{name}"
    return [sys.executable, "-m", module, *args]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what tests, or importing cosco, put there."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COSCO_", "GRPC_"))}
    path = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    return {**clean, "PYTHONPATH": path, "COLUMNS": "200", **more}
