"""A run of tests that an engine ends goes on with the rest, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import run_ray_tests

#: Notes as the conftest of Ray's tests does, and ends its process in `gone` without a word, as Ray.
_TESTS = """
import os
from pathlib import Path

FOLDER = Path(__file__).parent
NOTES = Path(os.environ["COSCO_RAY_TESTS"])
PASSED = NOTES.read_text().split() if NOTES.exists() else []


def note(line):
    with NOTES.open("a") as notes:
        notes.write(line + "\\n")


def test_first():
    with (FOLDER / "runs").open("a") as runs:
        runs.write("x")
    note("first")


def test_gone():
    gone = {gone}
    if gone == "always" or (gone == "once" and "first" not in PASSED):
        os._exit(1)
    assert gone != "failed"
    note("gone")


def test_end():
    note("ended")
"""


@pytest.mark.parametrize(
    ("gone", "code", "runs"), [("never", 0, 1), ("once", 0, 2), ("always", 1, 2), ("failed", 1, 1)]
)
def test_what_ray_ends_runs_once_more_and_what_fails_does_not(
    gone: str, code: int, runs: int, tmp_path: Path
) -> None:
    (tmp_path / "test_all.py").write_text(_TESTS.replace("{gone}", repr(gone)))
    assert run_ray_tests.main(["-q", "-p", "no:cacheprovider", str(tmp_path)]) == code
    assert len((tmp_path / "runs").read_text()) == runs
