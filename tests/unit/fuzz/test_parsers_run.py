"""`python -m tests.fuzz.parsers`, with a stand-in for Atheris that gives targets their seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = """
import os, pathlib
from contextlib import contextmanager

@contextmanager
def instrument_imports(include):
    yield

def Setup(arguments, check):
    global given
    given = arguments, check

def Fuzz():
    arguments, check = given
    for path in pathlib.Path(arguments[1]).iterdir():
        check(path.read_bytes())
    print(f"#{len(arguments)}\\tDONE cov: 3 ft: 4 {arguments[0]}", flush=True)
    END
    os._exit(0)
"""


def run(
    folder: Path, *arguments: str, ends: str | None = "pass"
) -> subprocess.CompletedProcess[str]:
    """Run it. ends: what the stand-in does at its end; None: there is no Atheris."""
    if ends is not None:
        (folder / "atheris.py").write_text(STAND_IN.replace("END", ends))
    path = os.pathsep.join([str(folder), str(ROOT), *os.environ.get("PYTHONPATH", "").split(":")])
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.parsers", *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_targets_are_given_what_they_begin_with(tmp_path: Path) -> None:
    done = run(tmp_path, "--seconds", "1", "chunk", "mark")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["python-chunk", "python-mark"]


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ("raise IndexError('it was cut short')", "it was cut short"),
        ("bytearray(1 << 33)", "MemoryError"),
        ("os.kill(os.getpid(), 11)", "FAILED"),
    ],
)
def test_a_target_that_fails_is_told_and_the_next_one_runs(
    tmp_path: Path, ends: str, says: str
) -> None:
    done = run(tmp_path, "--seconds", "1", "chunk", "mark", ends=ends)
    assert done.returncode == 1
    assert says in done.stdout
    assert done.stdout.count("FAILED") == 2


def test_what_failed_is_given_again(tmp_path: Path) -> None:
    """Without Atheris, so that a debugger has nothing in its way."""
    (tmp_path / "kept").write_bytes(b"\0nonsense")
    done = run(tmp_path, "--again", "chunk", str(tmp_path / "kept"), ends=None)
    assert (done.returncode, done.stdout) == (0, f"chunk takes {tmp_path / 'kept'}\n")


def test_where_there_is_no_atheris_a_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'atheris' else find(name, *rest)\n"
    )
    done = run(tmp_path, "--seconds", "1", ends=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("what Python parses is not fuzzed")
    assert done.stdout.count("\n") == 1
