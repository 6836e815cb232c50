"""What is installed is complete: every package is in the wheel, and imports what it asks for."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Each package, and the extra that has what it needs beside the dependencies of all.
PACKAGES = {
    ROOT / "cosco": "demo",
    ROOT / "benchmarks" / "cosco_bench": "bench",
}


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", requirement) for requirement in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def test_the_wheel_has_every_package_and_each_has_only_code() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {ROOT / package for package in wheel["packages"]} == set(PACKAGES)
    for package in PACKAGES:
        files = (path for path in package.rglob("*") if path.is_file())
        others = {path.name for path in files if path.suffix not in {".py", ".pyc", ".pyi"}}
        assert others <= {"py.typed"}
        for folder in {path.parent for path in package.rglob("*.py")}:
            assert (folder / "__init__.py").is_file(), folder


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.name))
def test_a_package_imports_only_what_is_installed_with_it(package: Path) -> None:
    project = PROJECT["project"]
    extra = PACKAGES[package]
    asked = names(project["dependencies"]) | names(project["optional-dependencies"][extra])
    known = importlib.metadata.packages_distributions()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            else:
                continue
            for module in {name.split(".")[0] for name in imported}:
                if module in sys.stdlib_module_names or module in {"cosco", package.name}:
                    continue
                assert names(known.get(module, [])) & asked, f"{path} imports {module}"
