"""The instructions of a Containerfile, and some of them carried out without containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: What belongs to a stage from its base on.
Instruction = tuple[str, str]
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_TIMEOUT_S: Final = 280.0


@dataclass(slots=True)
class Stage:
    """One `FROM` and what follows it."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        """Return what is given to each instruction of a kind, in order."""
        return [value for kind, value in self.instructions if kind == instruction]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with its variables; raises KeyError for one that is not known."""
    return _VARIABLE.sub(lambda found: variables[found[1]], text)


def default_arguments(instructions: list[Instruction]) -> dict[str, str]:
    """Return the arguments that have a default before the first stage, or in a stage."""
    found = {}
    for kind, value in instructions:
        name, given, default = value.partition("=")
        if kind == "ARG" and given:
            found[name] = default
    return found


def stages(instructions: list[Instruction], arguments: Mapping[str, str]) -> list[Stage]:
    """Return the stages that follow each other, with these build arguments."""
    found: list[Stage] = []
    for kind, value in instructions:
        if kind == "FROM":
            base, _, name = expand(value, arguments).partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].instructions.append((kind, value))
    return found


def chain(found: list[Stage], last: str) -> list[Stage]:
    """Return a stage and those that it is built upon, the first one first."""
    by_name = {one.name: one for one in found if one.name}
    line: list[Stage] = []
    name = last
    while name in by_name:
        line.insert(0, by_name[name])
        name = by_name[name].base
    return line


def copied(stage: Stage) -> Iterator[tuple[list[str], str]]:
    """Yield what a stage copies out of the repository, and where to."""
    for value in stage.values("COPY"):
        if not value.startswith("--from="):
            *sources, target = value.split()
            yield sources, target


class Builder:
    """Carries out COPY and RUN of stages below a folder, which stands for the root of an image."""

    def __init__(self, root: Path, context: Path, arguments: Mapping[str, str]) -> None:
        """`context` is the repository; folders named in `places` lie below `root`."""
        self.root = root
        self._context = context
        self._arguments = arguments
        self._folder = root
        #: Of commands; what an image has set is added.
        self.environment = dict(os.environ)

    def here(self, text: str) -> str:
        """Return what is said of the image's own folders, as it is said here."""
        return re.sub(
            r"(?<![\w.])/(opt/cosco|src|wheels|var/lib/cosco)\b", rf"{self.root}/\1", text
        )

    def build(self, stage: Stage) -> None:
        """Do what a stage says; raises subprocess.CalledProcessError."""
        for kind, value in stage.instructions:
            if kind == "WORKDIR":
                self._folder = Path(self.here(value))
                self._folder.mkdir(parents=True, exist_ok=True)
            elif kind == "COPY" and not value.startswith("--from="):
                *sources, target = value.split()
                self._copy(sources, target)
            elif kind == "RUN":
                self._run(value)

    def _copy(self, sources: list[str], target: str) -> None:
        for source in sources:
            path = self._context / source
            to = self._folder / target
            if path.is_dir():
                shutil.copytree(path, to, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to / path.name)

    def _run(self, value: str) -> None:
        command = json.loads(value) if value.startswith("[") else ["/bin/sh", "-c", value]
        subprocess.run(
            [self.here(one) for one in command], cwd=self._folder, check=True, timeout=_TIMEOUT_S,
            env={**self.environment, **self._arguments}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
