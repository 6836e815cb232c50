"""The file by which all daemons that open one directory know that they share a store."""

from __future__ import annotations

import json
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from cosco.dfs.paths import RESERVED
from cosco.dfs.posix import sync_folder
from cosco.errors import InvalidArgument

IDENTITY_FILE: Final = RESERVED + "json"
_FORMAT: Final = 1
#: What `cosco.dfs.directories.set_files` writes.
SET_FORMAT: Final = 2
_MAX_BYTES: Final = 4096
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}")


def read_or_create_identity(folder: Path) -> str:
    """Return the store id of a directory; whoever comes first makes it, all others agree.

    Raises InvalidArgument for an identity file that does not make sense, and OSError.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        content = {"format": _FORMAT, "store_id": uuid.uuid4().hex}
        create_exclusively(path, json.dumps(content) + "\n")
    try:
        with path.open("rb") as file:
            identity = json.loads(file.read(_MAX_BYTES))
    except ValueError:
        identity = None
    if not isinstance(identity, dict):
        raise _broken(path)
    if identity.get("format") == SET_FORMAT and isinstance(identity.get("members"), int):
        raise InvalidArgument(
            f"{str(folder)!r} is one of {identity['members']} directories of a store: give "
            "--store for each of them"
        )
    if identity.get("format") != _FORMAT:
        raise _broken(path)
    store_id = identity.get("store_id")
    if not isinstance(store_id, str) or not _STORE_ID.fullmatch(store_id):
        raise _broken(path)
    return store_id


def create_exclusively(path: Path, content: str) -> None:
    """Make a file appear whole and durable, unless someone else's is there first.

    Raises: OSError.
    """
    temporary = path.with_name(RESERVED + uuid.uuid4().hex)
    try:
        with temporary.open("x", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(temporary)  # unlike a rename, it never replaces
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _broken(path: Path) -> InvalidArgument:
    return InvalidArgument(
        f"{str(path)!r} is no store identity of format {_FORMAT}: "
        "restore the file, or use a directory of its own for the store"
    )
