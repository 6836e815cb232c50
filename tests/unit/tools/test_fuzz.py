"""What the tool of the fuzz targets decides: what each gets, what is told, what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    from tools import fuzz

    return fuzz


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a program that is taken for a target, `block`, of these lines of a shell."""

    def made(text: str) -> Path:
        path = tmp_path / "block"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return made


@pytest.mark.parametrize(
    ("seconds", "count", "each"), [(60, 13, 4), (13, 13, 1), (1, 13, 1), (30, 1, 30)]
)
def test_the_seconds_are_shared(fuzz: ModuleType, seconds: int, count: int, each: int) -> None:
    assert fuzz.share_s(seconds, count) == each


def test_what_a_target_tells_is_read(fuzz: ModuleType) -> None:
    output = (
        "#3\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 27Mb\n"
        "#512\tpulse  cov: 90 ft: 99 corp: 4/9b lim: 4 exec/s: 256 rss: 28Mb\n"
        "#2061\tDONE   cov: 223 ft: 499 corp: 129/30Kb lim: 4096 exec/s: 457 rss: 28Mb\n"
        "Done 2061 runs in 5 second(s)\n"
    )
    assert fuzz.report(output) == (2061, 223)
    assert fuzz.report("thread panicked") == (0, 0)


def test_every_target_has_inputs_to_begin_with(fuzz: ModuleType) -> None:
    """They are read as they are meant: what they are made of is the project's own."""
    names = fuzz.targets()
    assert len(names) > 10
    assert [name for name in names if not fuzz.seeds(name)] == []


def test_a_target_begins_with_its_inputs_and_its_seed(
    fuzz: ModuleType,
    script: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = tmp_path / "told"
    program = script(f'ls "$1" | wc -l > {told}; echo "$*" >> {told}; echo "#5\tDONE cov: 3 ft"')
    assert fuzz.run(fuzz.native_target(program), tmp_path / "kept", 2, 77)
    count, arguments = told.read_text().splitlines()
    assert int(count) == len(fuzz.seeds("block"))
    assert "-max_total_time=2 -seed=77" in arguments
    assert capsys.readouterr().out.split() == ["block", "5", "runs", "3", "covered", "2", "s"]


def test_an_input_that_fails_is_kept_and_can_be_run_again(
    fuzz: ModuleType,
    script: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = tmp_path / "kept"
    program = script(f"echo bad > {kept}/block-crash-1; echo 'it panicked at 9'; exit 77")
    assert not fuzz.run(fuzz.native_target(program), kept, 1, 1)
    out = capsys.readouterr().out
    assert "it panicked at 9" in out
    assert out.endswith(f"again with: {program} {kept}/block-crash-1\n")


def tool(folder: Path, *arguments: str, **scripts: str) -> subprocess.CompletedProcess[str]:
    """Run the tool where nothing is on the PATH but what is named, which says what it is given."""
    for name, says in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (folder / name).chmod(0o755)
    environment = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "tools.fuzz", *arguments],
        cwd=ROOT,
        env=environment | {"PATH": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("scripts", "why"),
    [
        ({}, "cargo is not on the PATH"),
        ({"cargo": "cargo 1.85.0"}, "there is no C compiler"),
        ({"cargo": "cargo 1.85.0", "gcc": ""}, "there is no C++ compiler, which libFuzzer is"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, scripts: dict[str, str], why: str
) -> None:
    done = tool(tmp_path, "--seconds", "5", **scripts)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"nothing is fuzzed, as {why}")
    assert done.stdout.count("\n") == 1


def test_a_target_that_there_is_not_is_told(tmp_path: Path) -> None:
    done = tool(tmp_path, "nonsense")
    assert done.returncode == 2
    assert "column_sorter" in done.stderr
