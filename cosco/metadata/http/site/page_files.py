"""The files of the dashboard, as they lie in the package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

_FOLDER: Final = "page"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file. tag: the header `ETag` of what it says."""

    content: bytes
    media_type: str
    tag: str

    def is_known_by(self, if_none_match: str | None) -> bool:
        """Whether a browser that has sent this header `If-None-Match` has it already."""
        known = (one.strip().removeprefix("W/") for one in (if_none_match or "").split(","))
        return any(one in (self.tag, "*") for one in known)


def page_files() -> dict[str, PageFile]:
    """Return all files by their paths below the folder, with slashes."""
    root = files("cosco.metadata.http").joinpath(_FOLDER)
    return {path: _read(path, file) for path, file in _below(root, "")}


def _below(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for one in folder.iterdir():
        if one.is_dir():
            yield from _below(one, f"{path}{one.name}/")
        elif one.name.rpartition(".")[2] in _TYPES:
            yield f"{path}{one.name}", one


def _read(path: str, file: Traversable) -> PageFile:
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return PageFile(content, _TYPES[path.rpartition(".")[2]], tag)
