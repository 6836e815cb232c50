"""Which versions of Dask, Ray and Daft the folders that are named after them work with.

They hook into private parts of engines, which change without notice. So a version that nobody has
tried is refused at once, by an error that says which one is there, which ones are supported, and
what to install. docs/engines.md shows the same table.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cosco.errors import EngineUnavailable

_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Supported:
    """Versions of a distribution: from `lowest` on, and below `below`."""

    distribution: str
    lowest: str
    below: str

    def __str__(self) -> str:
        return f"{self.distribution}>={self.lowest},<{self.below}"

    def has(self, version: str) -> bool:
        """Whether a version is one of these; a pre-release counts as what it becomes."""
        return _numbers(self.lowest) <= _numbers(version) < _numbers(self.below)


#: By extra, as pyproject.toml has it. The lowest is what `make test-engines` was first run with.
SUPPORTED: Final = {
    "dask": (
        Supported("dask", "2026.8.0", "2027"),
        Supported("distributed", "2026.8.0", "2027"),
        Supported("pandas", "3.1", "4"),
    ),
    "ray": (Supported("ray", "2.60.0", "2.61"), Supported("pandas", "3.1", "4")),
    "daft": (Supported("daft", "0.7.26", "0.8"),),
}


@contextmanager
def needed(extra: str) -> Iterator[None]:
    """Say by an error that names the extra if what is imported inside is not there.

    Raises: EngineUnavailable, in place of the ImportError of a module of the engine's.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module not in {supported.distribution for supported in SUPPORTED[extra]}:
            raise  # cosco itself, or what the engine needs, is not whole
        check_versions(extra)
        raise EngineUnavailable(
            f"cosco.{extra} uses what {module} {importlib.metadata.version(module)} has not got"
            f" ({error}): {_advice(extra)}"
        ) from error


def check_versions(extra: str) -> None:
    """Look whether what is installed is supported.

    Raises: EngineUnavailable, if something is missing or of another version.
    """
    for supported in SUPPORTED[extra]:
        name = supported.distribution
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise EngineUnavailable(
                f"cosco.{extra} needs {name}, which is not installed: {_advice(extra)}"
            ) from None
        check_version(extra, name, version)


def check_version(extra: str, distribution: str, version: str, place: str = "here") -> None:
    """Look whether a version that is used somewhere, on a worker say, is supported.

    Raises: EngineUnavailable, if it is not.
    """
    [supported] = [one for one in SUPPORTED[extra] if one.distribution == distribution]
    if not supported.has(version):
        raise EngineUnavailable(
            f"cosco.{extra} was not tried with {distribution} {version}, which is {place}:"
            f" it works with {supported}; {_advice(extra)}"
        )


def _advice(extra: str) -> str:
    return f"pip install 'cosco[{extra}]'"


def _numbers(version: str) -> tuple[int, ...]:
    """Return what versions are compared by: 2026.8 is 2026.8.0."""
    found = _NUMBERS.match(version)
    numbers = [int(number) for number in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
