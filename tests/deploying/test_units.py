"""The units of systemd: that systemd takes them, what they allow, and what services are told."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from cosco.cli.options import option_specs
from cosco.config import DaemonConfig, MetadataConfig
from cosco.shuffle_service import server
from cosco.shuffle_service.state import draining

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging/systemd"
UNITS = {
    "cosco-metadata": MetadataConfig,
    "cosco-shuffled": DaemonConfig,
}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on the PATH"
)
#: Of `systemd-analyze security`, from 0, which may do nothing, to 10.
EXPOSURE_MAX = 2.0


def read(name: str) -> dict[str, list[str]]:
    """The lines of a unit, by their keys; of a key that is repeated all values."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / f"{name}.service").read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()  # type: ignore[union-attr]
    return int(number) * SECONDS[unit]


def test_each_service_has_a_unit() -> None:
    assert {path.stem for path in FOLDER.glob("*.service")} == UNITS.keys()
    assert {path.suffix for path in FOLDER.iterdir()} == {".service"}


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_it(name: str, tmp_path: Path) -> None:
    """Its program is where the unit says, below another root."""
    [program] = read(name)["ExecStart"]
    root = tmp_path / "root"
    for path in (program, f"/etc/systemd/system/{name}.service"):
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
    (root / program[1:]).write_text("#!/bin/sh\n")
    (root / program[1:]).chmod(stat.S_IRWXU)
    unit = root / f"etc/systemd/system/{name}.service"
    text = (FOLDER / f"{name}.service").read_text()
    # What it is to come after are units of the machine, which this folder has not.
    unit.write_text(text.replace(f"ExecStart={program}", f"ExecStart={root}{program}"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_it_may_do_as_little_as_it_can(name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager",
         f"--threshold={EXPOSURE_MAX * 10:.0f}", str(FOLDER / f"{name}.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("name", UNITS)
def test_what_it_starts_and_sets_is_there(name: str) -> None:
    unit = read(name)
    [program] = unit["ExecStart"]
    assert program == f"/usr/local/bin/{name}" and name in SCRIPTS
    known = {spec.variable for spec in option_specs(UNITS[name])}
    values = dict(one.split("=", 1) for one in unit["Environment"])
    assert values.keys() <= known
    [kept] = unit["StateDirectory"]
    store = next(value for variable, value in values.items() if variable.endswith("_STORE"))
    assert f"/var/lib/{kept}" in store
    [file] = unit["EnvironmentFile"]
    assert re.fullmatch(r"-/etc/cosco/\w+\.env", file)
    fields = {spec.variable: spec.name[2:].replace("-", "_") for spec in option_specs(UNITS[name])}
    given = {fields[variable]: value for variable, value in values.items()}
    if "register_timeout_s" in given:
        given["register_timeout_s"] = float(given["register_timeout_s"])  # type: ignore[assignment]
    UNITS[name](**given).validate()  # type: ignore[arg-type]


def test_each_has_time_to_end() -> None:
    daemon = DaemonConfig()
    store_s = daemon.full_store_wait_s + server._DRAIN_MORE_S
    needs_s = store_s + draining.DROPS_S + draining._LAST_STORE_S + server._LAST_CALLS_S
    [drain] = read("cosco-shuffled")["TimeoutStopSec"]
    assert seconds(drain) >= needs_s
    assert read("cosco-shuffled")["KillSignal"] == ["SIGTERM"]
    [restores] = read("cosco-metadata")["TimeoutStartSec"]
    assert seconds(restores) >= 300


@pytest.mark.parametrize("name", UNITS)
def test_what_cannot_work_is_not_started_again(name: str) -> None:
    unit = read(name)
    assert unit["Type"] == ["notify"] and unit["WatchdogSec"] == ["60"]
    assert unit["Restart"] == ["on-failure"] and unit["RestartPreventExitStatus"] == ["2"]
