"""What is said where the native part cannot be built: one line, and that is no failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "native_part.py"


def run(
    folder: Path, *arguments: str, cargo: str | None = None, compiler: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the tool where nothing is on the PATH but what is named. cargo: what it says it is."""
    scripts = {"cargo": cargo} if cargo is not None else {}
    if compiler:
        scripts["gcc"] = ""
    for name, says in scripts.items():
        script = folder / name
        script.write_text(f"#!/bin/sh\necho '{says}'\n")
        script.chmod(0o755)
    environment = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        env=environment | {"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("cargo", "compiler", "why"),
    [
        (None, True, "cargo is not on the PATH"),
        ("cargo 1.84.1 (abc 2024)", True, "1.85 or later is needed, and this one says 'cargo 1.84"),
        ("no Rust at all", True, "this one says 'no Rust at all'"),
        ("cargo 1.85.0 (abc 2025)", False, "there is no C compiler"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, cargo: str | None, compiler: bool, why: str
) -> None:
    stamp = tmp_path / "stamp"
    done = run(tmp_path, "install", str(stamp), cargo=cargo, compiler=compiler)
    assert (done.returncode, done.stderr) == (0, "")
    assert why in done.stdout
    assert "Install Rust 1.85 or later and a C compiler" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not stamp.exists()  # so that it is looked for again the next time


def test_nothing_is_checked_without_rust(tmp_path: Path) -> None:
    done = run(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the Rust code is not checked, as cargo is not on the PATH\n"


@pytest.mark.parametrize("command", ["wheel", "breaks"])
def test_what_was_asked_for_and_cannot_be_built_is_a_failure(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing is built, as cargo is not on the PATH" in done.stderr


def test_other_arguments_are_told_what_there_is(tmp_path: Path) -> None:
    done = run(tmp_path, "nonsense")
    assert done.returncode == 2
    assert "native_part.py install STAMP" in done.stderr
