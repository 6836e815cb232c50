"""What pip says about an engine that this machine cannot have."""

from __future__ import annotations

import importlib.util
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "install_engine.py"
NO_WHEEL = """
ERROR: Could not find a version that satisfies the requirement ray[data]<2.61,>=2.60.0 (from cosco)
ERROR: No matching distribution found for ray[data]<2.61,>=2.60.0; extra == "ray"
"""
NO_INDEX = f"""
WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'
{NO_WHEEL}
"""


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_engine", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("output", "missing"),
    [
        (NO_WHEEL, "ray[data]<2.61,>=2.60.0"),
        (NO_INDEX, None),
        ("ERROR: Failed building wheel for ray", None),
    ],
)
def test_only_what_the_index_has_not_got_is_missing(output: str, missing: str | None) -> None:
    assert tool().what_is_missing(output) == missing


@pytest.mark.parametrize("engine", ["dask", "ray", "daft", "fuzz"])
def test_an_environment_has_an_extra_that_there_is(engine: str) -> None:
    extras = tomllib.loads((TOOL.parents[1] / "pyproject.toml").read_text())["project"]
    extra, refusal = tool().extra_of(engine)
    assert extra in extras["optional-dependencies"]
    assert refusal.endswith(("is not tested", "is not fuzzed"))


def test_atheris_is_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wheel pip would compile it for minutes, and fail in many words."""
    pip = tmp_path / "venv" / "bin" / "python"
    given = tmp_path / "given"
    says = f'#!/bin/sh\necho "$*" > {given}\n'
    says += "echo 'ERROR: No matching distribution found for atheris<4,>=3'\nexit 1\n"

    def made(command: list[object], **options: object) -> subprocess.CompletedProcess[str]:
        if "venv" in command:
            pip.parent.mkdir(parents=True)
            pip.write_text(says)
            pip.chmod(0o755)
            return subprocess.CompletedProcess([], 0)
        return run(command, **options)  # type: ignore[call-overload,no-any-return]

    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", made)
    assert tool().main("fuzz", tmp_path / "venv") == 0
    assert "--only-binary atheris" in given.read_text()
    missing = (tmp_path / "venv" / "missing").read_text()
    assert missing.startswith("what Python parses is not fuzzed: no atheris<4,>=3 is to be had")
