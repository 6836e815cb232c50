"""What a benchmark gives back, and how it is shown: progress bars, tables, and a JSON document."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cosco import __version__
from cosco.errors import InvalidArgument

MIB: Final = 1 << 20
_PACKAGES: Final = ("grpcio", "lz4", "numpy", "protobuf", "pyarrow", "xxhash")
#: The checkout, if this runs from one.
ROOT: Final = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a run for JSON, tables of them, and lines that tell what went wrong.

    failed: the command ends with code 1. draw: writes the picture, where there is one to draw.
    """

    figures: Mapping[str, Any]
    tables: Sequence[Table]
    problems: Sequence[str] = ()
    failed: bool = False
    draw: Callable[[Path], None] | None = None


class Bars(Progress):
    """Progress bars on stderr, each with a description, a count and its time; a context manager."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description:>20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Add a bar, whose time begins with the first progress.

        Returns: what is told how much more is done.
        """
        task = self.add_task(what, total=total, start=False)

        def count(done: int) -> None:
            self.start_task(task)
            self.advance(task, done)

        return count


def table(title: str, *headings: str) -> Table:
    """Return an empty table, its first column to the left and the others to the right.

    Without any headings it has two columns.
    """
    made = Table(title=title, title_justify="left", show_header=bool(headings))
    for index, heading in enumerate(headings or ("", "")):
        made.add_column(heading, justify="right" if index else "left")
    return made


def show(report: Report) -> None:
    """Print the tables and problems of a report."""
    console = Console()
    for one in report.tables:
        console.print(one)
    for problem in report.problems:
        console.print(problem, highlight=False, soft_wrap=True)


def document(
    benchmark: str, figures: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `figures` with the benchmark's name and all that is needed to measure them again."""
    return {
        "benchmark": benchmark,
        **figures,
        "settings": dict(settings),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }


def commit() -> str:
    """Return what git calls the checkout this runs from; empty when it is none."""
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


def machine() -> dict[str, Any]:
    """Return processor, cores this process may use, memory in bytes, system."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on the data path."""
    found = {"python": platform.python_version(), "cosco": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def check_target(option: str, path: str | None) -> None:
    """Raise InvalidArgument now if the file that `option` names could not be written later."""
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise InvalidArgument(f"{option} {path}: there is no such directory")


def save(path: str | None, figures: Mapping[str, Any]) -> None:
    """Write a document, if there is somewhere to write it to."""
    if path is not None:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")
