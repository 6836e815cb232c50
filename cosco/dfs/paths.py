"""Which paths, prefixes and puts every store accepts; the rest is a ValueError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cosco.format.chunk import ALIGNMENT

#: Names at the top of a store that begin so belong to the store itself.
RESERVED: Final = "cosco-store."


def check_path(path: str) -> None:
    """Refuse a path that is absolute, empty, leaves the store, or names its own files."""
    components = path.split("/")
    if any(component in ("", ".", "..") or "\0" in component for component in components):
        raise ValueError(f"{path!r} is no path within a store: write a/b/c")
    if components[0].startswith(RESERVED):
        raise ValueError(f"{path!r} is a name the store keeps for itself")


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that no path can begin with; the empty one is everything."""
    if prefix:
        check_path(prefix.removesuffix("/"))


def check_folder(prefix: str) -> None:
    """Refuse a prefix that is not a whole folder."""
    if not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} does not end in '/'")
    check_prefix(prefix)


def check_put(path: str, parts: Sequence[memoryview]) -> int:
    """Check the arguments of a put, and return the length in bytes of all parts."""
    check_path(path)
    length = sum(part.nbytes for part in parts)
    if length <= 0 or length % ALIGNMENT:
        raise ValueError(f"{path}: {length} bytes are not in units of {ALIGNMENT}")
    return length


def check_read(path: str, offset: int, length: int) -> None:
    """Refuse a read of anything but a path, an offset and a length."""
    check_path(path)
    if offset < 0 or length < 0:
        raise ValueError(f"{path}: cannot read {length} bytes at {offset}")
