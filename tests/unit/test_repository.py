"""What is generated is current, and what is documented exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configuration_is_documented() -> None:
    current = (ROOT / "docs" / "configuration.md").read_text()
    assert current == load_tool("gen_config_docs").render(), "run `make config-docs`"


def test_generated_code_is_current() -> None:
    # In a process of its own: the compiler's bundled modules clash with loaded ones.
    command = [sys.executable, str(ROOT / "tools" / "gen_protos.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: str(path.name))
def test_proto_services_and_calls_are_commented(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("//"), f"{path.name} does not say what it is"
    assert re.search(r"^service ", text, re.MULTILINE)


def test_scripts_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for script, target in project["scripts"].items():
        module, function = target.split(":")
        loaded = importlib.import_module(module)
        assert callable(getattr(loaded, function)), script
        assert script == loaded.NAME


def test_readme_names_commands_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for command in set(re.findall(r"^(?:\$ )?(cosco[a-z-]*) ", readme, re.MULTILINE)):
        assert command in scripts, command
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", readme):
        assert (ROOT / link).exists(), link


def test_no_program_is_started_by_a_fork() -> None:
    """`preexec_fn` makes Popen fork the whole process, which gRPC's threads do not survive."""
    word = "preexec" + "_fn="
    for folder in ("cosco", "benchmarks", "tests", "examples", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert word not in path.read_text(), path


def test_no_leftovers() -> None:
    """No marks of unfinished work."""
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b")
    for folder in ("cosco", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != Path(__file__).resolve():
                assert not mark.search(path.read_text()), path
