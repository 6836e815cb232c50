"""Small files that are read whole, written whole, and seen to have changed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cosco.errors import InvalidArgument

#: What tells one state of a file from another: inode, time in ns, bytes.
Seen = tuple[int, int, int]


def look_at(path: str) -> Seen:
    """Return what tells this state of a file from another; raises InvalidArgument."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path!r} cannot be read: {reason(error)}") from None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_at_most(path: str, count: int) -> bytes:
    """Return the first `count` bytes of a file, or all it has; raises InvalidArgument."""
    try:
        with Path(path).open("rb") as file:
            return file.read(count)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path!r} cannot be read: {reason(error)}") from None


def reason(error: Exception) -> str:
    """Return what an error of the system or of ssl says, without what it repeats."""
    found = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(found).replace("_", " ").lower()


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole, with this mode from the beginning, in the place of one that is there.

    That one's owner, mode and place, if it is a link, stay. Who reads sees the one or the other.

    Raises: OSError.
    """
    path = path.resolve()
    before = path.stat() if path.exists() else None
    # A random name: what a process has left that was killed is in nobody's way.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if before is not None:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_directory(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    """Have the new name be there after a crash of the machine, too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
