"""A result as JSON: every figure, and all that is needed to measure it again."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cosco.errors import InvalidArgument
from cosco_bench.harness.machine import machine, versions

#: Of the checkout, if this is one.
ROOT: Final = Path(__file__).resolve().parents[3]


def document(
    benchmark: str, figures: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """`figures` with the benchmark's name, settings, command, commit, machine and versions."""
    return {
        "benchmark": benchmark,
        **figures,
        "settings": dict(settings),
        "command": command(),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }


def command() -> str:
    """The command line of this process."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def commit() -> str:
    """What git calls the checkout this runs from; empty when it is none."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return ""
    done = subprocess.run(  # noqa: S603 - our own command
        [git, "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def check_target(option: str, path: str | None) -> None:
    """Raise InvalidArgument now if the file that `option` names could not be written later."""
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise InvalidArgument(f"{option} {path}: there is no such directory")


def save(path: str | None, figures: Mapping[str, Any]) -> None:
    """Write a document, if there is somewhere to write it to."""
    if path is not None:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")
