"""What is installed is complete: every package is in the wheel, and imports what it asks for."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from cosco.engine_versions import SUPPORTED

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Each package, and the extra that has what it needs beside the dependencies of all.
#: What a browser is sent.
PAGE = ROOT / "cosco/metadata/http/page"
PACKAGES = {
    ROOT / "cosco": "demo",
    ROOT / "benchmarks" / "cosco_bench": "bench",
}
#: Parts of `cosco` that need an engine, which is in the extra of their name and not installed here.
ENGINES = ("daft", "dask", "ray")
#: Parts that need another extra, which may be missing here.
EXTRAS = {
    ROOT / "cosco/dfs/objects": "s3",
    ROOT / "cosco/dfs/hdfs": "hdfs",
    ROOT / "cosco/dfs/testing.py": "testing",
    ROOT / "cosco/mechanics.py": "native",
    ROOT / "cosco/process/tls/authority.py": "tls",
    ROOT / "cosco/metadata/access/json_web_tokens.py": "jwt",
    ROOT / "cosco/metadata/access/key_sets.py": "jwt",
    ROOT / "cosco/metadata/http": "http",
    ROOT / "cosco/process/tracing": "tracing",
}
#: Packages that are imported by another name.
IMPORTED_AS = {"pyjwt": "jwt", "opentelemetry-api": "opentelemetry"}


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", requirement) for requirement in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


def test_the_wheel_has_every_package_and_each_has_only_code() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {ROOT / package for package in wheel["packages"]} == set(PACKAGES)
    for package in PACKAGES:
        files = (path for path in package.rglob("*") if path.is_file())
        others = {path for path in files if path.suffix not in {".py", ".pyc", ".pyi"}}
        pages = {one for one in others if one.is_relative_to(PAGE)}
        assert {one.suffix for one in pages} <= {".html", ".css", ".js", ".svg"}
        assert {one.name for one in others - pages} <= {"py.typed"}
        for folder in {path.parent for path in package.rglob("*.py")}:
            assert (folder / "__init__.py").is_file(), folder


def imported_from_elsewhere(path: Path, package: str) -> set[str]:
    """The names of what a file imports that is neither Python's nor ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found - sys.stdlib_module_names - {"cosco", package}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.name))
def test_a_package_imports_only_what_is_installed_with_it(package: Path) -> None:
    project = PROJECT["project"]
    extra = PACKAGES[package]
    asked = names(project["dependencies"]) | names(project["optional-dependencies"][extra])
    known = importlib.metadata.packages_distributions()
    apart = [*(package / engine for engine in ENGINES), *EXTRAS]
    for path in package.rglob("*.py"):
        if not any(path.is_relative_to(part) for part in apart):
            for module in imported_from_elsewhere(path, package.name):
                assert names(known.get(module, [])) & asked, f"{path} imports {module}"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_imports_only_what_its_extra_installs(engine: str) -> None:
    project = PROJECT["project"]
    asked = names(project["dependencies"]) | names(project["optional-dependencies"][engine])
    for path in (ROOT / "cosco" / engine).rglob("*.py"):
        assert imported_from_elsewhere(path, "cosco") <= asked, path


@pytest.mark.parametrize("part", EXTRAS, ids=lambda part: str(part.name))
def test_an_extra_has_what_its_part_imports(part: Path) -> None:
    project = PROJECT["project"]
    asked = names(project["dependencies"])
    asked |= names(project["optional-dependencies"][EXTRAS[part]])
    # hdfs-native is imported as hdfs_native
    asked = {IMPORTED_AS.get(name, name).replace("-", "_") for name in asked}
    for path in part.rglob("*.py") if part.is_dir() else [part]:
        assert imported_from_elsewhere(path, "cosco") <= asked, path


def test_supported_versions_are_those_of_the_extras() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(SUPPORTED) == set(ENGINES)
    for engine, supported in SUPPORTED.items():
        asked = {re.sub(r"\[.*?\]", "", requirement) for requirement in extras[engine]}
        assert {str(one) for one in supported} == asked


def test_supported_versions_are_those_of_the_documents() -> None:
    page = (ROOT / "docs" / "engines.md").read_text()
    rows = re.findall(r"^\| .+ \| `pip install 'cosco\[(\w+)\]'` \| (.+?) \|", page, re.MULTILINE)
    found = {engine: set(re.findall(r"`(.+?)`", versions)) for engine, versions in rows}
    assert found == {engine: set(map(str, supported)) for engine, supported in SUPPORTED.items()}
