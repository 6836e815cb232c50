"""Which implementation a process chooses, and what it says of it: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cosco import mechanics

ROOT = Path(__file__).resolve().parents[2]
SAYS = "from cosco import mechanics; print(mechanics.NATIVE is not None, mechanics.DESCRIPTION)"


def chosen(folder: Path, module: str | None, setting: str | None = None) -> str:
    """What a process says of its choice. module: the text of `cosco_native`, if there is one."""
    first = "" if module is not None else "import sys; sys.modules['cosco_native'] = None; "
    if module is not None:
        (folder / "cosco_native.py").write_text(module)
    environment = {k: v for k, v in os.environ.items() if k != mechanics.ENVIRONMENT}
    if setting is not None:
        environment[mechanics.ENVIRONMENT] = setting
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", first + SAYS],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def native(interface: int) -> str:
    return f"INTERFACE = {interface}\nVERSION = '9.8.7'\n"


@pytest.mark.parametrize("setting", [None, "", "on"])
def test_what_is_there_and_fits_is_used(tmp_path: Path, setting: str | None) -> None:
    fitting = native(mechanics._INTERFACE)
    assert chosen(tmp_path, fitting, setting) == "True native 9.8.7"


def test_the_environment_can_do_without(tmp_path: Path) -> None:
    fitting = native(mechanics._INTERFACE)
    assert chosen(tmp_path, fitting, "off") == "False portable (COSCO_NATIVE is off)"


def test_without_it_python_does_all(tmp_path: Path) -> None:
    assert chosen(tmp_path, None) == "False portable (cosco-native is not installed)"


def test_one_that_does_not_load_is_not_used(tmp_path: Path) -> None:
    broken = "raise ImportError('libc is too old')"
    assert chosen(tmp_path, broken) == (
        "False portable (cosco-native does not load: libc is too old)"
    )


@pytest.mark.parametrize("change", [-1, 1])
def test_one_of_another_interface_is_not_used(tmp_path: Path, change: int) -> None:
    other = native(mechanics._INTERFACE + change)
    assert chosen(tmp_path, other) == ("False portable (cosco-native 9.8.7 is of another version)")


def test_the_extra_asks_for_the_version_that_is_built_here() -> None:
    workspace = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["workspace"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert extras["native"] == [f"cosco-native=={workspace['package']['version']}"]
