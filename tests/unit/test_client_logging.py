"""The library in somebody else's program: it logs to `cosco`, and sets nothing up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, environment

_LOGGER = re.compile(r"getLogger\(([^)]*)\)")
CLIENT_FILES = [
    path for room in ("client", "local") for path in sorted((ROOT / "cosco" / room).rglob("*.py"))
]


@pytest.mark.parametrize("path", CLIENT_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_clients_log_to_one_logger(path: Path) -> None:
    assert set(_LOGGER.findall(path.read_text())) <= {'"cosco"'}


def test_importing_it_sets_up_no_log_and_says_nothing() -> None:
    code = """
import logging
root = logging.getLogger()
root.setLevel(1)
before = list(root.handlers)
import cosco
for name in cosco.__all__:
    getattr(cosco, name)
assert (list(root.handlers), root.level) == (before, 1)
assert logging.getLogger("cosco").level == logging.NOTSET
assert logging.getLogger("cosco").propagate
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
