"""The file by which all daemons that open one place know that they share a store."""

from __future__ import annotations

import json
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cosco.dfs.paths import RESERVED
from cosco.dfs.posix import sync_folder
from cosco.errors import InvalidArgument

IDENTITY_FILE: Final = RESERVED + "json"
IDENTITY_FORMAT: Final = 1
#: What `cosco.dfs.directories.set_files` writes.
SET_FORMAT: Final = 2
#: What `cosco.dfs.tiers.flash_files` writes.
FLASH_FORMAT: Final = 3
_MAX_BYTES: Final = 4096
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}")


def new_identity() -> str:
    """Return the content of an identity file with a new store id."""
    return json.dumps({"format": IDENTITY_FORMAT, "store_id": uuid.uuid4().hex}) + "\n"


def parse_identity(content: bytes) -> str | None:
    """Return the store id in an identity file, None if it is none."""
    return _store_id(parsed_object(content))


def read_or_create_identity(folder: Path) -> str:
    """Return the store id of a directory; whoever comes first makes it, all others agree.

    Raises InvalidArgument for an identity file that does not make sense, and OSError.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        create_exclusively(path, new_identity())
    with path.open("rb") as file:
        identity = parsed_object(file.read(_MAX_BYTES))
    if identity.get("format") == SET_FORMAT and isinstance(identity.get("members"), int):
        raise InvalidArgument(
            f"{str(folder)!r} is one of {identity['members']} directories of a store: give "
            "--store for each of them"
        )
    if identity.get("format") == FLASH_FORMAT:
        raise InvalidArgument(
            f"{str(folder)!r} is the flash of a store of two tiers: give it as "
            "--store flash=URL,then=URL"
        )
    store_id = _store_id(identity)
    if store_id is None:
        raise InvalidArgument(
            f"{str(path)!r} is no store identity of format {IDENTITY_FORMAT}: "
            "restore the file, or use a directory of its own for the store"
        )
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


def parsed_object(content: bytes) -> dict[str, Any]:
    """Return the object that a file is of JSON, an empty one if it is of none."""
    try:
        identity = json.loads(content)
    except (ValueError, RecursionError):  # the second one of lists in lists in lists
        return {}
    return identity if isinstance(identity, dict) else {}


def _store_id(identity: dict[str, Any]) -> str | None:
    store_id = identity.get("store_id")
    if identity.get("format") != IDENTITY_FORMAT or not isinstance(store_id, str):
        return None
    return store_id if _STORE_ID.fullmatch(store_id) else None
